"""Time data-parallel training over numbers of processes, on the shipped graphene set.

    python scripts/bench_ddp.py                            one and two processes on the CPU
    python scripts/bench_ddp.py --accelerator gpu --devices 1 2 4 8

Every run is the training command with ``trainer=ddp_sim`` (CPU) or ``trainer=ddp`` (GPU), one
thread and one structure a step for each process, for so many epochs: weak scaling. Edges per
second are those of all processes, start and validation not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench_report import Table, report


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", nargs="+", type=int, default=[1, 2], help="processes")
    parser.add_argument("--accelerator", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--json", type=Path, help="file to write")
    options = parser.parse_args()

    speeds = {n: edges_per_s(n, options) for n in options.devices}
    first = options.devices[0]
    header = ["processes", "edges/s", "speed-up", "efficiency"]
    table = Table(f"Data-parallel training, {options.accelerator}, one thread each", header)
    for n, speed in speeds.items():
        gain = speed / speeds[first]
        table.rows.append([f"{n}", f"{speed:.4g}", f"{gain:.2f}", f"{gain * first / n:.0%}"])
    cores = len(os.sched_getaffinity(0)) if options.accelerator == "cpu" else None
    table.note = f"{cores} hardware threads" if cores else ""
    report([table], options.json, edges_per_s={str(n): speed for n, speed in speeds.items()})


def edges_per_s(n_process: int, options: argparse.Namespace) -> float:
    """Train for some epochs; return the edges that all processes see in a second."""
    trainer = "ddp" if options.accelerator == "gpu" else "ddp_sim"
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "deeph_lightning.train", f"trainer={trainer}"),
            *(f"trainer.devices={n_process}", "trainer.num_threads=1", "test=false"),
            *(f"trainer.max_epochs={options.epochs}", f"paths.output_root={folder}"),
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        (metrics,) = Path(folder).glob("train/*/*/metrics.json")
        found = json.loads(metrics.read_text(encoding="utf-8"))
    return n_process * float(found["perf/edges_per_s"])  # rank 0 counts its own


if __name__ == "__main__":
    main()
