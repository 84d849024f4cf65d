"""Wigner matrices against harmonics that SciPy evaluates, and spinor rotations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from scipy.special import sph_harm_y

from deeph_lightning.core.basis import OrbitalBasis
from deeph_lightning.core.rotation import orbital_rotation, spin_rotation, wigner_d
from deeph_lightning.errors import ShapeError
from tests.systems import PAULI, harmonics
from tests.tolerances import FLOAT64, WIGNER

seeds = st.integers(0, 2**32 - 1)
degrees = st.integers(0, 6)
signs = st.sampled_from([1.0, -1.0])


def rotation(seed: int, sign: float = 1.0) -> np.ndarray:
    return sign * Rotation.random(rng=np.random.default_rng(seed)).as_matrix()


def real_harmonics(l: int, v: np.ndarray) -> np.ndarray:
    """Definition of formats.md 2, from SciPy's complex harmonics; ``(n, 2l+1)``."""
    v = v / np.linalg.norm(v, axis=1, keepdims=True)
    theta, phi = np.arccos(v[:, 2]), np.arctan2(v[:, 1], v[:, 0])
    columns = []
    for m in range(-l, l + 1):
        Y = sph_harm_y(l, abs(m), theta, phi)
        factor = np.sqrt(2.0) * (-1.0) ** m
        columns.append(Y.real if m == 0 else factor * (Y.imag if m < 0 else Y.real))
    return np.stack(columns, axis=1)


@given(degrees, seeds, signs)
def test_wigner_turns_the_harmonics(l: int, seed: int, sign: float) -> None:
    Q = rotation(seed, sign)
    points = np.random.default_rng(seed + 1).normal(size=(80, 3))
    # Y(Q v) = D Y(v), as rows: Y(Q v)^T = Y(v)^T D^T
    solved, *_ = np.linalg.lstsq(real_harmonics(l, points), real_harmonics(l, points @ Q.T))
    assert np.abs(wigner_d(l, Q) - solved.T).max() < WIGNER


@given(degrees, seeds, seeds, signs, signs)
def test_wigner_is_a_representation(l: int, a: int, b: int, s: float, t: float) -> None:
    first, second = rotation(a, s), rotation(b, t)
    product = wigner_d(l, first) @ wigner_d(l, second)
    assert np.abs(wigner_d(l, first @ second) - product).max() < WIGNER
    D = wigner_d(l, first)
    assert np.abs(D @ D.T - np.eye(2 * l + 1)).max() < WIGNER


@pytest.mark.parametrize("l", range(7))
def test_special_operations(l: int) -> None:
    assert np.array_equal(wigner_d(l, np.eye(3)), np.eye(2 * l + 1))
    assert np.array_equal(wigner_d(l, -np.eye(3)), (-1.0) ** l * np.eye(2 * l + 1))
    mirror = np.diag([1.0, -1.0, 1.0])  # y -> -y: functions with m < 0 are odd
    expected = np.diag(np.where(np.arange(-l, l + 1) < 0, -1.0, 1.0))
    assert np.abs(wigner_d(l, mirror) - expected).max() < WIGNER
    for axis in range(3):  # bonds along an axis have no pole
        turn = Rotation.from_rotvec(np.pi / 2 * np.eye(3)[axis]).as_matrix()
        power = np.linalg.matrix_power(wigner_d(l, turn), 4)
        assert np.abs(power - np.eye(2 * l + 1)).max() < WIGNER


def test_degree_one_is_the_rotation_itself() -> None:
    Q = rotation(3)
    assert np.abs(wigner_d(1, Q) - Q[[1, 2, 0]][:, [1, 2, 0]]).max() < FLOAT64


@pytest.mark.parametrize("l", [0, 1, 2])
def test_explicit_harmonics_of_the_tests(l: int, rng: np.random.Generator) -> None:
    v = rng.normal(size=(20, 3))
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    own = np.array([harmonics(l, r) for r in v]) * np.sqrt((2 * l + 1) / (4 * np.pi))
    assert np.abs(own - real_harmonics(l, v)).max() < FLOAT64


def test_batches() -> None:
    Q = np.array([[rotation(n, s) for n in range(3)] for s in (1.0, -1.0)])
    D = wigner_d(4, Q)
    assert D.shape == (2, 3, 9, 9)
    for a in range(2):
        for b in range(3):
            assert np.array_equal(D[a, b], wigner_d(4, Q[a, b]))
    assert wigner_d(2, np.zeros((0, 3, 3))).shape == (0, 5, 5)


def test_orbitals_of_an_atom_turn_shell_by_shell() -> None:
    basis, Q = OrbitalBasis({"X": (2, 0, 1, 1)}), rotation(5)
    D = orbital_rotation(basis, "X", Q)
    for a, l in zip(basis.shell_slices("X"), basis.shells["X"], strict=True):
        assert np.array_equal(D[a, a], wigner_d(l, Q))
        D[a, a] = 0
    assert not D.any()


@given(seeds, signs)
def test_spin_turns_as_an_axial_vector(seed: int, sign: float) -> None:
    Q = rotation(seed, sign)
    U = spin_rotation(Q)
    assert np.abs(U @ U.conj().T - np.eye(2)).max() < FLOAT64
    assert abs(np.linalg.det(U) - 1) < FLOAT64
    # U sigma_a U^+ = sum_b Q_ba sigma_b of the proper part
    turned = np.einsum("st,atu,vu->asv", U, PAULI, U.conj())
    assert np.abs(turned - np.einsum("ba,bst->ast", sign * Q, PAULI)).max() < FLOAT64


def test_bad_rotations() -> None:
    with pytest.raises(ShapeError, match="not orthogonal"):
        wigner_d(1, 2 * np.eye(3))
    with pytest.raises(ShapeError, match="not orthogonal"):
        wigner_d(1, np.full((3, 3), np.nan))
    with pytest.raises(ShapeError, match=r"expected \(..., 3, 3\)"):
        wigner_d(1, np.eye(2))
