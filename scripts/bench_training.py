"""Time a training step and a prediction of several networks on the shipped graphene set.

    python scripts/bench_training.py                      first training structure (18 atoms)
    python scripts/bench_training.py --models elct --batch 4 --device cuda --precision bf16
    python scripts/bench_training.py --json outputs/bench/training.json

A training step is forward, loss, backward and optimiser. The networks take turns, so that what
else the machine does strikes all of them, each with a step of its own before the timed one;
medians after warm-up. Memory is the largest of a step above that before it: of the process on a
CPU (each network has one of its own for that), of the allocator on a GPU. Two networks in the
JSON give `ratio_step_time` (second over first) and `ratio_parameters` (first over second). In
the same run the float32 prediction is compared with float64.
"""

from __future__ import annotations

import argparse
import copy
import math
import multiprocessing
import statistics
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from bench_report import Table, in_turns, report, shipped_batch, training_step

from deeph_lightning.data.graph import Graph, collate
from deeph_lightning.inference.predict import find_device
from deeph_lightning.models.base import HamiltonianModel


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["elct", "deeph_e3"], help="conf/model")
    parser.add_argument("--batch", type=int, default=1, help="structures of a batch")
    parser.add_argument("--repeat", type=int, default=7, help="timed steps of each network")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's choice")
    parser.add_argument("--json", type=Path, help="file to write")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device, is_mixed = find_device(options.device), options.precision == "bf16"

    about, steps, predictions = {}, {}, {}
    for name in options.models:
        model, graphs = shipped_batch(name, options.batch)
        about[name] = describe(model, graphs)
        steps[name] = training_step(model, graphs, device, is_mixed=is_mixed)
        predictions[name] = prediction(model, collate(graphs).to(device), is_mixed=is_mixed)
    for key, calls in (("step_s", steps), ("prediction_s", predictions)):
        for name, times in in_turns(calls, options.repeat, device).items():
            about[name][key] = statistics.median(times)
            about[name][f"{key}_quartiles"] = statistics.quantiles(times, n=4)
    for name, step in steps.items():
        about[name]["peak_memory_MiB"] = peak_memory(name, options, device, step)

    ratios = {}
    if len(options.models) == 2:
        one, two = (about[name] for name in options.models)
        ratios["ratio_step_time"] = two["step_s"] / one["step_s"]
        ratios["ratio_parameters"] = one["parameters"] / two["parameters"]
    tables = [table(about, options, device)]
    if ratios:
        tables[0].note = (
            f"{options.models[1]} / {options.models[0]}: step time "
            f"{ratios['ratio_step_time']:.1f}, parameters {1 / ratios['ratio_parameters']:.2f}"
        )
    settings = {
        "precision": options.precision,
        "batch": options.batch,
        "device_used": str(device),
    }
    report(tables, options.json, models=about, **ratios, **settings)


def describe(model: HamiltonianModel, graphs: list[Graph]) -> dict[str, float]:
    """Count, and compare precisions."""
    double = copy.deepcopy(model).double()
    with torch.no_grad():
        exact, found = double(graphs[0]), model(graphs[0])
    scale = max(float(value.abs().max()) for value in exact.values())
    error = max(float((found[key] - exact[key]).abs().max()) for key in exact) / scale
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "atoms": sum(graph.n_atom for graph in graphs),
        "edges": 2 * sum(len(graph.edge_pair) for graph in graphs),
        "pairs": sum(graph.n_target for graph in graphs),
        "float32_error": error,
    }


def prediction(model: HamiltonianModel, graph: Graph, *, is_mixed: bool):
    """Return a call that predicts once."""

    def predict() -> None:
        device = graph.pair_vector.device.type
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=is_mixed):
            model(graph)

    return predict


def peak_memory(name: str, options: argparse.Namespace, device: torch.device, step) -> float:
    """Return the largest memory of a training step above that before it, MiB."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    # a process forgets its largest memory only with its end
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        is_mixed = options.precision == "bf16"
        return pool.submit(_peak_of_process, name, options.batch, is_mixed).result()


def _peak_of_process(name: str, n_structure: int, is_mixed: bool) -> float:
    torch.set_num_threads(1)
    model, graphs = shipped_batch(name, n_structure)
    step = training_step(model, graphs, torch.device("cpu"), is_mixed=is_mixed)
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


def table(about: dict, options: argparse.Namespace, device: torch.device) -> Table:
    """Lay out the measurements."""
    first = next(iter(about.values()))
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
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
        f"{options.precision}, {device}{threads}"
    )
    return Table(title, header, rows)


if __name__ == "__main__":
    main()
