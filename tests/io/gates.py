"""The checks that every reader of a code has to pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deeph_lightning.core.rotation import wigner_d
from deeph_lightning.io.formats import read_structure_folder, write_structure_folder
from deeph_lightning.solve.dense import eigenvalues
from tests.tolerances import EIGENVALUE_DFT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deeph_lightning.core.operator import Operator
    from deeph_lightning.io.formats import SystemData

K = [0.11, -0.23, 0.31]


def assert_exact_gates(system: SystemData) -> None:
    """Check what holds for any right set: moved atoms and a supercell have the same bands."""
    H, S = system.H, system.S
    energies = eigenvalues(H, S, [K, [0, 0, 0], [0.5, 0, 0]])
    shifts = np.zeros((len(system.atoms), 3), dtype=int)
    shifts[0] = 1, -1, 0
    moved = eigenvalues(H.with_atoms_shifted(shifts), S.with_atoms_shifted(shifts), K)
    assert np.abs(moved - energies[:1]).max() < EIGENVALUE_DFT
    doubled = eigenvalues(H.repeated((2, 1, 1)), S.repeated((2, 1, 1)), [0, 0, 0])
    folded = np.sort(energies[1:].ravel())
    assert np.abs(doubled - folded).max() < EIGENVALUE_DFT


def assert_round_trip(system: SystemData, folder: Path) -> None:
    """Check that DeepH folders, new and legacy, give back every bit."""
    write_structure_folder(system, folder / "new", "deeph")
    new = read_structure_folder(folder / "new", name=system.name)
    write_structure_folder(new, folder / "legacy", "deeph_legacy")
    legacy = read_structure_folder(folder / "legacy", name=system.name)
    for key, op in system.operators():
        for found in (getattr(new, key), getattr(legacy, key)):
            assert found.pairs == op.pairs
            assert np.array_equal(found.values, op.values)


def angular_momentum(l: int) -> np.ndarray:
    """Return L_x, L_y, L_z in real harmonics, ``(3, 2l+1, 2l+1)``: i dD/dt at the identity."""
    step = 1e-5
    matrices = []
    for axis in range(3):
        generator = np.zeros((3, 3))
        generator[axis - 2, axis - 1], generator[axis - 1, axis - 2] = -1.0, 1.0
        rotations = []
        for t in (step, -step):
            Q = np.eye(3) + np.sin(t) * generator + (1 - np.cos(t)) * generator @ generator
            rotations.append(wigner_d(l, Q))
        matrices.append(1j * (rotations[0] - rotations[1]) / (2 * step))
    return np.array(matrices)


def spin_orbit_constants(H: Operator, atom: int) -> Iterator[tuple[int, np.ndarray]]:
    """Return degree and xi along x, y, z (eV) of every shell of an atom but s.

    The onsite spin-orbit term is (xi / 2) L.sigma; xi must be one positive number.
    """
    label = H.atoms.get_chemical_symbols()[atom]
    n = int(np.flatnonzero(H.pairs.is_onsite & (H.pairs.i == atom))[0])
    size = H.basis.n_orb(label)
    block = H.block(n).reshape(2, size, 2, size)
    sigma = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
    for l, where in zip(H.basis.shells[label], H.basis.shell_slices(label), strict=True):
        if l == 0:
            continue
        L = angular_momentum(l)
        own = block[:, where, :, where]
        norm = np.einsum("xab,xba->x", L, L).real * 2  # tr (L sigma)^2
        found = np.einsum("sbta,xts,xab->x", own, sigma, L).real
        yield l, 2 * found / norm


