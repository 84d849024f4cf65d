"""Bloch sums of real-space operators, dense and sparse."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from deeph_lightning.core.ragged import CHUNK_ELEMENTS, IntArray, Values, take_blocks
from deeph_lightning.errors import ShapeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deeph_lightning.core.operator import Operator

ComplexArray = NDArray[np.complex128]

#: Phases so near to half turns are taken for +1 and -1.
HALF_TURN = 1e-12


def bloch_dense(op: Operator, k: ArrayLike) -> ComplexArray:
    r"""Sum the real-space blocks at one k-point.

    .. math:: O_{\mu\nu}(k) = \sum_R e^{2\pi i\,k\cdot R}\, O_{\mu\nu}(R),
              \qquad O_{\mu\nu}(R) = \langle \mu, 0 | O | \nu, R \rangle .

    Parameters
    ----------
    op
        Full or half; the partners of a half are added.
    k
        ``(3,)``, fractional coordinates of the reciprocal cell, without 2 pi.

    Returns
    -------
    ``(n_orb, n_orb)``, complex128, in the unit of `op`; if spinful, all up orbitals come first.

    Raises
    ------
    ShapeError
        `k` is not one vector of three finite numbers.
    """
    n = int(op.orbital_offsets[-1])
    matrix = np.zeros((op.n_orb, op.n_orb), dtype=np.complex128)
    for couple_i, couple_j, blocks in summed_blocks(op, k):
        rows = _orbitals(op, couple_i, blocks.shape[1], n)
        columns = _orbitals(op, couple_j, blocks.shape[2], n)
        matrix[rows[:, :, None], columns[:, None, :]] = blocks
    return matrix + matrix.conj().T if op.is_half else matrix


def bloch_csr(op: Operator, k: ArrayLike) -> sparse.csr_array:
    """Sum the real-space blocks at one k-point as a sparse matrix.

    Parameters
    ----------
    op, k
        As of `bloch_dense`.

    Returns
    -------
    csr_array, ``(n_orb, n_orb)``, complex128, indices sorted, the same numbers as
    `bloch_dense`.

    Raises
    ------
    ShapeError
        `k` is not one vector of three finite numbers.

    Notes
    -----
    O(nnz): each couple of atoms has one dense block, whose place follows from the pair table.
    """
    n, n_spin = int(op.orbital_offsets[-1]), op.n_spin
    counts = np.diff(op.orbital_offsets)
    first = _first_of_couple(op.pairs.i, op.pairs.j)
    couple_i, couple_j = op.pairs.i[first], op.pairs.j[first]
    width = np.zeros(len(counts), dtype=np.int64)  # of the rows of each atom, one spin
    np.add.at(width, couple_i, counts[couple_j])
    ends = np.cumsum(counts[couple_j])
    before = np.concatenate(([0], np.cumsum(width)))[couple_i]
    column_start = ends - counts[couple_j] - before  # of each couple inside its rows
    row_length = np.tile(np.repeat(width * n_spin, counts), n_spin)
    row_start = np.concatenate(([0], np.cumsum(row_length)))
    nnz = int(row_start[-1])
    index_dtype = np.int32 if max(nnz, op.n_orb) < 2**31 else np.int64
    data = np.empty(nnz, dtype=np.complex128)
    indices = np.empty(nnz, dtype=index_dtype)
    couple_code = couple_i * len(counts) + couple_j
    for i, j, blocks in summed_blocks(op, k):
        start = column_start[np.searchsorted(couple_code, i * len(counts) + j)]
        columns = _orbitals(op, j, blocks.shape[2], n)  # (m, n_spin * n_j)
        size_j = blocks.shape[2] // n_spin
        shift = np.arange(blocks.shape[2]) % size_j + start[:, None]
        shift += (np.arange(blocks.shape[2]) // size_j) * width[i][:, None]
        rows = _orbitals(op, i, blocks.shape[1], n)
        place = row_start[rows][:, :, None] + shift[:, None, :]
        data[place] = blocks
        indices[place] = columns[:, None, :]
    matrix = sparse.csr_array(
        (data, indices, row_start.astype(index_dtype)), shape=(op.n_orb, op.n_orb)
    )
    matrix.has_sorted_indices = True
    if op.is_half:
        matrix = sparse.csr_array(matrix + matrix.conj().T)
        matrix.sort_indices()
    return matrix


def _phases(op: Operator, k: ArrayLike) -> Values:
    """Return exp(2 pi i k.R) of every pair, real where all are; onsite ones of a half: 1/2."""
    vector = np.asarray(k, dtype=np.float64)
    if vector.shape != (3,) or not np.isfinite(vector).all():
        raise ShapeError(f"k-point is {vector.tolist()}, expected three finite numbers")
    turns = op.pairs.R @ vector
    halves = np.rint(2 * turns)
    phases: Values = np.exp(2j * np.pi * turns)
    if np.abs(2 * turns - halves).max(initial=0.0) < HALF_TURN:
        phases = 1.0 - 2.0 * (halves % 2)
    if op.is_half:
        phases[op.pairs.is_onsite] *= 0.5
    return phases


def _first_of_couple(i: IntArray, j: IntArray) -> IntArray:
    """Return where a new couple (i, j) begins in sorted pairs."""
    if not len(i):
        return np.zeros(0, dtype=np.int64)
    is_new = np.concatenate(([True], (np.diff(i) != 0) | (np.diff(j) != 0)))
    return np.flatnonzero(is_new)


def _orbitals(op: Operator, atoms: IntArray, size: int, n: int) -> IntArray:
    """Return the rows of O(k) that belong to atoms of one species, ``(m, size)``."""
    count = size // op.n_spin
    local = np.arange(size)
    rows: IntArray = op.orbital_offsets[atoms][:, None] + local % count + n * (local // count)
    return rows


def summed_blocks(
    op: Operator, k: ArrayLike, *, upper: bool = False
) -> Iterator[tuple[IntArray, IntArray, Values]]:
    """Sum blocks over R in chunks of couples of atoms.

    Parameters
    ----------
    op, k
        As of `bloch_dense`; partners of a half are not added.
    upper
        Couples with ``i <= j`` only.

    Yields
    ------
    i, j, blocks
        ``(m,)``, ``(m,)``, ``(m, n_i, n_j)`` of distinct couples; real where the phases of all
        pairs and the values are.
    """
    phases = _phases(op, k)
    for a, b, pairs_of_species in op.groups:
        index = pairs_of_species
        if upper:
            index = index[op.pairs.i[index] <= op.pairs.j[index]]
        shape = op.shape_of(a, b)
        first = _first_of_couple(op.pairs.i[index], op.pairs.j[index])
        last = np.append(first[1:], len(index))
        limit = max(1, CHUNK_ELEMENTS // (shape[0] * shape[1]))
        start = 0
        while start < len(first):  # whole couples, about `limit` pairs
            stop = int(np.searchsorted(last, first[start] + limit, side="right"))
            stop = max(stop, start + 1)
            which = index[first[start] : last[stop - 1]]
            blocks = take_blocks(op.values, op.offsets[which], shape)
            weighted = blocks * phases[which][:, None, None]
            if len(which) > stop - start:
                weighted = np.add.reduceat(weighted, first[start:stop] - first[start], axis=0)
            heads = index[first[start:stop]]
            yield op.pairs.i[heads], op.pairs.j[heads], weighted
            start = stop
