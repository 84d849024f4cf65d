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
        rests = [edge.rest for edge in inputs]
        if not self.o3:
            rests += [_turn(rest) for rest in rests]
        tensors = [edge.zero for edge in inputs] + rests
        sizes = (
            (n_pair, sum(self.layout_out.zero_sizes)),
            (n_pair, self.extra),
            (n_pair, 2, sum(self.layout_out.rest_sizes)),
        )
        weights = list(self.weights)
        device = inputs[0].zero.device.type
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
            tensors, weights = [x.to(dtype) for x in tensors], [w.to(dtype) for w in weights]
        with full_precision(tensors[0]):
            out = _Products.apply(self.products, sizes, len(tensors), *tensors, *weights)
        zero, extra, rest = out
        return EdgeTensor(zero, rest), extra


class _Products(torch.autograd.Function):
    """Batched products of column ranges, written in place of a concatenation."""

    @staticmethod
    def forward(ctx, products, sizes, n_tensor, *args):
        tensors, weights = [_rows(x) for x in args[:n_tensor]], args[n_tensor:]
        ctx.products, ctx.n_tensor = products, n_tensor
        ctx.save_for_backward(*args)
        outputs = [args[0].new_empty(2, *size) for size in sizes]
        flat = [_rows(x) for x in outputs]
        for tensor, start, size, sources in products:
            out = flat[tensor][..., start : start + size]
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
        tensors = [_rows(x) for x in ctx.saved_tensors[: ctx.n_tensor]]
        weights = ctx.saved_tensors[ctx.n_tensor :]
        grads = [_rows(grad) for grad in grads]
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
        shaped = zip(grad_tensors, ctx.saved_tensors, strict=False)
        return None, None, None, *(g.view(x.shape) for g, x in shaped), *grad_weights


def _rows(x: Tensor) -> Tensor:
    """Rows for products: ``(2, P, columns)``, with the parities of `rest` ``(2, 2P, ...)``."""
    return x.flatten(1, -2)


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


#: First column, first gate, length.
_Range = tuple[int, int, int]


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
        self.zero_gates, self.rest_gates, self.n_gate = _gate_ranges(layout)
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
        gate = exchange(torch.sigmoid(gate)).to(edge.rest)
        ranges = self.zero_gates, self.rest_gates
        unnatural, rest = _Gates.apply(unnatural[:, :, None], edge.rest, gate, ranges)
        if self.n_unnatural:
            zero = torch.cat([zero, unnatural[:, :, 0]], -1)
        return EdgeTensor(zero, rest), logit


def _gate_ranges(layout: Layout) -> tuple[list[_Range], list[_Range], int]:
    """Which gates open the unnatural m = 0 columns and those of `rest`, and their number.

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
    zero, column = [], 0
    for n, (parity, l_first, l_last, channels) in enumerate(layout.towers):
        for l in range(l_first, l_last + 1) if parity == "unnatural" else ():
            slab, gate = place[n]
            if l == 0:
                gate, n_gate = n_gate, n_gate + channels
            else:
                gate += (l - max(slab.l_first, 1)) * slab.channels
            zero.append((column, gate, channels))
            column += channels
    return zero, rest, n_gate


class _Gates(torch.autograd.Function):
    """Multiply both directions by their gates; all in the exchange basis.

    Unnatural columns of m = 0, ``(2, P, 1, columns)``, those of `rest`, gates ``(2, P,
    n_gate)``, and which gates open which columns of either: all columns, in their order.
    """

    @staticmethod
    def forward(ctx, unnatural, rest, gate, ranges):
        ctx.ranges = ranges
        ctx.save_for_backward(unnatural, rest, gate)
        return tuple(
            _multiply(x, _spread(gate, of))
            for x, of in zip((unnatural, rest), ranges, strict=True)
        )

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        *tensors, gate = ctx.saved_tensors
        grad_tensors, grad_gate = [], torch.zeros_like(gate)
        for x, grad, ranges in zip(tensors, grads, ctx.ranges, strict=True):
            grad_tensors.append(_multiply(grad, _spread(gate, ranges)))
            summed = _multiply(x, grad).sum(2)
            for column, first, length in ranges:
                grad_gate[..., first : first + length] += summed[..., column : column + length]
        return *grad_tensors, grad_gate, None


def _spread(gate: Tensor, ranges: list[_Range]) -> Tensor:
    """Gate of every column, ``(2, P, 1, columns)``."""
    parts = [gate[..., first : first + length] for _, first, length in ranges]
    return torch.cat([gate[..., :0], *parts], -1)[:, :, None]


def _multiply(x: Tensor, y: Tensor) -> Tensor:
    """Product for each direction of two tensors in the exchange basis.

    Sums s, S and differences d, D give the sum ``s S + d D`` and the difference ``s D + d S``.
    """
    out = torch.empty_like(x)
    (s, d), (S, D), (total, difference) = x, y, out
    torch.mul(s, S, out=total).addcmul_(d, D)
    torch.mul(s, D, out=difference).addcmul_(d, S)
    return out


def exchange(x: Tensor) -> Tensor:
    """Sum and difference along dim 0: directions to exchange basis, or back (twice)."""
    return _Exchange.apply(x)


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):  # noqa: ARG004
        out = torch.empty_like(x)
        (first, second), (total, difference) = x, out
        torch.add(first, second, out=total)
        torch.sub(first, second, out=difference)
        return out

    @staticmethod
    def backward(ctx, grad):  # noqa: ARG004
        return _Exchange.apply(grad)


def _turn(rest: Tensor) -> Tensor:
    """Multiply ``(2, P, 2, K)`` by the imaginary unit and swap sum and difference."""
    even, odd = rest.flip(0).unbind(2)
    return torch.stack([-odd, even], dim=2)
