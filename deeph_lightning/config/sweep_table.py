"""One table over all runs of a sweep, printed and written as ``sweep.csv``."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

# metric, heading with its unit, digits
_COLUMNS = (
    ("val/H_mae_meV", "val H MAE (meV)", 4),
    ("test/H_mae_meV", "test H MAE (meV)", 4),
    ("test/H_onsite_mae_meV", "onsite (meV)", 4),
    ("test/H_hopping_mae_meV", "hopping (meV)", 4),
    ("test/bands_mae_meV", "bands (meV)", 3),
    ("time/train_s", "training (s)", 1),
    ("perf/edges_per_s", "edges (1/s)", 0),
    ("model/parameters", "parameters", 0),
)


class SweepTable(Callback):
    """Hydra callback: the table after ``-m``, its file after every run of the sweep."""

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:  # noqa: ARG002
        """Write the file with the runs so far, should the sweep be stopped."""
        if config.hydra.mode == RunMode.MULTIRUN:
            folder = Path(config.hydra.sweep.dir)
            write_table(collect(folder), folder)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ARG002
        """Write and print the table of the whole sweep."""
        folder = Path(config.hydra.sweep.dir)
        rows = collect(folder)
        write_table(rows, folder)
        print_table(rows, folder)


def collect(folder: Path) -> list[dict[str, Any]]:
    """Return one row a run: its number, what it overrode, and its metrics.

    Parameters
    ----------
    folder
        Folder of a sweep, its runs in sub-folders by number. A run without ``metrics.json``
        (diverged, stopped) has no numbers.
    """
    rows = []
    for run in sorted(folder.iterdir(), key=lambda path: (len(path.name), path.name)):
        overrides = run / ".hydra" / "overrides.yaml"
        if not overrides.is_file():
            continue
        row: dict[str, Any] = {"run": run.name}
        for item in OmegaConf.load(overrides):
            key, _, value = str(item).partition("=")
            row[key.lstrip("+~")] = value
        metrics = run / "metrics.json"
        if metrics.is_file():
            row |= json.loads(metrics.read_text(encoding="utf-8"))
        rows.append(row)
    return rows


def write_table(rows: list[dict[str, Any]], folder: Path) -> None:
    """Write ``sweep.csv``: run, overrides, then every metric under its full name."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    partial = folder / ".sweep.csv.partial"
    with partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, names, restval="")
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(folder / "sweep.csv")


def print_table(rows: list[dict[str, Any]], folder: Path) -> None:
    """Print what was varied and the main numbers, best validation first."""
    metric_names = {name for name, *_ in _COLUMNS}
    overrides = [
        name
        for name in dict.fromkeys(name for row in rows for name in row)
        if name != "run" and name not in metric_names and not _is_metric(name)
    ]
    varied = [n for n in overrides if len({str(row.get(n)) for row in rows}) > 1] or overrides
    shown = [column for column in _COLUMNS if any(column[0] in row for row in rows)]
    table = Table(title=f"sweep of {len(rows)} runs, {folder}")
    for name in ["run", *varied]:
        table.add_column(name)
    for _, heading, _ in shown:
        table.add_column(heading, justify="right")
    for row in sorted(rows, key=lambda row: row.get(_COLUMNS[0][0], float("inf"))):
        values = [_number(row.get(name), digits) for name, _, digits in shown]
        if not shown or all(value == "-" for value in values):
            values = [*values[:-1], "no result"] if values else []
        table.add_row(str(row["run"]), *(str(row.get(name, "-")) for name in varied), *values)
    console = Console()
    console.print(table)
    console.print(f"table with every metric: {folder / 'sweep.csv'}", highlight=False)


def _is_metric(name: str) -> bool:
    return name.split("/")[0] in {"val", "test", "time", "perf", "model"} and "/" in name


def _number(value: Any, digits: int) -> str:
    return f"{value:,.{digits}f}" if isinstance(value, float | int) else "-"
