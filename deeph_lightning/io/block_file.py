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
        with h5py.File(path, "w") as file:
            file["atom_pairs"] = np.column_stack((self.pairs.R, self.pairs.i, self.pairs.j))
            file["chunk_shapes"] = shapes
            file["chunk_boundaries"] = self.offsets
            start = _allocated(file, "entries", int(self.offsets[-1]))
        self._file = path.open("r+b")
        size = start + 8 * int(self.offsets[-1])
        if hasattr(os, "posix_fallocate"):  # else writing to a full disk would be a bus error
            os.posix_fallocate(self._file.fileno(), 0, size)
        self._map = mmap.mmap(self._file.fileno(), size)
        self._values = np.frombuffer(self._map, np.float64, int(self.offsets[-1]), start)

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


def _allocated(file: h5py.File, name: str, size: int) -> int:
    """Make a dataset of float64 that lies in one piece, and return where it starts."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space = h5py.h5s.create_simple((size,))
    dataset = h5py.h5d.create(
        file.id, name.encode(), h5py.h5t.IEEE_F64LE, space, dcpl=properties
    )
    return int(dataset.get_offset())
