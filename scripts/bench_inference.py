"""Time and memory of predictions from sheets to twisted bilayers, and the exponent in atoms.

    python scripts/bench_inference.py --checkpoint RUN
    python scripts/bench_inference.py --checkpoint RUN --m 9 14 20 30 --json bench.json

Each structure is predicted by the command itself, in a process of its own, files included; the
peak memory is that of the process. Before each a cell of 28 atoms is predicted; the median of
these times is the start, which the fit leaves out. The sizes take turns, `--repeat` times, and
medians count. Prints one table; ``--json`` writes its numbers.
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
from bench_report import Table, report

from deeph_lightning.generate.twisted import twisted_bilayer


def main() -> None:
    """Measure, fit, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", required=True, help="run folder or .ckpt file")
    parser.add_argument("--m", type=int, nargs="+", default=[9, 14, 20, 30],
                        help="twisted bilayers of r = 1")  # fmt: skip
    parser.add_argument("--repeat", type=int, default=3, help="predictions of each size")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args()
    every = [
        [measure(m, options.checkpoint, options.threads) for m in options.m]
        for _ in range(options.repeat)
    ]
    rows = [
        {key: float(np.median([row[key] for row in same])) for key in same[0]}
        for same in zip(*every, strict=True)
    ]
    sizes = np.array([row["atoms"] for row in rows], dtype=float)
    start = np.median([[row["start_seconds"] for row in turn] for turn in every])
    seconds = np.array([row["seconds"] for row in rows]) - start
    exponent = (
        float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0]) if len(rows) > 1 else None
    )
    report([table(rows, exponent)], options.json, structures=rows, exponent=exponent)


def measure(m: int, checkpoint: str, threads: int) -> dict[str, float]:
    """Predict one bilayer in a process of its own."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        atoms = twisted_bilayer(m, 1)
        ase.io.write(f"{folder}/POSCAR", atoms, format="vasp", direct=True)
        ase.io.write(f"{folder}/small.vasp", twisted_bilayer(1, 1), format="vasp", direct=True)
        start_seconds, _ = run(checkpoint, f"{folder}/small.vasp", f"{folder}/warm", threads)
        seconds, memory = run(checkpoint, f"{folder}/POSCAR", f"{folder}/out", threads)
        output = sum(file.stat().st_size for file in Path(folder, "out").iterdir())
    return {
        "m": m,
        "atoms": len(atoms),
        "seconds": seconds,
        "start_seconds": start_seconds,
        "peak_rss_GB": memory / 1e9,
        "output_GB": output / 1e9,
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


def table(rows: list[dict[str, float]], exponent: float | None) -> Table:
    """Lay out the measurements."""
    header = ["atoms", "seconds", "of them to start", "peak RSS (GB)", "output (GB)"]
    keys = ("seconds", "start_seconds", "peak_rss_GB", "output_GB")
    cells = [[f"{row['atoms']:.0f}", *(f"{row[key]:.2f}" for key in keys)] for row in rows]
    note = "" if exponent is None else f"Time without the start grows as atoms^{exponent:.3f}."
    return Table("Prediction of twisted bilayers, files included", header, cells, note)


if __name__ == "__main__":
    main()
