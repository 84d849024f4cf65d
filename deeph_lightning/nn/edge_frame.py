"""Edge frames: one rotation per pair that carries the pair vector onto the polar axis z.

Each stored pair (i, j) stands for two directed edges. The frame of (j, i) is the frame of (i,
j) reflected in the plane perpendicular to the bond, so that its Wigner matrices differ by the
signs (-1)^(l+m) only, and a feature of (j, i) and one of (i, j) can be added and subtracted:
this is what makes predictions Hermitian by construction.
"""

from __future__ import annotations

import torch
from torch import Tensor

from deeph_lightning.nn.wigner import wigner_blocks


def frame_rotations(vector: Tensor) -> Tensor:
    """Build right-handed frames whose third axis is the pair direction.

    The azimuth is fixed by the Cartesian axis with the smallest component along the pair, which
    keeps the construction away from every pole; nothing physical depends on it.

    Parameters
    ----------
    vector
        ``(P, 3)`` pair vectors, Å, none of them zero.

    Returns
    -------
    ``(P, 3, 3)`` rotations Q, rows are the frame's axes: ``Q r = |r| z``.
    """
    polar = vector / torch.linalg.vector_norm(vector, dim=-1, keepdim=True)
    smallest = polar.detach().abs().argmin(dim=-1)
    helper = torch.nn.functional.one_hot(smallest, 3).to(polar)
    first = helper - (helper * polar).sum(-1, keepdim=True) * polar
    first = first / torch.linalg.vector_norm(first, dim=-1, keepdim=True)
    second = torch.linalg.cross(polar, first)
    return torch.stack([first, second, polar], dim=-2)


def reversal_signs(l: int) -> Tensor:
    """Signs ``(2l+1,)`` of natural-parity functions under z -> -z: (-1)^(l+m)."""
    return 1.0 - 2.0 * ((l + torch.arange(-l, l + 1)) % 2)


def order_rows(l_first: int, l_last: int) -> list[tuple[int, int]]:
    """Rows ``(l, signed m)`` of a slab in edge order: m = 0, then all +m, then all -m.

    Positive m stand for the mirror-even, negative m for the mirror-odd stack; within a stack
    the rows go order by order, m = 1, 2, ..., and degree by degree.
    """
    zero = [(l, 0) for l in range(l_first, l_last + 1)]
    even = [(l, m) for m in range(1, l_last + 1) for l in range(max(m, l_first), l_last + 1)]
    return zero + even + [(l, -m) for l, m in even]


class EdgeFrames:
    """Wigner matrices of all pairs.

    Parameters
    ----------
    blocks
        Wigner matrices of the first direction, per l ``(P, 2l+1, 2l+1)``, rows m = -l..l.
    """

    def __init__(self, blocks: list[Tensor]) -> None:
        self.blocks = blocks
        self._slabs: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    @classmethod
    def from_vectors(cls, vector: Tensor, l_max: int, *, dtype: torch.dtype) -> EdgeFrames:
        """Compute frames of ``(P, 3)`` pair vectors in float64 and cast them to `dtype`."""
        blocks = wigner_blocks(frame_rotations(vector.to(torch.float64)), l_max)
        return cls([block.to(dtype) for block in blocks])

    @classmethod
    def from_flat(cls, flat: Tensor, l_max: int) -> EdgeFrames:
        """Read frames from the rows that `flat` returned."""
        sizes = [(2 * l + 1) ** 2 for l in range(l_max + 1)]
        parts = flat.split(sizes, -1)
        return cls([part.unflatten(-1, (2 * l + 1, 2 * l + 1)) for l, part in enumerate(parts)])

    def flat(self) -> Tensor:
        """All matrices of a pair in one row, ``(P, sum (2l+1)^2)``."""
        return torch.cat([block.flatten(1) for block in self.blocks], -1)

    def select(self, pair: Tensor) -> EdgeFrames:
        """Keep the frames of some pairs."""
        return EdgeFrames([block.index_select(0, pair) for block in self.blocks])

    def part(self, start: int, stop: int) -> EdgeFrames:
        """Keep the frames of the pairs from `start` to `stop`."""
        if start == 0 and stop == self.blocks[0].shape[0]:
            return self
        return EdgeFrames([block[start:stop] for block in self.blocks])

    def slab(self, l_first: int, l_last: int) -> tuple[Tensor, Tensor]:
        """Dense matrices ``(P, rows, columns)`` of degrees l_first..l_last, both directions.

        Rows are in the order of `order_rows`, columns in node order, degree by degree, m =
        -l..l.
        """
        key = (l_first, l_last)
        if key not in self._slabs:
            first = self._build_slab(*key)
            signs = [[(-1.0) ** (l + m)] for l, m in order_rows(*key)]
            self._slabs[key] = (first, first * first.new_tensor(signs))
        return self._slabs[key]

    def _build_slab(self, l_first: int, l_last: int) -> Tensor:
        rows = order_rows(l_first, l_last)
        n_pair, size = self.blocks[0].shape[0], (l_last + 1) ** 2 - l_first**2
        dense = self.blocks[0].new_zeros(n_pair, len(rows), size)
        for row, (l, m) in enumerate(rows):
            start = l * l - l_first**2
            dense[:, row, start : start + 2 * l + 1] = self.blocks[l][:, l + m]
        return dense
