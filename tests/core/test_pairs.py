"""Pair tables against dictionaries, and neighbour search against brute force."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given
from hypothesis import strategies as st

from deeph_lightning.core.pairs import PairTable, neighbour_pairs
from deeph_lightning.errors import ConfigError, DataError, ShapeError
from tests.systems import random_atoms
from tests.tolerances import FLOAT64

seeds = st.integers(0, 2**32 - 1)
#: Largest atom number and lattice index: small, as in files, and beyond 64-bit products.
ranges = st.sampled_from([(2, 1), (5, 2), (10**6, 20), (2**40, 2**40)])


def random_table(seed: int, limits: tuple[int, int], n: int = 60) -> PairTable:
    rng = np.random.default_rng(seed)
    n_atom, R_max = limits
    rows = np.column_stack(
        (rng.integers(0, n_atom, (n, 2)), rng.integers(-R_max, R_max + 1, (n, 3)))
    )
    rows[: n // 3, 2:] = 0
    rows[: n // 6, 1] = rows[: n // 6, 0]
    partners = np.column_stack((rows[::2, 1], rows[::2, 0], -rows[::2, 2:]))
    rows = rng.permutation(np.unique(np.concatenate((rows, partners)), axis=0))
    return PairTable.from_arrays(rows[:, 2:], rows[:, 0], rows[:, 1])[0]


@given(seeds, ranges)
def test_from_arrays_sorts(seed: int, limits: tuple[int, int]) -> None:
    table = random_table(seed, limits)
    rows = table.rows
    shuffle = np.random.default_rng(seed).permutation(len(rows))
    again, order = PairTable.from_arrays(rows[shuffle, 2:], rows[shuffle, 0], rows[shuffle, 1])
    assert [tuple(row) for row in rows] == sorted(tuple(row) for row in rows)
    assert again == table
    assert np.array_equal(rows[shuffle][order], rows)


@given(seeds, ranges)
def test_partner_and_canonical(seed: int, limits: tuple[int, int]) -> None:
    table = random_table(seed, limits)
    keys = [(i, j, *R) for i, j, *R in table.rows.tolist()]
    mirrors = [(j, i, *(-x for x in R)) for i, j, *R in keys]
    position = {key: n for n, key in enumerate(keys)}
    assert table.partner.tolist() == [position.get(mirror, -1) for mirror in mirrors]
    assert table.is_onsite.tolist() == [a == b for a, b in zip(keys, mirrors, strict=True)]
    assert table.is_canonical.tolist() == [a <= b for a, b in zip(keys, mirrors, strict=True)]
    half = table.select(table.is_canonical)
    assert half.is_half
    assert table.is_half == (
        set(keys) & set(mirrors) <= {k for k, m in zip(keys, mirrors, strict=True) if k == m}
    )


@given(seeds, seeds, ranges)
def test_locate_and_union(first: int, second: int, limits: tuple[int, int]) -> None:
    a, b = random_table(first, limits), random_table(second, limits)
    b = b.union(a.select(np.arange(0, len(a), 3)))
    position = {tuple(row): n for n, row in enumerate(a.rows.tolist())}
    assert a.locate(b).tolist() == [position.get(tuple(row), -1) for row in b.rows.tolist()]
    both = {tuple(row) for row in [*a.rows.tolist(), *b.rows.tolist()]}
    assert [tuple(row) for row in a.union(b).rows.tolist()] == sorted(both)


def test_rows_of_any_order_are_located() -> None:
    table, _ = PairTable.from_arrays([[0, 0, 0], [1, 0, 0], [0, 0, -2]], [0, 1, 1], [0, 0, 1])
    rows = [[1, 0, 0], [0, 1, 0], [0, 0, 0]], [1, 0, 0], [0, 0, 0]
    np.testing.assert_array_equal(table.locate_rows(*rows), [1, -1, 0])


def test_tables_are_immutable_and_copy_their_input() -> None:
    R = np.zeros((1, 3), dtype=np.int64)
    table = PairTable(R, [0], [1])
    R[0, 0] = 7
    assert table.R[0, 0] == 0
    with pytest.raises(ValueError, match="read-only"):
        table.R[0, 0] = 1


def test_empty_table() -> None:
    empty, order = PairTable.from_arrays(np.zeros((0, 3)), [], [])
    assert len(empty) == len(order) == len(empty.partner) == 0
    assert empty.union(PairTable([[0, 0, 0]], [0], [0])).is_onsite.all()
    assert empty.locate(PairTable([[0, 0, 0]], [0], [0])).tolist() == [-1]


def test_bad_tables() -> None:
    with pytest.raises(DataError, match=r"R=\(0, 0, -1\) i=0 j=1 comes twice, at positions 0"):
        PairTable.from_arrays([[0, 0, -1], [0, 0, -1]], [0, 0], [1, 1])
    with pytest.raises(DataError, match="sorted"):
        PairTable([[0, 0, 0], [0, 0, -1]], [0, 0], [1, 1])
    with pytest.raises(DataError, match="not integers"):
        PairTable([[0, 0, 0.5]], [0], [1])
    with pytest.raises(DataError, match="not integers"):
        PairTable([[0, 0, np.nan]], [0], [1])
    with pytest.raises(ShapeError):
        PairTable([[0, 0, 0]], [0, 1], [1, 2])
    with pytest.raises(ShapeError):
        PairTable.from_arrays([[0, 0, 0]], [0, 1], [1, 2])


def slow_neighbours(atoms: Atoms, r_cut: float) -> set[tuple[int, ...]]:
    """Try all cells up to +-4."""
    reach = [range(-4, 5) if periodic else (0,) for periodic in atoms.pbc]
    found = set()
    for i, j in product(range(len(atoms)), repeat=2):
        for R in product(*reach):
            r = atoms.positions[j] + np.array(R) @ atoms.cell.array - atoms.positions[i]
            if (i != j or any(R)) and np.linalg.norm(r) <= r_cut:
                found.add((i, j, *R))
    return found


@given(seeds, st.tuples(st.booleans(), st.booleans(), st.booleans()), st.floats(1.0, 6.0))
def test_neighbours_against_brute_force(
    seed: int, pbc: tuple[bool, bool, bool], r_cut: float
) -> None:
    atoms = random_atoms(np.random.default_rng(seed), pbc=pbc)
    table = neighbour_pairs(atoms, r_cut)
    assert {tuple(row) for row in table.rows.tolist()} == slow_neighbours(atoms, r_cut)
    assert np.all(table.distances(atoms) <= r_cut + FLOAT64 * 1e3)
    assert not table.is_onsite.any()
    assert np.all(table.partner >= 0)


def test_molecule_without_a_cell() -> None:
    atoms = Atoms("CH2", positions=[[0, 0, 0], [1, 0, 0], [0, 3, 0]])
    assert neighbour_pairs(atoms, 2.0).rows.tolist() == [[0, 1, 0, 0, 0], [1, 0, 0, 0, 0]]


def test_measured_distance_is_a_cutoff_that_keeps_its_pair(rng: np.random.Generator) -> None:
    for _ in range(20):
        atoms = random_atoms(rng)
        distances = neighbour_pairs(atoms, 5.0).distances(atoms)
        assert neighbour_pairs(atoms, distances.max()).distances(atoms).max() == distances.max()


def test_cutoffs_by_species(rng: np.random.Generator) -> None:
    atoms = random_atoms(rng)
    cutoffs = {("C", "C"): 4.0, ("B", "C"): 3.0, ("B", "B"): 4.5}
    symbols = atoms.get_chemical_symbols()
    within = {r_cut: slow_neighbours(atoms, r_cut) for r_cut in cutoffs.values()}
    expected = {
        pair
        for pair in within[4.5]
        if pair
        in within[cutoffs[min(symbols[n] for n in pair[:2]), max(symbols[n] for n in pair[:2])]]
    }
    found = neighbour_pairs(atoms, cutoffs)
    assert {tuple(row) for row in found.rows.tolist()} == expected
    with pytest.raises(ConfigError, match="pair B-B is None"):
        neighbour_pairs(atoms, {("C", "C"): 4.0, ("B", "C"): 3.0})
    with pytest.raises(ConfigError, match="is -1"):
        neighbour_pairs(atoms, -1.0)


def test_vectors_point_from_i_to_j() -> None:
    atoms = Atoms("C2", positions=[[0, 0, 0], [1, 0, 0]], cell=[10, 20, 30], pbc=True)
    table = PairTable([[0, 1, -1]], [0], [1])
    assert table.vectors(atoms).tolist() == [[1.0, 20.0, -30.0]]
