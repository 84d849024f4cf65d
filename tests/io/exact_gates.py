"""The checks that every reader of a code has to pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deeph_lightning.io.formats import read_structure_folder, write_structure_folder
from deeph_lightning.solve.dense import eigenvalues
from tests.tolerances import EIGENVALUE_DFT

if TYPE_CHECKING:
    from pathlib import Path

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
