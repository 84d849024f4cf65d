"""The log of a resumed run goes on from that of the run it resumes."""

from __future__ import annotations

import csv
from pathlib import Path

LOG = "metrics.csv"
_BEFORE = "metrics_before.csv"


def carry_over(old_run: Path, run: Path, n_step: int) -> None:
    """Keep the rows of an older run, up to the step from which the new one goes on.

    Parameters
    ----------
    old_run, run
        Run folders.
    n_step
        Optimiser steps of the checkpoint.
    """
    rows = [row for name in (_BEFORE, LOG) for row in _read(old_run / name)]
    rows = [row for row in rows if row.get("step", "").isdigit() and int(row["step"]) < n_step]
    if rows:
        _write(run / _BEFORE, rows)


def merge(run: Path) -> None:
    """Put the rows of the older run in front of the log, once the log is closed."""
    before = run / _BEFORE
    if before.is_file():
        _write(run / LOG, _read(before) + _read(run / LOG))
        before.unlink()


def _read(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream, restval=""))


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    names = sorted({name for row in rows for name in row if name})
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, names, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(path)
