"""An ASE calculator whose answers come from a predicted Hamiltonian."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import (
    Calculator,
    PropertyNotImplementedError,
    all_changes,
    all_properties,
)
from ase.spectrum.band_structure import BandStructure
from numpy.typing import NDArray

from deeph_lightning.core.operator import Operator
from deeph_lightning.errors import ConfigError
from deeph_lightning.inference.overlaps import Overlaps
from deeph_lightning.inference.predict import Predictor
from deeph_lightning.io.system import SystemData
from deeph_lightning.solve.bands import band_structure
from deeph_lightning.solve.dense import grid_size
from deeph_lightning.solve.export import to_ase
from deeph_lightning.solve.kpath import band_path
from deeph_lightning.solve.levels import grid_levels
from deeph_lightning.solve.memory import check_memory
from deeph_lightning.solve.system import ElectronicSystem, electronic_system

#: Matrices of the size of H(k), complex, that a dense solution holds.
_MATRICES = 5


class HamiltonianCalculator(Calculator):
    """Hamiltonian, Fermi level and bands of structures as a network predicts them.

    Every method takes a structure, or that of the last call; what depends on it is worked out
    once. Energies are in eV. A Hamiltonian alone has no total energy, hence no forces: asking
    for them raises `PropertyNotImplementedError`; ``band_energy``, the sum of the occupied
    energies, is the property that there is.

    Parameters
    ----------
    checkpoint
        Checkpoint file or run folder, or several, whose mean is taken.
    overlap, orbitals
        Where S comes from, see `Overlaps.choose`.
    kgrid
        Points of the Gamma-centred grid along each axis; without it by `k_spacing`.
    k_spacing
        Distance of grid points aimed at, 1/Å with 2 pi.
    smearing_eV
        Fermi-Dirac width, eV.
    n_jobs
        Processes that share the k-points.
    predictor
        Further arguments of `Predictor`.

    Raises
    ------
    CheckpointError
        The checkpoint cannot be read, or has no learned overlaps where they are asked for.

    Examples
    --------
    >>> calculator = HamiltonianCalculator("outputs/train/.../checkpoints/best.ckpt")
    >>> calculator.band_structure(atoms, path="GMKG").plot()  # doctest: +SKIP
    """

    name = "deeph_lightning"
    implemented_properties: list[str] = [  # noqa: RUF012  # ASE declares it so
        *("band_energy", "fermi_level", "eigenvalues", "ibz_kpoints", "kpoint_weights")
    ]

    def __init__(
        self,
        checkpoint: str | Path | Sequence[str | Path],
        *,
        overlap: str | None = None,
        orbitals: str | Path | Sequence[str | Path] | None = None,
        kgrid: tuple[int, int, int] | None = None,
        k_spacing: float = 0.245,
        smearing_eV: float = 0.0272114,
        n_jobs: int = 1,
        **predictor: Any,
    ) -> None:
        super().__init__()
        self.predictor = Predictor(checkpoint, **predictor)
        self.overlaps = Overlaps.choose(overlap, self.predictor, orbitals)
        self.kgrid = kgrid
        self.k_spacing, self.smearing_eV, self.n_jobs = k_spacing, smearing_eV, n_jobs
        self._data: SystemData | None = None

    def get_hamiltonian(self, atoms: Atoms | None = None) -> Operator:
        """Return H, eV, both halves of every Hermitian couple."""
        H = self._predicted(atoms).H
        assert H is not None
        return H.complete()

    def get_overlap(self, atoms: Atoms | None = None) -> Operator | None:
        """Return S, both halves of every couple; None where nothing tells it."""
        S = self._predicted(atoms).S
        return None if S is None else S.complete()

    def get_fermi_level(self, atoms: Atoms | None = None) -> float:
        """Return the Fermi level, eV, by counting electrons on the grid.

        Raises
        ------
        PhysicsError
            The training set did not tell the electrons of a species.
        """
        return float(self.get_property("fermi_level", atoms))

    def band_structure(
        self, atoms: Atoms | None = None, path: str | None = None, n_point: int = 100
    ) -> BandStructure:
        """Return the bands along a path, with the Fermi level as reference.

        Parameters
        ----------
        atoms
            Structure.
        path
            Special points, "GMKG"; see `solve.kpath.band_path`.
        n_point
            K-points in all.

        Raises
        ------
        PhysicsError
            The structure has no periodic direction.
        ConfigError
            The lattice has no such special point.
        """
        system = self._electrons(atoms)
        points = band_path(system.atoms, n_point, is_periodic=system.is_periodic, kpath=path)
        level = self.get_fermi_level(atoms)
        return to_ase(band_structure(system, points, level, n_jobs=self.n_jobs))

    def get_eigenvalues(self, kpt: int = 0, spin: int = 0) -> NDArray[np.float64]:
        """Return the energies at a k-point of the grid, eV, ``(n_band,)``."""
        energies: NDArray[np.float64] = self.get_property("eigenvalues")[spin, kpt]
        return energies

    def get_ibz_k_points(self) -> NDArray[np.float64]:
        """Return the k-points of the grid, fractional, ``(n_k, 3)``; one of k and -k."""
        k: NDArray[np.float64] = self.get_property("ibz_kpoints")
        return k

    def get_k_point_weights(self) -> NDArray[np.float64]:
        """Return the weights of the k-points, ``(n_k,)``, of sum one."""
        weights: NDArray[np.float64] = self.get_property("kpoint_weights")
        return weights

    def get_number_of_spins(self) -> int:
        """Return the number of spin channels: networks predict H without spin."""
        return 1

    def get_property(
        self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True
    ) -> Any:
        """Return a property (see `implemented_properties`).

        Raises
        ------
        PropertyNotImplementedError
            It is not among them: total energy and forces are not.
        """
        if name in all_properties and name not in self.implemented_properties:
            raise PropertyNotImplementedError(
                f"{name}: a predicted Hamiltonian gives band energies, Fermi level and bands, "
                f"but no total energy and nothing that derives from it. Known: "
                f"{', '.join(self.implemented_properties)}."
            )
        return super().get_property(name, self._given(atoms), allow_calculation)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = (),  # noqa: ARG002
        system_changes: Sequence[str] = all_changes,  # noqa: ARG002
    ) -> None:
        """Solve on the grid; ASE calls this."""
        system = self._electrons(atoms)
        check_memory(
            16.0 * _MATRICES * system.n_orb**2 * self.n_jobs,
            f"structure '{system.name}': all states of {system.n_orb} orbitals",
            "Write the prediction (deeph_lightning.predict) and solve for the states near the "
            "Fermi level: python -m deeph_lightning.solve solver=sparse",
        )
        grid = self.kgrid or grid_size(
            system.atoms, self.k_spacing, 3, is_periodic=system.is_periodic
        )
        levels = grid_levels(system, grid, self.smearing_eV, n_jobs=self.n_jobs)
        self.results = {
            "band_energy": levels.band_energy,
            "fermi_level": levels.e_fermi,
            "eigenvalues": levels.energies,
            "ibz_kpoints": levels.k,
            "kpoint_weights": levels.weight,
        }

    def _given(self, atoms: Atoms | None) -> Atoms:
        """Return a structure, or that of the last call."""
        if atoms is None:
            atoms = self.atoms
        if atoms is None:
            raise ConfigError("no structure was given yet: pass one (atoms=...)", key="atoms")
        return atoms

    def _electrons(self, atoms: Atoms | None) -> ElectronicSystem:
        return electronic_system(self._predicted(atoms))

    def _predicted(self, atoms: Atoms | None) -> SystemData:
        """Predict a structure, unless it is that of the last call."""
        atoms = self._given(atoms)
        if self._data is None or self.check_state(atoms):
            self.reset()
            self.atoms = atoms.copy()
            self._data = self.overlaps.predict(self.atoms, self.predictor)
        return self._data
