"""Matrix files of DeepH 1.x written part by part: what is in memory is one part."""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from deeph_lightning.core.basis import species_labels
from deeph_lightning.core.pairs import PairTable
from deeph_lightning.core.ragged import adjoint, block_offsets, chunks, put_blocks, take_blocks

if TYPE_CHECKING:
    from pathlib import Path

    from ase import Atoms
    from numpy.typing import NDArray

    from deeph_lightning.core.basis import OrbitalBasis
    from deeph_lightning.core.operator import Operator


class BlockFile:
    """A matrix file, both pairs of every Hermitian couple, filled by half operators.

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
    """

    def __init__(self, path: Path, atoms: Atoms, basis: OrbitalBasis, pairs: PairTable) -> None:
        extra = np.flatnonzero(~pairs.is_onsite)
        self.pairs, _ = PairTable.from_arrays(
            np.concatenate((pairs.R, -pairs.R[extra])),
            np.concatenate((pairs.i, pairs.j[extra])),
            np.concatenate((pairs.j, pairs.i[extra])),
        )
        counts = basis.orbital_counts(species_labels(atoms))
        shapes = np.column_stack((counts[self.pairs.i], counts[self.pairs.j]))
        self.offsets = block_offsets(shapes)
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
            start = _allocated(file, "entries", np.broadcast_to(0.0, n_value))
        # HDF5 does not survive a full disk: it writes nothing but the headers
        size = max(path.stat().st_size, start + 8 * n_value)
        _reserve(path, size)
        self._file = path.open("r+b")
        self._map = mmap.mmap(self._file.fileno(), size)
        for key, table in tables.items():
            where = slice(starts[key], starts[key] + table.nbytes)
            self._map[where] = np.ascontiguousarray(table).tobytes()
        self._values = np.frombuffer(self._map, np.float64, n_value, start)

    def add(self, op: Operator) -> None:
        """Write the blocks of a half operator on some of the pairs, and their partners."""
        place = self.pairs.locate(op.pairs)
        partner = self.pairs.partner[place]
        for a, b, index in op.groups:
            shape = op.shape_of(a, b)
            for part in chunks(len(index), shape[0] * shape[1]):
                which = index[part]
                blocks = take_blocks(op.values, op.offsets[which], shape)
                put_blocks(self._values, self.offsets[place[which]], blocks)
                hops = place[which] != partner[which]
                to = self.offsets[partner[which[hops]]]
                put_blocks(self._values, to, adjoint(blocks[hops]))
                if hasattr(mmap, "MADV_DONTNEED"):  # the file's pages need not stay in memory
                    self._map.madvise(mmap.MADV_DONTNEED)
        self.is_there[place] = self.is_there[partner] = True

    def __enter__(self) -> BlockFile:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        del self._values
        self._map.close()
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
