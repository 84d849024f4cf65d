"""Bands of a predicted H against those of DFT, both with the overlap of DFT.

Each side has its own Fermi level, found by counting electrons on a Gamma-centred grid, and
its energies are relative to it. States are matched by their number at each k-point.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from deeph_lightning.report.errors import MEV, ErrorSums
from deeph_lightning.solve.dense import eigenvalues, fermi_level, grid_size, kgrid
from deeph_lightning.solve.kpath import BandPath, band_path
from deeph_lightning.units import RYDBERG_EV

if TYPE_CHECKING:
    from ase import Atoms

    from deeph_lightning.core.operator import Operator

N_POINT = 16  # of a path, for each special point


@dataclass(frozen=True)
class BandSettings:
    """How bands are compared.

    Attributes
    ----------
    k_spacing
        Distance of grid points aimed at, 1/Å with 2 pi; 0.245 is a grid of 12x12 for the
        primitive cell of graphene.
    n_k_min
        Smallest number of grid points along a periodic direction.
    smearing_eV
        Fermi-Dirac width of the occupations.
    near_eV
        States of DFT at most so far from the Fermi level are compared.
    n_orb_max
        Structures with more orbitals are left out: dense solves grow with the cube.
    """

    k_spacing: float = 0.245
    n_k_min: int = 3
    smearing_eV: float = 0.002 * RYDBERG_EV
    near_eV: float = 2.0
    n_orb_max: int = 1000


@dataclass
class BandErrors:
    """Errors of band energies near the Fermi level and of Fermi levels, meV."""

    states: ErrorSums = field(default_factory=ErrorSums)
    e_fermi: ErrorSums = field(default_factory=ErrorSums)

    def merge(self, other: BandErrors) -> None:
        """Take in what another has seen."""
        self.states.merge(other.states)
        self.e_fermi.merge(other.e_fermi)

    def metrics(self) -> dict[str, float]:
        """Return the numbers of the metric table, meV; those of no state are left out."""
        values = {"e_fermi_mae_meV": self.e_fermi.mae}
        if self.states.count:
            values["bands_mae_meV"] = self.states.mae
            values["bands_max_meV"] = self.states.largest
        return {key: value for key, value in values.items() if np.isfinite(value)}


@dataclass(frozen=True)
class PathBands:
    """Bands along a path of high symmetry.

    Attributes
    ----------
    name, formula
        Of the structure.
    path
        K-points and special points.
    reference, predicted
        ``(n_k, n_band)``, each relative to its own Fermi level, eV.
    near_eV
        Half width of the window whose errors are reported.
    """

    name: str
    formula: str
    path: BandPath
    reference: np.ndarray
    predicted: np.ndarray
    near_eV: float


def formula(atoms: Atoms) -> str:
    """Return the chemical formula of the whole cell, which names its size: C18."""
    return str(atoms.get_chemical_formula())


class BandComparison:
    """One structure: DFT and predicted H with the overlap of DFT.

    Parameters
    ----------
    name
        Of the structure.
    reference, predicted
        H, eV, both Hermitian halves present.
    overlap
        S, both Hermitian halves present.
    n_electron
        Electrons in the cell.
    settings
        Grid, smearing, window.

    Attributes
    ----------
    grid
        Number of k-points along each axis.
    e_fermi
        Fermi levels of the DFT and of the predicted H, eV.
    is_periodic
        ``(3,)`` bool, directions along which H has a dispersion.

    Raises
    ------
    PhysicsError
        The overlap is not positive definite at a k-point, or the electrons do not fit.
    """

    def __init__(
        self,
        name: str,
        reference: Operator,
        predicted: Operator,
        overlap: Operator,
        n_electron: float,
        settings: BandSettings,
    ) -> None:
        self.name, self.settings = name, settings
        self._hamiltonians, self._overlap = (reference, predicted), overlap
        self.is_periodic = np.any(reference.pairs.R != 0, axis=0)  # no R across a vacuum
        self.grid = grid_size(
            overlap.atoms,
            settings.k_spacing,
            settings.n_k_min,
            is_periodic=self.is_periodic,
        )
        k, self._weight = kgrid(self.grid, time_reversal=not reference.is_spinful)
        self._energies = self._solve(k)
        self.e_fermi = tuple(
            fermi_level(
                energies,
                self._weight,
                n_electron,
                settings.smearing_eV,
                degeneracy=1 if reference.is_spinful else 2,
            )
            for energies in self._energies
        )

    def errors(self) -> BandErrors:
        """Return the errors over the grid, each state as often as the full grid has it."""
        reference, predicted = self._relative(self._energies)
        near = np.abs(reference) <= self.settings.near_eV
        error = np.abs(predicted - reference) * MEV
        multiplicity = np.rint(self._weight * np.prod(self.grid)).astype(int)
        result = BandErrors()
        result.states.add(np.repeat(error[near], np.repeat(multiplicity, near.sum(1))))
        result.e_fermi.add(np.abs(np.diff(self.e_fermi)) * MEV)
        return result

    def along_path(self) -> PathBands:
        """Solve along the path of high symmetry of the cell, which must be periodic."""
        atoms = self._overlap.atoms
        special = atoms.cell.bandpath(npoints=0, pbc=self.is_periodic).kpts
        path = band_path(atoms, N_POINT * len(special), is_periodic=self.is_periodic)
        reference, predicted = self._relative(self._solve(path.k))
        near = self.settings.near_eV
        return PathBands(self.name, formula(atoms), path, reference, predicted, near)

    def _solve(self, k: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues of both sides, ``(n_k, n_band)`` each, eV."""
        reference, predicted = self._hamiltonians
        return (
            eigenvalues(reference, self._overlap, k),
            eigenvalues(predicted, self._overlap, k),
        )

    def _relative(self, energies: tuple[np.ndarray, np.ndarray]) -> list[np.ndarray]:
        return [e - level for e, level in zip(energies, self.e_fermi, strict=True)]
