"""One Hamiltonian of a request: read, checked, and solved on its grid at most once."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from joblib import effective_n_jobs

from deeph_lightning.core.basis import species_labels
from deeph_lightning.errors import ConfigError, DataError
from deeph_lightning.io.files import SAME_POSITION
from deeph_lightning.io.source import open_source
from deeph_lightning.solve.bands import Bands, band_structure, bands_near
from deeph_lightning.solve.conditioning import OverlapCondition, overlap_condition
from deeph_lightning.solve.dense import grid_size, kgrid
from deeph_lightning.solve.kpath import BandPath, band_path
from deeph_lightning.solve.levels import BandEdges, Levels, band_edges, grid_levels
from deeph_lightning.solve.memory import GB
from deeph_lightning.solve.sparse import SparseSolver
from deeph_lightning.solve.sparse_levels import sparse_levels
from deeph_lightning.solve.system import ElectronicSystem, electronic_system

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from deeph_lightning.io.system import SystemData


def read_system(
    config: Mapping[str, Any], root: str, *, is_reference: bool
) -> ElectronicSystem:
    """Read the structure that a request means, with its overlap.

    Parameters
    ----------
    config
        Keys of ``conf/solve.yaml``.
    root
        Folder, set of folders or archive.
    is_reference
        Whether it is `input`; else `compare`, whose H must be of the structure of `input`.

    Raises
    ------
    DataError
        The set has several structures and none is named, or H or S is missing.
    """
    key = "hamiltonian" if is_reference else "compare_hamiltonian"
    data = _read(
        root, config["structure"], ("H", "S") if config[key] == "H" else ("H_pred", "S")
    )
    if config["overlap"] is not None:
        data.S = _overlap_of(config, data)
    if data.S is None and not is_reference:
        data.S = _same_structure(
            _read(config["input"], config["structure"], ("S",)), data, config["input"]
        ).S
    return electronic_system(data, config[key], config["n_electrons"])


def _overlap_of(config: Mapping[str, Any], data: SystemData) -> Any:
    other = _read(config["overlap"], config["structure"], ("S",))
    if other.S is None:
        msg = (
            f"overlap = {config['overlap']}: structure '{other.name}' has no overlap.h5 there."
        )
        raise DataError(msg, structure=other.name)
    return _same_structure(other, data, config["overlap"]).S


def _read(root: str, name: str | None, operators: tuple[str, ...]) -> SystemData:
    source = open_source(root)
    if name is None and len(source.names) > 1:
        msg = (
            f"{root}: it holds {len(source.names)} structures ({', '.join(source.names[:4])}, "
            f"...). Name one of them: structure=NAME"
        )
        raise DataError(msg, path=root)
    # a folder of one structure has the name of that folder, whatever the other is called
    return source.read(source.names[0] if len(source.names) == 1 else str(name), operators)


def _same_structure(other: SystemData, data: SystemData, where: str) -> SystemData:
    """Refuse an overlap of another structure."""
    a, b = other.atoms, data.atoms
    is_same = (
        len(a) == len(b)
        and np.array_equal(species_labels(a), species_labels(b))
        and np.allclose(a.cell.array, b.cell.array, rtol=0, atol=SAME_POSITION)
        and np.allclose(a.positions, b.positions, rtol=0, atol=SAME_POSITION)
        and all(other.basis.shells[x] == data.basis.shells.get(x) for x in other.basis.labels)
    )
    if not is_same:
        msg = (
            f"{where}: structure '{other.name}' ({a.get_chemical_formula()}) is not that of "
            f"the Hamiltonian, '{data.name}' ({b.get_chemical_formula()}): cell, positions, "
            f"order of atoms and orbitals must agree. Give the folder of the same structure."
        )
        raise DataError(msg, structure=data.name)
    return other


class Case:
    """One Hamiltonian with the settings of a request.

    Parameters
    ----------
    config
        Keys of ``conf/solve.yaml``.
    system
        Operators and electrons.
    track
        Shows progress, see `kloop.map_k`.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        system: ElectronicSystem,
        track: Callable[..., Any] | None = None,
    ) -> None:
        self.config, self.system, self.track = config, system, track
        self.n_jobs: int = config["n_jobs"]

    @cached_property
    def grid(self) -> tuple[int, int, int]:
        """Points of the k-grid along each axis."""
        if self.config["kgrid"] is not None:
            n1, n2, n3 = self.config["kgrid"]
            return int(n1), int(n2), int(n3)
        return grid_size(
            self.system.atoms,
            self.config["k_spacing"],
            self.config["n_k_min"],
            is_periodic=self.system.is_periodic,
        )

    @cached_property
    def path(self) -> BandPath:
        """K-path of the request."""
        return band_path(
            self.system.atoms,
            self.config["n_point"],
            is_periodic=self.system.is_periodic,
            kpath=self.config["kpath"],
        )

    @property
    def is_dense(self) -> bool:
        """Whether all states are computed; else only those near the Fermi level."""
        if self.config["solver"] == "auto":
            return self.system.n_orb <= self.config["dense_max"]
        return bool(self.config["solver"] == "dense")

    @cached_property
    def solvers(self) -> list[SparseSolver]:
        """A sparse solver for each spin channel."""
        limit = self.config["memory_GB"]
        per_process = None if limit is None else GB * limit / effective_n_jobs(self.n_jobs)
        found = [
            SparseSolver(
                H,
                self.system.S,
                self.config["factorisation"],
                self.config["factor_precision"],
                per_process,
            )
            for H in self.system.channels
        ]
        found[0].check_overlap(np.zeros(3))
        return found

    @cached_property
    def condition(self) -> OverlapCondition | None:
        """How S is conditioned on grid and path; None where that was not computed."""
        if self.system.S is None or not self.is_dense:
            return None
        k, _ = kgrid(self.grid, time_reversal=True)  # S is real
        if self.system.is_periodic.any():
            k = np.concatenate((k, self.path.k))
        return overlap_condition(
            self.system.S, k, self.config["overlap_threshold"], self.n_jobs
        )

    @property
    def n_drop(self) -> int:
        """Combinations of orbitals left out at every k-point, both spins."""
        found = self.condition
        return 0 if found is None else found.n_drop * self.system.channels[0].n_spin

    @cached_property
    def levels(self) -> Levels:
        """Energies on the grid, Fermi level and gap."""
        if not self.is_dense:
            return sparse_levels(
                self.system,
                self.solvers,
                self.grid,
                self.config["smearing_eV"],
                guess_eV=self.system.stated_fermi or 0.0,
                n_jobs=self.n_jobs,
                track=self.track,
            )
        return grid_levels(
            self.system,
            self.grid,
            self.config["smearing_eV"],
            n_drop=self.n_drop,
            n_jobs=self.n_jobs,
            track=self.track,
        )

    @property
    def e_fermi(self) -> float:
        """Fermi level by counting electrons; that of the data where their number is unknown."""
        if self.system.n_electrons is None and self.system.stated_fermi is not None:
            return self.system.stated_fermi
        return self.levels.e_fermi

    @cached_property
    def edges(self) -> BandEdges:
        """Band edges on the grid and, in crystals, along the path too."""
        levels = self.levels
        if not self.system.is_periodic.any():
            return levels.edges
        along = self.bands_along()
        if self.is_dense:
            energies = np.concatenate((levels.energies, along.energies), axis=1)
            k = np.concatenate((levels.k, along.path.k))
            return band_edges(energies, k, levels.e_fermi)
        both = [levels.edges, along.edges]
        tops = [edges.vbm for edges in both if edges.vbm is not None]
        bottoms = [edges.cbm for edges in both if edges.cbm is not None]
        if len(tops) < 2 or len(bottoms) < 2:
            return BandEdges(None, None, 0.0, 0.0)
        vbm = max(tops, key=lambda edge: edge.energy)
        cbm = min(bottoms, key=lambda edge: edge.energy)
        direct = min(edges.direct_gap for edges in both)
        return BandEdges(vbm, cbm, cbm.energy - vbm.energy, direct)

    def bands_along(self, project: str | None = None, path: BandPath | None = None) -> Bands:
        """Solve along a path, that of the case if no other is given."""
        path = self.path if path is None else path
        if self.is_dense:
            return band_structure(
                self.system, path, self.e_fermi,
                project=project, n_drop=self.n_drop, n_jobs=self.n_jobs, track=self.track,
            )  # fmt: skip
        if project is not None:
            msg = (
                f"project={project}: weights are computed by the dense solver only, which "
                f"takes up to dense_max={self.config['dense_max']} orbitals; structure "
                f"'{self.system.name}' has {self.system.n_orb}. Leave project away, or raise "
                f"dense_max."
            )
            raise ConfigError(msg, key="project")
        low, high = self.config["window_eV"]
        return bands_near(
            self.system.atoms, self.solvers, path, self.e_fermi, (low, high),
            n_states=self.config["n_states"], n_jobs=self.n_jobs, track=self.track,
        )  # fmt: skip
