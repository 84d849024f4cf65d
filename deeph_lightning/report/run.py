"""The end of a run: metrics, tables, predictions of the test set and figures in its folder."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from deeph_lightning.config.targets import listed
from deeph_lightning.core.operator import Operator
from deeph_lightning.errors import DataError, PhysicsError
from deeph_lightning.io import deeph
from deeph_lightning.io.formats import SystemData
from deeph_lightning.report.bands import BandComparison, BandErrors, BandSettings, PathBands
from deeph_lightning.report.errors import ErrorStatistics
from deeph_lightning.report.figures import draw_all
from deeph_lightning.report.files import write_json, write_text
from deeph_lightning.report.history import History, read_history
from deeph_lightning.report.predictions import Prediction, predict_systems
from deeph_lightning.report.tables import TOTAL, MetricTable, to_csv

log = logging.getLogger(__name__)


@dataclass
class Report:
    """What is known of a set after its structures went by one by one.

    Parameters
    ----------
    settings
        How bands are compared.

    Attributes
    ----------
    statistics
        Errors of the elements of H.
    size_of
        Cell size (chemical formula) of each structure, by name.
    n_atom
        Number of atoms of each cell size.
    bands, e_fermi
        Errors of bands, and Fermi level of the predicted H in eV, of each structure that has
        what bands need.
    skipped
        Why bands were left out, and of which structures.
    grids, paths
        k-grid, and bands of the first structure along a path, of each cell size.
    """

    settings: BandSettings
    statistics: ErrorStatistics = field(default_factory=ErrorStatistics)
    size_of: dict[str, str] = field(default_factory=dict)
    n_atom: dict[str, int] = field(default_factory=dict)
    bands: dict[str, BandErrors] = field(default_factory=dict)
    e_fermi: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, list[str]] = field(default_factory=dict)
    grids: dict[str, str] = field(default_factory=dict)
    paths: dict[str, PathBands] = field(default_factory=dict)

    def add(self, prediction: Prediction) -> SystemData:
        """Take in one structure; return it as predicted, on the pairs of DFT.

        Raises
        ------
        DataError
            The structure has no H to compare with.
        """
        system = prediction.system
        if system.H is None:
            raise DataError(
                f"structure '{system.name}': it has no Hamiltonian to compare with. Use "
                f"deeph_lightning.predict for structures without one.",
                structure=system.name,
            )
        reference = system.H.complete()
        predicted = prediction.H.on_pairs(reference.pairs)
        size = system.atoms.get_chemical_formula()
        self.size_of[system.name], self.n_atom[size] = size, len(system.atoms)
        self.statistics.add(system.name, reference, predicted)
        self._add_bands(system, reference, predicted)
        e_fermi = self.e_fermi.get(system.name)
        return replace(system, H=predicted, rho=None, fermi_energy=e_fermi)

    def _add_bands(self, system: SystemData, reference: Operator, predicted: Operator) -> None:
        """Compare bands, or note why not."""
        n_orb_max = self.settings.n_orb_max
        if system.S is None:
            self._skip(system, "no overlap")
        elif system.n_electrons is None:
            self._skip(system, "number of electrons not known (occupation in info.json)")
        elif reference.n_orb > n_orb_max:
            self._skip(system, f"more than {n_orb_max} orbitals (report.n_orb_max)")
        else:
            try:
                comparison = BandComparison(
                    system.name,
                    reference,
                    predicted,
                    system.S.complete(),
                    system.n_electrons,
                    self.settings,
                )
                self._add_comparison(comparison)
            except PhysicsError as error:
                # the errors of H stand, and hours of training should not be lost
                log.warning("%s", error)
                self._skip(system, f"{type(error).__name__}, see the log")

    def _add_comparison(self, comparison: BandComparison) -> None:
        size = self.size_of[comparison.name]
        if size not in self.paths and comparison.is_periodic.any():
            self.paths[size] = comparison.along_path()
        self.grids[size] = "x".join(map(str, comparison.grid))
        self.e_fermi[comparison.name] = comparison.e_fermi[1]
        self.bands[comparison.name] = comparison.errors()

    def _skip(self, system: SystemData, reason: str) -> None:
        self.skipped.setdefault(reason, []).append(system.name)

    def column(self, names: Iterable[str]) -> dict[str, float]:
        """Return the metrics of some structures together, meV."""
        names = list(names)
        errors, bands = self.statistics.total(names), BandErrors()
        for name in names:
            bands.merge(self.bands.get(name, BandErrors()))
        sizes = {"n_structure": len(names), "n_element": errors.count}
        return sizes | errors.metrics() | bands.metrics()

    def columns(self) -> dict[str, dict[str, float]]:
        """Return the metrics of each cell size, small ones first, and of all structures."""
        columns = {}
        for size in sorted(self.n_atom, key=lambda size: (self.n_atom[size], size)):
            names = [name for name, other in self.size_of.items() if other == size]
            columns[size] = self.column(names)
        return columns | {TOTAL: self.column(self.size_of)}

    def notes(self) -> list[str]:
        """Say how bands were compared, and what was left out and why."""
        lines = ["H: all elements of all stored blocks, both Hermitian halves and onsite"]
        if self.bands:
            grids = ", ".join(f"{size} {grid}" for size, grid in self.grids.items())
            lines.append(
                f"bands: states within {self.settings.near_eV:g} eV of E_F, overlap of DFT, each "
                f"side at its own E_F; k-grid {grids}"
            )
        for reason, names in self.skipped.items():
            lines.append(f"bands of {listed(names, 4)} left out: {reason}")
        return lines


def write_run_report(
    run_dir: Path,
    model: HamiltonianModel,
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
        Resolved configuration; the keys of ``report`` are those of `BandSettings`.

    Returns
    -------
    dict
        The numbers of ``metrics.json``; those of bands are left out if no structure has what
        they need.
    """
    return write_report(
        run_dir,
        predict_all(model, datamodule),
        settings=BandSettings(**(cfg.get("report") or {})),
        history=History() if history_csv is None else read_history(history_csv),
        metrics=metrics,
    )


def write_report(
    folder: Path,
    predictions: Iterable[Prediction],
    *,
    settings: BandSettings,
    history: History | None = None,
    metrics: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Compare predictions with DFT one by one and write the report (see `write_run_report`).

    Raises
    ------
    DataError
        There is no structure, or one without H.
    """
    report = Report(settings)
    for prediction in predictions:
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
    table.print(Console())
    return values


def _flat(columns: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Name the metrics ``test/KEY`` for all structures and ``test/SIZE/KEY`` for a cell size."""
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
    lines = [["structure", "formula", *keys]]
    for name, row in rows.items():
        lines.append([name, report.size_of[name], *(row.get(key, "") for key in keys)])
    write_text(path, to_csv(lines))
