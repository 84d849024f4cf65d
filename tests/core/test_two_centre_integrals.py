"""Overlaps from radial functions: analytic integrals of Gaussians, symmetry."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from scipy.stats import special_ortho_group

from deeph_lightning.core.two_centre_integrals import OrbitalOverlaps, RadialFunction
from deeph_lightning.errors import BasisMismatchError

R = np.linspace(0.0, 6.0, 601)
ALPHA, BETA = 1.3, 0.9  # 1/Å^2; at 6 Å both are below 1e-14


def gaussian(l: int, exponent: float) -> RadialFunction:
    """r^l exp(-a r^2) with the constant that makes r^l Y_lm a plain solid harmonic for s, p."""
    return RadialFunction(
        l, R, np.sqrt(4 * np.pi / (2 * l + 1)) * R**l * np.exp(-exponent * R**2)
    )


def analytic_s(vector: np.ndarray) -> float:
    mu = ALPHA * BETA / (ALPHA + BETA)
    return (np.pi / (ALPHA + BETA)) ** 1.5 * np.exp(-mu * vector @ vector)


def dimer(vector: np.ndarray) -> Atoms:
    return Atoms("CB", positions=[[0.3, -0.2, 0.1], vector + np.array([0.3, -0.2, 0.1])])


def block(S, i: int, j: int) -> np.ndarray:
    full = S.complete()
    return full.block(int(np.flatnonzero((full.pairs.i == i) & (full.pairs.j == j))[0]))


@pytest.mark.parametrize("length", [0.4, 1.7, 4.2])
def test_gaussians(rng: np.random.Generator, length: float) -> None:
    direction = rng.normal(size=3)
    vector = length * direction / np.linalg.norm(direction)
    overlaps = OrbitalOverlaps(
        {"C": [gaussian(0, ALPHA)], "B": [gaussian(0, BETA), gaussian(1, BETA)]}
    )
    found = block(overlaps.operator(dimer(vector)), 0, 1)
    s = analytic_s(vector)
    # moving the centre of s by dB makes 2 beta (r - B) exp(-beta |r - B|^2)
    p = -ALPHA / (ALPHA + BETA) * vector * s
    np.testing.assert_allclose(found[0], [s, *p[[1, 2, 0]]], atol=2e-9)
    # <p|p'> from both derivatives: delta_ij / (2 (alpha + beta)) - mu^2 R_i R_j / (alpha beta)
    overlaps = OrbitalOverlaps({"C": [gaussian(1, ALPHA)], "B": [gaussian(1, BETA)]})
    found = block(overlaps.operator(dimer(vector)), 0, 1)
    axes = vector[[1, 2, 0]]
    weight = ALPHA * BETA / (ALPHA + BETA) ** 2
    expected = s * (np.eye(3) / (2 * (ALPHA + BETA)) - weight * np.outer(axes, axes))
    np.testing.assert_allclose(found, expected, atol=2e-9)


def test_rotation_turns_the_blocks(rng: np.random.Generator) -> None:
    shells = {
        "C": [gaussian(l, ALPHA) for l in (2, 0, 3)],
        "B": [gaussian(l, BETA) for l in (1, 2)],
    }
    overlaps = OrbitalOverlaps(shells)
    atoms = Atoms("CBCB", positions=rng.normal(size=(4, 3)) * 1.5)
    Q = special_ortho_group.rvs(3, random_state=rng)
    turned = atoms.copy()
    turned.positions = atoms.positions @ Q.T
    expected = overlaps.operator(atoms).complete().rotated(Q)
    found = overlaps.operator(turned).complete()
    assert found.pairs == expected.pairs
    np.testing.assert_allclose(found.values, expected.values, atol=1e-12)
    assert np.linalg.eigvalsh(found.bloch([0, 0, 0])).min() > 0
    diagonal = block(found, 0, 0)
    np.testing.assert_allclose(diagonal, np.diag(np.diag(diagonal)), atol=1e-12)


def test_a_species_without_orbitals() -> None:
    overlaps = OrbitalOverlaps({"C": [gaussian(0, ALPHA)]})
    with pytest.raises(BasisMismatchError, match="'B' is not in the orbital basis"):
        overlaps.operator(dimer(np.ones(3)))
