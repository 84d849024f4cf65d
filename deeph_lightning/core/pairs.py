"""Pairs of atoms: which atoms, which cell, in which order.

A pair (R, i, j) is atom i of cell 0 and atom j of cell R (`conventions`). Tables are sorted by
(i, j, R1, R2, R3), so that the pairs of one couple of atoms are neighbours in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deeph_lightning.core.basis import species_labels
from deeph_lightning.errors import ConfigError, DataError, ShapeError

if TYPE_CHECKING:
    from ase import Atoms

IntArray = NDArray[np.int64]


def _encode(rows: IntArray) -> IntArray:
    """Map integer rows ``(n, c)`` to integers ``(n,)`` of the same order; never overflows."""
    codes = np.zeros(len(rows), dtype=np.int64)
    if not len(rows):
        return codes
    n_code = 1
    for column in rows.T:
        low, high = int(column.min()), int(column.max())
        span = high - low + 1
        if n_code * span >= 2**62:  # only ranks are needed: at most n of them each
            low, (values, column) = 0, np.unique(column, return_inverse=True)
            span = len(values)
            values, codes = np.unique(codes, return_inverse=True)
            n_code = len(values)
        codes = codes * span + (column - low)
        n_code *= span
    return codes


def whole_numbers(values: ArrayLike, name: str) -> IntArray:
    """Copy to int64; raise `DataError` where a value is not whole."""
    array = np.asarray(values)
    with np.errstate(invalid="ignore"):
        whole = np.array(array, dtype=np.int64)
    if array.size and not np.issubdtype(array.dtype, np.integer) and np.any(whole != array):
        raise DataError(
            f"{name} has values that are not integers: {array.ravel()[:6].tolist()}"
        )
    return whole


class PairTable:
    """Immutable table of pairs, unique and sorted by (i, j, R1, R2, R3).

    Parameters
    ----------
    R
        ``(n, 3)`` integers, cell of atom j relative to that of atom i.
    i, j
        ``(n,)`` integers, atoms from 0.

    Raises
    ------
    ShapeError
        The arrays do not fit together.
    DataError
        The pairs are not sorted or not unique (use `from_arrays`), or not integers.
    """

    def __init__(self, R: ArrayLike, i: ArrayLike, j: ArrayLike) -> None:
        self.R: IntArray = whole_numbers(R, "R of the pairs")
        if self.R.size == 0:
            self.R = self.R.reshape(0, 3)
        self.i: IntArray = whole_numbers(i, "i of the pairs")
        self.j: IntArray = whole_numbers(j, "j of the pairs")
        n = self.i.size
        if self.R.shape != (n, 3) or self.i.shape != (n,) or self.j.shape != (n,):
            msg = (
                f"pairs have R of shape {self.R.shape}, i {self.i.shape}, j {self.j.shape}; "
                f"expected (n, 3), (n,), (n,)"
            )
            raise ShapeError(msg)
        for array in (self.R, self.i, self.j):
            array.setflags(write=False)
        is_wrong = np.diff(_encode(self.rows)) <= 0
        if is_wrong.any():
            n = int(np.argmax(is_wrong)) + 1
            msg = (
                f"pair {n} ({self.describe(n)}) repeats the one before it or is out of order; "
                f"expected unique pairs sorted by (i, j, R). Build with PairTable.from_arrays."
            )
            raise DataError(msg)

    @classmethod
    def from_arrays(
        cls, R: ArrayLike, i: ArrayLike, j: ArrayLike
    ) -> tuple[PairTable, IntArray]:
        """Sort pairs of any order.

        Returns
        -------
        table, order
            Pair n of the table is pair ``order[n]`` of the arguments.

        Raises
        ------
        DataError
            A pair comes twice.
        """
        R, i, j = (
            whole_numbers(R, "R of the pairs").reshape(-1, 3),
            whole_numbers(i, "i of the pairs"),
            whole_numbers(j, "j of the pairs"),
        )
        if not len(R) == len(i) == len(j):
            msg = f"pairs have {len(R)} R, {len(i)} i and {len(j)} j; expected as many of each"
            raise ShapeError(msg)
        codes = _encode(np.column_stack((i, j, R)))
        order = np.argsort(codes, kind="stable")
        is_double = np.diff(codes[order]) == 0
        if is_double.any():
            first, second = order[np.argmax(is_double)], order[np.argmax(is_double) + 1]
            msg = (
                f"pair {_describe(R[first], i[first], j[first])} comes twice, at positions "
                f"{first} and {second}. Each pair may have one block only."
            )
            raise DataError(msg)
        return cls(R[order], i[order], j[order]), order

    @property
    def rows(self) -> IntArray:
        """The pairs as rows (i, j, R1, R2, R3), ``(n, 5)``, in whose order they are sorted."""
        return np.column_stack((self.i, self.j, self.R))

    @property
    def reversed_rows(self) -> IntArray:
        """The Hermitian partner (j, i, -R) of every pair, ``(n, 5)``."""
        return np.column_stack((self.j, self.i, -self.R))

    def __len__(self) -> int:
        return len(self.i)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PairTable):
            return NotImplemented
        return self is other or (
            len(self) == len(other)
            and np.array_equal(self.i, other.i)
            and np.array_equal(self.j, other.j)
            and np.array_equal(self.R, other.R)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"PairTable({len(self)} pairs, {int(self.is_onsite.sum())} onsite)"

    def groups(self, atoms: Atoms) -> list[tuple[str, str, IntArray]]:
        """Split by species: ``(label_i, label_j, increasing index (k,))``, none empty."""
        labels, species = np.unique(species_labels(atoms), return_inverse=True)
        codes = species[self.i] * len(labels) + species[self.j]
        parts = []
        for code in np.unique(codes).tolist():
            a, b = divmod(code, len(labels))
            parts.append((str(labels[a]), str(labels[b]), np.flatnonzero(codes == code)))
        return parts

    def describe(self, n: int) -> str:
        """Write pair n as in messages."""
        return _describe(self.R[n], self.i[n], self.j[n])

    @cached_property
    def partner(self) -> IntArray:
        """Index of the pair (j, i, -R) of every pair, or -1; ``(n,)``."""
        codes = _encode(np.concatenate((self.rows, self.reversed_rows)))
        index = _search(codes[: len(self)], codes[len(self) :])
        index.setflags(write=False)
        return index

    @property
    def is_onsite(self) -> NDArray[np.bool_]:
        """Pairs of an atom with itself, R = 0; ``(n,)``."""
        return np.asarray((self.i == self.j) & ~self.R.any(axis=1))

    @property
    def is_canonical(self) -> NDArray[np.bool_]:
        """Pairs not larger than their partner, by (i, j, R); onsite pairs too; ``(n,)``."""
        R1, R2, R3 = self.R.T
        is_low = (R1 < 0) | ((R1 == 0) & ((R2 < 0) | ((R2 == 0) & (R3 <= 0))))
        return np.asarray((self.i < self.j) | ((self.i == self.j) & is_low))

    @property
    def is_half(self) -> bool:
        """Whether no pair but the onsite ones has its partner in the table."""
        return not np.any((self.partner >= 0) & ~self.is_onsite)

    def vectors(self, atoms: Atoms) -> NDArray[np.float64]:
        """Vectors ``tau_j + R @ cell - tau_i``, ``(n, 3)``, Å."""
        positions, cell = atoms.get_positions(), np.asarray(atoms.cell.array)
        return np.asarray(
            positions[self.j] + self.R @ cell - positions[self.i], dtype=np.float64
        )

    def distances(self, atoms: Atoms) -> NDArray[np.float64]:
        """Lengths of `vectors`, ``(n,)``, Å."""
        return np.asarray(np.linalg.norm(self.vectors(atoms), axis=1))

    def locate(self, other: PairTable) -> IntArray:
        """Return the index in this table of every pair of another, -1 where it lacks it."""
        if other is self:
            return np.arange(len(self), dtype=np.int64)
        codes = _encode(np.concatenate((self.rows, other.rows)))
        return _search(codes[: len(self)], codes[len(self) :])

    def locate_rows(self, R: ArrayLike, i: ArrayLike, j: ArrayLike) -> IntArray:
        """Return the index in this table of pairs of any order, -1 where it lacks one."""
        table, order = PairTable.from_arrays(R, i, j)
        index = np.empty_like(order)
        index[order] = self.locate(table)
        return index

    def union(self, other: PairTable) -> PairTable:
        """Return the table of the pairs of both."""
        if self == other:
            return self
        extra = self.locate(other) < 0
        table, _ = PairTable.from_arrays(
            np.concatenate((self.R, other.R[extra])),
            np.concatenate((self.i, other.i[extra])),
            np.concatenate((self.j, other.j[extra])),
        )
        return table

    def select(self, which: NDArray[np.bool_] | IntArray) -> PairTable:
        """Return the table of some pairs: a mask, or an increasing index."""
        return PairTable(self.R[which], self.i[which], self.j[which])


def _describe(R: IntArray, i: int, j: int) -> str:
    return f"R=({R[0]}, {R[1]}, {R[2]}) i={i} j={j}"


def _search(codes: IntArray, wanted: IntArray) -> IntArray:
    """Return the position of every wanted code among sorted ones, or -1."""
    if not len(codes):
        return np.full(len(wanted), -1, dtype=np.int64)
    index = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
    return np.where(codes[index] == wanted, index, -1).astype(np.int64)


def neighbour_pairs(atoms: Atoms, r_cut: float | Mapping[tuple[str, str], float]) -> PairTable:
    """Find all pairs of atoms within a cut-off, both directions, without onsite pairs.

    Parameters
    ----------
    atoms
        Structure; periodic along the directions of ``atoms.pbc``.
    r_cut
        Largest distance, Å, included; one number, or one for each pair of species labels
        (in either order).

    Raises
    ------
    ConfigError
        A cut-off is missing or not a positive number.

    Notes
    -----
    O(n) cell lists by vesin. Atoms may lie outside the cell.
    """
    import vesin  # here, because it imports torch wherever that is installed

    labels, species = np.unique(species_labels(atoms), return_inverse=True)
    limits = np.zeros((len(labels), len(labels)))
    for a, first in enumerate(labels):
        for b, second in enumerate(labels):
            limits[a, b] = _cutoff(r_cut, str(first), str(second))
    if not len(atoms):
        return PairTable(np.zeros((0, 3)), [], [])
    margin = 1e-9  # a cut-off taken from a measured distance must find that pair again
    search = vesin.NeighborList(cutoff=float(limits.max()) + margin, full_list=True)
    i, j, R = search.compute(
        points=atoms.get_positions(),
        box=np.asarray(atoms.cell.array),
        periodic=np.asarray(atoms.pbc),
        quantities="ijS",
    )
    table, _ = PairTable.from_arrays(R, i, j)
    limit = limits[species[table.i], species[table.j]] + margin
    return table.select(table.distances(atoms) <= limit)


def _cutoff(r_cut: float | Mapping[tuple[str, str], float], a: str, b: str) -> float:
    value = r_cut.get((a, b), r_cut.get((b, a))) if isinstance(r_cut, Mapping) else r_cut
    if value is None or not 0 < value < np.inf:
        msg = (
            f"cut-off of the pair {a}-{b} is {value}, expected a positive length in Å. "
            f"Give one for every pair of species of the structure."
        )
        raise ConfigError(msg, key="r_cut")
    return float(value)
