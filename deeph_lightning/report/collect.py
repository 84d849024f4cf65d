"""What is known of a set after its structures went by one by one."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from deeph_lightning.config.targets import listed
from deeph_lightning.errors import DataError, PhysicsError
from deeph_lightning.report.bands import (
    BandComparison,
    BandErrors,
    BandSettings,
    PathBands,
    formula,
)
from deeph_lightning.report.errors import ErrorStatistics
from deeph_lightning.report.tables import TOTAL

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deeph_lightning.core.operator import Operator
    from deeph_lightning.io.system import SystemData
    from deeph_lightning.report.predictions import Prediction

log = logging.getLogger(__name__)

N_PATH = 6  # cell sizes whose bands are drawn


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
        k-grid of each cell size, and bands of its first structure along a path (of the first
        `N_PATH` sizes).
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
        size = formula(system.atoms)
        self.size_of[system.name], self.n_atom[size] = size, len(system.atoms)
        self.statistics.add(system.name, reference, predicted)
        self._add_bands(system, reference, predicted)
        return replace(
            system,
            H=predicted,
            rho=None,
            fermi_energy=self.e_fermi.get(system.name),
            info={**system.info, "prediction": {"structure": system.name}},
        )

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
        is_new = size not in self.paths and len(self.paths) < N_PATH
        if is_new and comparison.is_periodic.any():
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
                f"bands: states within {self.settings.near_eV:g} eV of E_F, overlap of DFT, "
                f"each side at its own E_F; k-grid {grids}"
            )
        for reason, names in self.skipped.items():
            lines.append(f"bands of {listed(names, 4)} left out: {reason}")
        return lines
