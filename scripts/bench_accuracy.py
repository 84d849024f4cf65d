"""Test error against training time, and against the number of training structures.

    python scripts/bench_accuracy.py --minutes 30
    python scripts/bench_accuracy.py --minutes 10 --structures 1 2 4 8 16 32 57 --serial
    python scripts/bench_accuracy.py --runs elct deeph_e3 --json outputs/bench/accuracy.json

Every run is the training command itself with the recipe of its network, on the shipped
graphene set; its number of epochs is chosen so that it ends after ``--minutes``, from the time
that a few steps take. The networks train side by side, one thread each, so that what else the
machine does strikes all of them; ``--serial`` trains one after the other. `elct` is the default
recipe, `deeph_e3` has the baseline, scales and loss of ELCT, `deeph_e3_published` those of its
paper: between the first two lies the share of the network, between the last two that of the
data treatment. Minutes are those of the processor that the process had, validation included.
What a training reached is kept in ``--folder``, and a second call with the same minutes and
threads goes on with the trainings that are missing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from bench_report import Table, report

from deeph_lightning.report.history import VALIDATION, read_history
from deeph_lightning.training.environment import write_json
from deeph_lightning.viz import style

RUNS = {
    "elct": ["model=elct"],
    "deeph_e3": ["experiment=deeph_e3"],
    "deeph_e3_published": ["experiment=deeph_e3_published"],
}
N_TRAIN = 57  # of the shipped set
_COLOURS = dict(zip(RUNS, (style.BLUE, style.VERMILION, style.GREY), strict=True))
_PROBE_STEPS, _N_VALIDATION = 20, 20


def main() -> None:
    """Train, tabulate, draw and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--minutes", type=float, default=30.0, help="of each training")
    parser.add_argument("--structures", nargs="+", type=int, default=[N_TRAIN])
    parser.add_argument("--threads", type=int, default=1, help="of each training")
    parser.add_argument("--serial", action="store_true", help="one training after the other")
    parser.add_argument("--folder", type=Path, default=Path("outputs/bench/accuracy"))
    parser.add_argument("--json", type=Path, help="file to write; its figure lies beside it")
    options = parser.parse_args()

    jobs = [(name, n) for n in options.structures for name in options.runs]
    missing = [job for job in jobs if not kept(*job, options).is_file()]
    groups = [[job] for job in missing] if options.serial else [
        [job for job in missing if job[1] == n] for n in options.structures
    ]  # fmt: skip
    step_s: dict[str, float] = {}
    for group in filter(None, groups):
        side_by_side(group, step_s, options)
    results: list[dict[str, Any]] = [
        json.loads(kept(*job, options).read_text(encoding="utf-8")) for job in jobs
    ]
    tables = [table(results, options)]
    stem = (options.json or options.folder / "accuracy.json").with_suffix("")
    stem.parent.mkdir(parents=True, exist_ok=True)
    draw = draw_curves if len(options.structures) == 1 else draw_efficiency
    draw(results, stem)
    report(tables, options.json, runs=results, minutes=options.minutes)


def kept(name: str, n_structure: int, options: argparse.Namespace) -> Path:
    """Return the file for what a training reached."""
    stem = f"{name}_{n_structure}_{options.minutes:g}min_{options.threads}threads"
    return Path(options.folder) / f"{stem}.json"


def side_by_side(
    group: list[tuple[str, int]], step_s: dict[str, float], options: argparse.Namespace
) -> None:
    """Train the networks of a group at the same time; keep what each reached.

    `step_s` has the seconds of a step of networks that have been measured, and gets the others.
    """
    barrier = threading.Barrier(len(group))

    def work(index: int) -> None:
        try:
            measure_and_train(*group[index])
        except BaseException:
            barrier.abort()  # the others wait for this one
            raise

    def measure_and_train(name: str, n_structure: int) -> None:
        if name not in step_s:
            spent = [probe(name, options, n_step) for n_step in (1, 1 + _PROBE_STEPS)]
            step_s[name] = (spent[1] - spent[0]) / _PROBE_STEPS  # both begin alike
        n_epoch = max(1, round(60.0 * options.minutes / (step_s[name] * n_structure)))
        barrier.wait()
        n_validation = _N_VALIDATION if len(options.structures) == 1 else 1  # of the curve
        every = max(1, n_epoch // n_validation)
        result = train(name, n_structure, options, "run", [
            f"trainer.max_epochs={n_epoch}", f"trainer.check_val_every_n_epoch={every}",
        ])  # fmt: skip
        write_json(kept(name, n_structure, options), result)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(group))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if not all(kept(*job, options).is_file() for job in group):
        raise SystemExit("a training failed; its messages are above")


def probe(name: str, options: argparse.Namespace, n_step: int) -> float:
    """Train so many steps; return the seconds of processor time that they took."""
    overrides = [
        *("trainer.max_epochs=1", f"trainer.limit_train_batches={n_step}"),
        *("trainer.limit_val_batches=1", "test=false"),
    ]
    minutes: float = train(name, N_TRAIN, options, "probe", overrides)["train_minutes"]
    return 60.0 * minutes


def train(
    name: str, n_structure: int, options: argparse.Namespace, kind: str, overrides: list[str]
) -> dict[str, Any]:
    """Run the training command; return its metrics, its curve and its share of a processor."""
    folder = options.folder / f"{name}_{n_structure}_{kind}"
    command = [
        *(sys.executable, "-m", "deeph_lightning.train", *RUNS[name], *overrides),
        *(f"data.limit_train={n_structure}", f"trainer.num_threads={options.threads}"),
        # an epoch has as many steps as structures
        *("trainer.accelerator=cpu", "data.repeat=null", f"paths.output_root={folder}"),
        "callbacks.last.every_n_epochs=1000",  # epochs of one structure are short
    ]
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {' '.join(command)}")
    cpu_s = (usage.ru_utime + usage.ru_stime) / options.threads
    share = min(1.0, cpu_s / (time.perf_counter() - start))
    run = max(folder.glob("train/*/*"), key=lambda path: path.stat().st_mtime)
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    history = read_history(run / "metrics.csv")
    step, error = history.series(VALIDATION)
    # steps take the same processor time, whatever the clock says while others run
    total = share / 60.0 * metrics["time/train_s"]
    done = np.asarray(step) + 1.0  # steps count from zero
    minutes = total * done / done[-1]
    return {
        "run": name,
        "structures": n_structure,
        "train_minutes": total,
        "curve_minutes": minutes.tolist(),
        "curve_val_H_mae_meV": error.tolist(),
    } | {key: value for key, value in metrics.items() if key.startswith(("test/", "model/"))}


def table(results: list[dict[str, Any]], options: argparse.Namespace) -> Table:
    """Lay out what each training reached."""
    header = [
        "run", "parameters", "training structures", "minutes", "test H MAE (meV)", "3x3", "4x4",
        "onsite", "hopping", "bands MAE (meV)",
    ]  # fmt: skip
    keys = [
        "test/H_mae_meV", "test/C18/H_mae_meV", "test/C32/H_mae_meV", "test/H_onsite_mae_meV",
        "test/H_hopping_mae_meV", "test/bands_mae_meV",
    ]  # fmt: skip
    rows = [
        [
            result["run"],
            f"{result['model/parameters']:,.0f}",
            str(result["structures"]),
            f"{result['train_minutes']:.1f}",
            *(f"{result[key]:.3g}" for key in keys),
        ]
        for result in results
    ]
    together = "one after the other" if options.serial else "side by side"
    note = f"{options.threads} thread(s) each, {together}; minutes of processor time."
    return Table("Accuracy, graphene", header, rows, note)


def draw_curves(results: list[dict[str, Any]], stem: Path) -> None:
    """Draw the validation error over time, and the test error at its end."""
    with style.paper_style():
        figure = style.new_figure(style.SINGLE_COLUMN_MM, 60.0)
        axes = figure.add_subplot()
        for result in results:
            colour = _COLOURS[result["run"]]
            x, y = result["curve_minutes"], result["curve_val_H_mae_meV"]
            axes.plot(x, y, color=colour, label=result["run"])
            axes.plot(x[-1:], [result["test/H_mae_meV"]], "o", color=colour)
        axes.set(
            yscale="log", xlabel="training time (min); dots: test",
            ylabel="validation MAE of H (meV)", xlim=(0, None),
        )  # fmt: skip
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(results))
        style.save_figure(figure, stem)


def draw_efficiency(results: list[dict[str, Any]], stem: Path) -> None:
    """Draw the test error over the number of training structures."""
    with style.paper_style():
        figure = style.new_figure(style.SINGLE_COLUMN_MM, 60.0)
        axes = figure.add_subplot()
        for name in dict.fromkeys(result["run"] for result in results):
            points = [r for r in results if r["run"] == name]
            x = [r["structures"] for r in points]
            axes.plot(x, [r["test/H_mae_meV"] for r in points], "o-",
                      color=_COLOURS[name], label=name)  # fmt: skip
        axes.set(xscale="log", yscale="log", xlabel="training structures",
                 ylabel="test MAE of H (meV)")  # fmt: skip
        axes.legend()
        style.save_figure(figure, stem)


if __name__ == "__main__":
    main()
