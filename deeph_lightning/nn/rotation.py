"""Rotation of node features into the frames of the pairs, and of pair features back.

One product with the dense matrix of a slab rotates natural and unnatural channels at once. An
unnatural channel changes sign under the mirror of the frame where a natural one does not: its
order m = -m component stands in the even stack (with a minus) and its +m component in the odd
one, so that one real matrix per order serves both parities, and it changes sign once more when
the pair is reversed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from deeph_lightning.nn.edge_frame import EdgeFrames
from deeph_lightning.nn.layout import EdgeTensor, Layout
from deeph_lightning.nn.precision import full_precision


def rotate_to_edges(
    first: Tensor, second: Tensor, frames: EdgeFrames, layout: Layout
) -> EdgeTensor:
    """Rotate wide features ``(P, W)`` of both atoms of every pair into the pair's frame."""
    matrices = _matrices(frames, layout)
    with full_precision(first):
        first, second = first.to(matrices[0]), second.to(matrices[0])
        return EdgeTensor(*_ToEdges.apply(first, second, layout, *matrices))


def rotate_to_nodes(edge: EdgeTensor, frames: EdgeFrames, layout: Layout) -> Tensor:
    """Rotate pair features back to the crystal frame: wide ``(2P, W)``, adjoint of the above.

    The first half belongs to the first atoms of the pairs, the second to the second atoms.
    """
    matrices = _matrices(frames, layout)
    with full_precision(edge.zero):
        zero, rest = edge.zero.to(matrices[0]), edge.rest.to(matrices[0])
        return _ToNodes.apply(zero, rest, layout, *matrices)


def _matrices(frames: EdgeFrames, layout: Layout) -> list[Tensor]:
    """Matrices of all slabs for the first directions, then those for the second ones."""
    both = [frames.slab(slab.l_first, slab.l_last) for slab in layout.slabs]
    return [pair[direction] for direction in range(2) for pair in both]


class _ToEdges(torch.autograd.Function):
    """Rotation and exchange; its adjoint in the features is the way back."""

    @staticmethod
    def forward(ctx, first, second, layout, *matrices):
        ctx.layout = layout
        ctx.differentiable = any(matrix.requires_grad for matrix in matrices)
        ctx.save_for_backward(*matrices, *([first, second] if ctx.differentiable else []))
        return tuple(_pack(_turn((first, second), matrices, layout), layout))

    @staticmethod
    def backward(ctx, grad_zero, grad_rest):
        layout = ctx.layout
        n_matrix = 2 * len(layout.slabs)
        matrices, saved = ctx.saved_tensors[:n_matrix], ctx.saved_tensors[n_matrix:]
        rows = _unpack(EdgeTensor(grad_zero, grad_rest), layout)
        grads = _turn_back(rows, matrices, layout)
        if not ctx.differentiable:
            return *grads, None, *([None] * n_matrix)
        return *grads, None, *_matrix_gradients(rows, saved, layout)


class _ToNodes(torch.autograd.Function):
    """Exchange and rotation back; its adjoint in the features is the rotation."""

    @staticmethod
    def forward(ctx, zero, rest, layout, *matrices):
        ctx.layout = layout
        ctx.differentiable = any(matrix.requires_grad for matrix in matrices)
        ctx.save_for_backward(*matrices, *([zero, rest] if ctx.differentiable else []))
        rows = _unpack(EdgeTensor(zero, rest), layout)
        return torch.cat(_turn_back(rows, matrices, layout))

    @staticmethod
    def backward(ctx, grad):
        layout = ctx.layout
        n_matrix = 2 * len(layout.slabs)
        matrices, saved = ctx.saved_tensors[:n_matrix], ctx.saved_tensors[n_matrix:]
        halves = grad.chunk(2)
        edge = _pack(_turn(halves, matrices, layout), layout)
        if not ctx.differentiable:
            return *edge, None, *([None] * n_matrix)
        rows = _unpack(EdgeTensor(*saved), layout)
        return *edge, None, *_matrix_gradients(rows, halves, layout)


#: Rows ``(P, rows, channels)`` of every slab, for each of the two directions.
_Rows = list[list[Tensor]]


def _turn(nodes: Sequence[Tensor], matrices: Sequence[Tensor], layout: Layout) -> _Rows:
    """Wide features of both directions to rows in the frame."""
    n = len(layout.slabs)
    return [
        [torch.bmm(D, x) for D, x in zip(half, layout.split_slabs(node), strict=True)]
        for node, half in zip(nodes, (matrices[:n], matrices[n:]), strict=True)
    ]


def _turn_back(rows: _Rows, matrices: Sequence[Tensor], layout: Layout) -> list[Tensor]:
    """Adjoint of `_turn`."""
    n = len(layout.slabs)
    turned = [
        [torch.bmm(D.mT, x).flatten(1) for D, x in zip(half, parts, strict=True)]
        for parts, half in zip(rows, (matrices[:n], matrices[n:]), strict=True)
    ]
    return [parts[0] if n == 1 else torch.cat(parts, -1) for parts in turned]


def _matrix_gradients(rows: _Rows, nodes: Sequence[Tensor], layout: Layout) -> list[Tensor]:
    """Gradients of the matrices: rows times wide node features."""
    return [
        torch.bmm(row, x.mT)
        for parts, node in zip(rows, nodes, strict=True)
        for row, x in zip(parts, layout.split_slabs(node), strict=True)
    ]


def _pack(rows: _Rows, layout: Layout) -> EdgeTensor:
    """Sum and difference of both directions, by order."""
    n_pair = rows[0][0].shape[0]
    zero = rows[0][0].new_empty(2, n_pair, sum(layout.zero_sizes))
    rest = rows[0][0].new_empty(2, n_pair, 2, sum(layout.rest_sizes))
    for parity, one, two, (total, difference) in _zero_pieces(rows, zero, layout):
        if parity == "natural":
            torch.add(one, two, out=total)
            torch.sub(one, two, out=difference)
        else:
            torch.sub(one, two, out=total)
            torch.add(one, two, out=difference)
    for one, two, columns, unnatural in _rest_pieces(rows, rest, layout):
        torch.add(one, two, out=columns[0])
        torch.sub(one, two, out=columns[1])
        for channels in unnatural:
            part = columns[..., channels]
            swapped = part.flip(0, 2)
            swapped[:, :, 0].neg_()
            part.copy_(swapped)
    return EdgeTensor(zero, rest)


def _unpack(edge: EdgeTensor, layout: Layout) -> _Rows:
    """Adjoint of `_pack`."""
    zero, rest = edge
    n_pair = zero.shape[1]
    rows = [
        [zero.new_empty(n_pair, slab.rows, slab.channels) for slab in layout.slabs]
        for _ in range(2)
    ]
    for half in rows:
        for x, slab in zip(half, layout.slabs, strict=True):
            if any(layout.towers[n].l_first > slab.l_first for n, _ in slab.towers):
                x[:, 0] = 0.0  # l = 0, which some towers lack
    for parity, one, two, (total, difference) in _zero_pieces(rows, zero, layout):
        torch.add(total, difference, out=one)
        if parity == "natural":
            torch.sub(total, difference, out=two)
        else:
            torch.sub(difference, total, out=two)
    for one, two, columns, unnatural in _rest_pieces(rows, rest, layout):
        torch.add(columns[0], columns[1], out=one)
        torch.sub(columns[0], columns[1], out=two)
        for channels in unnatural:
            total, difference = swapped = columns[..., channels].flip(0, 2)
            swapped[:, :, 1].neg_()
            torch.add(total, difference, out=one[..., channels])
            torch.sub(total, difference, out=two[..., channels])
    return rows


def _zero_pieces(
    rows: _Rows, zero: Tensor, layout: Layout
) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
    """Order 0 of every tower: parity, rows of both directions, columns."""
    for k, slab in enumerate(layout.slabs):
        stop = slab.l_last - slab.l_first + 1
        for n, first in slab.towers:
            parity, l_first, _, channels = layout.towers[n]
            start, column = l_first - slab.l_first, layout.zero_columns[n]
            one, two = (half[k][:, start:stop, first : first + channels] for half in rows)
            columns = zero[..., column : column + (stop - start) * channels]
            yield parity, one, two, columns.unflatten(-1, (stop - start, channels))


def _rest_pieces(
    rows: _Rows, rest: Tensor, layout: Layout
) -> Iterator[tuple[Tensor, Tensor, Tensor, list[slice]]]:
    """Orders m > 0 of every slab: rows of both directions, columns, unnatural channels.

    Rows are ``(P, 2, rows of a stack, channels)``, columns have the exchange basis before that.
    """
    for k, slab in enumerate(layout.slabs):
        n_zero = slab.l_last - slab.l_first + 1
        if slab.l_last == 0:
            continue
        unnatural = [
            slice(first, first + layout.towers[n].channels)
            for n, first in slab.towers
            if layout.towers[n].parity == "unnatural"
        ]
        one, two = (
            half[k][:, n_zero:].unflatten(1, (2, (slab.rows - n_zero) // 2)) for half in rows
        )
        for row, count, column in layout.rest_segments[k]:
            columns = rest[..., column : column + count * slab.channels]
            yield (
                one[:, :, row : row + count],
                two[:, :, row : row + count],
                columns.unflatten(-1, (count, slab.channels)),
                unnatural,
            )
