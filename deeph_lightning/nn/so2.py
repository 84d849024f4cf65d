"""SO(2)-linear maps of pair features and their activation: one matrix product per order m.

With inversion (``o3``) natural and unnatural channels are stacked by mirror parity and one real
matrix serves both stacks, the most general O(3)-equivariant linear map in an edge frame (SO(2)
convolutions: arXiv:2302.03655). In the exchange basis the sum and the difference of the two
directions of a pair have a matrix each, the most general map that commutes with exchanging the
two atoms. Without inversion (SO(3) only) sum and difference mix, multiplied by the imaginary
unit of the order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deeph_lightning.nn.layout import EdgeTensor, Layout


class SO2Linear(nn.Module):
    """Linear map of several edge tensors to the sum of their images.

    Parameters
    ----------
    layouts_in
        Channels of each input.
    layout_out
        Channels of the output. Orders that all inputs lack are zero.
    extra
        Additional natural m = 0 columns (gates, logits), returned after the natural ones.
    o3
        Exact inversion symmetry.
    gain
        Scale of the initial weights.
    odd_inputs
        Whether each input has mirror-odd m = 0 coefficients; no linear map makes them from
        natural features, so in a first layer they are zero and need no weights.
    """

    def __init__(
        self,
        layouts_in: Sequence[Layout],
        layout_out: Layout,
        *,
        extra: int = 0,
        o3: bool = True,
        gain: float = 1.0,
        odd_inputs: Sequence[bool] | None = None,
    ) -> None:
        super().__init__()
        self.layouts_in, self.layout_out, self.o3 = list(layouts_in), layout_out, o3
        natural_out, unnatural_out = layout_out.zero_sizes
        self.n_natural = natural_out + extra
        sizes = [layout.zero_sizes for layout in layouts_in]
        self.natural = _weights([n for n, _ in sizes], self.n_natural, gain)
        odd = odd_inputs or [True] * len(sizes)
        n_odd = [u * has for (_, u), has in zip(sizes, odd, strict=True)]
        self.unnatural = _weights(n_odd, unnatural_out, gain)
        self.orders, self.mixed = nn.ModuleList(), nn.ModuleList()
        for m in range(1, layout_out.l_max + 1):
            n_in = [_order_size(layout, m) for layout in layouts_in]
            n_out = _order_size(layout_out, m)
            self.orders.append(_weights(n_in, n_out, gain))
            if not o3:
                self.mixed.append(_weights(n_in, n_out, gain))

    def forward(self, *inputs: EdgeTensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return natural m = 0 with the extra columns, unnatural m = 0, and the rest."""
        n_pair = inputs[0].zero.shape[1]
        natural, unnatural, rests = [], [], []
        for edge, layout in zip(inputs, self.layouts_in, strict=True):
            first, second = edge.zero.split(layout.zero_sizes, -1)
            natural.append(first)
            unnatural.append(second)
            flat = edge.rest.reshape(2, 2 * n_pair, sum(layout.rest_sizes))
            rests.append(flat.split(layout.rest_sizes, -1))
        outputs = []
        for m, weights in enumerate(self.orders):
            parts = [rest[m] if m < len(rest) else None for rest in rests]
            out = _apply(weights, parts)
            if not self.o3 and out is not None:
                turned = [None if part is None else _turn(part, n_pair) for part in parts]
                out = out + _apply(self.mixed[m], turned)
            if out is None:
                size = self.layout_out.rest_sizes[m]
                out = natural[0].new_zeros(2, 2 * n_pair, size)
            outputs.append(out)
        rest = torch.cat(outputs, -1) if outputs else natural[0].new_zeros(2, 2 * n_pair, 0)
        odd = _apply(self.unnatural, unnatural)
        if odd is None:
            odd = natural[0].new_zeros(2, n_pair, self.layout_out.zero_sizes[1])
        return (
            _apply(self.natural, natural),
            odd,
            rest.view(2, 2, n_pair, sum(self.layout_out.rest_sizes)),
        )


class EdgeActivation(nn.Module):
    """Bias, radial term and gates of a hidden pair feature, in the basis of directions.

    The natural m = 0 coefficients are invariants of the frame and take SiLU; all others are
    multiplied by sigmoid gates, one per channel and degree l > 0, shared by its orders.

    Parameters
    ----------
    layout
        Channels of the feature.
    n_radial
        Size of the pair invariants (radial embedding).
    n_logit
        Further invariants, returned untouched per direction (attention logits).
    """

    def __init__(self, layout: Layout, n_radial: int, n_logit: int = 0) -> None:
        super().__init__()
        self.n_natural, self.n_unnatural = layout.zero_sizes
        self.n_gate = layout.rest_sizes[0] if layout.l_max else 0
        self.n_logit = n_logit
        gates = _gate_numbers(layout)
        self.register_buffer("gate_zero", torch.tensor(gates[0]).long(), persistent=False)
        self.register_buffer("gate_rest", torch.tensor(gates[1]).long(), persistent=False)
        self.radial = nn.Linear(n_radial, self.n_natural + self.extra)

    @property
    def extra(self) -> int:
        """Invariants to be supplied by the linear map before."""
        return self.n_gate + self.n_logit

    def forward(
        self, natural: Tensor, unnatural: Tensor, rest: Tensor, radial: Tensor
    ) -> tuple[EdgeTensor, Tensor]:
        """Activate the output of `SO2Linear`; returns the feature and ``(2, P, n_logit)``."""
        natural = exchange(natural) + self.radial(radial)
        natural, gate, logit = natural.split([self.n_natural, self.n_gate, self.n_logit], -1)
        gate = torch.sigmoid(gate)
        zero = nn.functional.silu(natural)
        if self.n_unnatural:
            opened = exchange(unnatural) * gate.index_select(-1, self.gate_zero)
            zero = torch.cat([zero, opened], -1)
        rest = exchange(rest) * gate.index_select(-1, self.gate_rest)[:, None]
        return EdgeTensor(exchange(zero), exchange(rest)), logit


def _gate_numbers(layout: Layout) -> tuple[list[int], list[int]]:
    """Gate of every unnatural m = 0 column and of every column m > 0."""
    number: dict[tuple[int, int, int], int] = {}
    zero: list[int] = []
    columns: list[list[int]] = [[] for _ in range(layout.l_max)]
    for m in range(1, layout.l_max + 1):
        for t, tower in enumerate(layout.towers):
            for l in range(max(m, tower.l_first), tower.l_last + 1):
                for c in range(tower.channels):
                    columns[m - 1].append(number.setdefault((t, l, c), len(number)))
    for t, tower in enumerate(layout.towers):
        if tower.parity == "unnatural":
            for l in range(tower.l_first, tower.l_last + 1):
                zero += [number[t, l, c] for c in range(tower.channels)]
    return zero, [gate for part in columns for gate in part]


def exchange(x: Tensor) -> Tensor:
    """Sum and difference along dim 0: directions to exchange basis, or back (twice)."""
    return _Exchange.apply(x)


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):  # noqa: ARG004
        out = torch.empty_like(x)
        torch.add(x[0], x[1], out=out[0])
        torch.sub(x[0], x[1], out=out[1])
        return out

    @staticmethod
    def backward(ctx, grad):  # noqa: ARG004
        return _Exchange.apply(grad)


def _order_size(layout: Layout, m: int) -> int:
    return layout.rest_sizes[m - 1] if m <= layout.l_max else 0


def _weights(n_in: list[int], n_out: int, gain: float) -> nn.ParameterList:
    """One ``(2, n_in, n_out)`` matrix pair per input; empty inputs get none."""
    bound = 0.5 * gain * math.sqrt(3.0 / max(sum(n_in), 1))
    return nn.ParameterList(
        nn.Parameter(torch.empty(2, n, n_out).uniform_(-bound, bound)) if n and n_out else None
        for n in n_in
    )


def _apply(weights: nn.ParameterList, parts: Sequence[Tensor | None]) -> Tensor | None:
    """Sum of the batched products; None where nothing maps."""
    out = None
    for weight, part in zip(weights, parts, strict=True):
        if weight is None or part is None:
            continue
        out = torch.bmm(part, weight) if out is None else torch.baddbmm(out, part, weight)
    return out


def _turn(part: Tensor, n_pair: int) -> Tensor:
    """Multiply ``(2, 2P, K)`` by the imaginary unit and swap sum and difference."""
    even, odd = part.flip(0).split(n_pair, dim=1)
    return torch.cat([-odd, even], dim=1)
