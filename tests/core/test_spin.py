"""Spin of operators: channels, time reversal, spin-orbit constants."""

from __future__ import annotations

import numpy as np
import pytest

from deeph_lightning.core.basis import species_labels
from deeph_lightning.core.operator import Operator
from deeph_lightning.core.rotation import spin_rotation, wigner_d
from deeph_lightning.core.spin import (
    angular_momentum,
    spin_channel,
    spin_mixing,
    spin_orbit_constants,
    time_reversal_residual,
)
from deeph_lightning.errors import ShapeError
from deeph_lightning.solve.dense import eigenvalues
from tests.systems import BASIS, random_atoms, random_operator
from tests.tolerances import EIGENVALUE, FLOAT64

PAULI = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
#: Logarithms of Wigner matrices.
GENERATOR = 1e-12


@pytest.fixture
def plain(rng) -> Operator:
    return random_operator(rng, random_atoms(rng), BASIS)


def spinful(plain: Operator, spin: np.ndarray, scale: float = 1.0) -> Operator:
    """Return the Kronecker product of a spin matrix with every block."""
    blocks = [scale * np.kron(spin, plain.block(n)) for n in range(len(plain.pairs))]
    pairs = plain.pairs
    return Operator.from_blocks(
        plain.atoms, plain.basis, pairs.R, pairs.i, pairs.j, blocks, is_spinful=True
    )


def with_spin_orbit(plain: Operator, xi: float) -> Operator:
    """Add xi/2 L.sigma to every shell of every atom, by the sum over directions."""
    H = spinful(plain, np.eye(2))
    values = H.values.astype(complex)
    for n in np.flatnonzero(H.pairs.is_onsite):
        label = str(species_labels(H.atoms)[H.pairs.i[n]])
        size = H.basis.n_orb(label)
        block = H.block(int(n)).astype(complex)
        for l, where in zip(H.basis.shells[label], H.basis.shell_slices(label), strict=True):
            L = angular_momentum(l)
            for s in range(2):
                for t in range(2):
                    rows = slice(where.start + s * size, where.stop + s * size)
                    columns = slice(where.start + t * size, where.stop + t * size)
                    block[rows, columns] += (
                        xi / 2 * sum(PAULI[k][s, t] * L[k] for k in range(3))
                    )
        values[H.offsets[n] : H.offsets[n + 1]] = block.ravel()
    return H.replace(values=values)


@pytest.mark.parametrize("l", [1, 2, 3])
def test_angular_momentum(l: int, rng) -> None:
    Lx, Ly, Lz = angular_momentum(l)
    assert np.abs(Lx @ Ly - Ly @ Lx - 1j * Lz).max() < GENERATOR
    square = Lx @ Lx + Ly @ Ly + Lz @ Lz
    assert np.abs(square - l * (l + 1) * np.eye(2 * l + 1)).max() < GENERATOR
    # p_x, p_y turn as (x, y): L_z (p_x + i p_y) = p_x + i p_y
    if l == 1:
        state = np.array([1j, 0, 1])  # m = -1, 0, 1 are y, z, x
        assert np.abs(Lz @ state - state).max() < GENERATOR


@pytest.mark.parametrize("xi", [0.7, -0.3])
def test_spin_orbit_constants(plain: Operator, xi: float) -> None:
    H = with_spin_orbit(plain, xi)
    assert H.hermiticity_residual()[0] < FLOAT64
    assert time_reversal_residual(H) < GENERATOR
    found = spin_orbit_constants(H)
    labels = species_labels(H.atoms)
    n_shell = sum(sum(l > 0 for l in BASIS.shells[str(label)]) for label in labels)
    assert len(found) == n_shell
    for shell in found:
        assert abs(shell.xi - xi) < GENERATOR
        assert shell.anisotropy < GENERATOR
    # rows and columns of orbitals exchanged, those of spin not: the sign of L
    values = H.values.copy()
    for n in np.flatnonzero(H.pairs.is_onsite):
        size = H.block_shapes[n, 0] // 2
        block = H.block(int(n)).reshape(2, size, 2, size).transpose(0, 3, 2, 1)
        values[H.offsets[n] : H.offsets[n + 1]] = block.ravel()
    exchanged = spin_orbit_constants(H.replace(values=values))
    assert all(abs(shell.xi + xi) < GENERATOR for shell in exchanged)


def test_spin_orbit_coupling_is_a_scalar(rng) -> None:
    """L.sigma does not change when space and spin turn together."""
    Q = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    Q *= np.linalg.det(Q)
    for l in (1, 2):
        product = sum(np.kron(PAULI[k], angular_momentum(l)[k]) for k in range(3))
        turn = np.kron(spin_rotation(Q), wigner_d(l, Q))
        assert np.abs(turn @ product @ turn.conj().T - product).max() < GENERATOR


def test_channels_of_a_collinear_operator(plain: Operator) -> None:
    H = spinful(plain, np.diag([1.0, 0.5]))
    assert spin_mixing(H) == 0.0
    assert time_reversal_residual(H) == 0.5 * np.abs(plain.values).max()
    for n, scale in ((0, 1.0), (1, 0.5)):
        assert np.array_equal(spin_channel(H, n).values, scale * plain.values)
    k = [0.1, 0.2, -0.3]
    parts = [eigenvalues(spin_channel(H, n), None, k)[0] for n in (0, 1)]
    together = eigenvalues(H, None, k)[0]
    assert np.abs(np.sort(np.concatenate(parts)) - together).max() < EIGENVALUE


def test_exchange_breaks_time_reversal(plain: Operator) -> None:
    H = spinful(plain, np.eye(2) + 0.25 * PAULI[0])
    assert abs(spin_mixing(H) - 0.25 * np.abs(plain.values).max()) < FLOAT64
    assert abs(time_reversal_residual(H) - 0.5 * np.abs(plain.values).max()) < FLOAT64


def test_spin_is_required(plain: Operator) -> None:
    for function in (spin_mixing, time_reversal_residual, spin_orbit_constants):
        with pytest.raises(ShapeError, match="has no spin"):
            function(plain)
    with pytest.raises(ShapeError, match="spin channel is 2"):
        spin_channel(spinful(plain, np.eye(2)), 2)
