"""H(k) and S(k) as sparse matrices on one pattern, the same at every k-point.

Only upper triangles are kept: they are what factorisations read, and half of the memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from deeph_lightning.core.bloch import summed_blocks
from deeph_lightning.core.ragged import chunks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray

    from deeph_lightning.core.operator import Operator


@dataclass(frozen=True)
class Hermitian:
    """A sparse Hermitian matrix.

    Attributes
    ----------
    upper
        csr array, the upper triangle with the diagonal, which comes first in each row.
    """

    upper: Any

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        n, m = self.upper.shape
        return n, m

    @property
    def dtype(self) -> np.dtype[Any]:
        """float64 or complex128."""
        return np.dtype(self.upper.dtype)

    @property
    def is_complex(self) -> bool:
        """Whether it has an imaginary part."""
        return self.dtype.kind == "c"

    @property
    def diagonal(self) -> NDArray[np.float64]:
        """``(n,)``."""
        return np.asarray(self.upper.data[self.upper.indptr[:-1]].real)

    def __matmul__(self, x: NDArray[Any]) -> NDArray[Any]:
        """Multiply with vectors, ``(n,)`` or ``(n, m)``."""
        below = (self.upper.T @ x.conj()).conj()
        scale = self.diagonal if x.ndim == 1 else self.diagonal[:, None]
        return np.asarray(self.upper @ x + below - scale * x)

    def full(self) -> Any:
        """Return both triangles, a csr array with sorted indices."""
        above = sparse.triu(self.upper, 1, format="csr")
        matrix = sparse.csr_array(self.upper + above.conj().T)
        matrix.sort_indices()
        return matrix

    def with_values(self, values: NDArray[Any]) -> Hermitian:
        """Return another matrix of the same pattern."""
        matrix = sparse.csr_array(
            (values, self.upper.indices, self.upper.indptr), shape=self.shape
        )
        matrix.has_sorted_indices = True
        return Hermitian(matrix)

    def block_graph(self, row_block: NDArray[np.int64]) -> Any:
        """Return the graph of blocks of rows: a csr array, upper, diagonally dominant."""
        indptr, indices = self.upper.indptr, self.upper.indices
        n = int(row_block[-1]) + 1
        first = np.searchsorted(row_block, np.arange(n))  # of the rows of each block
        starts, lengths = indptr[first], indptr[first + 1] - indptr[first]
        before = np.repeat(starts - np.cumsum(lengths) + lengths, lengths)
        at = before + np.arange(len(before))
        rows, columns = np.repeat(np.arange(n), lengths), row_block[indices[at]]
        codes = np.unique(rows * n + columns)
        rows, columns = np.divmod(codes, n)
        values = np.where(rows == columns, 2.0 * n, -1.0)
        graph = sparse.csr_array((values, (rows, columns)), shape=(n, n))
        graph.sort_indices()
        return graph


@dataclass(frozen=True)
class PencilAtK:
    """The two matrices at one k-point, real where both are.

    Attributes
    ----------
    H, S
        Their ``indices`` and ``indptr`` are shared; eV, and without unit.
    """

    H: Hermitian
    S: Hermitian

    def shifted(self, energy: float) -> Hermitian:
        """Return H - energy S on the same pattern, eV."""
        return self.H.with_values(self.H.upper.data - energy * self.S.upper.data)


class Pencil:
    """H - E S of one spin channel.

    Rows are in the order of the atoms; in a spinful pencil spin comes inside each atom, so that
    atoms are dense blocks (`to_orbitals` turns states back).

    Parameters
    ----------
    H
        Hamiltonian, both Hermitian halves present.
    S
        Overlap, spinless, or None where the basis is orthonormal.

    Attributes
    ----------
    row_block
        ``(n_orb,)``, atom of each row: rows of one atom have the same pattern.
    """

    def __init__(self, H: Operator, S: Operator | None) -> None:
        self.H, self.S = H, S
        self.name = H.name
        self._size = np.diff(H.orbital_offsets) * H.n_spin  # rows of each atom
        self._first_row = np.concatenate(([0], np.cumsum(self._size)))
        self.row_block: NDArray[np.int64] = np.repeat(np.arange(len(self._size)), self._size)

    @property
    def n_orb(self) -> int:
        """Dimension of the matrices."""
        return self.H.n_orb

    @cached_property
    def orbital(self) -> NDArray[np.int64]:
        """``(n_orb,)``, orbital of each row in the order of `Operator.bloch`."""
        n, n_spin = int(self.H.orbital_offsets[-1]), self.H.n_spin
        local = np.arange(self.n_orb) - self._first_row[self.row_block]
        count = self._size[self.row_block] // n_spin
        offset = self.H.orbital_offsets[self.row_block]
        return np.asarray(offset + local % count + n * (local // count))

    def to_orbitals(self, vectors: NDArray[Any]) -> NDArray[Any]:
        """Put the rows of ``(n_orb, ...)`` into the order of `Operator.bloch`."""
        if not self.H.is_spinful:
            return vectors
        result = np.empty_like(vectors)
        result[self.orbital] = vectors
        return result

    def at(self, k: ArrayLike) -> PencilAtK:
        """Sum over R at one k-point, ``(3,)``, fractional."""
        H, S = self._values(self.H, k), self._values(self.S, k)
        if np.iscomplexobj(H) or np.iscomplexobj(S):
            H, S = H.astype(np.complex128, copy=False), S.astype(np.complex128, copy=False)
        return PencilAtK(self._pattern.with_values(H), self._pattern.with_values(S))

    # ------------------------------------------------------------------ the common pattern

    @cached_property
    def _couples(self) -> NDArray[np.int64]:
        """Codes ``i * n_atom + j``, ``i <= j``, of couples of atoms with a block; sorted."""
        n_atom = len(self._size)
        codes = [np.arange(n_atom) * (n_atom + 1)]
        for op in (self.H, self.S):
            if op is not None:
                keep = op.pairs.i <= op.pairs.j
                codes.append(op.pairs.i[keep] * n_atom + op.pairs.j[keep])
        return np.unique(np.concatenate(codes))

    @cached_property
    def _column_start(self) -> NDArray[np.int64]:
        """Where the block of each couple begins in the first row of its first atom."""
        i, j = np.divmod(self._couples, len(self._size))
        ends = np.cumsum(self._size[j])
        width = np.zeros(len(self._size), dtype=np.int64)
        np.add.at(width, i, self._size[j])
        return np.asarray(ends - self._size[j] - (np.cumsum(width) - width)[i])

    @cached_property
    def _row_start(self) -> NDArray[np.int64]:
        """``(n_orb + 1,)``; a row begins with its diagonal."""
        i, j = np.divmod(self._couples, len(self._size))
        width = np.zeros(len(self._size), dtype=np.int64)
        np.add.at(width, i, self._size[j])
        local = np.arange(self.n_orb) - self._first_row[self.row_block]
        return np.concatenate(([0], np.cumsum(width[self.row_block] - local)))

    @cached_property
    def _pattern(self) -> Hermitian:
        """Matrix of zeros that stand for any values."""
        nnz = int(self._row_start[-1])
        index_dtype = np.int32 if max(nnz, self.n_orb) < 2**31 else np.int64
        indices = np.empty(nnz, dtype=index_dtype)
        i, j = np.divmod(self._couples, len(self._size))
        for n_i in np.unique(self._size).tolist():
            for n_j in np.unique(self._size).tolist():
                index = np.flatnonzero((self._size[i] == n_i) & (self._size[j] == n_j))
                for part in chunks(len(index), n_i * n_j):
                    which = index[part]
                    columns = self._first_row[j[which]][:, None] + np.arange(n_j)
                    blocks = np.broadcast_to(columns[:, None, :], (len(which), n_i, n_j))
                    self._put(indices, i[which], j[which], blocks)
        row_start = self._row_start.astype(index_dtype)
        zeros = np.broadcast_to(0.0, nnz)
        matrix = sparse.csr_array((zeros, indices, row_start), shape=2 * (self.n_orb,))
        return Hermitian(matrix)

    def _put(
        self, values: NDArray[Any], i: NDArray[np.int64], j: NDArray[np.int64], blocks: Any
    ) -> None:
        """Write blocks ``(m, n_i, n_j)`` of couples to their places."""
        couple = np.searchsorted(self._couples, i * len(self._size) + j)
        a, b = np.arange(blocks.shape[1]), np.arange(blocks.shape[2])
        row = self._row_start[self._first_row[i][:, None] + a]  # the diagonal's: a columns on
        place = (row + self._column_start[couple][:, None] - a)[:, :, None] + b
        is_diagonal = i == j
        values[place[~is_diagonal]] = blocks[~is_diagonal]
        if is_diagonal.any():
            above = np.triu(np.ones((len(a), len(b)), dtype=np.bool_))
            values[place[is_diagonal][:, above]] = blocks[is_diagonal][:, above]

    def _values(self, op: Operator | None, k: ArrayLike) -> NDArray[Any]:
        """Return the values of O(k) on the pattern, real if they are."""
        if op is None:
            identity = np.zeros(int(self._row_start[-1]))
            identity[self._row_start[:-1]] = 1.0
            return identity
        values: NDArray[Any] = np.zeros(0)
        for i, j, blocks in self._blocks(op, k):
            if not len(values):
                values = np.zeros(int(self._row_start[-1]), dtype=blocks.dtype)
            self._put(values, i, j, blocks)
        return values if np.any(values.imag) else np.ascontiguousarray(values.real)

    def _blocks(self, op: Operator, k: ArrayLike) -> Iterator[tuple[Any, Any, Any]]:
        """Yield blocks of the upper triangle, those of a spinless S for both spins."""
        for i, j, blocks in summed_blocks(op, k, upper=True):
            if op.n_spin == self.H.n_spin:
                yield i, j, blocks
            else:
                yield i, j, np.kron(np.eye(self.H.n_spin), blocks)
