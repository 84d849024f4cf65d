"""Matrix files of DeepH 1.x written part by part: what is in memory is one part."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from deeph_lightning.core.basis import species_labels, structure_name
from deeph_lightning.core.pairs import PairTable
from deeph_lightning.core.ragged import (
    adjoint,
    block_offsets,
    chunks,
    put_blocks,
    take_blocks,
)
from deeph_lightning.errors import PhysicsError, ShapeError

if TYPE_CHECKING:
    from pathlib import Path

    from ase import Atoms
    from numpy.typing import NDArray

    from deeph_lightning.core.basis import OrbitalBasis
    from deeph_lightning.core.operator import Operator

    IntArray = NDArray[np.int64]


class BlockFile:
    """A matrix file, both pairs of every Hermitian couple, filled from one of each.

    Parameters
    ----------
    path
        File to make.
    atoms
        Structure.
    basis
        Shells of every species.
    pairs
        One pair of every couple, and the onsite ones: all that will be added.

    Raises
    ------
    OSError
        There is no room for the file, which is taken up at once.

    Attributes
    ----------
    pairs
        All pairs of the file, both of every couple, sorted.
    """

    def __init__(self, path: Path, atoms: Atoms, basis: OrbitalBasis, pairs: PairTable) -> None:
        self.name = structure_name(atoms)
        extra = np.flatnonzero(~pairs.is_onsite)
        self.pairs, _ = PairTable.from_arrays(
            np.concatenate((pairs.R, -pairs.R[extra])),
            np.concatenate((pairs.i, pairs.j[extra])),
            np.concatenate((pairs.j, pairs.i[extra])),
        )
        counts = basis.orbital_counts(species_labels(atoms))
        shapes = np.column_stack((counts[self.pairs.i], counts[self.pairs.j]))
        self.shapes, self.offsets = shapes, block_offsets(shapes)
        self.is_there = np.zeros(len(self.pairs), dtype=np.bool_)
        tables = {
            "atom_pairs": np.column_stack((self.pairs.R, self.pairs.i, self.pairs.j)),
            "chunk_shapes": shapes,
            "chunk_boundaries": self.offsets,
        }
        n_value = int(self.offsets[-1])
        _reserve(path, sum(table.nbytes for table in tables.values()) + 8 * n_value)
        with h5py.File(path, "w") as file:
            starts = {key: _allocated(file, key, table) for key, table in tables.items()}
            self._start = _allocated(file, "entries", np.broadcast_to(0.0, n_value))
        # HDF5 does not survive a full disk: it writes nothing but the headers
        _reserve(path, max(path.stat().st_size, self._start + 8 * n_value))
        self._file = path.open("r+b")
        for key, table in tables.items():
            self._write(starts[key], np.ascontiguousarray(table))

    def add(self, op: Operator) -> None:
        """Write the blocks of a half operator on some of the pairs, and their partners."""
        self.put(self.pairs.locate(op.pairs), op.values)

    def put(self, place: IntArray, values: NDArray[np.floating[Any]]) -> None:
        """Write flat blocks of some rows of the file's `pairs`, and their partners.

        Raises
        ------
        ShapeError
            The blocks hold another number of values.
        PhysicsError
            A value is not finite.
        """
        shapes = self.shapes[place]
        offsets = block_offsets(shapes)
        if len(values) != offsets[-1]:
            raise ShapeError(
                f"structure '{self.name}': {len(place)} blocks hold {len(values)} values, "
                f"expected {offsets[-1]}"
            )
        largest = int(np.diff(offsets).max(initial=0))
        for part in chunks(len(place), largest):
            start, stop = offsets[[part.start, part.stop]]
            self._put(place[part], values[start:stop])

    def _put(self, place: IntArray, values: NDArray[np.floating[Any]]) -> None:
        shapes = self.shapes[place]
        offsets = block_offsets(shapes)
        is_bad = ~np.isfinite(values)
        if is_bad.any():
            n = int(np.searchsorted(offsets, np.argmax(is_bad), side="right")) - 1
            raise PhysicsError(
                f"structure '{self.name}', pair {self.pairs.describe(place[n])}: the block "
                "holds values that are not finite. Nothing is written. Predict in fp64, or "
                "train the network anew.",
                structure=self.name,
            )
        rows, index = np.unique(
            np.concatenate((place, self.pairs.partner[place])), return_inverse=True
        )
        starts = block_offsets(self.shapes[rows])
        direct, partner = starts[index].reshape(2, -1)
        complete = np.empty(starts[-1])
        for shape in np.unique(shapes, axis=0).tolist():
            which = np.flatnonzero((shapes == shape).all(axis=1))
            blocks = take_blocks(values, offsets[which], tuple(shape))
            put_blocks(complete, partner[which], adjoint(blocks))
            put_blocks(complete, direct[which], blocks)  # onsite blocks are both
        first = np.flatnonzero(np.diff(rows, prepend=-2) != 1)  # of rows that lie in one piece
        for a, b in pairwise([*first.tolist(), len(rows)]):
            start = self._start + 8 * int(self.offsets[rows[a]])
            self._write(start, complete[starts[a] : starts[b]])
        self.is_there[rows] = True

    def _write(self, start: int, values: NDArray[Any]) -> None:
        self._file.seek(start)
        self._file.write(values.data)

    def __enter__(self) -> BlockFile:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        self._file.close()
        if kind is None and not self.is_there.all():
            n = int(np.argmin(self.is_there))
            raise RuntimeError(f"no block was added for pair {self.pairs.describe(n)}")


def _allocated(file: h5py.File, name: str, like: NDArray[Any]) -> int:
    """Make a dataset that lies in one piece, not written yet; return where it starts."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    kind, space = h5py.h5t.py_create(like.dtype), h5py.h5s.create_simple(like.shape)
    dataset = h5py.h5d.create(file.id, name.encode(), kind, space, dcpl=properties)
    return int(dataset.get_offset())


def _reserve(path: Path, size: int) -> None:
    """Take up room for a file, so that a full disk is an error here, not a crash later."""
    with path.open("ab") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
