"""Layers on atoms: degree-wise linear maps, normalisation, gated feed-forward."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from deeph_lightning.nn.layout import Layout
from deeph_lightning.nn.precision import full_precision

#: Where the channels of some rows lie: ``(first column, number)`` of pieces ``(rows, number)``.
_Pieces = Sequence[tuple[int, int]]


@dataclass
class _Run:
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

    def goes_on(self, parity: str, pieces_in: _Pieces, pieces_out: _Pieces) -> bool:
        """Whether the channels of a degree lie right behind these."""
        behind = [
            [(start + self.rows * n, n) for start, n in pieces]
            for pieces in (self.pieces_in, self.pieces_out)
        ]
        return parity == self.parity and behind == [pieces_in, pieces_out]


class _Cut:
    """Node tensors ``(A, F)`` and their runs, ``(rows A, channels)`` component by component.

    Parameters
    ----------
    runs
        Rows and pieces of each.
    size
        Columns F of the node tensor; those of no run are left out, and zero.
    """

    def __init__(self, runs: Sequence[tuple[int, _Pieces]], size: int) -> None:
        places = sorted(
            (start, rows, n, number)
            for number, (rows, pieces) in enumerate(runs)
            for start, n in pieces
        )
        self.n_run, self.sections = len(runs), []  # run (None: no run), rows, channels
        stop = 0
        for start, rows, n, number in [*places, (size, 0, 0, None)]:
            if start > stop:
                self.sections.append((None, 1, start - stop))
            if number is not None:
                self.sections.append((number, rows, n))
            stop = start + rows * n

    def split(self, x: Tensor) -> list[Tensor]:
        """Cut a node tensor into its runs."""
        found: list[list[Tensor]] = [[] for _ in range(self.n_run)]
        sizes = [rows * n for _, rows, n in self.sections]
        for (number, rows, n), part in zip(self.sections, x.split(sizes, -1), strict=True):
            if number is not None:
                found[number].append(part.unflatten(1, (rows, n)).transpose(0, 1))
        return [(p[0] if len(p) == 1 else torch.cat(p, -1)).flatten(0, 1) for p in found]

    def join(self, runs: Sequence[Tensor], n_atom: int) -> Tensor:
        """Put runs into a node tensor."""
        parts, first = [], [0] * self.n_run
        for number, rows, n in self.sections:
            if number is None:
                parts.append(runs[0].new_zeros(n_atom, n))
                continue
            run = runs[number].unflatten(0, (rows, n_atom)).transpose(0, 1)
            parts.append(run[..., first[number] : first[number] + n].flatten(1))
            first[number] += n
        return torch.cat(parts, -1)


class NodeLinear(nn.Module):
    """Mix the channels of each degree and parity; bias on true scalars only.

    Degrees or parities that the input lacks are zero in the output.
    """

    def __init__(self, layout_in: Layout, layout_out: Layout, *, gain: float = 1.0) -> None:
        super().__init__()
        self.weights = nn.ParameterDict()
        self.runs: list[_Run] = []
        for parity, l in layout_out.degrees:
            pieces = [layout.degree_columns(parity, l) for layout in (layout_in, layout_out)]
            if not pieces[0]:
                continue
            n_in, n_out = (sum(n for _, n in part) for part in pieces)
            bound = gain * math.sqrt(3.0 / n_in)
            matrix = torch.empty(n_in, n_out).uniform_(-bound, bound)
            self.weights[f"{parity}_{l}"] = nn.Parameter(matrix)
            if self.runs and self.runs[-1].goes_on(parity, *pieces):
                self.runs[-1].degrees.append(l)
            else:
                self.runs.append(_Run(parity, [l], *pieces))
        self.bias = nn.Parameter(torch.zeros(layout_out.natural[0]))
        self.cut_in = _Cut([(r.rows, r.pieces_in) for r in self.runs], layout_in.node_size)
        self.cut_out = _Cut([(r.rows, r.pieces_out) for r in self.runs], layout_out.node_size)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(A, F_in)`` to ``(A, F_out)``, in the precision of the weights."""
        return self.cut_out.join(self.map_runs(self.cut_in.split(x), len(x)), len(x))

    def map_runs(self, parts: Sequence[Tensor], n_atom: int) -> list[Tensor]:
        """Map the runs of a node tensor."""
        out = []
        for run, part in zip(self.runs, parts, strict=True):
            counts = [(2 * l + 1) * n_atom for l in run.degrees]
            weights = [self.weights[f"{run.parity}_{l}"] for l in run.degrees]
            bias = self.bias if run.parity == "natural" and run.degrees[0] == 0 else None
            out.append(_RowProducts.apply(part.to(weights[0]), counts, bias, *weights))
        return out


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


def degree_view(x: Tensor, layout: Layout, parity: str, l: int) -> Tensor:
    """Channels of one degree of a node tensor, ``(A, 2l+1, channels)``."""
    parts = [
        x[:, start : start + (2 * l + 1) * n].unflatten(1, (2 * l + 1, n))
        for start, n in layout.degree_columns(parity, l)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


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
        self.gate = nn.Linear(layout.natural[0], sum(hidden.zero_sizes))
        self.first = NodeLinear(layout, hidden)
        self.second = NodeLinear(hidden, layout, gain=0.3)
        for number, run in enumerate(self.first.runs):
            rows = [k for k, l in enumerate(run.degrees) for _ in range(2 * l + 1)]
            self.register_buffer(f"gate_of_row_{number}", torch.tensor(rows), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(A, F)`` to ``(A, F)``."""
        scalars = degree_view(x, self.layout, "natural", 0).flatten(1)
        gates = torch.sigmoid(self.gate(scalars))
        parts = self.first.map_runs(self.first.cut_in.split(x), len(x))
        pairs = zip(self.first.runs, parts, strict=True)
        gates = gates.split([len(run.degrees) * part.shape[1] for run, part in pairs], -1)
        gated = []
        for number, (part, gate) in enumerate(zip(parts, gates, strict=True)):
            gate = gate.unflatten(1, (-1, part.shape[1])).transpose(0, 1)
            gate = gate.index_select(0, getattr(self, f"gate_of_row_{number}"))
            gated.append(part * gate.flatten(0, 1))
        return self.second.cut_out.join(self.second.map_runs(gated, len(x)), len(x))
