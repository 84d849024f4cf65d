"""Band errors against shifts and scalings whose effect on the bands is known."""

from __future__ import annotations

import numpy as np
import pytest

from deeph_lightning.io import deeph
from deeph_lightning.report.bands import BandComparison, BandSettings

# a half-filled chain has its Fermi level at the onsite energy
SETTINGS = BandSettings(k_spacing=0.5, near_eV=1.0)


def test_a_shift_by_the_overlap_moves_the_fermi_level_only(chain) -> None:
    H, S = chain(0.3, -1.0), chain(1.0, 0.1)
    shifted = H.replace(values=H.values + 0.02 * S.values)
    errors = BandComparison("a", H, shifted, S, 1.0, SETTINGS).errors()
    assert errors.e_fermi.mae == pytest.approx(20.0, rel=1e-6)
    assert errors.states.count > 0
    assert errors.states.largest < 1e-6


def test_states_near_the_fermi_level_count_as_often_as_the_full_grid_has_them(chain) -> None:
    H, S = chain(0.0, -1.0), chain(1.0, 0.0)
    comparison = BandComparison("a", H, H.replace(values=1.01 * H.values), S, 1.0, SETTINGS)
    n = comparison.grid[0]
    assert comparison.grid == (13, 1, 1)
    energy = -2 * np.cos(2 * np.pi * np.arange(n) / n) - comparison.e_fermi[0]
    moved = 1.01 * (energy + comparison.e_fermi[0]) - comparison.e_fermi[1]
    near = np.abs(energy) <= SETTINGS.near_eV
    errors = comparison.errors()
    assert errors.states.count == near.sum()
    assert errors.states.mae == pytest.approx(1e3 * np.abs(moved - energy)[near].mean())
    assert set(errors.metrics()) == {"bands_mae_meV", "bands_max_meV", "e_fermi_mae_meV"}


def test_grid_and_path_stay_in_the_plane_of_a_slab(random_operator) -> None:
    H, S = random_operator(0), random_operator(1, scale=0.02)
    identity = np.concatenate(
        [np.eye(*shape).ravel() * flag
         for shape, flag in zip(S.block_shapes, S.pairs.is_onsite, strict=True)]
    )  # fmt: skip
    S = S.replace(values=S.values + identity, unit="1")
    comparison = BandComparison("slab", H, H, S, 6.0, BandSettings(n_k_min=2, k_spacing=2.0))
    assert comparison.grid == (2, 2, 1)
    data = comparison.along_path()
    assert not data.path.k[:, 2].any()
    assert data.path.labels[0] == "Γ"
    assert len(data.path.x) == len(data.reference)
    assert np.array_equal(data.reference, data.predicted)
    assert comparison.errors().states.largest == 0.0


def test_spinful_states_hold_one_electron(random_operator) -> None:
    H = random_operator(0, is_spinful=True)
    S = random_operator(1, scale=0.0)
    S = S.replace(values=np.concatenate(
        [np.eye(*shape).ravel() * flag
         for shape, flag in zip(S.block_shapes, S.pairs.is_onsite, strict=True)]
    ))  # fmt: skip
    comparison = BandComparison("a", H, H, S, 9.0, BandSettings(n_k_min=2, k_spacing=2.0))
    below = np.concatenate([e < comparison.e_fermi[0] for e in comparison._energies[0]])
    assert below.sum() / np.prod(comparison.grid) == pytest.approx(9.0, abs=1.0)


def test_fermi_level_of_graphene_is_that_of_the_code(shared_dir) -> None:
    """The default grid is the one that ABACUS used: 4x4 for a 3x3 cell."""
    system = deeph.read(shared_dir / "data" / "graphene" / "052")
    comparison = BandComparison(
        "052", system.H, system.H, system.S, system.n_electrons, BandSettings()
    )
    assert comparison.grid == (4, 4, 1)
    assert comparison.e_fermi[0] == pytest.approx(system.fermi_energy, abs=5e-5)
