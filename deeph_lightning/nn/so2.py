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
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from deeph_lightning.nn.layout import EdgeTensor, Layout
from deeph_lightning.nn.precision import full_precision


class _Source(NamedTuple):
    """Columns of one input tensor, and the weight that maps them."""

    tensor: int
    start: int
    size: int
    weight: int


class _Product(NamedTuple):
    """Columns of one output tensor: the sum of products; zero without sources."""

    tensor: int
    start: int
    size: int
    sources: tuple[_Source, ...]


class SO2Linear(nn.Module):
    """Linear map of several edge tensors to the sum of their images.

    Parameters
    ----------
    layouts_in
        Channels of each input.
    layout_out
        Channels of the output. Orders that all inputs lack are zero.
    extra
        Additional natural m = 0 columns (gates, logits), returned by themselves.
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
        self.layout_out, self.extra, self.o3 = layout_out, extra, o3
        self.weights = nn.ParameterList()
        odd = odd_inputs or [True] * len(layouts_in)
        natural = [(n, 0, layout.zero_sizes[0]) for n, layout in enumerate(layouts_in)]
        unnatural = [(n, *layout.zero_sizes) for n, layout in enumerate(layouts_in) if odd[n]]
        n_natural, n_unnatural = layout_out.zero_sizes
        self.products = [
            self._product(0, 0, n_natural, natural, gain),
            self._product(0, n_natural, n_unnatural, unnatural, gain),
            self._product(1, 0, extra, natural, gain),
        ]
        # without inversion the inputs times the imaginary unit follow the inputs themselves
        starts = [_starts(layout.rest_sizes) for layout in layouts_in]
        repeats = 1 if o3 else 2
        column = 0
        for m, size in enumerate(layout_out.rest_sizes):
            orders = [
                (len(layouts_in) * (1 + r) + n, starts[n][m], layout.rest_sizes[m])
                for r in range(repeats)
                for n, layout in enumerate(layouts_in)
                if m < layout.l_max
            ]
            self.products.append(self._product(2, column, size, orders, gain))
            column += size

    def _product(
        self,
        tensor: int,
        start: int,
        size: int,
        inputs: list[tuple[int, int, int]],
        gain: float,
    ) -> _Product:
        """Create the weights of one product; inputs are ``(tensor, first column, columns)``."""
        inputs = [item for item in inputs if item[2] and size]
        bound = 0.5 * gain * math.sqrt(3.0 / max(sum(n for _, _, n in inputs), 1))
        sources = []
        for number, first, n_in in inputs:
            sources.append(_Source(number, first, n_in, len(self.weights)))
            weight = torch.empty(2, n_in, size).uniform_(-bound, bound)
            self.weights.append(nn.Parameter(weight))
        return _Product(tensor, start, size, tuple(sources))

    def forward(self, *inputs: EdgeTensor) -> tuple[EdgeTensor, Tensor]:
        """Return the image and the extra invariants ``(2, P, extra)``, exchange basis."""
        n_pair = inputs[0].zero.shape[1]
        rests = [edge.rest.reshape(2, 2 * n_pair, edge.rest.shape[-1]) for edge in inputs]
        if not self.o3:
            rests += [_turn(rest, n_pair) for rest in rests]
        tensors = [edge.zero for edge in inputs] + rests
        n_rest = sum(self.layout_out.rest_sizes)
        sizes = (
            (n_pair, sum(self.layout_out.zero_sizes)),
            (n_pair, self.extra),
            (2 * n_pair, n_rest),
        )
        weights = list(self.weights)
        device = inputs[0].zero.device.type
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
            tensors, weights = [x.to(dtype) for x in tensors], [w.to(dtype) for w in weights]
        with full_precision(tensors[0]):
            out = _Products.apply(self.products, sizes, len(tensors), *tensors, *weights)
        zero, extra, rest = out
        return EdgeTensor(zero, rest.view(2, n_pair, 2, n_rest)), extra


class _Products(torch.autograd.Function):
    """Batched products of column ranges, written in place of a concatenation."""

    @staticmethod
    def forward(ctx, products, sizes, n_tensor, *args):
        tensors, weights = args[:n_tensor], args[n_tensor:]
        ctx.products, ctx.n_tensor = products, n_tensor
        ctx.save_for_backward(*args)
        outputs = [tensors[0].new_empty(2, *size) for size in sizes]
        for tensor, start, size, sources in products:
            out = outputs[tensor][..., start : start + size]
            if not sources:
                out.zero_()
            for n, (number, first, n_in, weight) in enumerate(sources):
                part = tensors[number][..., first : first + n_in]
                if n:
                    torch.baddbmm(out, part, weights[weight], out=out)
                else:
                    torch.bmm(part, weights[weight], out=out)
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        tensors = ctx.saved_tensors[: ctx.n_tensor]
        weights = ctx.saved_tensors[ctx.n_tensor :]
        grad_tensors = [torch.empty_like(x) for x in tensors]
        grad_weights: list[Tensor | None] = [None] * len(weights)
        written: list[set[tuple[int, int]]] = [set() for _ in tensors]
        for tensor, start, size, sources in ctx.products:
            grad = grads[tensor][..., start : start + size]
            for number, first, n_in, weight in sources:
                part = tensors[number][..., first : first + n_in]
                grad_weights[weight] = torch.bmm(part.mT, grad)
                out = grad_tensors[number][..., first : first + n_in]
                if (first, n_in) in written[number]:
                    torch.baddbmm(out, grad, weights[weight].mT, out=out)
                else:
                    torch.bmm(grad, weights[weight].mT, out=out)
                    written[number].add((first, n_in))
        for grad, ranges in zip(grad_tensors, written, strict=True):
            for first, stop in _gaps(ranges, grad.shape[-1]):
                grad[..., first:stop].zero_()
        return None, None, None, *grad_tensors, *grad_weights


def _gaps(ranges: set[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    """Column ranges that `ranges` of ``(first, length)`` leave free."""
    stop = 0
    for first, length in sorted(ranges):
        if first > stop:
            yield stop, first
        stop = first + length
    if stop < size:
        yield stop, size


def _starts(sizes: Sequence[int]) -> list[int]:
    return [sum(sizes[:n]) for n in range(len(sizes))]


class EdgeActivation(nn.Module):
    """Bias, radial term and gates of a hidden pair feature, in the basis of directions.

    The natural m = 0 coefficients are invariants of the frame and take SiLU; all others are
    multiplied by sigmoid gates, one per channel and degree, shared by its orders.

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
        self.n_logit = n_logit
        zero_gate, self.rest_gates, self.n_gate = _gate_ranges(layout)
        self.register_buffer("zero_gate", torch.tensor(zero_gate).long(), persistent=False)
        self.radial = nn.Linear(n_radial, self.n_natural + self.extra)

    @property
    def extra(self) -> int:
        """Invariants to be supplied by the linear map before."""
        return self.n_gate + self.n_logit

    def forward(
        self, edge: EdgeTensor, extra: Tensor, radial: Tensor
    ) -> tuple[EdgeTensor, Tensor]:
        """Activate the output of `SO2Linear`; returns the feature and ``(2, P, n_logit)``."""
        natural, unnatural = edge.zero.split([self.n_natural, self.n_unnatural], -1)
        bias, bias_extra = self.radial(radial).split([self.n_natural, self.extra], -1)
        zero = exchange(nn.functional.silu(exchange(natural) + bias))
        gate, logit = (exchange(extra) + bias_extra).split([self.n_gate, self.n_logit], -1)
        gate = exchange(torch.sigmoid(gate))
        rest = _Gate.apply(edge.rest, gate.to(edge.rest), self.rest_gates)
        if self.n_unnatural:
            own = gate.index_select(-1, self.zero_gate).to(unnatural)
            opened = _Gate.apply(unnatural[:, :, None], own, [(0, 0, self.n_unnatural)])
            zero = torch.cat([zero, opened[:, :, 0]], -1)
        return EdgeTensor(zero, rest), logit


def _gate_ranges(layout: Layout) -> tuple[list[int], list[tuple[int, int, int]], int]:
    """Gate of each unnatural m = 0 column, which gates open which columns of `rest`, number.

    Gates are numbered like the columns of order m = 1, then the pseudoscalars; ranges are
    ``(first column, first gate, length)``.
    """
    first_gate, n_gate = [], 0
    for slab in layout.slabs:
        first_gate.append(n_gate)
        n_gate += (slab.l_last - max(slab.l_first, 1) + 1) * slab.channels
    rest, column = [], 0
    for m in range(1, layout.l_max + 1):
        for slab, gate in zip(layout.slabs, first_gate, strict=True):
            l = max(m, slab.l_first)
            length = max(slab.l_last - l + 1, 0) * slab.channels
            if length:
                before = (l - max(slab.l_first, 1)) * slab.channels
                rest.append((column, gate + before, length))
            column += length
    place = {
        n: (slab, gate + first)
        for slab, gate in zip(layout.slabs, first_gate, strict=True)
        for n, first in slab.towers
    }
    zero = []
    for n, (parity, l_first, l_last, channels) in enumerate(layout.towers):
        for l in range(l_first, l_last + 1) if parity == "unnatural" else ():
            slab, gate = place[n]
            if l == 0:
                gate, n_gate = n_gate, n_gate + channels
            else:
                gate += (l - max(slab.l_first, 1)) * slab.channels
            zero += range(gate, gate + channels)
    return zero, rest, n_gate


class _Gate(torch.autograd.Function):
    """Multiply both directions by their gates; all in the exchange basis.

    With sum s and difference d of a feature and G, g those of its gates the product has sum
    ``G s + g d`` and difference ``g s + G d``.
    """

    @staticmethod
    def forward(ctx, x, gate, ranges):
        ctx.ranges = ranges
        ctx.save_for_backward(x, gate)
        return _open(x, gate, ranges)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, gate = ctx.saved_tensors
        grad_gate = torch.zeros_like(gate)
        for column, first, length in ctx.ranges:
            s, d = x[..., column : column + length]
            grad_s, grad_d = grad[..., column : column + length]
            out = grad_gate[..., first : first + length]
            out[0] += torch.addcmul(s * grad_s, d, grad_d).sum(1)
            out[1] += torch.addcmul(d * grad_s, s, grad_d).sum(1)
        return _open(grad, gate, ctx.ranges), grad_gate, None


def _open(x: Tensor, gate: Tensor, ranges: list[tuple[int, int, int]]) -> Tensor:
    out = torch.empty_like(x)
    for column, first, length in ranges:
        s, d = x[..., column : column + length]
        G, g = gate[..., None, first : first + length]
        total, difference = out[..., column : column + length]
        torch.mul(s, G, out=total).addcmul_(d, g)
        torch.mul(s, g, out=difference).addcmul_(d, G)
    return out


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


def _turn(part: Tensor, n_pair: int) -> Tensor:
    """Multiply ``(2, 2P, K)`` by the imaginary unit and swap sum and difference."""
    even, odd = part.flip(0).view(2, n_pair, 2, -1).unbind(2)
    return torch.stack([-odd, even], dim=2).view_as(part)
