"""Eigenvalues, k-grids and Fermi levels of systems whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import graphene
from hypothesis import given
from hypothesis import strategies as st

from deeph_lightning.core.basis import OrbitalBasis
from deeph_lightning.core.operator import Operator
from deeph_lightning.core.pairs import neighbour_pairs
from deeph_lightning.errors import OverlapNotPositiveError, PhysicsError, ShapeError
from deeph_lightning.solve.dense import (
    GAP_WIDTHS,
    eigenstates,
    eigenvalues,
    fermi_level,
    kgrid,
)
from deeph_lightning.solve.kpath import band_path
from tests.systems import random_atoms, random_operator
from tests.tolerances import EIGENVALUE, FLOAT64

ONE_S = OrbitalBasis({"H": (0,), "C": (0,)})
seeds = st.integers(0, 2**32 - 1)


def chain(onsite: float, hopping: float, unit: str = "eV") -> Operator:
    """One s orbital a cell: E = onsite + 2 hopping cos(2 pi k)."""
    atoms = Atoms("H", cell=[1.5, 9, 9], pbc=True)
    blocks = [np.array([[onsite]]), np.array([[hopping]])]
    return Operator.from_blocks(
        atoms, ONE_S, [[0, 0, 0], [1, 0, 0]], [0, 0], [0, 0], blocks, unit=unit, is_half=True
    )


def sheet(t: float = -2.7) -> Operator:
    """Graphene's pi band with nearest neighbours."""
    atoms = graphene(vacuum=6.0)
    atoms.pbc = True
    pairs = neighbour_pairs(atoms, 1.6)
    return Operator(atoms, ONE_S, pairs, np.full(len(pairs), t))


def test_chain_with_and_without_overlap() -> None:
    k = np.zeros((9, 3))
    k[:, 0] = np.linspace(-0.5, 0.5, 9)
    cosine = 2 * np.cos(2 * np.pi * k[:, 0])
    H, S = chain(0.3, -1.0), chain(1.0, 0.2, "1")
    assert np.abs(eigenvalues(H, None, k)[:, 0] - (0.3 - cosine)).max() < FLOAT64
    expected = (0.3 - cosine) / (1 + 0.2 * cosine)
    assert np.abs(eigenvalues(H, S, k)[:, 0] - expected).max() < FLOAT64


def test_dirac_point_and_fermi_level_of_graphene() -> None:
    H = sheet()
    K = H.atoms.cell.bandpath("K", npoints=1, pbc=[1, 1, 0]).kpts[0]
    assert np.abs(eigenvalues(H, None, K)).max() < EIGENVALUE
    assert np.abs(np.abs(eigenvalues(H, None, [0, 0, 0])) - 3 * 2.7).max() < EIGENVALUE
    k, weight = kgrid((12, 12, 1), time_reversal=True)
    assert abs(fermi_level(eigenvalues(H, None, k), weight, 2, 0.03)) < EIGENVALUE


@given(seeds, st.booleans())
def test_states_solve_the_equation(seed: int, is_spinful: bool) -> None:
    rng = np.random.default_rng(seed)
    atoms = random_atoms(rng, 2)
    H = random_operator(rng, atoms, is_spinful=is_spinful)
    S = random_operator(rng, atoms)
    S = S.replace(values=0.01 * S.values, unit="1")
    for n in np.flatnonzero(S.pairs.is_onsite):
        S.block(n)[:] += np.eye(len(S.block(n)))
    k = rng.uniform(-0.5, 0.5, (2, 3))
    k[0] = 0
    energies, states = eigenstates(H, S, k)
    assert np.abs(energies - eigenvalues(H, S, k)).max() < EIGENVALUE
    for E, C, point in zip(energies, states, k, strict=True):
        overlap = np.kron(np.eye(H.n_spin), S.bloch(point))  # S has no spin of its own
        assert np.abs(H.bloch(point) @ C - overlap @ C * E).max() < EIGENVALUE
        assert np.abs(C.conj().T @ overlap @ C - np.eye(H.n_orb)).max() < EIGENVALUE
        assert (
            abs(E.sum() - np.trace(np.linalg.solve(overlap, H.bloch(point))).real) < EIGENVALUE
        )


def test_spin_doubles_every_band() -> None:
    H, S = chain(0.3, -1.0), chain(1.0, 0.2, "1")
    blocks = [np.kron(np.eye(2), H.block(n)) for n in range(len(H.pairs))]
    pairs = H.pairs
    doubled = Operator.from_blocks(
        H.atoms, ONE_S, pairs.R, pairs.i, pairs.j, blocks, is_spinful=True, is_half=True
    )
    k, weight = kgrid((7, 1, 1))
    single = eigenvalues(H, S, k)
    assert np.abs(eigenvalues(doubled, S, k) - np.repeat(single, 2, axis=1)).max() < FLOAT64
    levels = [
        fermi_level(single, weight, 1.0, 0.05),
        fermi_level(eigenvalues(doubled, S, k), weight, 1.0, 0.05, degeneracy=1),
    ]
    assert abs(levels[0] - levels[1]) < EIGENVALUE


def test_bad_pairs_of_operators() -> None:
    with pytest.raises(OverlapNotPositiveError, match=r"'H', k = \[0.5.*eigenvalue is -2.0"):
        eigenvalues(chain(0, -1), chain(1.0, 1.5, "1"), [0.5, 0, 0])
    with pytest.raises(ShapeError, match="H has 1 orbitals on 1 atoms, S has 2 on 2"):
        eigenvalues(chain(0, -1), sheet(), [0, 0, 0])
    with pytest.raises(ShapeError, match=r"expected \(n_k, 3\)"):
        eigenvalues(chain(0, -1), None, [0.5, 0])


# ---------------------------------------------------------------------- grids

sizes = st.tuples(*[st.integers(1, 5)] * 3)


@given(sizes, st.booleans())
def test_time_reversal_keeps_sums(size: tuple[int, int, int], is_gamma_centred: bool) -> None:
    full, weight = kgrid(size, is_gamma_centred=is_gamma_centred)
    part, part_weight = kgrid(size, is_gamma_centred=is_gamma_centred, time_reversal=True)
    assert len(full) == np.prod(size)
    assert abs(weight.sum() - 1) < FLOAT64
    assert abs(part_weight.sum() - 1) < FLOAT64
    assert len(part) <= len(full) // 2 + 4
    even = [np.cos(2 * np.pi * k @ R) for k in (full, part) for R in ([1, 0, 2], [3, 1, 1])]
    sums = [weight @ even[0], weight @ even[1], part_weight @ even[2], part_weight @ even[3]]
    assert abs(sums[0] - sums[2]) < FLOAT64
    assert abs(sums[1] - sums[3]) < FLOAT64


def test_grid_points() -> None:
    assert kgrid((1, 1, 1))[0].tolist() == [[0, 0, 0]]
    assert kgrid((2, 1, 1))[0][:, 0].tolist() == [0, 0.5]
    assert kgrid((2, 1, 1), is_gamma_centred=False)[0][:, 0].tolist() == [-0.25, 0.25]
    assert (
        np.abs(kgrid((3, 1, 1), is_gamma_centred=False)[0][:, 0] - [-1 / 3, 0, 1 / 3]).max()
        < FLOAT64
    )
    with pytest.raises(ShapeError, match="three positive integers"):
        kgrid((2, 0, 1))


# ---------------------------------------------------------------------- Fermi level


@given(seeds, st.floats(0.5, 9.5), st.floats(0.001, 0.5))
def test_electrons_are_counted(seed: int, n_electron: float, kT: float) -> None:
    rng = np.random.default_rng(seed)
    energies, weight = rng.uniform(-3, 3, (6, 5)), rng.uniform(0.1, 1, 6)
    weight /= weight.sum()
    level = fermi_level(energies, weight, n_electron, kT)
    occupation = 1 / (1 + np.exp(np.clip((energies - level) / kT, -500, 500)))
    bands = np.sort(energies, axis=1)
    n = round(n_electron / 2)
    gap = bands[:, n].min() - bands[:, n - 1].max() if 0 < n < 5 else 0.0
    if n_electron / 2 != n or gap < GAP_WIDTHS * kT:
        assert abs(2 * weight @ occupation.sum(axis=1) - n_electron) < 1e3 * EIGENVALUE


def test_insulator_has_its_level_mid_gap() -> None:
    energies = np.array([[-2.0, -1.0, 3.0, 4.0], [-2.5, -1.5, 2.0, 9.0]])
    assert fermi_level(energies, [0.5, 0.5], 4, 0.01) == 0.5
    shuffled = energies[:, [2, 0, 3, 1]]
    assert fermi_level(shuffled, [0.5, 0.5], 4, 0.01) == 0.5
    assert fermi_level(energies, [0.5, 0.5], 2, 0.01, degeneracy=1) == 0.5
    assert fermi_level(energies, [0.5, 0.5], 3, 0.01) < -0.9  # a band half filled


@pytest.mark.parametrize(
    ("n_electron", "kT", "text"),
    [
        (0, 0.1, "do not fit"),
        (8, 0.1, "do not fit"),
        (np.nan, 0.1, "fit"),
        (2, 0.0, "smearing"),
    ],
)
def test_bad_counts(n_electron: float, kT: float, text: str) -> None:
    with pytest.raises(PhysicsError, match=text):
        fermi_level(np.zeros((2, 4)), [0.5, 0.5], n_electron, kT)


def test_bad_weights() -> None:
    with pytest.raises(ShapeError):
        fermi_level(np.zeros((2, 4)), [1.0], 2, 0.1)


# ---------------------------------------------------------------------- paths


def test_path_of_graphene() -> None:
    atoms = sheet().atoms
    path = band_path(atoms, 40, is_periodic=(True, True, False))
    assert path.labels == ["Γ", "M", "K", "Γ"]
    assert len(path.k) == len(path.x) == 40
    assert not path.k[:, 2].any()
    a = 2.46
    assert abs(path.tick[1] - 2 * np.pi / (np.sqrt(3) * a)) < FLOAT64  # Gamma to M
    assert abs(path.tick[-1] - path.tick[-2] - 4 * np.pi / (3 * a)) < FLOAT64  # K to Gamma
    steps = np.linalg.norm(np.diff(path.k, axis=0) @ atoms.cell.reciprocal().array, axis=1)
    assert np.abs(2 * np.pi * steps - np.diff(path.x)).max() < FLOAT64
    energies = eigenvalues(sheet(), None, path.k)
    at_K = np.argmin(np.abs(path.x - path.tick[2]))
    assert np.abs(energies[at_K]).max() < EIGENVALUE


def test_jumps_of_a_path_share_a_tick() -> None:
    atoms = Atoms("C", cell=[[0, 2, 2], [2, 0, 2], [2, 2, 0]], pbc=True)
    path = band_path(atoms, 60)
    assert any("|" in label or "," in label for label in path.labels)
    assert len(path.tick) == len(path.labels)
    assert np.all(np.diff(path.tick) > 0)


def test_molecules_have_no_bands() -> None:
    with pytest.raises(PhysicsError, match="structure 'CH' has no periodic direction"):
        band_path(Atoms("CH", positions=[[0, 0, 0], [0, 0, 1]]))
