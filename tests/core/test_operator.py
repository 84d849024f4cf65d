"""Blocks, Hermitian halves and Bloch sums of operators against slow twins."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given
from hypothesis import strategies as st

from deeph_lightning.core import ragged
from deeph_lightning.core.basis import OrbitalBasis
from deeph_lightning.core.operator import Operator
from deeph_lightning.core.pairs import PairTable
from deeph_lightning.errors import (
    BasisMismatchError,
    ConfigError,
    DataError,
    HermiticityError,
    PhysicsError,
    ShapeError,
)
from tests.systems import BASIS, random_atoms, random_operator, slow_bloch, to_dict
from tests.tolerances import EIGENVALUE, FLOAT64

seeds = st.integers(0, 2**32 - 1)
K = (0.13, -0.29, 0.41)


def make(seed: int, *, is_spinful: bool = False, n_atom: int = 3) -> Operator:
    rng = np.random.default_rng(seed)
    return random_operator(rng, random_atoms(rng, n_atom), r_cut=4.0, is_spinful=is_spinful)


def other_half(op: Operator) -> Operator:
    """Keep the larger pair of each couple instead of the canonical one."""
    keep = ~op.pairs.is_canonical | op.pairs.is_onsite
    values = np.concatenate([op.block(n).ravel() for n in np.flatnonzero(keep)])
    return op.replace(pairs=op.pairs.select(keep), values=values, is_half=True)


@given(seeds, st.booleans())
def test_half_and_complete_lose_nothing(seed: int, is_spinful: bool) -> None:
    op = make(seed, is_spinful=is_spinful)
    half = op.half()
    assert half.is_half
    assert half.pairs.is_canonical.all()
    for candidate in (half, other_half(op), half.half(), other_half(op).half()):
        again = candidate.complete()
        assert not again.is_half
        assert again.pairs == op.pairs
        assert np.array_equal(again.values, op.values)


@given(seeds, st.booleans())
def test_bloch_sums(seed: int, is_spinful: bool) -> None:
    op = make(seed, is_spinful=is_spinful)
    expected = slow_bloch(op, K)
    assert np.abs(expected - expected.conj().T).max() < FLOAT64
    for candidate in (op, op.half(), other_half(op)):
        dense, sparse = candidate.bloch(K), candidate.bloch_csr(K)
        assert np.abs(dense - expected).max() < FLOAT64
        assert np.abs(sparse.toarray() - expected).max() < FLOAT64
        assert dense.dtype == sparse.dtype == np.complex128
        indices = sparse.indices.copy()
        sparse.sort_indices()
        assert np.array_equal(indices, sparse.indices)
        assert len(set(zip(sparse.tocoo().row, sparse.tocoo().col, strict=True))) == sparse.nnz


def test_collinear_operators_may_be_real() -> None:
    up, down = make(20), make(20)
    blocks = [
        np.kron(np.diag([1.0, 0.0]), up.block(n)) - np.kron(np.diag([0.0, 1.0]), down.block(n))
        for n in range(len(up.pairs))
    ]
    op = Operator.from_blocks(
        up.atoms, BASIS, up.pairs.R, up.pairs.i, up.pairs.j, blocks, is_spinful=True
    )
    assert op.values.dtype == np.float64
    both = np.concatenate([np.linalg.eigvalsh(s * up.bloch(K)) for s in (1, -1)])
    for candidate in (op, op.rotated(-np.eye(3)[[2, 0, 1]])):
        assert np.abs(np.linalg.eigvalsh(candidate.bloch(K)) - np.sort(both)).max() < EIGENVALUE


def test_bloch_of_a_non_hermitian_operator(rng: np.random.Generator) -> None:
    op = make(1)
    op = op.replace(values=rng.normal(size=op.values.size))
    assert np.abs(op.bloch(K) - slow_bloch(op, K)).max() < FLOAT64


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    op = make(2, is_spinful=True)
    whole = (op.half().complete().values, op.bloch(K), op.bloch_csr(K).toarray())
    monkeypatch.setattr(ragged, "CHUNK_ELEMENTS", 50)
    monkeypatch.setattr("deeph_lightning.core.bloch.CHUNK_ELEMENTS", 50)
    parts = (op.half().complete().values, op.bloch(K), op.bloch_csr(K).toarray())
    assert all(np.array_equal(a, b) for a, b in zip(whole, parts, strict=True))
    assert op.hermiticity_residual()[0] == 0.0


def test_one_orbital_chain() -> None:
    atoms = Atoms("H", cell=[1, 9, 9], pbc=True)
    op = Operator.from_blocks(
        atoms,
        OrbitalBasis({"H": (0,)}),
        [[1, 0, 0]],
        [0],
        [0],
        [np.array([[-1j]])],
        is_half=True,
    )
    # t e^{2 pi i k} + conj, with t = -i: 2 sin(2 pi k); the sign of the phase shows
    assert abs(op.bloch([0.25, 0, 0])[0, 0] - 2.0) < FLOAT64


@given(seeds)
def test_blocks_of_species(seed: int) -> None:
    op = make(seed)
    seen = np.zeros(len(op.pairs), dtype=int)
    for a in op.basis.labels:
        for b in op.basis.labels:
            index, blocks = op.blocks_of(a, b)
            assert np.all(np.diff(index) > 0)
            assert blocks.shape == (len(index), op.basis.n_orb(a), op.basis.n_orb(b))
            for n, block in zip(index, blocks, strict=True):
                assert np.array_equal(block, op.block(n))
            seen[index] += 1
    assert np.all(seen == 1)
    assert op.offsets[-1] == op.values.size
    assert np.array_equal(np.diff(op.offsets), op.block_shapes.prod(axis=1))


def test_block_is_a_view() -> None:
    op = make(3)
    op.block(4)[:] = 7.0
    assert np.all(op.values[op.offsets[4] : op.offsets[5]] == 7.0)


@given(seeds)
def test_order_of_input_does_not_matter(seed: int) -> None:
    op = make(seed)
    shuffle = np.random.default_rng(seed).permutation(len(op.pairs))
    flat = np.concatenate([op.block(n).ravel() for n in shuffle])
    shapes = op.block_shapes[shuffle]
    offsets = np.concatenate(([0], np.cumsum(shapes.prod(axis=1))))
    again = Operator.from_flat(
        op.atoms,
        op.basis,
        op.pairs.R[shuffle],
        op.pairs.i[shuffle],
        op.pairs.j[shuffle],
        flat,
        shapes=shapes,
        offsets=offsets,
    )
    assert again.pairs == op.pairs
    assert np.array_equal(again.values, op.values)


@given(seeds, st.booleans())
def test_on_other_pairs(seed: int, is_half: bool) -> None:
    op = make(seed)
    rng = np.random.default_rng(seed)
    kept = op.pairs.select(rng.random(len(op.pairs)) < 0.6)
    extra, _ = PairTable.from_arrays([[9, 0, 0], [-9, 0, 0]], [0, 2], [2, 0])
    wanted = kept.union(extra)
    result = (op.half() if is_half else op).on_pairs(wanted)
    blocks, known = to_dict(result), to_dict(op)
    assert result.is_half == wanted.is_half
    for key, block in blocks.items():
        assert np.array_equal(block, known.get(key, np.zeros_like(block)))


def test_half_on_pairs_of_the_other_orientation() -> None:
    op = make(4)
    swapped = other_half(op)
    assert np.array_equal(op.half().on_pairs(swapped.pairs).values, swapped.values)


def test_units() -> None:
    op = make(5)
    assert np.abs(op.scaled("meV").values - 1000 * op.values).max() < FLOAT64 * 1e4
    assert np.allclose(op.scaled("hartree").scaled("eV").values, op.values, rtol=FLOAT64)
    with pytest.raises(ConfigError, match="unit '1' is not an energy"):
        op.scaled("1")


@pytest.mark.parametrize("is_spinful", [False, True])
def test_padded_blocks(is_spinful: bool) -> None:
    op = make(6, is_spinful=is_spinful)
    padded, mask = op.padded_blocks()
    common = OrbitalBasis({label: op.basis.common_shells() for label in op.basis.labels})
    assert common.n_orb("C") * op.n_spin == padded.shape[1]
    assert mask.sum() == op.values.size
    assert not padded[~mask].any()
    for n in range(len(op.pairs)):
        # same sums of squares by (l, m, spin) of row and column: the embedding sorts by l
        i, j = (op.atoms[int(x)].symbol for x in (op.pairs.i[n], op.pairs.j[n]))
        rows, columns = op.basis.embedding(i), op.basis.embedding(j)
        width = common.n_orb("C")
        if is_spinful:
            rows = np.concatenate((rows, rows + width))
            columns = np.concatenate((columns, columns + width))
        assert np.array_equal(padded[n][np.ix_(rows, columns)], op.block(n))


# ---------------------------------------------------------------------- Hermiticity


@given(seeds, st.booleans(), st.floats(1e-6, 1.0))
def test_a_planted_defect_is_found(seed: int, is_spinful: bool, size: float) -> None:
    op = make(seed, is_spinful=is_spinful)
    assert op.hermiticity_residual()[0] == 0.0
    op.check_hermitian(0.0)
    rng = np.random.default_rng(seed)
    n = int(rng.integers(len(op.pairs)))
    block = op.block(n)
    if op.pairs.is_onsite[n]:
        block[0, 1] += size  # a diagonal element would stay Hermitian
    else:
        block[0, 0] += size
    value, worst = op.hermiticity_residual()
    assert abs(value - size) < FLOAT64
    assert worst in (n, op.pairs.partner[n])
    with pytest.raises(
        HermiticityError, match=r"structure 'mos2_7', pair R=\(.*tolerance 1e-07"
    ):
        op.check_hermitian(1e-7, "mos2_7")


def test_imaginary_onsite_diagonal_is_not_hermitian() -> None:
    op = make(7, is_spinful=True)
    n = int(np.argmax(op.pairs.is_onsite))
    op.block(n)[0, 0] += 0.5j
    assert op.hermiticity_residual() == (1.0, n)
    assert op.half().hermiticity_residual()[0] == 1.0


def test_missing_partner() -> None:
    op = make(8)
    n = int(np.argmax(~op.pairs.is_onsite))
    keep = np.arange(len(op.pairs)) != n
    values = np.concatenate([op.block(m).ravel() for m in np.flatnonzero(keep)])
    cut = op.replace(pairs=op.pairs.select(keep), values=values)
    partner = (
        op.pairs.describe(int(op.pairs.partner[n])).replace("(", r"\(").replace(")", r"\)")
    )
    for call in (lambda: cut.check_hermitian(1e-3), cut.half):
        with pytest.raises(HermiticityError, match=f"'toy', pair {partner} has no Hermitian"):
            call()
    value, worst = cut.hermiticity_residual()
    assert value == np.abs(op.block(n)).max()
    assert cut.pairs.describe(worst) == op.pairs.describe(int(op.pairs.partner[n]))


def test_half_with_both_of_a_couple_is_refused() -> None:
    op = make(9)
    with pytest.raises(DataError, match="Hermitian half, but pair"):
        op.replace(is_half=True)


# ---------------------------------------------------------------------- bad input


def test_not_finite_names_the_pair() -> None:
    op = make(10)
    values = op.values.copy()
    values[op.offsets[5] + 1] = np.nan
    where = op.pairs.describe(5).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(PhysicsError, match=f"structure 'toy', pair {where}: .*nan"):
        op.replace(values=values)


def test_wrong_shape_names_pair_and_shapes() -> None:
    op = make(11)
    n = int(np.flatnonzero(op.block_shapes[:, 0] != op.block_shapes[:, 1])[0])
    shapes = op.block_shapes.copy()
    shapes[n] = shapes[n, ::-1]
    pairs, found = op.pairs, shapes[n].tolist()
    where = pairs.describe(n).replace("(", r"\(").replace(")", r"\)")
    text = rf"pair {where}: the block has shape \[{found[0]}, {found[1]}\], but the orbital map"
    with pytest.raises(ShapeError, match=text):
        Operator.from_flat(
            op.atoms, op.basis, pairs.R, pairs.i, pairs.j, op.values, shapes=shapes
        )
    offsets = op.offsets.copy()
    offsets[-1] += 1
    with pytest.raises(ShapeError, match="the block has offsets"):
        Operator.from_flat(
            op.atoms, op.basis, pairs.R, pairs.i, pairs.j, op.values, offsets=offsets
        )


def test_truncated_values() -> None:
    op = make(12)
    pairs = op.pairs
    with pytest.raises(ShapeError, match=r"'toy'.*truncated"):
        Operator.from_flat(op.atoms, BASIS, pairs.R, pairs.i, pairs.j, op.values[:-1])
    with pytest.raises(ShapeError, match="is_spinful=True"):
        Operator(op.atoms, BASIS, pairs, op.values, is_spinful=True)


def test_atoms_and_species_must_exist() -> None:
    op = make(13)
    with pytest.raises(DataError, match=r"i=0 j=3: the structure has 3 atoms"):
        Operator.from_flat(op.atoms, BASIS, [[0, 0, 0]], [0], [3], np.zeros(25))
    with pytest.raises(DataError, match="comes twice"):
        Operator.from_flat(op.atoms, BASIS, [[0, 0, 0]] * 2, [0, 0], [0, 0], np.zeros(50))
    with pytest.raises(BasisMismatchError, match="'B' is not in the orbital basis"):
        Operator(op.atoms, OrbitalBasis({"C": (0, 1, 0)}), op.pairs, op.values)


@pytest.mark.parametrize("k", [[0, 0], [[0, 0, 0]], [0, 0, np.nan]])
def test_bad_k(k: list[object]) -> None:
    for call in (make(14).bloch, make(14).bloch_csr):
        with pytest.raises(ShapeError, match="k-point"):
            call(k)


def test_dtypes() -> None:
    op = make(15)
    assert op.replace(values=op.values.astype(np.float32)).values.dtype == np.float64
    assert op.replace(values=op.values.astype(np.complex64)).values.dtype == np.complex128


def test_empty_operator() -> None:
    atoms = Atoms("CB", positions=[[0, 0, 0], [2, 0, 0]], cell=[5, 5, 5], pbc=True)
    empty = Operator(atoms, BASIS, PairTable(np.zeros((0, 3)), [], []), [])
    assert empty.hermiticity_residual() == (0.0, -1)
    assert not empty.bloch(K).any()
    assert empty.bloch_csr(K).nnz == 0
    assert len(empty.half().complete().pairs) == 0
    assert len(empty.repeated((2, 1, 1)).pairs) == 0
