"""Channel layouts: how irreps lie in node tensors and in edge tensors.

Channels come in *towers*: a tower holds the same number of channels for every degree of a
range. A *node tensor* is flat, ``(A, F)``: tower after tower, each ``(rows, channels)`` with
rows degree by degree, m = -l..l. A *wide* node tensor, ``(A, W)``, holds the towers that end at
the same degree side by side, one *slab* after the other, so that one dense batched product
rotates them all; rows of degrees that a tower lacks are zero.

An *edge tensor* lives in the frames of the pairs and is ordered by |m|. It is kept in the
*exchange basis*: sum and difference of the two directions of each pair (first index). ``zero``
is ``(2, P, F0)``: m = 0, natural then unnatural; ``rest`` is ``(2, 2, P, F1)``, second index
mirror parity (even, odd), columns the segments m = 1, 2, ..., each tower after tower, degree by
degree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn


class EdgeTensor(NamedTuple):
    """Pair features in the exchange basis, ordered by |m| (see the module)."""

    zero: Tensor
    rest: Tensor


class Tower(NamedTuple):
    """Channels that share a range of degrees."""

    parity: str
    l_first: int
    l_last: int
    channels: int

    @property
    def rows(self) -> int:
        """Number of components per channel."""
        return (self.l_last + 1) ** 2 - self.l_first**2


class Slab(NamedTuple):
    """Towers that end at the same degree, as ``(number, first channel)``."""

    l_first: int
    l_last: int
    channels: int
    towers: tuple[tuple[int, int], ...]

    @property
    def rows(self) -> int:
        """Number of components per channel."""
        return (self.l_last + 1) ** 2 - self.l_first**2


@dataclass(frozen=True)
class Layout:
    """Number of channels of each degree: natural parity (-1)^l and unnatural -(-1)^l."""

    natural: tuple[int, ...]
    unnatural: tuple[int, ...]

    @classmethod
    def of(cls, natural: Sequence[int], unnatural: Sequence[int] = ()) -> Layout:
        """Build a layout; missing unnatural degrees are empty."""
        missing = len(natural) - len(unnatural)
        return cls(tuple(natural), tuple(unnatural) + (0,) * missing)

    @property
    def l_max(self) -> int:
        """Largest degree."""
        return len(self.natural) - 1

    @cached_property
    def towers(self) -> list[Tower]:
        """Towers: channel c of degree l exists where c < count[l]; equal ranges are merged."""
        towers: list[Tower] = []
        for parity, counts in (("natural", self.natural), ("unnatural", self.unnatural)):
            edges = sorted({0, *counts})
            for low, high in pairwise(edges):
                degrees = [l for l, count in enumerate(counts) if count >= high]
                start = 0
                for k in range(1, len(degrees) + 1):
                    if k == len(degrees) or degrees[k] != degrees[k - 1] + 1:
                        towers.append(Tower(parity, degrees[start], degrees[k - 1], high - low))
                        start = k
        return towers

    @property
    def node_size(self) -> int:
        """Length F of the flat node tensor."""
        return sum(tower.rows * tower.channels for tower in self.towers)

    @cached_property
    def offsets(self) -> list[int]:
        """First column of each tower in a node tensor."""
        offsets = [0]
        for tower in self.towers:
            offsets.append(offsets[-1] + tower.rows * tower.channels)
        return offsets

    def degree_columns(self, parity: str, l: int) -> list[tuple[int, int]]:
        """``(first column, channels)`` of the pieces of one irrep in a node tensor."""
        return [
            (offset + (l * l - tower.l_first**2) * tower.channels, tower.channels)
            for tower, offset in zip(self.towers, self.offsets, strict=False)
            if tower.parity == parity and tower.l_first <= l <= tower.l_last
        ]

    @property
    def zero_sizes(self) -> tuple[int, int]:
        """Columns of order 0: natural (mirror-even) and unnatural (mirror-odd)."""
        return sum(self.natural), sum(self.unnatural)

    @cached_property
    def rest_sizes(self) -> list[int]:
        """Columns of the orders 1..l_max (one mirror parity)."""
        return [
            sum(self.natural[m:]) + sum(self.unnatural[m:]) for m in range(1, self.l_max + 1)
        ]

    @cached_property
    def slabs(self) -> list[Slab]:
        """Slabs of a wide node tensor."""
        slabs = []
        for l_last in dict.fromkeys(tower.l_last for tower in self.towers):
            numbers = [n for n, tower in enumerate(self.towers) if tower.l_last == l_last]
            widths = [self.towers[n].channels for n in numbers]
            starts = accumulate(widths, initial=0)
            l_first = min(self.towers[n].l_first for n in numbers)
            members = tuple(zip(numbers, starts, strict=False))
            slabs.append(Slab(l_first, l_last, sum(widths), members))
        return slabs

    @property
    def wide_size(self) -> int:
        """Length W of a wide node tensor."""
        return sum(slab.rows * slab.channels for slab in self.slabs)

    def widen(self, x: Tensor) -> Tensor:
        """Node tensor ``(A, F)`` to a wide one ``(A, W)``."""
        parts = []
        for slab in self.slabs:
            columns = []
            for n, _ in slab.towers:
                tower, offset = self.towers[n], self.offsets[n]
                part = x[:, offset : offset + tower.rows * tower.channels]
                part = part.view(len(x), tower.rows, tower.channels)
                columns.append(nn.functional.pad(part, (0, 0, slab.rows - tower.rows, 0)))
            parts.append(torch.cat(columns, -1).flatten(1))
        return torch.cat(parts, -1)

    def narrow(self, x: Tensor) -> Tensor:
        """Wide node tensor ``(A, W)`` to ``(A, F)``: what `widen` added is left out."""
        parts: list[tuple[int, Tensor]] = []
        for slab, wide in zip(self.slabs, self.split_slabs(x), strict=True):
            for n, start in slab.towers:
                tower = self.towers[n]
                part = wide[:, slab.rows - tower.rows :, start : start + tower.channels]
                parts.append((n, part.flatten(1)))
        return torch.cat([part for _, part in sorted(parts, key=lambda item: item[0])], -1)

    def split_slabs(self, x: Tensor) -> list[Tensor]:
        """View a wide node tensor as one ``(A, rows, channels)`` per slab."""
        parts = x.split([slab.rows * slab.channels for slab in self.slabs], -1)
        return [
            part.view(len(x), slab.rows, slab.channels)
            for part, slab in zip(parts, self.slabs, strict=True)
        ]

    @cached_property
    def missing(self) -> list[tuple[int, int, int]]:
        """``(slab, first channel, channels)`` of towers that lack degrees of their slab."""
        return [
            (k, first, self.towers[n].channels)
            for k, slab in enumerate(self.slabs)
            for n, first in slab.towers
            if self.towers[n].l_first > slab.l_first
        ]

    @cached_property
    def segments(self) -> list[list[tuple[int, int, int]]]:
        """Per tower, per order m: ``(first row, number of rows, first column)``.

        Rows are those of the tower's slab, of order 0 or of one stack (`order_rows`); columns
        those of `zero` or `rest`.
        """
        l_first = {n: slab.l_first for slab in self.slabs for n, _ in slab.towers}
        column = {0: 0, 1: 0}
        segments: list[list[tuple[int, int, int]]] = [[] for _ in self.towers]
        stop = [0] * len(self.towers)
        for m in range(self.l_max + 1):
            for n, (tower, parts) in enumerate(zip(self.towers, segments, strict=True)):
                rows = max(0, tower.l_last - max(m, l_first[n]) + 1)
                count = max(0, tower.l_last - max(m, tower.l_first) + 1)
                stop[n] = rows + (stop[n] if m > 1 else 0)  # order 0 is no part of a stack
                parts.append((stop[n] - count, count, column[min(m, 1)]))
                column[min(m, 1)] += count * tower.channels
        return segments
