"""Real DFT operators: the two-centre form of S, rotated molecules, two orbital orders."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
from ase.io import read
from scipy.spatial.transform import Rotation

from deeph_lightning.core.checks import check_system
from deeph_lightning.core.operator import Operator
from deeph_lightning.core.rotation import orbital_rotation
from deeph_lightning.solve.dense import eigenvalues, fermi_level, kgrid
from deeph_lightning.units import RYDBERG_EV
from tests.systems import folded_k, read_deeph
from tests.tolerances import (
    BANDS_FILE,
    DFT_ROTATION_H,
    DFT_ROTATION_S,
    EIGENVALUE_DFT,
    ROUNDED_EIGENVALUE,
    TWO_CENTRE_ABACUS,
    TWO_CENTRE_OPENMX,
    TWO_CENTRE_WRONG,
)

if TYPE_CHECKING:
    from pathlib import Path

K = [0.11, -0.23, 0.31]


@pytest.fixture(scope="module")
def graphene(shared_dir: Path) -> tuple[Operator, Operator]:
    folder = shared_dir / "data" / "graphene" / "000"
    return read_deeph(folder, "hamiltonian.h5", "eV"), read_deeph(folder, "overlap.h5", "1")


def two_centre_residual(S: Operator) -> float:
    """Return how much D^T S D of any pair along z mixes m or tells m from -m."""
    vectors = S.pairs.vectors(S.atoms)
    worst = 0.0
    for n in np.flatnonzero(~S.pairs.is_onsite)[::7]:
        unit = vectors[n] / np.linalg.norm(vectors[n])
        Q = Rotation.align_vectors([unit], [[0, 0, 1]])[0].as_matrix()  # Q z = unit
        a, b = (S.atoms[int(x)].symbol for x in (S.pairs.i[n], S.pairs.j[n]))
        D_a, D_b = orbital_rotation(S.basis, a, Q), orbital_rotation(S.basis, b, Q)
        turned = D_a.T @ S.block(n) @ D_b
        m_a, m_b = S.basis.orbital_m(a), S.basis.orbital_m(b)
        worst = max(worst, np.abs(turned[m_a[:, None] != m_b]).max())
        for rows in S.basis.shell_slices(a):
            for columns in S.basis.shell_slices(b):
                part = turned[rows, columns]
                same = m_a[rows, None] == m_b[columns]
                worst = max(worst, np.abs(part - part[::-1, ::-1])[same].max(initial=0.0))
    return worst


def test_graphene_passes_the_checks(graphene: tuple[Operator, Operator]) -> None:
    H, S = graphene
    check_system(H.atoms, H.basis, H, S)
    assert H.hermiticity_residual()[0] == 0.0
    assert len(H.pairs) > len(H.pairs.select(S.pairs.locate(H.pairs) >= 0))  # H-only pairs
    assert np.array_equal(H.half().complete().values, H.values)


def test_overlap_has_the_two_centre_form(graphene: tuple[Operator, Operator]) -> None:
    _, S = graphene
    assert two_centre_residual(S) < TWO_CENTRE_ABACUS
    flipped = S.replace(values=S.from_convention("abacus").values)  # a wrong order is seen
    assert two_centre_residual(flipped) > TWO_CENTRE_WRONG


def test_overlap_of_two_elements(shared_dir: Path) -> None:
    S = read_deeph(shared_dir / "fixtures" / "deeph" / "MoTe2_new", "overlap.h5", "1")
    assert two_centre_residual(S) < TWO_CENTRE_OPENMX


def test_spectrum_of_graphene_in_other_descriptions(
    graphene: tuple[Operator, Operator], rng: np.random.Generator
) -> None:
    expected = eigenvalues(*graphene, K)[0]
    Q = -Rotation.random(rng=rng).as_matrix()
    order, shifts = rng.permutation(18), rng.integers(-2, 3, (18, 3))
    matrix = np.array([[1, 1, 0], [0, 1, 2], [0, 0, 1]])
    for change, k in (
        (lambda op: op.rotated(Q), K),
        (lambda op: op.permuted(order), K),
        (lambda op: op.with_atoms_shifted(shifts), K),
        (lambda op: op.half(), K),
        (lambda op: op.with_lattice(matrix), matrix @ K),
    ):
        found = eigenvalues(*(change(op) for op in graphene), k)[0]
        assert np.abs(found - expected).max() < EIGENVALUE_DFT


def test_supercell_of_graphene_at_gamma(graphene: tuple[Operator, Operator]) -> None:
    repeats = (2, 1, 1)
    folded = np.sort(eigenvalues(*graphene, folded_k([0, 0, 0], repeats)).ravel())
    found = eigenvalues(*(op.repeated(repeats) for op in graphene), [0, 0, 0])[0]
    assert np.abs(found - folded).max() < EIGENVALUE_DFT


def test_fermi_level_of_graphene(graphene: tuple[Operator, Operator], shared_dir: Path) -> None:
    info = json.loads((shared_dir / "data" / "graphene" / "000" / "info.json").read_text())
    k, weight = kgrid((4, 4, 1), time_reversal=True)
    energies = eigenvalues(*graphene, k)
    level = fermi_level(energies, weight, info["occupation"], 0.002 * RYDBERG_EV)
    assert abs(level - info["fermi_energy_eV"]) < ROUNDED_EIGENVALUE


def test_bands_of_mote2(shared_dir: Path) -> None:
    """Compare with band.h5, which another program made of the same matrices."""
    folder = shared_dir / "fixtures" / "deeph" / "MoTe2_gauge"
    H = read_deeph(folder, "hamiltonian.h5", "eV")
    S = read_deeph(shared_dir / "fixtures" / "deeph" / "MoTe2_new", "overlap.h5", "1")
    with h5py.File(folder / "band.h5") as data:
        bands, k = data["band_data"][()], data["kpoints_frac_list"][()]
        shift = data["fermi_energy_before_shift_eV"][()]
    assert np.abs(eigenvalues(H, S, k) - shift - bands.T).max() < BANDS_FILE


@pytest.mark.parametrize("number", [1, 2, 3])
def test_rotated_water(shared_dir: Path, number: int) -> None:
    """Blocks of a rotated molecule are the rotated blocks, but for the grid of the code."""
    root = shared_dir / "fixtures" / "deeph" / "H2O_rotations"
    angles = np.loadtxt(root / str(number) / "euler_angle")
    Q = Rotation.from_euler("ZYZ", angles).as_matrix()
    for file, unit, tol in (
        ("hamiltonian.h5", "eV", DFT_ROTATION_H),
        ("overlap.h5", "1", DFT_ROTATION_S),
    ):
        first, second = (read_deeph(root / str(n), file, unit) for n in (0, number))
        assert first.pairs == second.pairs
        assert np.abs(first.rotated(Q).values - second.values).max() < tol
        assert np.abs(first.values - second.values).max() > 10 * tol


def test_legacy_order_of_mote2(shared_dir: Path) -> None:
    """Read the OpenMX order of the legacy folder; it is the new folder's, to the last bit."""
    root = shared_dir / "fixtures" / "deeph"
    new = read_deeph(root / "MoTe2_new", "overlap.h5", "1")
    positions = np.loadtxt(root / "MoTe2_legacy" / "site_positions.dat", ndmin=2).T
    atoms = read(root / "MoTe2_new" / "POSCAR", format="vasp")
    distance = np.linalg.norm(positions[:, None] - atoms.positions, axis=-1)
    number = np.argmin(distance, axis=1)  # of the new folder
    with h5py.File(root / "MoTe2_legacy" / "overlaps.h5") as data:
        keys = np.array([json.loads(key) for key in data])
        blocks = [data[key][()] for key in data]
    legacy = Operator.from_blocks(
        new.atoms,
        new.basis,
        keys[:, :3],
        number[keys[:, 3] - 1],
        number[keys[:, 4] - 1],
        blocks,
    )
    assert legacy.pairs == new.pairs
    assert np.array_equal(legacy.from_convention("deeph_legacy").values, new.values)
    assert np.array_equal(new.to_convention("deeph_legacy").values, legacy.values)
