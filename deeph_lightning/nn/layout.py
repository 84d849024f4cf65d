"""Channel layouts: how irreps lie in node tensors and in edge tensors.

Channels come in *towers*: a tower holds the same number of channels for every degree of a
range. A *node tensor* is flat, ``(A, F)``: tower after tower, each ``(rows, channels)`` with
rows degree by degree, m = -l..l. A *wide* node tensor, ``(A, W)``, holds the towers of the
same degrees side by side, one *slab* after the other, so that one dense batched product rotates
them all; they may differ in l = 0, whose row is zero in those that lack it.

An *edge tensor* lives in the frames of the pairs and is ordered by |m|. It is kept in the
*exchange basis*: sum and difference of the two directions of each pair (first index). ``zero``
is ``(2, P, F0)``: m = 0, natural towers, then unnatural ones. ``rest`` is ``(2, P, 2, F1)``,
third index mirror parity (even, odd), columns m = 1, 2, ..., each slab after slab, degree by
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

    def part(self, start: int, stop: int) -> EdgeTensor:
        """Keep the pairs from `start` to `stop`."""
        if start == 0 and stop == self.zero.shape[1]:
            return self
        return EdgeTensor(self.zero[:, start:stop], self.rest[:, start:stop])


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
    """Towers of the same degrees (but l = 0), as ``(number, first channel)``."""

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
    def degrees(self) -> list[tuple[str, int]]:
        """Parity and degree of every irrep that has channels."""
        return [
            (parity, l)
            for parity in ("natural", "unnatural")
            for l, count in enumerate(getattr(self, parity))
            if count
        ]

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
        ranges = [(max(tower.l_first, 1), tower.l_last) for tower in self.towers]
        for degrees in dict.fromkeys(ranges):
            numbers = [n for n, own in enumerate(ranges) if own == degrees]
            widths = [self.towers[n].channels for n in numbers]
            starts = accumulate(widths, initial=0)
            l_first = min(self.towers[n].l_first for n in numbers)
            members = tuple(zip(numbers, starts, strict=False))
            slabs.append(Slab(l_first, degrees[1], sum(widths), members))
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
    def zero_columns(self) -> list[int]:
        """First column of each tower in `zero`."""
        sizes = [(t.l_last - t.l_first + 1) * t.channels for t in self.towers]
        return list(accumulate(sizes, initial=0))

    @cached_property
    def rest_segments(self) -> list[list[tuple[int, int, int]]]:
        """Per slab: ``(first row of a stack, number of rows, first column of rest)``.

        One for each order m >= 1; what lies side by side on both sides is joined.
        """
        segments: list[list[tuple[int, int, int]]] = [[] for _ in self.slabs]
        column = 0
        for m in range(1, self.l_max + 1):
            for slab, parts in zip(self.slabs, segments, strict=True):
                count = max(0, slab.l_last - max(m, slab.l_first) + 1)
                row, rows, first = parts.pop() if parts else (0, 0, column)
                if first + rows * slab.channels == column:
                    parts.append((row, rows + count, first))
                else:
                    parts += [(row, rows, first), (row + rows, count, column)]
                column += count * slab.channels
        return segments
