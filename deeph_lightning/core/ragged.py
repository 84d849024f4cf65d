"""Kernels on flat arrays of blocks: many small matrices one after another, C order.

Blocks of one size are handled at once; what is loops are over chunks of blocks, which bound the
memory of index arrays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator

IntArray = NDArray[np.int64]
Values = NDArray[Any]  # float64 or complex128

#: Elements that a chunk holds at most.
CHUNK_ELEMENTS = 1 << 22


def chunks(n: int, size: int) -> Iterator[slice]:
    """Cut n blocks of a size into slices of at most `CHUNK_ELEMENTS` elements."""
    step = max(1, CHUNK_ELEMENTS // max(size, 1))
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


def block_offsets(shapes: IntArray) -> IntArray:
    """Return where each block of shapes ``(n, 2)`` starts, and the end; ``(n + 1,)``."""
    offsets = np.zeros(len(shapes) + 1, dtype=np.int64)
    np.cumsum(shapes[:, 0] * shapes[:, 1], out=offsets[1:])
    return offsets


def take_blocks(values: Values, starts: IntArray, shape: tuple[int, int]) -> Values:
    """Gather blocks of one shape, ``(k, *shape)``; a view where they are all of `values`."""
    size = shape[0] * shape[1]
    count = len(starts)
    if count and size and values.size % size == 0 and not np.any(starts % size):
        rows, table = starts // size, values.reshape(-1, size)
        if rows[-1] - rows[0] == count - 1 and np.all(np.diff(rows) == 1):
            return table[rows[0] : rows[-1] + 1].reshape(count, *shape)
        return table[rows].reshape(count, *shape)
    out = np.empty((count, size), dtype=values.dtype)
    for part in chunks(count, size):
        out[part] = values[starts[part, None] + np.arange(size)]
    return out.reshape(count, *shape)


def put_blocks(values: Values, starts: IntArray, blocks: Values) -> None:
    """Write blocks of one shape, ``(k, n, m)``, to where they start."""
    count, size = len(blocks), blocks.shape[1] * blocks.shape[2]
    rows = blocks.reshape(count, size)
    if count and size and values.size % size == 0 and not np.any(starts % size):
        values.reshape(-1, size)[starts // size] = rows
        return
    for part in chunks(count, size):
        values[starts[part, None] + np.arange(size)] = rows[part]


def reorder(values: Values, offsets: IntArray, order: IntArray) -> Values:
    """Return the blocks in another order: new block n is old block ``order[n]``."""
    if np.array_equal(order, np.arange(len(offsets) - 1)):
        return values
    sizes = np.diff(offsets)[order]
    starts = np.zeros(len(order) + 1, dtype=np.int64)
    np.cumsum(sizes, out=starts[1:])
    out = np.empty(starts[-1], dtype=values.dtype)
    for size in np.unique(sizes).tolist():
        which = np.flatnonzero(sizes == size)
        blocks = take_blocks(values, offsets[order[which]], (1, size))
        put_blocks(out, starts[which], blocks)
    return out


def adjoint(blocks: Values) -> Values:
    """Return the adjoint of every block, ``(k, n, m)`` -> ``(k, m, n)``."""
    return np.conj(blocks).transpose(0, 2, 1)
