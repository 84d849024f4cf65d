"""Layers on atoms: degree-wise linear maps, normalisation, gated feed-forward."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from deeph_lightning.nn.layout import Layout
from deeph_lightning.nn.precision import full_precision

#: Where the channels of some rows lie: ``(first column, number)`` of pieces ``(rows, number)``.
_Pieces = Sequence[tuple[int, int]]


class _Run(NamedTuple):
    """Degrees that lie side by side in a node tensor and have equally many channels.

    They are read and written together: with few atoms it is the start of operations that costs.
    """

    parity: str
    degrees: list[int]
    pieces_in: _Pieces
    pieces_out: _Pieces

    @property
    def rows(self) -> int:
        """Number of components per channel."""
        return sum(2 * l + 1 for l in self.degrees)


class NodeLinear(nn.Module):
    """Mix the channels of each degree and parity; bias on true scalars only.

    Degrees or parities that the input lacks are zero in the output.
    """

    def __init__(self, layout_in: Layout, layout_out: Layout, *, gain: float = 1.0) -> None:
        super().__init__()
        self.weights = nn.ParameterDict()
        self.runs: list[_Run] = []
        self.missing: list[tuple[int, int]] = []  # first column, columns
        for parity, l in layout_out.degrees:
            pieces = [layout.degree_columns(parity, l) for layout in (layout_in, layout_out)]
            if not pieces[0]:
                self.missing += [(start, (2 * l + 1) * n) for start, n in pieces[1]]
                continue
            n_in, n_out = (sum(n for _, n in part) for part in pieces)
            bound = gain * math.sqrt(3.0 / n_in)
            matrix = torch.empty(n_in, n_out).uniform_(-bound, bound)
            self.weights[f"{parity}_{l}"] = nn.Parameter(matrix)
            last = self.runs[-1] if self.runs else None
            if last and last.parity == parity and _follows(last, pieces):
                last.degrees.append(l)
            else:
                self.runs.append(_Run(parity, [l], *pieces))
        self.bias = nn.Parameter(torch.zeros(layout_out.natural[0]))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(A, F_in)`` to ``(A, F_out)``, in the precision of the weights."""
        x = x.to(self.bias)
        placed = [(start, x.new_zeros(len(x), n)) for start, n in self.missing]
        for run in self.runs:
            part = _read_rows(x, run.rows, run.pieces_in).transpose(0, 1).flatten(0, 1)
            counts = [(2 * l + 1) * len(x) for l in run.degrees]
            weights = [self.weights[f"{run.parity}_{l}"] for l in run.degrees]
            bias = self.bias if run.parity == "natural" and run.degrees[0] == 0 else None
            part = _RowProducts.apply(part, counts, bias, *weights)
            columns = part.unflatten(0, (run.rows, -1)).transpose(0, 1)
            columns = columns.split([n for _, n in run.pieces_out], -1)
            starts = (start for start, _ in run.pieces_out)
            placed += zip(starts, (piece.flatten(1) for piece in columns), strict=True)
        placed.sort(key=lambda item: item[0])
        return torch.cat([piece for _, piece in placed], -1)


class _RowProducts(torch.autograd.Function):
    """Products of ranges of rows with a matrix each, and a bias for the first range."""

    @staticmethod
    def forward(ctx, x, counts, bias, *weights):
        ctx.counts, ctx.is_biased = counts, bias is not None
        ctx.save_for_backward(x, *weights)
        out = x.new_empty(len(x), weights[0].shape[1])
        for rows, weight, into in zip(x.split(counts), weights, out.split(counts), strict=True):
            torch.mm(rows, weight, out=into)
        if bias is not None:
            out[: counts[0]] += bias
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, *weights = ctx.saved_tensors
        grad_x, grad_weights = torch.empty_like(x), []
        parts = zip(*(t.split(ctx.counts) for t in (x, grad, grad_x)), weights, strict=True)
        for rows, grad_rows, into, weight in parts:
            grad_weights.append(rows.T @ grad_rows)
            torch.mm(grad_rows, weight.T, out=into)
        grad_bias = grad[: ctx.counts[0]].sum(0) if ctx.is_biased else None
        return grad_x, None, grad_bias, *grad_weights


def _follows(run: _Run, pieces: Sequence[_Pieces]) -> bool:
    """Whether the channels of a degree lie right behind those of a run."""
    return all(
        [(start + run.rows * n, n) for start, n in before] == list(after)
        for before, after in zip((run.pieces_in, run.pieces_out), pieces, strict=True)
    )


def _read_rows(x: Tensor, rows: int, pieces: _Pieces) -> Tensor:
    """Channels of some rows of a node tensor, ``(A, rows, channels)``."""
    parts = [x[:, start : start + rows * n].unflatten(1, (rows, n)) for start, n in pieces]
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def degree_view(x: Tensor, layout: Layout, parity: str, l: int) -> Tensor:
    """Channels of one degree of a node tensor, ``(A, 2l+1, channels)``."""
    return _read_rows(x, 2 * l + 1, layout.degree_columns(parity, l))


def _column_degrees(layout: Layout) -> list[tuple[int, int, int]]:
    """``(channel number, l, is scalar)`` of every column of a node tensor."""
    columns, channel = [], 0
    for tower in layout.towers:
        for l in range(tower.l_first, tower.l_last + 1):
            scalar = int(tower.parity == "natural" and l == 0)
            columns += [
                (channel + c, l, scalar)
                for _ in range(2 * l + 1)
                for c in range(tower.channels)
            ]
            channel += tower.channels
    return columns


class NodeNorm(nn.Module):
    """Per-atom normalisation: standardised scalars, one joint RMS for all higher degrees.

    Statistics never leave the atom, so a prediction is local and independent of the batch.
    """

    def __init__(self, layout: Layout, eps: float = 1e-4) -> None:
        super().__init__()
        self.eps, self.n_scalar = eps, layout.natural[0]
        columns = _column_degrees(layout)
        n_channel = columns[-1][0] + 1
        self.weight = nn.Parameter(torch.ones(n_channel))
        self.bias = nn.Parameter(torch.zeros(self.n_scalar))
        scalar = torch.tensor([float(is_scalar) for _, _, is_scalar in columns])
        higher = torch.tensor([(1.0 - s) / (2 * l + 1) for _, l, s in columns])
        self.register_buffer(
            "channel", torch.tensor([c for c, _, _ in columns]), persistent=False
        )
        self.register_buffer("scalar", scalar, persistent=False)
        self.register_buffer("place", torch.nonzero(scalar).squeeze(-1), persistent=False)
        share = torch.stack(
            [scalar / self.n_scalar, higher / max(n_channel - self.n_scalar, 1)]
        )
        self.register_buffer("share", share, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(A, F)``."""
        with full_precision(x):
            mean = (x @ self.share[0])[:, None]
            centred = x - mean * self.scalar
            inverse = torch.rsqrt(centred**2 @ self.share.T + self.eps)  # (A, 2)
        scale = torch.where(self.scalar > 0, inverse[:, :1], inverse[:, 1:])
        normed = centred * scale * self.weight[self.channel]
        return normed.index_add(1, self.place, self.bias.expand(len(x), -1))


class NodeFeedForward(nn.Module):
    """Gated two-layer map of each atom: every channel has a sigmoid gate of the scalars.

    Parameters
    ----------
    layout
        Channels of input and output.
    factor
        Hidden channels over those.
    """

    def __init__(self, layout: Layout, factor: int) -> None:
        super().__init__()
        hidden = Layout.of(
            [factor * n for n in layout.natural], [factor * n for n in layout.unnatural]
        )
        self.layout = layout
        columns = [0] * hidden.node_size  # gate of each
        n_gate = 0
        for parity, l in hidden.degrees:
            for start, n in hidden.degree_columns(parity, l):
                gates = list(range(n_gate, n_gate + n))
                columns[start : start + (2 * l + 1) * n] = gates * (2 * l + 1)
                n_gate += n
        self.register_buffer("gate_of_column", torch.tensor(columns), persistent=False)
        self.gate = nn.Linear(layout.natural[0], n_gate)
        self.first = NodeLinear(layout, hidden)
        self.second = NodeLinear(hidden, layout, gain=0.3)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(A, F)`` to ``(A, F)``."""
        scalars = degree_view(x, self.layout, "natural", 0).flatten(1)
        gates = torch.sigmoid(self.gate(scalars))
        return self.second(self.first(x) * gates.index_select(1, self.gate_of_column))
