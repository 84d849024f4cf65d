"""Layers of DeepH-E3 (arXiv:2210.13955): e3nn's tensor products on directed edges.

Features are e3nn tensors: irreps one after another, each ``(channels, 2l+1)``. `e3nn_columns`
is the border to the node tensors of `layout`, which hold the same numbers in another order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from e3nn.nn import Gate
from e3nn.o3 import FullyConnectedTensorProduct, Irreps, wigner_3j
from torch import Tensor, nn

from deeph_lightning.nn.layout import Layout
from deeph_lightning.nn.precision import full_precision
from deeph_lightning.nn.scatter import Segments


def irreps_of(layout: Layout, *, o3: bool = True) -> Irreps:
    """Irreps of a layout: natural degrees 0, 1, ..., then unnatural ones.

    Without inversion (``o3=False``) all parities are even, as e3nn writes SO(3).
    """
    parities = (("natural", 1), ("unnatural", -1))
    return Irreps(
        [
            (count, (l, sign * (-1) ** l if o3 else 1))
            for name, sign in parities
            for l, count in enumerate(getattr(layout, name))
            if count
        ]
    )


def layout_of(irreps: Irreps, *, o3: bool = True) -> Layout:
    """Layout of irreps: the inverse of `irreps_of`."""
    degrees = range(irreps.lmax + 1)
    if not o3:
        return Layout.of([irreps.count((l, 1)) for l in degrees])
    natural = [irreps.count((l, (-1) ** l)) for l in degrees]
    return Layout.of(natural, [irreps.count((l, -((-1) ** l))) for l in degrees])


def e3nn_columns(layout: Layout) -> Tensor:
    """Column of the e3nn tensor of `irreps_of` that every column of a node tensor holds."""
    columns = torch.empty(layout.node_size, dtype=torch.int64)
    start = 0
    for parity in ("natural", "unnatural"):
        for l, count in enumerate(getattr(layout, parity)):
            own = torch.arange(start, start + count * (2 * l + 1)).view(count, 2 * l + 1)
            start += own.numel()
            for first, channels in layout.degree_columns(parity, l):
                columns[first : first + channels * (2 * l + 1)] = own[:channels].T.flatten()
                own = own[channels:]
    return columns


class Gaussians(nn.Module):
    """Gaussians on a uniform grid from zero, as wide as their spacing.

    Parameters
    ----------
    n_basis
        Number of functions.
    r_max
        Last centre, Å.
    """

    def __init__(self, n_basis: int, r_max: float) -> None:
        super().__init__()
        centre = torch.linspace(0.0, r_max, n_basis, dtype=torch.float64)
        self.register_buffer("centre", centre, persistent=False)
        self.width = r_max / (n_basis - 1)

    def forward(self, distance: Tensor) -> Tensor:
        """Evaluate at ``(E,)`` distances in Å: ``(E, n_basis)``."""
        offset = (distance[:, None] - self.centre.to(distance)) / self.width
        return torch.exp(-0.5 * offset**2)


class TensorProduct(FullyConnectedTensorProduct):
    """e3nn's tensor product; its coupling coefficients are exact in any precision.

    e3nn keeps them as buffers, which a change to double precision would only pad with zeros.
    """

    def __init__(self, irreps_in1: Irreps, irreps_in2: Irreps, irreps_out: Irreps) -> None:
        super().__init__(irreps_in1, irreps_in2, irreps_out)
        self.register_load_state_dict_post_hook(_make_exact)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TensorProduct:
        super()._apply(fn, recurse)
        _make_exact(self)
        return self

    # e3nn copies its generated code by pickling it, which folds some coupling coefficients into
    # other constants: a copy (of averaged weights, say) would have other buffers than its model
    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def _make_exact(product: TensorProduct, *_: object) -> None:
    """Compute the coupling coefficients anew, in the precision that they are kept in."""
    for name, buffer in product.named_buffers():
        found = re.search(r"\._w3j_(\d+)_(\d+)_(\d+)$", name)
        if found:
            degrees = (int(group) for group in found.groups())
            buffer.copy_(wigner_3j(*degrees, dtype=torch.float64))


class EquivariantNorm(nn.Module):
    """Layer normalisation of e3nn tensors.

    Parameters
    ----------
    irreps
        Of the features, scalars first.
    eps
        Smallest square that is not taken for noise.

    Notes
    -----
    Row by row: scalars are standardised over channels, all higher degrees share one rms. As
    published, over all rows of a structure: of every irrep the mean over rows and channels is
    subtracted, and scalars are divided by their rms. Then a block of H depends on atoms however
    far away.
    """

    def __init__(self, irreps: Irreps, eps: float = 1e-5) -> None:
        super().__init__()
        self.irreps, self.eps = irreps, eps
        self.weight = nn.Parameter(torch.ones(irreps.num_irreps))
        self.bias = nn.Parameter(torch.zeros(irreps.count("0e")))
        self.register_buffer("channel", channel_columns(irreps), persistent=False)

    def forward(self, x: Tensor, batch: Segments | None) -> Tensor:
        """Normalise ``(N, F)``, each row by itself or, with `batch`, each structure."""
        with full_precision(x):
            normed = self._row_wise(x) if batch is None else self._graph_wide(x, batch)
        normed = normed * self.weight[self.channel]
        n = len(self.bias)  # scalars come first
        return torch.cat([normed[:, :n] + self.bias, normed[:, n:]], -1)

    def _row_wise(self, x: Tensor) -> Tensor:
        n = len(self.bias)
        scalars, higher = x[:, :n], x[:, n:]
        if n > 1:
            scalars = scalars - scalars.mean(-1, keepdim=True)
        parts = [scalars, higher] if higher.shape[1] else [scalars]
        return torch.cat(
            [p * torch.rsqrt((p**2).mean(-1, keepdim=True) + self.eps) for p in parts], -1
        )

    def _graph_wide(self, x: Tensor, batch: Segments) -> Tensor:
        count = batch.sum(x.new_ones(len(x), 1)).clamp_min(1.0)
        parts = []
        for (mul, ir), columns in zip(self.irreps, self.irreps.slices(), strict=True):
            field = x[:, columns].unflatten(-1, (mul, ir.dim))
            mean = batch.sum(field.mean(1)) / count
            field = field - mean.index_select(0, batch.receiver)[:, None]
            if ir.l == 0:
                square = batch.sum((field**2).mean(1)) / count
                field = (
                    field / (square.sqrt() + self.eps).index_select(0, batch.receiver)[:, None]
                )
            parts.append(field.flatten(1))
        return torch.cat(parts, -1)


def channel_columns(irreps: Irreps) -> Tensor:
    """Channel number of every column of an e3nn tensor."""
    sizes = torch.tensor([ir.dim for mul, ir in irreps for _ in range(mul)])
    return torch.repeat_interleave(sizes)


class EquiConv(nn.Module):
    """Tensor product of edge features with the harmonics of the edge, gate, radial weights.

    The published product has a weight for each pair of channels, factorised into one for each
    side; the harmonics have one channel of each degree, so the factors are one weight.

    Parameters
    ----------
    inputs
        Irreps of the features that are joined.
    harmonics
        Irreps of the harmonics, one channel each.
    irreps_out
        Wanted output. What no product reaches is left out: see `irreps_out`.
    n_radial
        Size of the radial basis.
    """

    def __init__(
        self, inputs: Sequence[Irreps], harmonics: Irreps, irreps_out: Irreps, n_radial: int
    ) -> None:
        super().__init__()
        kinds = list(dict.fromkeys(ir for irreps in inputs for _, ir in irreps))
        kinds.sort(key=lambda ir: (ir.l, ir.p))
        joined = Irreps([(sum(irreps.count(ir) for irreps in inputs), ir) for ir in kinds])
        self.pieces = [
            (n, columns)
            for kind in kinds
            for n, irreps in enumerate(inputs)
            for (_, ir), columns in zip(irreps, irreps.slices(), strict=True)
            if ir == kind
        ]
        reached = {ir for _, one in joined for _, two in harmonics for ir in one * two}
        self.irreps_out = Irreps([(mul, ir) for mul, ir in irreps_out if ir in reached])
        scalars = Irreps([(mul, ir) for mul, ir in self.irreps_out if ir.l == 0])
        gated = Irreps([(mul, ir) for mul, ir in self.irreps_out if ir.l > 0])
        gates = Irreps([(gated.num_irreps, "0e")] if gated else [])
        actions = [nn.functional.silu if ir.p == 1 else torch.tanh for _, ir in scalars]
        self.gate = Gate(scalars, actions, gates, [torch.sigmoid] * len(gates), gated)
        self.product = TensorProduct(joined, harmonics, self.gate.irreps_in)
        self.radial = nn.Sequential(
            nn.Linear(n_radial, 64),
            nn.SiLU(),
            nn.Linear(64, 64),
            nn.SiLU(),
            nn.Linear(64, self.irreps_out.num_irreps),
        )
        self.register_buffer("channel", channel_columns(self.irreps_out), persistent=False)

    def forward(self, parts: Sequence[Tensor], harmonics: Tensor, radial: Tensor) -> Tensor:
        """Map features ``(E, F)``, harmonics and radial basis of E edges to ``(E, F_out)``."""
        joined = torch.cat([parts[n][:, columns] for n, columns in self.pieces], -1)
        with full_precision(joined):
            product = self.product(joined.to(harmonics), harmonics)
        return self.gate(product) * self.radial(radial).index_select(1, self.channel)
