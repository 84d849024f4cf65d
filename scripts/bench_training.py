"""Time a training step and a prediction of several networks on the shipped graphene set.

    python scripts/bench_training.py                      first training structure (18 atoms)
    python scripts/bench_training.py --models elct --batch 4 --device cuda --precision bf16
    python scripts/bench_training.py --json outputs/bench/training.json

A training step is forward, loss, backward and optimiser. Each network has a process of its own,
as in training, and they take turns, so that what else the machine does strikes all of them. A
turn is one step that is not timed and then steps for `TURN_S` seconds, of which the median
counts; the table has the median of the turns. Memory is the largest of a step above that before
it: of the process on a CPU, of the allocator on a GPU. Two networks in the JSON give
`ratio_step_time` (second over first) and `ratio_parameters` (first over second). In the same
run the float32 prediction is compared with float64.
"""

from __future__ import annotations

import argparse
import copy
import math
import multiprocessing
import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bench_report import Table, report, seconds, shipped_batch, take_turns, training_step

from deeph_lightning.data.graph import Graph, collate
from deeph_lightning.inference.predict import find_device
from deeph_lightning.models.base import HamiltonianModel

#: Length of a turn, s.
TURN_S = 2.0
#: What a process times, by key: calls that return seconds.
_CLOCKS: dict[str, Callable[[], float]] = {}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["elct", "deeph_e3"], help="conf/model")
    parser.add_argument("--batch", type=int, default=1, help="structures of a batch")
    parser.add_argument("--repeat", type=int, default=7, help="turns of each network")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's choice")
    parser.add_argument("--json", type=Path, help="file to write")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        processes = {
            name: stack.enter_context(ProcessPoolExecutor(1, context))
            for name in options.models
        }
        about = {
            name: process.submit(set_up, name, options).result()
            for name, process in processes.items()
        }
        for key in ("step_s", "prediction_s"):
            clocks = {name: partial(turn_of, of, key) for name, of in processes.items()}
            for name, times in take_turns(clocks, options.repeat).items():
                about[name][key] = statistics.median(times)
                about[name][f"{key}_quartiles"] = statistics.quantiles(times, n=4)

    ratios = {}
    if len(options.models) == 2:
        one, two = (about[name] for name in options.models)
        ratios["ratio_step_time"] = two["step_s"] / one["step_s"]
        ratios["ratio_parameters"] = one["parameters"] / two["parameters"]
    tables = [table(about, options)]
    if ratios:
        tables[0].note = (
            f"{options.models[1]} / {options.models[0]}: step time "
            f"{ratios['ratio_step_time']:.1f}, parameters {1 / ratios['ratio_parameters']:.2f}"
        )
    settings = {
        "precision": options.precision,
        "batch": options.batch,
        "device_used": about[options.models[0]]["device"],
    }
    report(tables, options.json, models=about, **ratios, **settings)


def set_up(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Make a network and what is timed of it in this process; count and compare precisions."""
    if options.threads:
        torch.set_num_threads(options.threads)
    device, is_mixed = find_device(options.device), options.precision == "bf16"
    model, graphs = shipped_batch(name, options.batch)
    step = training_step(model, graphs, device, is_mixed=is_mixed)
    memory = peak_memory(step, device)
    predict = prediction(model, collate(graphs).to(device), is_mixed=is_mixed)
    _CLOCKS["step_s"] = partial(seconds, step, device)
    _CLOCKS["prediction_s"] = partial(seconds, predict, device)
    return {
        "device": str(device),
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "atoms": sum(graph.n_atom for graph in graphs),
        "edges": 2 * sum(len(graph.edge_pair) for graph in graphs),
        "pairs": sum(graph.n_target for graph in graphs),
        "peak_memory_MiB": memory,
        "float32_error": float32_error(model, graphs[0].to(device)),
    }


def turn(key: str) -> float:
    """Make a call of this process again and again; return its median time, s."""
    _CLOCKS[key]()
    times: list[float] = []
    while sum(times) < TURN_S:
        times.append(_CLOCKS[key]())
    return statistics.median(times)


def turn_of(process: ProcessPoolExecutor, key: str) -> float:
    """Let a process have its turn."""
    return process.submit(turn, key).result()


def float32_error(model: HamiltonianModel, graph: Graph) -> float:
    """Return the largest error of a prediction over its largest element."""
    double = copy.deepcopy(model).double()
    with torch.no_grad():
        exact, found = double(graph), model(graph)
    scale = max(float(value.abs().max()) for value in exact.values())
    return max(float((found[key] - exact[key]).abs().max()) for key in exact) / scale


def prediction(
    model: HamiltonianModel, graph: Graph, *, is_mixed: bool
) -> Callable[[], object]:
    """Return a call that predicts once."""

    def predict() -> None:
        device = graph.pair_vector.device.type
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=is_mixed):
            model(graph)

    return predict


def peak_memory(step: Callable[[], object], device: torch.device) -> float:
    """Return the largest memory of a training step above that before, MiB."""
    if device.type == "cuda":
        step()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    before = _peak_rss()
    for _ in range(2):
        step()
    return _peak_rss() - before


def _peak_rss() -> float:
    """Largest resident memory of this process so far, MiB; not a number but on Linux."""
    status = Path("/proc/self/status")
    if not status.exists():
        return math.nan
    lines = status.read_text(encoding="ascii").splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(peak) / 1024


def table(about: dict[str, dict[str, Any]], options: argparse.Namespace) -> Table:
    """Lay out the measurements."""
    first = next(iter(about.values()))
    threads = f", {first['threads']} threads" if first["device"] == "cpu" else ""
    header = [
        "model", "parameters", "directed edges", "training step (ms)", "quartiles (ms)",
        "edges/s", "prediction (ms)", "peak memory (MiB)", "float32 error",
    ]  # fmt: skip
    rows = []
    for name, of in about.items():
        low, _, high = (1e3 * value for value in of["step_s_quartiles"])
        rows.append(
            [
                name,
                f"{of['parameters']:,}",
                f"{of['edges']}",
                f"{1e3 * of['step_s']:.1f}",
                f"{low:.1f} .. {high:.1f}",
                f"{of['edges'] / of['step_s']:.3g}",
                f"{1e3 * of['prediction_s']:.1f}",
                f"{of['peak_memory_MiB']:.0f}",
                f"{of['float32_error']:.0e}",
            ]
        )
    title = (
        f"Training step, graphene, {first['atoms']} atoms, {first['pairs']} target pairs, "
        f"{options.precision}, {first['device']}{threads}"
    )
    return Table(title, header, rows)


if __name__ == "__main__":
    main()
