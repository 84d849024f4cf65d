"""Reading the CSV log of a training run."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

STEP = "step"
TIME = "time/elapsed_s"
VALIDATION = "val/H_mae_meV"
TRAINING = ("train/loss", "train/loss_epoch", "train/loss_step")


@dataclass(frozen=True)
class History:
    """Columns of a log over optimiser steps; a cell that was not logged is NaN.

    Attributes
    ----------
    columns
        Column name -> ``(n,)``, rows sorted by step.
    """

    columns: dict[str, np.ndarray] = field(default_factory=dict)

    def series(self, *names: str) -> tuple[np.ndarray, np.ndarray]:
        """Return steps and values of the first of the named columns that holds numbers."""
        for name in names:
            if name in self.columns and STEP in self.columns:
                step, value = self.columns[STEP], self.columns[name]
                keep = np.isfinite(step) & np.isfinite(value)
                if keep.any():
                    return step[keep], value[keep]
        return np.empty(0), np.empty(0)


def read_history(path: Path) -> History:
    """Read the log; a file that is missing or empty gives no columns.

    A run that was cut off may end in half a line, and rows of a resumed run may repeat steps:
    rows are sorted by step, cells that are not numbers become NaN.
    """
    if not path.is_file():
        return History()
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    if not rows:
        return History()
    names = [name for name in rows[0] if name]
    columns = {name: np.array([_number(row.get(name)) for row in rows]) for name in names}
    if STEP in columns:
        order = np.argsort(columns[STEP], kind="stable")
        columns = {name: values[order] for name, values in columns.items()}
    return History(columns)


def _number(text: str | None) -> float:
    """Parse a cell; NaN if it is not a number."""
    try:
        return float(text) if text else float("nan")
    except ValueError:
        return float("nan")
