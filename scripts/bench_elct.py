"""Time a training step and a prediction of ELCT on the shipped graphene set.

    python scripts/bench_elct.py                      first training structure (18 atoms)
    python scripts/bench_elct.py --batch 4 --repeat 50 --device cuda --precision bf16

Times are of one step after warm-up, median and quartiles; a training step is forward, loss,
backward and optimiser. In the same run the float32 prediction is compared with float64. Prints
one table and writes ``outputs/bench/elct_<date>_<time>.json`` with versions and device.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

from deeph_lightning.config.paths import CONF_DIR, shipped
from deeph_lightning.config.targets import build
from deeph_lightning.data.datamodule import HamiltonianDataModule
from deeph_lightning.data.graph import collate
from deeph_lightning.inference.predict import find_device
from deeph_lightning.training.environment import environment_record, write_json

WARMUP = 5


def main() -> None:
    """Measure, compare, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1, help="structures of a batch")
    parser.add_argument("--repeat", type=int, default=20, help="timed steps")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's choice")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = find_device(options.device)
    torch.manual_seed(0)

    node = dict(OmegaConf.load(CONF_DIR / "model" / "elct.yaml"))
    data = HamiltonianDataModule(shipped("data/graphene/graphene.h5"), node["r_message"])
    data.prepare_data()
    data.setup("fit")
    basis = {label: list(shells) for label, shells in data.basis.shells.items()}
    model = build({**node, "basis": basis, "r_target": data.r_target}, key="model")
    graphs = [data.dataset("train")[n] for n in range(options.batch)]
    model.fit_statistics(lambda: iter(graphs))
    error = worst_error(model, graphs[0])
    model.to(device)
    graph = collate([model.prepare(g) for g in graphs]).to(device)

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    is_mixed = options.precision == "bf16"
    autocast = torch.autocast(device.type, torch.bfloat16) if is_mixed else nullcontext()

    def train() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast:
            found = model(graph)
        loss = sum((found[k].float() - getattr(graph, k)).abs().mean() for k in found)
        loss.backward()
        optimizer.step()

    def predict() -> None:
        with torch.inference_mode(), autocast:
            model(graph)

    results = {
        name: quartiles(step, options.repeat, device)
        for name, step in (("training step", train), ("prediction", predict))
    }
    report(options, device, model, graph, results, error)


def worst_error(model: torch.nn.Module, graph: object) -> float:
    """Return the largest difference of float32 and float64 predictions over max |H|."""
    double = copy.deepcopy(model).double()
    with torch.no_grad():
        expected, found = double(graph), model(graph)
    scale = max(float(value.abs().max()) for value in expected.values())
    return max(float((found[k] - expected[k]).abs().max()) for k in expected) / scale


def quartiles(step: object, repeat: int, device: torch.device) -> list[float]:
    """Time a step; return lower quartile, median and upper quartile, s."""
    times = []
    for n in range(WARMUP + repeat):
        start = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if n >= WARMUP:
            times.append(time.perf_counter() - start)
    return statistics.quantiles(times, n=4)


def report(options, device, model, graph, results, error) -> None:
    """Print the table and write the JSON."""
    n_edge, n_pair = 2 * len(graph.edge_pair), graph.n_target
    table = Table("", "median (ms)", "quartiles (ms)", "edges/s", "pairs/s")
    for name, (low, median, high) in results.items():
        cells = f"{1e3 * median:.1f}", f"{1e3 * low:.1f} .. {1e3 * high:.1f}"
        table.add_row(name, *cells, f"{n_edge / median:.3g}", f"{n_pair / median:.3g}")
    about = {
        "atoms": graph.n_atom,
        "directed message edges": n_edge,
        "target pairs": n_pair,
        "parameters": sum(p.numel() for p in model.parameters()),
        "device": str(device),
        "precision": options.precision,
        "float32 against float64, of max |H|": error,
    }
    if device.type == "cuda":
        about["peak memory (MiB)"] = torch.cuda.max_memory_allocated() / 2**20
    console = Console()
    console.print(table)
    console.print(", ".join(f"{key}: {value}" for key, value in about.items()))
    folder = Path("outputs/bench")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"elct_{time.strftime('%Y-%m-%d_%H-%M-%S')}.json"
    write_json(path, environment_record(**about, seconds=results))
    console.print(f"wrote {path}")


if __name__ == "__main__":
    main()
