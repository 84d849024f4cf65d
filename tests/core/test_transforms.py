"""Other descriptions of one crystal: the operator follows the structure, spectra stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from deeph_lightning.core.conventions import ORBITAL_ORDERS
from deeph_lightning.errors import ShapeError
from tests.systems import (
    folded_k,
    random_atoms,
    random_operator,
    slater_koster,
    to_dict,
)
from tests.tolerances import EIGENVALUE, FLOAT64

if TYPE_CHECKING:
    from deeph_lightning.core.operator import Operator

seeds = st.integers(0, 2**32 - 1)
K = np.array([0.13, -0.29, 0.41])
R_CUT = 4.6


def model(seed: int, *, is_spinful: bool, n_atom: int = 3) -> Operator:
    """A function of the structure alone, so that transforms can be compared with it."""
    atoms = random_atoms(np.random.default_rng(seed), n_atom)
    return slater_koster(atoms, r_cut=R_CUT, is_spinful=is_spinful)


def assert_same(found: Operator, expected: Operator) -> None:
    """Compare pairs and blocks."""
    a, b = to_dict(found), to_dict(expected)
    assert a.keys() == b.keys()
    assert max(np.abs(a[key] - b[key]).max() for key in a) < FLOAT64


def spectrum(op: Operator, k: object = K) -> np.ndarray:
    return np.linalg.eigvalsh(op.bloch(k))


def test_the_model_is_hermitian_and_has_all_kinds_of_blocks() -> None:
    op = model(1, is_spinful=True)
    assert op.hermiticity_residual()[0] < FLOAT64
    is_hopping = ~op.pairs.is_onsite
    for a, b, index, blocks in op.iterate_blocks():
        assert np.abs(blocks[is_hopping[index]]).max() > 0.01, (a, b)
    n_up = op.block_shapes[0, 0] // 2
    assert any(np.abs(op.block(n)[:n_up, -1]).max() > 0.01 for n in range(len(op.pairs)))


@settings(max_examples=8)
@given(seeds, st.booleans(), st.sampled_from([1.0, -1.0]))
def test_rotation_and_inversion(seed: int, is_spinful: bool, sign: float) -> None:
    op = model(seed, is_spinful=is_spinful)
    Q = sign * Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
    turned = op.rotated(Q)
    assert np.allclose(turned.atoms.positions, op.atoms.positions @ Q.T, atol=FLOAT64)
    assert np.allclose(turned.atoms.cell.array, op.atoms.cell.array @ Q.T, atol=FLOAT64)
    assert_same(turned, slater_koster(turned.atoms, r_cut=R_CUT, is_spinful=is_spinful))
    assert np.abs(spectrum(turned) - spectrum(op)).max() < EIGENVALUE
    assert_same(turned.rotated(Q.T), op)


@given(seeds, st.booleans())
def test_rotation_of_halves_and_random_operators(seed: int, is_spinful: bool) -> None:
    rng = np.random.default_rng(seed)
    op = random_operator(rng, random_atoms(rng, 2), r_cut=R_CUT, is_spinful=is_spinful)
    Q = -Rotation.random(rng=rng).as_matrix()
    assert np.abs(spectrum(op.rotated(Q)) - spectrum(op)).max() < EIGENVALUE
    assert_same(op.half().rotated(Q).complete(), op.rotated(Q))


@settings(max_examples=8)
@given(seeds, st.booleans())
def test_permutation(seed: int, is_spinful: bool) -> None:
    op = model(seed, is_spinful=is_spinful)
    order = np.random.default_rng(seed).permutation(len(op.atoms))
    new = op.permuted(order)
    assert np.array_equal(new.atoms.positions, op.atoms.positions[order])
    assert_same(new, slater_koster(new.atoms, r_cut=R_CUT, is_spinful=is_spinful))
    assert np.abs(spectrum(new) - spectrum(op)).max() < EIGENVALUE
    assert_same(new.permuted(np.argsort(order)), op)


@settings(max_examples=8)
@given(seeds)
def test_atoms_moved_by_lattice_vectors(seed: int) -> None:
    op = model(seed, is_spinful=False)
    shifts = np.random.default_rng(seed).integers(-2, 3, (len(op.atoms), 3))
    new = op.with_atoms_shifted(shifts)
    before = {op.pairs.vectors(op.atoms)[n].round(6).tobytes() for n in range(len(op.pairs))}
    after = {new.pairs.vectors(new.atoms)[n].round(6).tobytes() for n in range(len(op.pairs))}
    assert len(before & after) >= 0.9 * len(before)  # but for rounding
    assert_same(new, slater_koster(new.atoms, r_cut=R_CUT))
    assert np.abs(spectrum(new) - spectrum(op)).max() < EIGENVALUE
    assert_same(new.with_atoms_shifted(-shifts), op)


MATRICES = [
    [[1, 1, 0], [0, 1, 0], [0, 0, 1]],
    [[0, 0, 1], [1, 0, 0], [0, 1, 0]],
    [[1, 0, 0], [2, 1, 0], [-1, 3, -1]],
]


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("seed", [0, 1])
def test_other_lattice_vectors(matrix: list[list[int]], seed: int) -> None:
    op = model(seed, is_spinful=False)
    new = op.with_lattice(matrix)
    assert np.allclose(new.atoms.cell.array, np.array(matrix) @ op.atoms.cell.array)
    assert_same(new, slater_koster(new.atoms, r_cut=R_CUT))
    assert np.abs(spectrum(new, np.array(matrix) @ K) - spectrum(op)).max() < EIGENVALUE


def test_lattice_change_carries_periodicity() -> None:
    atoms = random_atoms(np.random.default_rng(0), pbc=(True, True, False))
    op = slater_koster(atoms, r_cut=R_CUT)
    assert op.with_lattice(MATRICES[1]).atoms.pbc.tolist() == [False, True, True]
    with pytest.raises(ShapeError, match="mixes periodic"):
        op.with_lattice([[1, 0, 1], [0, 1, 1], [0, 0, 1]])


@pytest.mark.parametrize("repeats", [(2, 1, 1), (1, 3, 1), (2, 1, 2)])
@pytest.mark.parametrize("is_spinful", [False, True])
def test_supercell(repeats: tuple[int, int, int], is_spinful: bool) -> None:
    op = model(3, is_spinful=is_spinful)
    big = op.repeated(repeats)
    assert big.hermiticity_residual()[0] < FLOAT64
    assert_same(big, slater_koster(big.atoms, r_cut=R_CUT, is_spinful=is_spinful))
    for k in ([0, 0, 0], K):
        folded = np.sort(np.concatenate([spectrum(op, q) for q in folded_k(k, repeats)]))
        assert np.abs(spectrum(big, k) - folded).max() < EIGENVALUE


def test_supercell_of_a_half() -> None:
    op = model(4, is_spinful=False)
    assert_same(op.half().repeated((2, 2, 1)).complete(), op.repeated((2, 2, 1)))


@pytest.mark.parametrize("code", ORBITAL_ORDERS)
@pytest.mark.parametrize("is_spinful", [False, True])
def test_orders_of_the_codes(code: str, is_spinful: bool) -> None:
    op = model(5, is_spinful=is_spinful)
    there = op.to_convention(code)
    assert np.array_equal(there.from_convention(code).values, op.values)
    assert np.array_equal(op.from_convention(code).to_convention(code).values, op.values)
    assert np.abs(spectrum(there) - spectrum(op)).max() < EIGENVALUE
    if code not in ("deeph", "common"):
        assert np.array_equal(there.values, op.values) == (
            ORBITAL_ORDERS[code] == ORBITAL_ORDERS["common"]
        )


def test_openmx_order_reads_as_named() -> None:
    op = model(6, is_spinful=False)  # C is (s, p, s), p: y z x; OpenMX: x y z
    n = int(np.flatnonzero(op.pairs.is_onsite)[0])
    assert op.atoms[0].symbol == "C"
    rng = np.random.default_rng(0)
    op.block(n)[:] = rng.normal(size=(5, 5))
    there = op.to_convention("openmx").block(n)
    assert there[1, 0] == op.block(n)[3, 0]  # x
    assert there[2, 4] == op.block(n)[1, 4]  # y
    assert there[3, 1] == op.block(n)[2, 3]  # z, x


@pytest.mark.parametrize(
    ("method", "argument", "message"),
    [
        ("permuted", [0, 1, 1], "not a permutation"),
        ("permuted", [0, 1], "not a permutation"),
        ("with_atoms_shifted", np.zeros((2, 3)), "shifts have shape"),
        ("with_lattice", 2 * np.eye(3), "determinant 1"),
        ("repeated", (0, 1, 1), "three positive integers"),
        ("rotated", np.ones((3, 3)), "not orthogonal"),
        ("rotated", np.stack([np.eye(3)] * 2), r"expected \(3, 3\)"),
    ],
)
def test_bad_arguments(method: str, argument: object, message: str) -> None:
    op = model(7, is_spinful=False)
    with pytest.raises(ShapeError, match=message):
        getattr(op, method)(argument)
