"""Channel layouts: how irreps lie in node tensors and in edge tensors.

Channels come in *towers*: a tower holds the same number of channels for every degree of a
range, so that one dense batched product rotates it. A *node tensor* is flat, ``(A, F)``: tower
after tower, each ``(rows, channels)`` with rows degree by degree, m = -l..l.

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
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from deeph_lightning.nn.edge_frame import EdgeFrames, reversal_column
from deeph_lightning.nn.precision import full_precision


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

    def signs(self, tower: int, like: Tensor) -> Tensor:
        """Reversal signs ``(rows, 1)`` of a tower's rows, type and device of a tensor."""
        _, l_first, l_last, _ = self.towers[tower]
        return reversal_column(self.towers[tower].parity, l_first, l_last).to(like)

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
    def segments(self) -> list[list[tuple[int, int, int]]]:
        """Per tower, per order m: ``(first row, number of rows, first column)``.

        Rows are those of `order_rows` (even stack); columns those of `zero` or `rest`.
        """
        column = {0: 0, 1: 0}
        segments: list[list[tuple[int, int, int]]] = [[] for _ in self.towers]
        for m in range(self.l_max + 1):
            for tower, parts in zip(self.towers, segments, strict=True):
                count = max(0, tower.l_last - max(m, tower.l_first) + 1)
                row = parts[-1][0] + parts[-1][1] if parts else 0
                parts.append((row, count, column[min(m, 1)]))
                column[min(m, 1)] += count * tower.channels
        return segments


def rotate_to_edges(
    first: Tensor, second: Tensor, frames: EdgeFrames, layout: Layout
) -> EdgeTensor:
    """Rotate the features ``(P, F)`` of both atoms of every pair into the pair's frame."""
    matrices = [frames.tower(t.parity, t.l_first, t.l_last) for t in layout.towers]
    with full_precision(first):
        first, second = first.to(matrices[0]), second.to(matrices[0])
        return EdgeTensor(*_ToEdges.apply(first, second, layout, *matrices))


def rotate_to_nodes(edge: EdgeTensor, frames: EdgeFrames, layout: Layout) -> Tensor:
    """Rotate pair features back to the crystal frame: ``(2P, F)``, adjoint of the above.

    The first half belongs to the first atoms of the pairs, the second to the second atoms.
    """
    matrices = [frames.tower(t.parity, t.l_first, t.l_last) for t in layout.towers]
    with full_precision(edge.zero):
        zero, rest = edge.zero.to(matrices[0]), edge.rest.to(matrices[0])
        return _ToNodes.apply(zero, rest, layout, *matrices)


class _ToEdges(torch.autograd.Function):
    """Rotation and exchange; its adjoint in the features is the way back."""

    @staticmethod
    def forward(ctx, first, second, layout, *matrices):
        ctx.layout = layout
        ctx.differentiable = any(matrix.requires_grad for matrix in matrices)
        ctx.save_for_backward(*matrices, *([first, second] if ctx.differentiable else []))
        rotated = [
            [torch.bmm(d, part) for d, part in zip(matrices, _towers(x, layout), strict=True)]
            for x in (first, second)
        ]
        return tuple(_pack(*rotated, layout))

    @staticmethod
    def backward(ctx, grad_zero, grad_rest):
        layout = ctx.layout
        n_tower = len(layout.towers)
        matrices, saved = ctx.saved_tensors[:n_tower], ctx.saved_tensors[n_tower:]
        rows = _unpack(EdgeTensor(grad_zero, grad_rest), layout)
        grads = [
            _join([torch.bmm(d.mT, part) for d, part in zip(matrices, parts, strict=True)])
            for parts in rows
        ]
        if not ctx.differentiable:
            return *grads, None, *([None] * n_tower)
        return *grads, None, *_frame_gradients(rows, saved, layout)


class _ToNodes(torch.autograd.Function):
    """Exchange and rotation back; its adjoint in the features is the rotation."""

    @staticmethod
    def forward(ctx, zero, rest, layout, *matrices):
        ctx.layout = layout
        ctx.differentiable = any(matrix.requires_grad for matrix in matrices)
        ctx.save_for_backward(*matrices, *([zero, rest] if ctx.differentiable else []))
        rows = _unpack(EdgeTensor(zero, rest), layout)
        return torch.cat(
            [
                _join([torch.bmm(d.mT, part) for d, part in zip(matrices, parts, strict=True)])
                for parts in rows
            ]
        )

    @staticmethod
    def backward(ctx, grad):
        layout = ctx.layout
        n_tower = len(layout.towers)
        matrices, saved = ctx.saved_tensors[:n_tower], ctx.saved_tensors[n_tower:]
        halves = grad.chunk(2)
        rotated = [
            [torch.bmm(d, part) for d, part in zip(matrices, _towers(x, layout), strict=True)]
            for x in halves
        ]
        edge = _pack(*rotated, layout)
        if not ctx.differentiable:
            return *edge, None, *([None] * n_tower)
        rows = _unpack(EdgeTensor(*saved), layout)
        return *edge, None, *_frame_gradients(rows, halves, layout)


def _frame_gradients(
    rows: list[list[Tensor]], nodes: Sequence[Tensor], layout: Layout
) -> list[Tensor]:
    """Gradient of the tower matrices: rows of both directions times node features."""
    parts = [_towers(x, layout) for x in nodes]
    return [
        torch.bmm(rows[0][t], parts[0][t].mT) + torch.bmm(rows[1][t], parts[1][t].mT)
        for t in range(len(layout.towers))
    ]


def _towers(x: Tensor, layout: Layout) -> list[Tensor]:
    """View a node tensor as one ``(A, rows, channels)`` per tower."""
    return [
        x[:, offset : offset + tower.rows * tower.channels].view(-1, tower.rows, tower.channels)
        for tower, offset in zip(layout.towers, layout.offsets, strict=False)
    ]


def _join(parts: list[Tensor]) -> Tensor:
    flat = [part.flatten(1) for part in parts]
    return flat[0] if len(flat) == 1 else torch.cat(flat, -1)


def _pack(first: list[Tensor], second: list[Tensor], layout: Layout) -> EdgeTensor:
    """Sum and difference of rotated rows, per tower ``(P, rows, channels)``, by order."""
    n_pair = first[0].shape[0]
    zero = first[0].new_empty(2, n_pair, sum(layout.zero_sizes))
    rest = first[0].new_empty(2, 2, n_pair, sum(layout.rest_sizes))
    for n, (tower, segments) in enumerate(zip(layout.towers, layout.segments, strict=True)):
        sign = layout.signs(n, first[n])
        one, two = first[n], second[n].mul_(sign)
        _, n_zero, start = segments[0]
        out = _columns(zero, start, n_zero, tower.channels)
        torch.add(one[:, :n_zero], two[:, :n_zero], out=out[0])
        torch.sub(one[:, :n_zero], two[:, :n_zero], out=out[1])
        one, two = _stacks(one, n_zero), _stacks(two, n_zero)
        for row, count, start in segments[1:]:
            if count:
                rows = slice(row - n_zero, row - n_zero + count)
                out = _columns(rest, start, count, tower.channels)
                torch.add(one[:, :, rows], two[:, :, rows], out=out[0])
                torch.sub(one[:, :, rows], two[:, :, rows], out=out[1])
    return EdgeTensor(zero, rest)


def _unpack(edge: EdgeTensor, layout: Layout) -> list[list[Tensor]]:
    """Adjoint of `_pack`: rows of the first and of the second direction."""
    zero, rest = edge
    n_pair = zero.shape[1]
    out: list[list[Tensor]] = [[], []]
    for n, (tower, segments) in enumerate(zip(layout.towers, layout.segments, strict=True)):
        one, two = zero.new_empty(2, n_pair, tower.rows, tower.channels)
        _, n_zero, start = segments[0]
        part = _columns(zero, start, n_zero, tower.channels)
        torch.add(part[0], part[1], out=one[:, :n_zero])
        torch.sub(part[0], part[1], out=two[:, :n_zero])
        stack_one, stack_two = _stacks(one, n_zero), _stacks(two, n_zero)
        for row, count, start in segments[1:]:
            if count:
                rows = slice(row - n_zero, row - n_zero + count)
                part = _columns(rest, start, count, tower.channels)
                torch.add(part[0], part[1], out=stack_one[:, :, rows])
                torch.sub(part[0], part[1], out=stack_two[:, :, rows])
        out[0].append(one)
        out[1].append(two.mul_(layout.signs(n, two)))
    return out


def _columns(x: Tensor, start: int, count: int, channels: int) -> Tensor:
    """View columns of an edge tensor as ``(..., P, count, channels)``."""
    return x[..., start : start + count * channels].unflatten(-1, (count, channels))


def _stacks(part: Tensor, n_zero: int) -> Tensor:
    """View rows m > 0 of ``(P, rows, channels)`` as ``(2, P, rows of one stack, channels)``."""
    n_stack = (part.shape[1] - n_zero) // 2
    return part[:, n_zero:].unflatten(1, (2, n_stack)).transpose(0, 1)
