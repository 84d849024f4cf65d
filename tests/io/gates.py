"""The checks that a rightly read calculation passes, on what a reader returns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation

from deeph_lightning.core.checks import check_overlap_positive
from deeph_lightning.core.spin import spin_mixing, spin_orbit_constants
from deeph_lightning.core.two_centre import two_centre_residual
from deeph_lightning.io.formats import read_structure_folder, write_structure_folder
from deeph_lightning.report.inspection import computed_eigenvalues
from deeph_lightning.solve.dense import eigenvalues
from tests.io.systems import assert_same_system
from tests.systems import folded_k
from tests.tolerances import EIGENVALUE_DFT

if TYPE_CHECKING:
    from pathlib import Path

    from deeph_lightning.io.code_output import Eigenvalues
    from deeph_lightning.io.system import SystemData

K = [0.11, -0.23, 0.31]


def hermiticity(system: SystemData, tol_H: float, tol_S: float) -> None:
    for key, op in system.operators():
        op.check_hermitian(tol_H if key == "H" else tol_S)


def overlap(system: SystemData, tol_norm: float) -> None:
    assert system.S is not None
    assert check_overlap_positive(system.S) > 0
    for n in np.flatnonzero(system.S.pairs.is_onsite):
        assert np.abs(np.diag(system.S.block(int(n))) - 1).max() < tol_norm


def against_the_code(
    system: SystemData, reference: Eigenvalues, tol: float, tol_top: float
) -> float:
    """Compare eigenvalues: below 30 eV above E_F, and all; return the larger difference."""
    k = reference.k[:: max(1, len(reference.k) // 12)]
    energies = reference.energies[:, :: max(1, len(reference.k) // 12)]
    found = computed_eigenvalues(system, k, len(energies))[..., : energies.shape[2]]
    difference = np.abs(found - energies)
    assert system.fermi_energy is not None
    assert difference[energies < system.fermi_energy + 30].max() < tol
    assert difference.max() < tol_top
    return float(difference.max())


def electrons(system: SystemData, reference: Eigenvalues, smearing_eV: float) -> None:
    """Count occupations at the k-points of the code, of equal weight."""
    level, n = system.fermi_energy, system.n_electrons
    assert level is not None
    bands = computed_eigenvalues(system, reference.k, len(reference.energies))
    with np.errstate(over="ignore"):
        filled = 1 / (1 + np.exp((bands - level) / smearing_eV))
    count = filled.sum() / len(reference.k) * (1 if system.is_spinful else 2)
    assert abs(count - n) < 1e-3


def two_centre(system: SystemData, tol: float) -> None:
    assert system.S is not None
    found = two_centre_residual(system.S)
    assert found.rotation < tol
    assert found.distance < 1e-5
    wrong = system.S.replace(values=system.S.from_convention("abacus").values)
    assert two_centre_residual(wrong).rotation > 0.1


def spin_orbit(system: SystemData, expected: float) -> None:
    """Compare the largest constant; in x, y and z it is the same."""
    assert system.H is not None
    largest = max(spin_orbit_constants(system.H), key=lambda found: abs(found.xi))
    assert abs(largest.xi - expected) < 1e-3
    assert largest.anisotropy < 1e-4


def other_descriptions(system: SystemData, rng: np.random.Generator) -> None:
    """Rotated, renumbered, moved and repeated structures have the same eigenvalues."""
    assert system.H is not None
    assert system.S is not None
    # exactly Hermitian: LAPACK reads one triangle, which renumbering exchanges
    H, S = (op.half().complete() for op in (system.H, system.S))
    expected = eigenvalues(H, S, K)[0]
    Q = -Rotation.random(rng=rng).as_matrix()
    order, shifts = rng.permutation(len(H.atoms)), rng.integers(-2, 3, (len(H.atoms), 3))
    for change in (
        lambda op: op.rotated(Q),
        lambda op: op.permuted(order),
        lambda op: op.with_atoms_shifted(shifts),
    ):
        found = eigenvalues(change(H), change(S), K)[0]
        assert np.abs(found - expected).max() < EIGENVALUE_DFT * max(1, np.abs(expected).max())
    repeats = (2, 1, 1)
    folded = np.sort(eigenvalues(H, S, folded_k([0, 0, 0], repeats)).ravel())
    found = eigenvalues(H.repeated(repeats), S.repeated(repeats), [0, 0, 0])[0]
    assert np.abs(found - folded).max() < EIGENVALUE_DFT * max(1, np.abs(folded).max())


def time_reversal(system: SystemData) -> None:
    """E(k) = E(-k) of what has no spin, or no coupling of spins."""
    assert system.H is not None
    if not system.is_spinful or spin_mixing(system.H) == 0:
        there, back = eigenvalues(system.H, system.S, [K, [-x for x in K]])
        assert np.abs(there - back).max() < EIGENVALUE_DFT * max(1, np.abs(there).max())


def round_trip(system: SystemData, folder: Path) -> None:
    """DeepH 1.x, legacy, DeepH 1.x: the same to the last bit."""
    last = system
    for number, format_name in enumerate(("deeph", "deeph_legacy", "deeph")):
        write_structure_folder(last, folder / str(number), format_name)
        last = read_structure_folder(folder / str(number), ("H", "S", "rho"), system.name)
    assert_same_system(last, system)
