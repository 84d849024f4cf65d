"""Layers on atoms: degree-wise linear maps, normalisation, gated feed-forward."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from deeph_lightning.nn.layout import Layout
from deeph_lightning.nn.precision import full_precision


class NodeLinear(nn.Module):
    """Mix the channels of each degree and parity; bias on true scalars only.

    Degrees or parities that the input lacks are zero in the output.
    """

    def __init__(self, layout_in: Layout, layout_out: Layout, *, gain: float = 1.0) -> None:
        super().__init__()
        self.layout_in, self.layout_out = layout_in, layout_out
        self.weights = nn.ParameterDict()
        for parity, l in _degrees(layout_out):
            n_in, n_out = _count(layout_in, parity, l), _count(layout_out, parity, l)
            if n_in:
                bound = gain * math.sqrt(3.0 / n_in)
                matrix = torch.empty(n_in, n_out).uniform_(-bound, bound)
                self.weights[f"{parity}_{l}"] = nn.Parameter(matrix)
        self.bias = nn.Parameter(torch.zeros(layout_out.natural[0]))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(A, F_in)`` to ``(A, F_out)``."""
        parts = {
            (parity, l): self.degree(degree_view(x, self.layout_in, parity, l), parity, l)
            for parity, l in _degrees(self.layout_out)
            if f"{parity}_{l}" in self.weights
        }
        return _node_tensor(parts, self.layout_out, x)

    def degree(self, part: Tensor, parity: str, l: int) -> Tensor:
        """Map the channels of one degree, ``(A, 2l+1, channels)``."""
        out = part @ self.weights[f"{parity}_{l}"]
        return out + self.bias if (parity, l) == ("natural", 0) else out


def _node_tensor(parts: dict[tuple[str, int], Tensor], layout: Layout, like: Tensor) -> Tensor:
    """Join ``(A, 2l+1, channels)`` of every degree; those that are not there are zero."""
    placed = []
    for parity, l in _degrees(layout):
        columns = layout.degree_columns(parity, l)
        part = parts.get((parity, l))
        if part is None:
            part = like.new_zeros(len(like), 2 * l + 1, _count(layout, parity, l))
        pieces = part.split([channels for _, channels in columns], -1)
        placed += [(start, piece) for (start, _), piece in zip(columns, pieces, strict=True)]
    placed.sort(key=lambda item: item[0])
    return torch.cat([piece.flatten(1) for _, piece in placed], -1)


def degree_view(x: Tensor, layout: Layout, parity: str, l: int) -> Tensor:
    """Channels of one degree of a node tensor, ``(A, 2l+1, channels)``."""
    parts = [
        x[:, start : start + (2 * l + 1) * channels].view(-1, 2 * l + 1, channels)
        for start, channels in layout.degree_columns(parity, l)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def _count(layout: Layout, parity: str, l: int) -> int:
    counts = getattr(layout, parity)
    return counts[l] if l < len(counts) else 0


def _degrees(layout: Layout) -> list[tuple[str, int]]:
    return [
        (parity, l)
        for parity in ("natural", "unnatural")
        for l in range(layout.l_max + 1)
        if _count(layout, parity, l)
    ]


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
        self.sizes = [_count(hidden, parity, l) for parity, l in _degrees(layout)]
        self.gate = nn.Linear(layout.natural[0], sum(self.sizes))
        self.first = NodeLinear(layout, hidden)
        self.second = NodeLinear(hidden, layout, gain=0.3)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(A, F)`` to ``(A, F)``."""
        scalars = degree_view(x, self.layout, "natural", 0).flatten(1)
        gates = torch.sigmoid(self.gate(scalars))[:, None].split(self.sizes, -1)
        parts = {}
        for (parity, l), gate in zip(_degrees(self.layout), gates, strict=True):
            hidden = self.first.degree(degree_view(x, self.layout, parity, l), parity, l)
            parts[parity, l] = self.second.degree(hidden * gate, parity, l)
        return _node_tensor(parts, self.layout, x)
