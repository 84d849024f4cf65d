"""Time and memory of predictions from sheets to twisted bilayers, and the exponent in atoms.

    python scripts/bench_inference.py --checkpoint RUN
    python scripts/bench_inference.py --checkpoint RUN --m 6 12 20 30 --json bench.json

Each structure is predicted by the command itself, in a process of its own, files included; the
peak memory is that of the process. Prints one table; ``--json`` writes its numbers.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ase.io
import numpy as np
from rich.console import Console
from rich.table import Table

from deeph_lightning.generate.twisted import twisted_bilayer
from deeph_lightning.training.environment import environment_record, write_json


def main() -> None:
    """Measure, fit, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", required=True, help="run folder or .ckpt file")
    parser.add_argument("--m", type=int, nargs="+", default=[6, 12, 20, 30],
                        help="twisted bilayers of r = 1")  # fmt: skip
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args()
    rows = [measure(m, options.checkpoint, options.threads) for m in options.m]
    sizes = np.array([row["atoms"] for row in rows], dtype=float)
    seconds = np.array([row["seconds"] - row["start_seconds"] for row in rows])
    exponent = (
        float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0]) if len(rows) > 1 else None
    )
    report(rows, exponent, options.json)


def measure(m: int, checkpoint: str, threads: int) -> dict[str, float]:
    """Predict one bilayer in a process of its own."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        atoms = twisted_bilayer(m, 1)
        ase.io.write(f"{folder}/POSCAR", atoms, format="vasp", direct=True)
        ase.io.write(f"{folder}/small", twisted_bilayer(1, 1), format="vasp", direct=True)
        start_seconds, _ = run(checkpoint, f"{folder}/small", f"{folder}/warm", threads)
        seconds, memory = run(checkpoint, f"{folder}/POSCAR", f"{folder}/out", threads)
    return {
        "m": m,
        "atoms": len(atoms),
        "seconds": seconds,
        "start_seconds": start_seconds,
        "peak_rss_GB": memory / 1e9,
    }


def run(checkpoint: str, structure: str, output: str, threads: int) -> tuple[float, float]:
    """Run the command; return seconds and the peak resident memory in bytes."""
    command = [
        *(sys.executable, "-m", "deeph_lightning.predict", f"checkpoint={checkpoint}"),
        *(f"structure={structure}", f"output={output}", "device=cpu", f"num_threads={threads}"),
    ]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {' '.join(command)}")
    return time.perf_counter() - start, 1024.0 * usage.ru_maxrss


def report(rows: list[dict[str, float]], exponent: float | None, file: Path | None) -> None:
    """Print the table and write the JSON."""
    table = Table("atoms", "seconds", "of them to start", "peak RSS (GB)")
    for row in rows:
        numbers = (row["seconds"], row["start_seconds"], row["peak_rss_GB"])
        table.add_row(str(row["atoms"]), *(f"{number:.2f}" for number in numbers))
    console = Console()
    console.print(table)
    if exponent is not None:
        console.print(f"time without the start grows as atoms^{exponent:.3f}")
    if file is not None:
        write_json(file, environment_record(structures=rows, exponent=exponent))
        console.print(f"wrote {file}")


if __name__ == "__main__":
    main()
