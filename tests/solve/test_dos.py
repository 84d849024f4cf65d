"""Densities of states: sum rules, known bands, the exact spectrum through the same kernel."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from deeph_lightning.core.basis import OrbitalBasis
from deeph_lightning.core.operator import Operator
from deeph_lightning.errors import PhysicsError, ResourceError
from deeph_lightning.io.source import open_source
from deeph_lightning.solve.bands import projected_states
from deeph_lightning.solve.dense import kgrid, unfolded
from deeph_lightning.solve.dos import gaussian_count, gaussian_dos, tetrahedron_dos
from deeph_lightning.solve.kpm import (
    Chebyshev,
    chebyshev_dos,
    count_noise,
    jackson,
    overlap_factors,
    spectrum_ends,
)
from deeph_lightning.solve.levels import channel_energies, grid_levels
from deeph_lightning.solve.pencil import Pencil
from deeph_lightning.solve.projection import orbital_groups
from deeph_lightning.solve.system import electronic_system
from tests.conftest import ROOT
from tests.solve.systems import toy
from tests.tolerances import DENSE_SPARSE, EIGENVALUE, FLOAT64, SINGLE_PRECISION_S

GRID = (2, 3, 2)


def test_gaussian_dos_holds_all_states(rng) -> None:
    system = electronic_system(toy(rng, spin="collinear"))
    levels = grid_levels(system, GRID, 0.1)
    low, high = levels.energies.min() - 2, levels.energies.max() + 2
    at = np.linspace(low, high, 4001)
    total = gaussian_dos(levels.energies, levels.weight, at, 0.2)
    assert np.abs(np.trapezoid(total, at) - system.n_orb).max() < 1e4 * EIGENVALUE
    half = at <= 0.0
    counted = gaussian_count(levels.energies, levels.weight, at[half][-1], 0.2)
    integral = np.trapezoid(total[:, half], at[half])
    assert np.abs(integral - counted).max() < 1e-3


def test_parts_add_up(rng) -> None:
    system = electronic_system(toy(rng, spin="spinful"))
    k, weight = kgrid(GRID)
    energies, parts = projected_states(system, k, "orbital")
    at = np.linspace(-5, 5, 50)
    total = gaussian_dos(energies, weight, at, 0.3)
    summed = sum(gaussian_dos(energies, weight, at, 0.3, part) for part in parts.values())
    assert np.abs(summed - total).max() < EIGENVALUE
    cell = system.atoms.cell.array
    total, tetrahedra = tetrahedron_dos(cell, GRID, energies, at, parts)
    assert np.abs(sum(tetrahedra.values()) - total).max() < EIGENVALUE


@pytest.mark.parametrize("size", [(4, 3, 2), (4, 4, 1)])
def test_tetrahedra_hold_all_states(size, rng) -> None:
    system = electronic_system(toy(rng))
    k, _ = kgrid(size)
    energies = channel_energies(system, k)
    at = np.linspace(energies.min() - 0.1, energies.max() + 0.1, 20001)
    total, _ = tetrahedron_dos(system.atoms.cell.array, size, energies, at)
    assert abs(np.trapezoid(total[0], at) - system.n_orb) < 0.02
    with pytest.raises(PhysicsError, match="tetrahedra need all"):
        tetrahedron_dos(system.atoms.cell.array, (4, 4, 4), energies, at)
    with pytest.raises(PhysicsError, match="method=gaussian"):
        tetrahedron_dos(np.eye(3), (energies.shape[1], 1, 1), energies, at)


def test_tetrahedra_of_a_cosine_band() -> None:
    """E = 2 t (cos x + cos y + cos z) has g(0) = 0.142711/t (van Hove's simple cubic)."""
    n = 20
    k = kgrid((n, n, n))[0]
    energies = (2 * np.cos(2 * np.pi * k).sum(axis=1))[None, :, None]
    at = np.linspace(-6, 6, 241)
    total, _ = tetrahedron_dos(np.eye(3), (n, n, n), energies, at)
    assert abs(total[0, 120] - 0.142711) < 2e-3
    assert abs(np.trapezoid(total[0], at) - 1) < 1e-3


def test_grid_is_unfolded(rng) -> None:
    system = electronic_system(toy(rng))
    size = (3, 4, 2)
    whole = channel_energies(system, kgrid(size)[0])
    part = channel_energies(system, kgrid(size, time_reversal=True)[0])
    assert part.shape[1] < whole.shape[1]
    assert np.abs(unfolded(part, size, axis=1) - whole).max() < EIGENVALUE
    assert unfolded(whole, size, axis=1) is whole


# ---------------------------------------------------------------------- Chebyshev


def test_jackson_kernel_smooths_a_constant_into_itself() -> None:
    g = jackson(64)
    assert abs(g[0] - 1) < FLOAT64
    assert np.all(np.diff(g) < 0)
    assert 0 < g[-1] < 1e-3


@pytest.mark.parametrize("spin", ["none", "spinful"])
def test_exact_moments_are_those_of_the_eigenvalues(spin, rng) -> None:
    system = electronic_system(toy(rng, spin=spin))
    k, weight = kgrid((2, 1, 1))
    H = system.channels[0]
    names, group = orbital_groups(H, "orbital")
    pencil = Pencil(H, system.S)
    found = chebyshev_dos(pencil, k, weight, 60, H.n_orb, group=group, library_name="superlu")
    energies, parts = projected_states(system, k, "orbital")
    x = (energies[0] - found.centre) / found.half_width
    assert np.abs(x).max() < 1
    polynomials = np.cos(np.arange(60)[:, None, None] * np.arccos(x))
    total = np.einsum("nkb,k->n", polynomials, weight)
    assert np.abs(found.moments.sum(axis=0) - total).max() < DENSE_SPARSE
    for row, name in zip(found.moments, names, strict=True):
        part = np.einsum("nkb,kb,k->n", polynomials, parts[name][0], weight)
        assert np.abs(row - part).max() < DENSE_SPARSE


def test_spectrum_lies_within_its_bounds() -> None:
    system = electronic_system(open_source(ROOT / "data" / "graphene").read("000"))
    pencil = Pencil(system.channels[0], system.S)
    for k in ([0.0, 0, 0], [0.2, 0.1, 0.0]):
        matrices = pencil.at(k)
        low, high = spectrum_ends(matrices, overlap_factors(matrices, pencil, "superlu"))
        energies = channel_energies(system, [k])[0, 0]
        width = np.ptp(energies)
        assert energies[0] - 0.02 * width < low < energies[0]
        assert energies[-1] < high < energies[-1] + 0.02 * width


def test_moments_with_single_precision_factors() -> None:
    """Badly conditioned S (1e4): moments change far less than by one random vector."""
    pytest.importorskip("pypardiso")
    system = electronic_system(open_source(ROOT / "data" / "graphene").read("000"))
    pencil = Pencil(system.channels[0], system.S)
    double, single = (
        chebyshev_dos(
            pencil, [[0.0, 0, 0]], [1.0], 300, pencil.n_orb, library_name="pardiso",
            precision=precision,
        )
        for precision in ("double", "single")
    )  # fmt: skip
    assert abs(single.half_width / double.half_width - 1) < SINGLE_PRECISION_S
    energies = np.linspace(-15.0, 10.0, 200)
    error = single.density(energies) - double.density(energies)
    assert np.abs(error).max() < SINGLE_PRECISION_S * double.density(energies).max()


def test_noise_of_a_count_is_that_of_its_random_vectors() -> None:
    pytest.importorskip("pypardiso")
    system = electronic_system(open_source(ROOT / "data" / "graphene").read("000"))
    pencil = Pencil(system.channels[0], system.S)
    n_states = system.electrons() / system.degeneracy
    e_fermi = channel_energies(system, [[0.0, 0, 0]])[0, 0][round(n_states) - 1]
    counts = []
    for seed in range(40):
        dos = chebyshev_dos(
            pencil, [[0.0, 0, 0]], [1.0], 400, 2, seed=seed, library_name="pardiso"
        )
        counts.append(dos.count(e_fermi).sum())
    assert 0.5 < np.std(counts) / count_noise(n_states, 2) < 1.2


@pytest.mark.parametrize(("spin", "n_moments"), [("none", 60), ("spinful", 61)])
def test_doubled_moments_are_those_of_the_eigenvalues(spin, n_moments, rng) -> None:
    """Two moments a step, from vectors of covariance S^-1."""
    pytest.importorskip("pypardiso")
    system = electronic_system(toy(rng, spin=spin))
    k, weight = kgrid((2, 1, 1))
    H = system.channels[0]
    found = chebyshev_dos(
        Pencil(H, system.S), k, weight, n_moments, H.n_orb, library_name="pardiso"
    )
    energies = channel_energies(system, k)[0]
    x = (energies - found.centre) / found.half_width
    polynomials = np.cos(np.arange(n_moments)[:, None, None] * np.arccos(x))
    total = np.einsum("nkb,k->n", polynomials, weight)
    assert np.abs(found.moments[0] - total).max() < DENSE_SPARSE


def test_density_holds_all_orbitals_and_counts() -> None:
    rng = np.random.default_rng(3)
    x = rng.uniform(-0.9, 0.9, 40)
    moments = np.cos(np.outer(np.arange(200), np.arccos(x))).sum(axis=1)[None]
    dos = Chebyshev(moments, centre=1.0, half_width=5.0)
    at = 1.0 + 5.0 * np.cos(np.linspace(np.pi, 0, 20001)[1:-1])
    density = dos.density(at)[0]
    assert density.min() > -1e-9  # the Jackson kernel is positive
    assert abs(np.trapezoid(density, at) - 40) < 1e-3
    assert abs(dos.count(6.1)[0] - 40) < 1e-9
    assert abs(dos.count(at[7000])[0] - np.trapezoid(density[:7001], at[:7001])) < 1e-3
    level = dos.fermi_level(11)
    assert abs(dos.count(level)[0] - 11) < 1e-6
    assert np.sum(1.0 + 5 * x < level) in (10, 11, 12)
    with pytest.raises(PhysicsError, match="do not fit into 40 orbitals"):
        dos.fermi_level(41)


def test_random_vectors_give_the_trace(rng) -> None:
    """A chain of 600 atoms at Gamma: 24 vectors, against all eigenvalues."""
    n = 600
    atoms = Atoms(
        ["C"] * n, [[1.5 * i, 0, 0] for i in range(n)], cell=[1.5 * n, 9, 9], pbc=True
    )
    basis = OrbitalBasis({"C": (0,)})
    i = np.arange(n)
    R, pair = np.zeros((2 * n, 3)), np.concatenate((i, (i + 1) % n))
    R[-1, 0] = 1  # the bond across the border of the cell
    onsite, start = np.zeros(n), np.concatenate((i, i))

    def operator(diagonal, bond, unit):
        return Operator.from_blocks(
            atoms, basis, R, start, pair, [np.array([[x]]) for x in (*diagonal, *([bond] * n))],
            unit=unit, is_half=True,
        ).complete()  # fmt: skip

    H, S = operator(onsite + 0.3, -2.0, "eV"), operator(np.ones(n), 0.2, "1")
    k = np.array([[0.0, 0, 0]])
    found = chebyshev_dos(Pencil(H, S), k, [1.0], 100, 24, library_name="superlu")
    wave = np.cos(2 * np.pi * i / n)
    x = ((0.3 - 4 * wave) / (1 + 0.4 * wave) - found.centre) / found.half_width
    exact = np.cos(np.outer(np.arange(100), np.arccos(x))).sum(axis=1)
    assert abs(found.moments[0, 0] - n) < EIGENVALUE
    at = found.centre + found.half_width * np.linspace(-0.8, 0.8, 100)
    reference = Chebyshev(exact[None], found.centre, found.half_width).density(at)
    # stochastic: relative error about 1 / sqrt(n_vectors * n_orb in the kernel's width)
    assert np.abs(found.density(at) / reference - 1).mean() < 0.08


def test_overlap_that_does_not_fit(rng) -> None:
    system = electronic_system(toy(rng))
    with pytest.raises(ResourceError, match=r"factorising S of 14 orbitals.*n_jobs"):
        chebyshev_dos(
            Pencil(system.channels[0], system.S), [[0, 0, 0]], [1.0], 10, 4,
            library_name="superlu", memory_limit=10.0,
        )  # fmt: skip
