"""Time and memory of the sparse solvers, by size of the cell and by library.

    python scripts/bench_solve.py FOLDER ...
    python scripts/bench_solve.py FOLDER ... --library pardiso mumps --k 0 0 0 --json bench.json
    python scripts/bench_solve.py FOLDER --moments 100 --vectors 1

Each FOLDER holds H and S (see ``deeph_lightning.predict``). In a process of its own it is read,
ordered, factorised at an energy, and the states nearest to it are found; with ``--moments`` the
Chebyshev moments of its density of states are computed instead. Seconds are those of the wall
clock, beside those of the processor, which tell how busy the machine was.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import print_json

if TYPE_CHECKING:
    from bench_report import Table

#: Keys of the steps, in their order.
STEPS = ("read", "matrices", "order", "factorise", "states", "ends", "moments")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", help="DeepH folders with H and S")
    parser.add_argument("--library", nargs="+", default=["pardiso"])
    parser.add_argument("--k", type=float, nargs=3, default=[0.0, 0.0, 0.0])
    parser.add_argument("--energy", type=float, default=0.0, help="eV, where states are sought")
    parser.add_argument("--count", action="store_true", help="count the states below, too")
    parser.add_argument("--states", type=int, default=20)
    parser.add_argument("--moments", type=int, default=0, help="Chebyshev moments instead")
    parser.add_argument("--vectors", type=int, default=1)
    parser.add_argument("--precision", default="auto", choices=("auto", "double", "single"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        logging.basicConfig(level=logging.INFO)  # precision and memory of factors, to stderr
        print(json.dumps(measure(options)))
        return
    from bench_report import report  # its imports would count as memory of the solver

    rows = [run(folder, library, options) for folder in options.folders
            for library in options.library]  # fmt: skip
    report([table(rows)], options.json, structures=rows)


def run(folder: str, library: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one folder in a process of its own."""
    words = [sys.executable, __file__, folder, "--one", "--library", library]
    words += ["--k", *map(str, options.k)]
    words += ["--count"] if options.count else []
    for key in ("precision", "energy", "states", "moments", "vectors"):
        words += [f"--{key}", str(getattr(options, key))]
    threads = {key: str(options.threads) for key in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    done = subprocess.run(words, env=os.environ | threads, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return {"folder": folder, "library": library, "failed": done.returncode}
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print_json(data=row)
    return row


class Clock:
    """Seconds since the last reading, of the wall clock and of the processor."""

    def __init__(self) -> None:
        self.steps: dict[str, tuple[float, float]] = {}
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self, step: str) -> None:
        """End a step."""
        wall, cpu = time.perf_counter(), time.process_time()
        self.steps[step] = (wall - self._wall, cpu - self._cpu)
        self._wall, self._cpu = wall, cpu


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Solve one structure."""
    from deeph_lightning.io.formats import read_structure_folder
    from deeph_lightning.solve.pencil import Pencil
    from deeph_lightning.solve.system import electronic_system

    clock = Clock()
    system = electronic_system(read_structure_folder(options.folders[0]))
    clock.read("read")
    pencil = Pencil(system.channels[0], system.S)
    matrices = pencil.at(options.k)
    clock.read("matrices")
    row: dict[str, Any] = {
        "folder": options.folders[0],
        "atoms": len(system.atoms),
        "orbitals": pencil.n_orb,
        "library": options.library[0],
        "precision": options.precision,
        "is_complex": matrices.H.is_complex,
        "matrix_entries": len(matrices.H.upper.data),
    }
    if options.moments:
        row |= moments(pencil, matrices, options, clock)
    else:
        row |= states(pencil, matrices, options, clock)
    row["seconds"] = {step: wall for step, (wall, _) in clock.steps.items()}
    row["cpu_seconds"] = {step: cpu for step, (_, cpu) in clock.steps.items()}
    row["peak_rss_GB"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9
    return row


def states(
    pencil: Any, matrices: Any, options: argparse.Namespace, clock: Clock
) -> dict[str, Any]:
    """Factorise once, count, and find the nearest states."""
    from deeph_lightning.solve.factorisation import residual
    from deeph_lightning.solve.precision import ordered
    from deeph_lightning.solve.sparse import nearest_states

    A = matrices.shifted(options.energy)
    factors = ordered(
        A, pencil.row_block, pencil.name, "", name=options.library[0],
        precision=options.precision, counts=options.count,
    )  # fmt: skip
    clock.read("order")
    factors.factorise(A)
    clock.read("factorise")
    error = residual(factors, A)
    found = nearest_states(matrices, factors, options.energy, options.states)
    clock.read("states")
    return {
        "factor_entries": factors.n_entries(),
        "states_below": factors.n_negative() if options.count else None,
        "relative_residual": error,
        "residual_eV": found.residual,
        "energies_eV": found.energies.tolist(),
    }


def moments(
    pencil: Any, matrices: Any, options: argparse.Namespace, clock: Clock
) -> dict[str, Any]:
    """Compute Chebyshev moments."""
    from deeph_lightning.solve.kpm import (
        FILLING,
        Chebyshev,
        overlap_factors,
        spectrum_ends,
    )
    from deeph_lightning.solve.moments import moments_at

    factors = overlap_factors(matrices, pencil, options.library[0], options.precision)
    clock.read("factorise")
    low, high = spectrum_ends(matrices, factors)
    clock.read("ends")
    centre, half_width = 0.5 * (low + high), 0.5 * (high - low) / FILLING
    one_group = np.zeros(pencil.n_orb, dtype=np.int64)
    values = moments_at(
        matrices, factors, one_group, centre, half_width, options.moments, options.vectors,
        seed=0, k=options.k,
    )  # fmt: skip
    found = Chebyshev(values, centre, half_width)
    clock.read("moments")
    return {
        "lowest_eV": low,
        "highest_eV": high,
        "moments": options.moments,
        "vectors": options.vectors,
        "resolution_eV": found.resolution,
        "orbitals_by_trace": float(found.moments[0, 0]),
    }


def table(rows: list[dict[str, Any]]) -> Table:
    """Lay out the structures that were solved."""
    from bench_report import Table

    header = ["atoms", "orbitals", "library", "precision", "H", *STEPS]
    header += ["total", "CPU", "fill", "peak GB"]
    found = Table("Large cells, seconds", header)
    for row in rows:
        if "failed" in row:
            continue
        seconds = row["seconds"]
        fill = row.get("factor_entries", float("nan")) / row["matrix_entries"]
        found.rows.append([
            str(row["atoms"]), str(row["orbitals"]), row["library"], row["precision"],
            "complex" if row["is_complex"] else "real",
            *(f"{seconds[step]:.1f}" if step in seconds else "" for step in STEPS),
            f"{sum(seconds.values()):.1f}", f"{sum(row['cpu_seconds'].values()):.1f}",
            f"{fill:.1f}", f"{row['peak_rss_GB']:.2f}",
        ])  # fmt: skip
    return found


if __name__ == "__main__":
    main()
