"""The end of a run: metrics, tables, predictions of the test set and figures in its folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import track

from deeph_lightning.config.targets import build
from deeph_lightning.errors import DataError
from deeph_lightning.io import deeph
from deeph_lightning.io.source import open_source
from deeph_lightning.report.bands import BandSettings
from deeph_lightning.report.collect import Report
from deeph_lightning.report.figures import draw_all
from deeph_lightning.report.files import write_json, write_text
from deeph_lightning.report.history import History, read_history
from deeph_lightning.report.predictions import predict_systems
from deeph_lightning.report.tables import TOTAL, MetricTable, to_csv

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from torch import nn

    from deeph_lightning.data.datamodule import HamiltonianDataModule
    from deeph_lightning.report.predictions import Prediction


def write_run_report(
    run_dir: Path,
    model: nn.Module,
    datamodule: HamiltonianDataModule,
    history_csv: Path | None,
    metrics: Mapping[str, float],
    cfg: Mapping[str, Any],
) -> dict[str, float]:
    """Write everything that stands at the end of a run.

    ``metrics.json``, ``metrics_table.csv`` and ``.md``, ``metrics_structures.csv``,
    ``predictions/<structure>/`` (DeepH 1.x) and ``figures/*.png`` and ``.pdf``; the table is
    printed.

    Parameters
    ----------
    run_dir
        Folder of the run.
    model
        The network, or the module that holds it: a graph in, flat blocks out, eV.
    datamodule
        Set up; its test split is predicted.
    history_csv
        Log over steps, if there is one.
    metrics
        Numbers to keep beside those found here, such as ``time/train_s``.
    cfg
        Resolved configuration; its node ``report`` describes `BandSettings`.

    Returns
    -------
    dict
        The numbers of ``metrics.json``; those of bands are left out if no structure has what
        they need.
    """
    source = open_source(datamodule.root)
    names = datamodule.dataset("test").names
    return write_report(
        run_dir,
        predict_systems(model, map(source.read, names)),
        settings=band_settings(cfg),
        n_structure=len(names),
        history=History() if history_csv is None else read_history(history_csv),
        metrics=metrics,
    )


def band_settings(cfg: Mapping[str, Any]) -> BandSettings:
    """Return the settings of the node ``report``; the defaults without one."""
    node = cfg.get("report")
    settings: BandSettings = BandSettings() if node is None else build(node, key="report")
    return settings


def write_report(
    folder: Path,
    predictions: Iterable[Prediction],
    *,
    settings: BandSettings,
    n_structure: int | None = None,
    history: History | None = None,
    metrics: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Compare predictions with DFT one by one and write the report (see `write_run_report`).

    Parameters
    ----------
    folder
        Where to write.
    predictions
        The structures; one at a time is held.
    settings
        How bands are compared.
    n_structure
        How many there are, for the progress bar.
    history
        Log of the training, for its curve.
    metrics
        Numbers to keep beside those found here.

    Raises
    ------
    DataError
        There is no structure, or one without H.
    """
    report, console = Report(settings), Console()
    if not console.is_terminal:
        console = Console(width=160)  # a log has room for all columns
    for prediction in track(
        predictions, "test structures", n_structure, console=console, transient=True
    ):
        system = report.add(prediction)
        deeph.write(system, folder / "predictions" / system.name)
    if not report.size_of:
        raise DataError(
            f"{folder}: there is no structure to report on. Put one into the test split."
        )
    columns = report.columns()
    values = {**(metrics or {}), **_flat(columns)}
    write_json(folder / "metrics.json", values)
    table = MetricTable(columns, "Test structures", [*report.notes(), *_run_notes(values)])
    table.write(folder / "metrics_table")
    _write_structures(folder / "metrics_structures.csv", report)
    draw_all(folder / "figures", report.statistics, report.paths, history or History())
    table.print(console)
    return values


def _flat(columns: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Name metrics ``test/KEY`` for all structures, ``test/SIZE/KEY`` for a cell size."""
    return {
        f"test/{key}" if column == TOTAL else f"test/{column}/{key}": float(value)
        for column in (TOTAL, *columns)
        for key, value in columns[column].items()
    }


def _run_notes(values: Mapping[str, float]) -> list[str]:
    """Put time, speed and size of the network into one line."""
    parts = [
        text.format(values[key])
        for key, text in (
            ("time/train_s", "{:.0f} s of training"),
            ("perf/edges_per_s", "{:.3g} edges/s"),
            ("model/parameters", "{:.3g} parameters"),
        )
        if key in values
    ]
    return [", ".join(parts)] if parts else []


def _write_structures(path: Path, report: Report) -> None:
    """Write the metrics of every structure as CSV."""
    rows = {name: report.column([name]) for name in report.size_of}
    keys = list(dict.fromkeys(key for row in rows.values() for key in row))
    lines: list[list[object]] = [["structure", "formula", *keys]]
    for name, row in rows.items():
        lines.append([name, report.size_of[name], *(row.get(key, "") for key in keys)])
    write_text(path, to_csv(lines))
