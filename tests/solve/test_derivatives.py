"""Velocities and masses against finite differences; density matrices against a DFT code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from ase import Atoms

from deeph_lightning.core.basis import OrbitalBasis
from deeph_lightning.core.operator import Operator
from deeph_lightning.errors import PhysicsError
from deeph_lightning.io import deeph
from deeph_lightning.solve.dense import eigenvalues
from deeph_lightning.solve.density import density
from deeph_lightning.solve.derivatives import (
    band_slopes,
    effective_mass,
    refined_extremum,
)
from deeph_lightning.solve.levels import grid_levels
from deeph_lightning.solve.system import electronic_system
from deeph_lightning.units import HBAR2_OVER_ELECTRON_MASS
from tests.solve.systems import toy
from tests.tolerances import DENSITY_MATRIX, EIGENVALUE, FINITE_DIFFERENCE

if TYPE_CHECKING:
    from pathlib import Path

K = np.array([0.13, -0.21, 0.34])
STEP = 1e-4


def cartesian_step(atoms: Atoms, vector: np.ndarray) -> np.ndarray:
    return atoms.cell.array @ vector / (2 * np.pi)


@pytest.mark.parametrize("spin", ["none", "spinful"])
def test_slopes_are_differences_of_energies(spin, rng) -> None:
    system = electronic_system(toy(rng, spin=spin))
    H, S = system.channels[0], system.S
    energies, slopes = band_slopes(H, S, K)
    for axis, e in enumerate(np.eye(3)):
        step = cartesian_step(H.atoms, STEP * e)
        up, down = eigenvalues(H, S, [K + step, K - step])
        assert np.abs((up - down) / (2 * STEP) - slopes[:, axis]).max() < FINITE_DIFFERENCE
    assert np.abs(energies - eigenvalues(H, S, K)[0]).max() < EIGENVALUE


@pytest.mark.parametrize("spin", ["none", "spinful"])
def test_curvature_is_a_difference_of_slopes(spin, rng) -> None:
    system = electronic_system(toy(rng, spin=spin))
    H, S = system.channels[0], system.S
    for band in (0, 5, H.n_orb - 1):
        found = effective_mass(H, S, K, band)
        for axis, e in enumerate(np.eye(3)):
            step = cartesian_step(H.atoms, STEP * e)
            up, down = (band_slopes(H, S, K + s)[1][band] for s in (step, -step))
            difference = (up - down) / (2 * STEP)
            scale = max(1.0, np.abs(found.curvature).max())
            assert np.abs(difference - found.curvature[axis]).max() < FINITE_DIFFERENCE * scale


def test_mass_of_a_chain() -> None:
    """E = -2 t cos(k a) has the mass hbar^2 / (2 t a^2) at k = 0."""
    atoms = Atoms("H", cell=[2.0, 9, 9], pbc=True)
    basis = OrbitalBasis({"H": (0,)})
    blocks = [np.array([[x]]) for x in (0.0, -1.5, -1.5)]
    H = Operator.from_blocks(atoms, basis, [[0, 0, 0], [1, 0, 0], [-1, 0, 0]], [0] * 3, [0] * 3,
                             blocks)  # fmt: skip
    found = refined_extremum(H, None, [0.05, 0, 0], 0)
    assert np.abs(found.k).max() < 1e-6
    masses, _ = found.principal()
    assert abs(masses.min() - HBAR2_OVER_ELECTRON_MASS / (2 * 1.5 * 4.0)) < EIGENVALUE
    assert np.isinf(masses).sum() == 2


def test_degenerate_bands_have_no_mass(rng) -> None:
    system = electronic_system(toy(rng))
    H = system.channels[0]
    flat = H.replace(values=0 * H.values)
    with pytest.raises(PhysicsError, match="have the same energy"):
        effective_mass(flat, system.S, K, 3)


# ---------------------------------------------------------------------- density matrix


@pytest.mark.parametrize("spin", ["none", "collinear", "spinful"])
def test_density_matrix_holds_the_electrons(spin, rng) -> None:
    system = electronic_system(toy(rng, spin=spin), n_electrons=7.3)
    levels = grid_levels(system, (2, 3, 2), 0.3)
    found = density(system, levels, 0.3)
    assert abs(found.populations.sum() - 7.3) < 1e3 * EIGENVALUE
    assert abs(found.band_energy - levels.band_energy) < 1e3 * EIGENVALUE
    found.rho.check_hermitian(EIGENVALUE)
    if spin == "none":
        assert not found.moments.any()
        # sum_R Tr P(R) S(R)^dagger counts them again; the pairs of H hold those of S
        S = system.S.on_pairs(found.rho.pairs)
        assert abs((found.rho.values * S.values).sum() - 7.3) < 1e3 * EIGENVALUE
        band = (found.rho.values * system.channels[0].values).sum()
        assert abs(band - levels.band_energy) < 1e3 * EIGENVALUE
    elif spin == "collinear":
        assert np.abs(found.moments).max() > 1e-6
    else:  # H is symmetric under time reversal
        assert np.abs(found.moments).max() < EIGENVALUE


def test_spin_of_a_collinear_system_seen_as_spinful(rng) -> None:
    """Off-diagonal elements of no size make one channel of two: the same density."""
    data = toy(rng, spin="collinear")
    two = electronic_system(data)
    H = data.H.replace(values=data.H.values + 0j)
    one = two.__class__("toy", (H,), two.S, two.n_electrons)
    grid, width = (2, 2, 1), 0.3
    first, second = (density(s, grid_levels(s, grid, width), width) for s in (two, one))
    assert np.abs(first.populations - second.populations).max() < 1e3 * EIGENVALUE
    assert np.abs(first.moments - second.moments).max() < 1e3 * EIGENVALUE


def test_density_matrix_of_a_code(shared_dir: Path) -> None:
    data = deeph.read(
        shared_dir / "fixtures" / "deeph" / "H2O_density_matrix" / "1009", ("H", "S", "rho")
    )
    n_electrons = round(float((data.rho.values * data.S.on_pairs(data.rho.pairs).values).sum()))
    system = electronic_system(data, n_electrons=n_electrons)
    levels = grid_levels(system, (1, 1, 1), 0.01)
    found = density(system, levels, 0.01).rho.on_pairs(data.rho.pairs)
    assert np.abs(found.values - data.rho.values).max() < DENSITY_MATRIX
