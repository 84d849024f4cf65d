"""Spin channels, band edges, fat bands and badly conditioned overlaps."""

from __future__ import annotations

import numpy as np
import pytest

from deeph_lightning.core.operator import Operator
from deeph_lightning.errors import DataError, OverlapNotPositiveError, PhysicsError
from deeph_lightning.solve.bands import band_structure, compare_bands
from deeph_lightning.solve.conditioning import ghost_check, overlap_condition
from deeph_lightning.solve.dense import eigenstates, eigenvalues, overlap_at
from deeph_lightning.solve.kpath import band_path
from deeph_lightning.solve.levels import band_edges, channel_energies, grid_levels, occupations
from deeph_lightning.solve.system import electronic_system, spin_doubled
from tests.solve.systems import toy
from tests.tolerances import EIGENVALUE, FLOAT64

K = np.array([[0.1, -0.2, 0.3], [0.0, 0.5, 0.0], [0.0, 0.0, 0.0]])


@pytest.mark.parametrize(("spin", "n_channel"), [("none", 1), ("collinear", 2), ("spinful", 1)])
def test_channels_have_the_states_of_the_whole(spin, n_channel, rng) -> None:
    data = toy(rng, spin=spin)
    system = electronic_system(data)
    energies = channel_energies(system, K)
    assert len(energies) == n_channel
    assert system.degeneracy == (2 if spin == "none" else 1)
    assert system.has_time_reversal == (spin != "spinful")
    whole = np.sort(np.concatenate(list(energies), axis=1), axis=1)
    assert np.abs(whole - eigenvalues(data.H, data.S, K)).max() < EIGENVALUE


def test_doubled_overlap(rng) -> None:
    S = toy(rng).S
    for k in K:
        assert np.abs(spin_doubled(S).bloch(k) - overlap_at(S, k, 2)).max() < FLOAT64


@pytest.mark.parametrize("spin", ["none", "collinear", "spinful"])
def test_electrons_and_energy_of_the_grid(spin, rng) -> None:
    system = electronic_system(toy(rng, spin=spin, gap=8.0))
    levels = grid_levels(system, (3, 2, 2), 0.05)
    f = occupations(levels.energies, levels.e_fermi, 0.05)
    count = system.degeneracy * np.einsum("skn,k->", f, levels.weight)
    if levels.edges.is_metal:
        assert abs(count - system.electrons()) < EIGENVALUE
    full = grid_levels(system, (3, 2, 2), 0.05, n_jobs=1)
    assert levels.band_energy == full.band_energy


def test_edges_of_an_insulator_and_a_metal() -> None:
    k = np.array([[0, 0, 0], [0.5, 0, 0]])
    bands = np.array([[[-2.0, -1.0, 3.0], [-3.0, -0.5, 2.0]]])
    edges = band_edges(bands, k, 0.0)
    assert (edges.gap, edges.direct_gap) == (2.5, 2.5)
    assert edges.vbm.k == (0.5, 0, 0)
    assert (edges.vbm.band, edges.cbm.band) == (1, 2)
    bands[0, 0, 2] = 1.0
    assert (band_edges(bands, k, 0.0).gap, band_edges(bands, k, 0.0).direct_gap) == (1.5, 2.0)
    bands[0, 0, 1] = 0.5
    assert band_edges(bands, k, 0.0).is_metal
    with pytest.raises(PhysicsError, match="outside the bands"):
        band_edges(bands, k, 10.0)


def test_weights_add_up_and_know_the_species(rng) -> None:
    system = electronic_system(toy(rng, spin="spinful", gap=200.0))
    path = band_path(system.atoms, 5)
    bands = band_structure(system, path, 0.0, project="element")
    total = sum(bands.weights.values())
    assert np.abs(total - 1).max() < EIGENVALUE
    n_C = 2 * system.channels[0].basis.n_orb("C")
    assert bands.weights["C"][..., -n_C:].min() > 0.9  # C lies 200 eV above B
    by_orbital = band_structure(system, path, 0.0, project="orbital").weights
    assert np.abs(by_orbital["C s"] + by_orbital["C p"] - bands.weights["C"]).max() < EIGENVALUE


def test_difference_of_a_shifted_hamiltonian_vanishes(rng) -> None:
    """H + mu S has the same bands, from its own Fermi level."""
    data = toy(rng, gap=6.0)
    system = electronic_system(data)
    shifted = data.H.replace(values=data.H.values + 3.0 * data.S.on_pairs(data.H.pairs).values)
    data.H = shifted
    other = electronic_system(data)
    path = band_path(system.atoms, 40)
    first, second = (
        band_structure(s, path, grid_levels(s, (2, 2, 2), 0.01).e_fermi)
        for s in (system, other)
    )
    difference = compare_bands(first, second, 50.0)
    assert difference.largest < EIGENVALUE
    assert abs(difference.e_fermi - 3.0) < EIGENVALUE
    with pytest.raises(DataError, match="one structure and basis"):
        compare_bands(first, band_structure(other, band_path(system.atoms, 60), 0.0), 1.0)


def test_pool_of_processes_gives_the_same(rng) -> None:
    system = electronic_system(toy(rng))
    k = rng.uniform(size=(5, 3))
    assert np.array_equal(channel_energies(system, k), channel_energies(system, k, n_jobs=2))


# ---------------------------------------------------------------------- overlaps


def dependent(data, strength: float):
    """Make one combination of orbitals nearly vanish at Gamma: S loses a rank-one part."""
    S = data.S
    S_0 = S.bloch([0, 0, 0]).real
    vector = np.linalg.solve(S_0, np.eye(len(S_0))[0])
    vector = S_0 @ vector  # a unit vector of orbital space, seen by S
    factor = (1 - strength) / (vector @ np.linalg.solve(S_0, vector))
    n = int(np.flatnonzero(S.pairs.is_onsite & (S.pairs.i == 0))[0])
    values = S.values.copy()
    size = len(S.block(n))
    block = values[S.offsets[n] : S.offsets[n + 1]].reshape(size, size)
    block -= factor * np.outer(vector[:size], vector[:size])
    return S.replace(values=values)


def test_dependent_orbitals_are_left_out_at_every_k(rng) -> None:
    data = toy(rng, gap=4.0)
    data.S = dependent(data, 1e-7)
    system = electronic_system(data)
    condition = overlap_condition(data.S, K, threshold=1e-4)
    assert condition.n_drop == 1
    assert condition.k_smallest == (0, 0, 0)
    energies = channel_energies(system, K, condition.n_drop)
    assert energies.shape[2] == system.n_orb - 1
    E, C = eigenstates(data.H, data.S, K, condition.n_drop)
    for k, states in zip(K, C, strict=True):
        overlap = states.conj().T @ data.S.bloch(k) @ states
        assert np.abs(overlap - np.eye(system.n_orb - 1)).max() < 1e4 * EIGENVALUE
    assert np.abs(E - energies[0]).max() < 1e4 * EIGENVALUE


def test_ghosts_are_seen(rng) -> None:
    data = toy(rng, gap=4.0)
    data.S = dependent(data, 1e-5)
    found = ghost_check(data.H, data.S, [0, 0, 0], -np.inf, np.inf)
    assert len(found.ghosts) == 1
    assert found.ghosts[0] == found.energies[np.argmax(found.amplification)]
    assert found.amplification.max() > 1e4
    healthy = ghost_check(data.H, toy(np.random.default_rng(1)).S, [0, 0, 0], -9.0, 9.0)
    assert not len(healthy.ghosts)
    assert healthy.amplification.max() < 2


def test_overlap_beyond_repair(rng) -> None:
    S = dependent(toy(rng), -0.1)
    with pytest.raises(OverlapNotPositiveError, match="more than rounding"):
        overlap_condition(S, K)


def test_no_electron_count_and_one_that_does_not_fit(rng) -> None:
    data = toy(rng)
    data.n_electrons = None
    with pytest.raises(PhysicsError, match="n_electrons=NUMBER"):
        grid_levels(electronic_system(data), (1, 1, 1), 0.1)
    with pytest.raises(PhysicsError, match="1000 electrons do not fit, its orbitals hold 28"):
        grid_levels(electronic_system(data, n_electrons=1000), (1, 1, 1), 0.1)


def test_no_overlap(rng) -> None:
    data = toy(rng)
    data.S = None
    with pytest.raises(DataError, match="overlap=DIR"):
        electronic_system(data)
    data.info["orthogonal_basis"] = True
    system = electronic_system(data)
    assert isinstance(system.channels[0], Operator)
    assert channel_energies(system, K).shape == (1, 3, 14)
