"""Time one equivariant layer on edges: SO(2)-linear against e3nn's tensor products.

    python scripts/bench_layers.py
    python scripts/bench_layers.py --degrees 4 --channels 32 --pairs 768 --device cuda

All map C channels of every degree 0..L (natural parity) to as many, on both directions of P
pairs; the tensor products take the harmonics of the edge to degree L. "with rotations" also
turns node features into the edge frames and the result back. The yardsticks are measured here:
the bare matrix products of the SO(2) layer, one for each order, and one product of square
matrices for what the machine can do. Floating-point operations are those of matrix products.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from bench_report import Table, in_turns, report
from e3nn.o3 import FullyConnectedTensorProduct, Irreps, Linear, TensorProduct
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from deeph_lightning.inference.predict import find_device
from deeph_lightning.nn.e3 import irreps_of
from deeph_lightning.nn.edge_frame import EdgeFrames
from deeph_lightning.nn.layout import EdgeTensor, Layout
from deeph_lightning.nn.rotation import rotate_to_edges, rotate_to_nodes
from deeph_lightning.nn.so2 import SO2Linear

#: Side of the square matrices that show what the machine can do.
SQUARE = 1024
BARE = "bare products of SO(2)"
#: What it does, its weights, its inputs.
Layer = tuple[Callable[..., tuple[Tensor, ...]], nn.Module, list[Tensor]]


class Channelwise(nn.Module):
    """e3nn's tensor product channel by channel, then a linear map ("uvu + linear")."""

    def __init__(self, irreps: Irreps, harmonics: Irreps) -> None:
        super().__init__()
        paths = [
            (n, k, mul, ir)
            for n, (mul, one) in enumerate(irreps)
            for k, (_, two) in enumerate(harmonics)
            for ir in one * two
            if ir in irreps
        ]
        middle, order, _ = Irreps([(mul, ir) for *_, mul, ir in paths]).sort()
        instructions = [
            (n, k, order[number], "uvu", False) for number, (n, k, *_) in enumerate(paths)
        ]
        self.product = TensorProduct(irreps, harmonics, middle, instructions)
        self.linear = Linear(middle.simplify(), irreps)

    def forward(self, x: Tensor, harmonics: Tensor) -> Tensor:
        """Map ``(E, F)`` to ``(E, F)``."""
        return self.linear(self.product(x, harmonics))


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--degrees", type=int, nargs="+", default=[2, 4, 6])
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=512)
    parser.add_argument("--repeat", type=int, default=7, help="timed calls of each layer")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's choice")
    parser.add_argument("--json", type=Path, help="file to write")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = find_device(options.device)
    torch.manual_seed(0)

    square = torch.randn(2, SQUARE, SQUARE, device=device)
    products = in_turns({"": lambda: square[0] @ square[1]}, options.repeat, device)[""]
    rate = 2 * SQUARE**3 / statistics.median(products)
    tables, numbers = [], {}
    for l_max in options.degrees:
        of = measure(layers(l_max, options, device), options.repeat, device, rate)
        numbers[f"L={l_max}"] = of
        title = f"One layer, L = {l_max}, {options.channels} channels, {options.pairs} pairs"
        header = ["layer", "weights"] + [
            f"{way} {unit}"
            for way in ("forward", "forward + backward")
            for unit in ("(ms)", "GEMM rate", "/ bare")
        ]
        tables.append(Table(title, header, [row(name, one) for name, one in of.items()]))
    tables[-1].note = (
        f"GEMM rate: share of {rate / 1e9:.0f} GFLOP/s, float32, {device}, "
        f"{torch.get_num_threads()} threads"
    )
    report(tables, options.json, layers=numbers, gemm_flop_per_s=rate)


def layers(l_max: int, options: argparse.Namespace, device: torch.device) -> dict[str, Layer]:
    """Build the layers with their inputs."""
    n_pair = options.pairs
    layout = Layout.of([options.channels] * (l_max + 1))
    vectors = torch.randn(n_pair, 3, dtype=torch.float64)
    frames = EdgeFrames.from_vectors(vectors, l_max, dtype=torch.float32)
    frames = EdgeFrames([block.to(device) for block in frames.blocks])
    so2 = SO2Linear([layout], layout).to(device)
    zero = torch.randn(2, n_pair, sum(layout.zero_sizes), device=device)
    rest = torch.randn(2, n_pair, 2, sum(layout.rest_sizes), device=device)
    ends = list(torch.randn(2, n_pair, layout.wide_size, device=device))

    def in_frames(zero: Tensor, rest: Tensor) -> tuple[Tensor, ...]:
        edge, _ = so2(EdgeTensor(zero, rest))
        return tuple(edge)

    def rotated(first: Tensor, second: Tensor) -> tuple[Tensor, ...]:
        edge = EdgeTensor(*in_frames(*rotate_to_edges(first, second, frames, layout)))
        return (rotate_to_nodes(edge, frames, layout),)

    sizes = [(n_pair, sum(layout.zero_sizes)), *((2 * n_pair, n) for n in layout.rest_sizes)]
    weights = nn.ParameterList(torch.randn(2, n, n, device=device) for _, n in sizes)
    blocks = [torch.randn(2, rows, n, device=device) for rows, n in sizes]

    def bare(*blocks: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.bmm(x, w) for x, w in zip(blocks, weights, strict=True))

    irreps, harmonics = irreps_of(layout), Irreps.spherical_harmonics(l_max)
    full = FullyConnectedTensorProduct(irreps, harmonics, irreps).to(device)
    channelwise = Channelwise(irreps, harmonics).to(device)
    x = torch.randn(2 * n_pair, irreps.dim, device=device)
    y = torch.randn(2 * n_pair, harmonics.dim, device=device)
    return {
        BARE: (bare, weights, blocks),
        "SO(2) linear": (in_frames, so2, [zero, rest]),
        "SO(2) linear with rotations": (rotated, so2, ends),
        "e3nn fully connected": (lambda x: (full(x, y),), full, [x]),
        "e3nn uvu + linear": (lambda x: (channelwise(x, y),), channelwise, [x]),
    }


def measure(
    layers: dict[str, Layer], repeat: int, device: torch.device, rate: float
) -> dict[str, dict[str, float]]:
    """Time forward, and forward and backward with gradients of inputs and weights."""
    of: dict[str, dict[str, float]] = {
        name: {"weights": float(sum(p.numel() for p in module.parameters()))}
        for name, (_, module, _) in layers.items()
    }
    for way, prepare in (("forward", forward_only), ("both", forward_and_backward)):
        calls = {name: prepare(*layer) for name, layer in layers.items()}
        times = in_turns(calls, repeat, device)
        bare = statistics.median(times[BARE])
        for name, call in calls.items():
            with FlopCounterMode(display=False) as counter:
                call()
            median = statistics.median(times[name])
            of[name][f"{way}_s"] = median
            of[name][f"{way}_over_bare"] = median / bare
            of[name][f"{way}_gemm_share"] = counter.get_total_flops() / median / rate
    return of


def forward_only(forward: Callable, _: nn.Module, inputs: list[Tensor]) -> Callable[[], object]:
    """Return a call without gradients."""

    def call() -> object:
        with torch.no_grad():
            return forward(*inputs)

    return call


def forward_and_backward(
    forward: Callable, module: nn.Module, inputs: list[Tensor]
) -> Callable[[], object]:
    """Return a call that makes the gradients of inputs and weights."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    ones = [torch.ones_like(out) for out in forward(*leaves)]

    def call() -> object:
        for tensor in (*leaves, *module.parameters()):
            tensor.grad = None
        return torch.autograd.backward(forward(*leaves), ones)

    return call


def row(name: str, of: dict[str, float]) -> list[str]:
    """Lay out one layer."""
    cells = [name, f"{of['weights']:.3g}"]
    for way in ("forward", "both"):
        cells += [
            f"{1e3 * of[f'{way}_s']:.2f}",
            f"{of[f'{way}_gemm_share']:.0%}",
            f"{of[f'{way}_over_bare']:.2f}",
        ]
    return cells


if __name__ == "__main__":
    main()
