"""Packing of blocks: numbers on a grid of 2^-n, transposed, cut into planes of bits.

A value x becomes the integer ``rint(x 2^n)``; nothing is lost of values that lie on the grid
already. Pairs of one couple of species are sorted by distance and their blocks transposed, so
that neighbours in memory are the same element of similar pairs. Planes of bits of such numbers
are far more regular than their bytes, and gzip packs them into half the room.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from deeph_lightning.core.ragged import IntArray, put_blocks, take_blocks
from deeph_lightning.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deeph_lightning.core.operator import Operator

#: Integers must stay below, so that the sign has room.
MAX_BITS = 62


def grid_exponent(tolerance: float) -> int:
    """Return the smallest n with rounding to 2^-n no worse than `tolerance`."""
    return math.ceil(-math.log2(2 * tolerance))


def storage_order(op: Operator) -> IntArray:
    """Return the pairs in the order of storage: by species, then distance; ``(n_pair,)``."""
    distances = op.pairs.distances(op.atoms)
    parts = [index[np.argsort(distances[index], kind="stable")] for _, _, index in op.groups]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def pack(op: Operator, order: IntArray, exponent: int) -> NDArray[np.uint8]:
    """Pack the values of an operator into planes of bits.

    Parameters
    ----------
    op
        Operator.
    order
        See `storage_order`.
    exponent
        The grid is 2^-exponent.

    Returns
    -------
    ``(n_plane, ceil(n_value / 8))``, the lowest bit first; complex values count twice.

    Raises
    ------
    DataError
        A value is too large for the grid.
    """
    parts = []
    for size, where in _runs(op, order):
        blocks = take_blocks(op.values, op.offsets[where], (1, size))[:, 0]
        if np.iscomplexobj(blocks):
            blocks = np.concatenate((blocks.real, blocks.imag), axis=1)
        parts.append(blocks.T.ravel())
    scaled = np.rint(np.ldexp(np.concatenate(parts) if parts else np.zeros(0), exponent))
    if scaled.size and np.abs(scaled).max() >= 2.0**MAX_BITS:
        msg = (
            f"structure '{op.name}': the value {np.ldexp(np.abs(scaled).max(), -exponent):.3g} "
            f"{op.unit} is too large for a grid of 2^-{exponent}. Check the units."
        )
        raise DataError(msg, structure=op.name)
    whole = scaled.astype(np.int64)
    folded = ((whole << 1) ^ (whole >> 63)).view(np.uint64)  # sign in the lowest bit
    n_plane = int(folded.max(initial=0)).bit_length()
    planes = np.empty((n_plane, (len(folded) + 7) // 8), dtype=np.uint8)
    for n in range(n_plane):
        planes[n] = np.packbits((folded >> np.uint64(n)).astype(np.uint8) & 1)
    return planes


def unpack(
    planes: NDArray[np.uint8], sizes: IntArray, order: IntArray, exponent: int, is_complex: bool
) -> NDArray[np.float64] | NDArray[np.complex128]:
    """Undo `pack`.

    Parameters
    ----------
    planes
        What `pack` gave.
    sizes
        ``(n_pair,)``, elements of each block, in the order of the pair table.
    order, exponent
        As for `pack`; `order` leads from storage to the pair table.
    is_complex
        Whether values are complex.

    Returns
    -------
    Flat values in the order of the pair table.

    Raises
    ------
    DataError
        The planes are not as long as the blocks need.
    """
    count = int(sizes.sum()) * (2 if is_complex else 1)
    if planes.ndim != 2 or planes.shape[1] != (count + 7) // 8:
        raise DataError(f"planes of bits have shape {planes.shape} for {count} numbers")
    folded = np.zeros(count, dtype=np.uint32 if len(planes) <= 32 else np.uint64)
    for n, plane in enumerate(planes):
        bits = np.unpackbits(plane, count=count).astype(folded.dtype)
        np.left_shift(bits, n, out=bits)
        np.bitwise_or(folded, bits, out=folded)
    flat = np.ldexp(np.right_shift(folded, 1).astype(np.float64), -exponent)
    is_negative = np.bitwise_and(folded, 1).astype(np.bool_)
    flat[is_negative] = -flat[is_negative] - math.ldexp(1.0, -exponent)
    starts = np.concatenate(([0], np.cumsum(sizes)))
    values = np.empty(starts[-1], dtype=np.complex128 if is_complex else np.float64)
    done = 0
    for size, where in _runs_of(sizes, order):
        width = size * (2 if is_complex else 1)
        blocks = flat[done : done + width * len(where)].reshape(width, len(where)).T
        done += blocks.size
        if is_complex:
            blocks = blocks[:, :size] + 1j * blocks[:, size:]
        put_blocks(values, starts[where], np.ascontiguousarray(blocks)[:, None])
    return values


def _runs(op: Operator, order: IntArray) -> list[tuple[int, IntArray]]:
    return _runs_of(np.diff(op.offsets), order)


def _runs_of(sizes: IntArray, order: IntArray) -> list[tuple[int, IntArray]]:
    """Cut the order of storage into runs of blocks of one size: ``(size, index)``."""
    if not len(order):
        return []
    stored = sizes[order]
    cuts = np.flatnonzero(np.diff(stored)) + 1
    return [(int(sizes[part[0]]), part) for part in np.split(order, cuts)]
