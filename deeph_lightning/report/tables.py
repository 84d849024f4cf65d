"""The metric table of a run: printed, and written as CSV and Markdown."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.table import Table

from deeph_lightning.report.files import write_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rich.console import Console

ROWS: tuple[tuple[str, str, str], ...] = (
    ("n_structure", "structures", ""),
    ("n_element", "matrix elements", ""),
    ("H_mae_meV", "H, MAE", "meV"),
    ("H_onsite_mae_meV", "H onsite, MAE", "meV"),
    ("H_hopping_mae_meV", "H hopping, MAE", "meV"),
    ("H_rmse_meV", "H, RMSE", "meV"),
    ("H_max_meV", "H, largest error", "meV"),
    ("bands_mae_meV", "bands near E_F, MAE", "meV"),
    ("bands_max_meV", "bands near E_F, largest error", "meV"),
    ("e_fermi_mae_meV", "E_F, MAE", "meV"),
)
TOTAL = "all"
N_COLUMN = 7  # printed; the files have all


@dataclass(frozen=True)
class MetricTable:
    """Numbers by column (a cell size, or all) and by row (a quantity of `ROWS`).

    Attributes
    ----------
    columns
        Column name -> quantity -> value; quantities that are missing print as a dash.
    title
        Printed above.
    notes
        Printed below, one a line: what was skipped and why, how bands were compared.
    """

    columns: Mapping[str, Mapping[str, float]]
    title: str
    notes: Sequence[str] = ()

    def cells(self) -> list[list[str]]:
        """Return the table as text, header first."""
        names = list(self.columns)
        rows = [["quantity", "unit", *names]]
        for key, label, unit in ROWS:
            values = [self.columns[name].get(key) for name in names]
            if any(value is not None for value in values):
                rows.append([label, unit, *map(_number, values)])
        return rows

    def print(self, console: Console) -> None:
        """Print with rich; of very many columns the first ones and the last."""
        names, notes = list(self.columns), list(self.notes)
        if len(names) > N_COLUMN:
            notes.append(f"{len(names) - N_COLUMN} more cell sizes are in metrics_table.csv")
            names = [*names[: N_COLUMN - 1], names[-1]]
        shown = MetricTable({name: self.columns[name] for name in names}, self.title)
        header, *rows = shown.cells()
        table = Table(title=self.title, caption="\n".join(notes), caption_justify="left")
        table.add_column(header[0], no_wrap=True)
        table.add_column(header[1])
        for name in header[2:]:
            table.add_column(name, justify="right", style="bold" if name == TOTAL else None)
        for row in rows:
            table.add_row(*row, end_section=row[0] in ("matrix elements", "H, largest error"))
        console.print(table)

    def write(self, path: Path) -> None:
        """Write ``path`` with the suffixes ``.csv`` and ``.md``."""
        rows = self.cells()
        write_text(path.with_suffix(".csv"), to_csv(rows))
        align = ["---", "---", *["---:"] * (len(rows[0]) - 2)]
        lines = [f"| {' | '.join(row)} |" for row in (rows[0], align, *rows[1:])]
        notes = [f"- {note}" for note in self.notes]
        text = "\n".join([f"**{self.title}**", "", *lines, "", *notes])
        write_text(path.with_suffix(".md"), text.rstrip() + "\n")


def to_csv(rows: Sequence[Sequence[object]]) -> str:
    """Join rows as CSV text."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def _number(value: float | None) -> str:
    """Print a count whole and a measurement with four digits."""
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}".replace(",", " ")
    return f"{value:.4g}"
