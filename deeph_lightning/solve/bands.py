"""Band structures along a path, and the difference of two."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from deeph_lightning.errors import DataError
from deeph_lightning.solve.dense import eigenstates, overlap_at
from deeph_lightning.solve.kloop import map_k
from deeph_lightning.solve.levels import BandEdges, FloatArray, band_edges, channel_energies
from deeph_lightning.solve.projection import mulliken_weights, orbital_groups
from deeph_lightning.solve.sparse_levels import aligned

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ase import Atoms
    from numpy.typing import ArrayLike

    from deeph_lightning.core.operator import Operator
    from deeph_lightning.solve.kpath import BandPath
    from deeph_lightning.solve.sparse import SparseSolver, States
    from deeph_lightning.solve.system import ElectronicSystem


@dataclass(frozen=True)
class Bands:
    """Energies along a path.

    Attributes
    ----------
    atoms
        Structure.
    path
        K-points and special points.
    energies
        ``(n_channel, n_k, n_band)``, eV, not shifted.
    e_fermi
        eV.
    first_band
        Number of the first band of `energies`, from 0; not 0 where only states near the Fermi
        level were computed (others are NaN).
    weights
        Mulliken weight of groups of orbitals by their name, each as `energies`; may be empty.
    residual
        Largest ``|H C - E S C|`` of a state that was found by iteration, eV.
    """

    atoms: Atoms
    path: BandPath
    energies: FloatArray
    e_fermi: float
    weights: dict[str, FloatArray] = field(default_factory=dict)
    first_band: int = 0
    residual: float = 0.0

    @property
    def relative(self) -> FloatArray:
        """Energies relative to the Fermi level, eV."""
        return self.energies - self.e_fermi

    @property
    def edges(self) -> BandEdges:
        """Gap along the path."""
        return band_edges(self.energies, self.path.k, self.e_fermi)


def band_structure(
    system: ElectronicSystem,
    path: BandPath,
    e_fermi: float,
    *,
    project: str | None = None,
    n_drop: int = 0,
    n_jobs: int = 1,
    track: Callable[..., Any] | None = None,
) -> Bands:
    """Diagonalise along a path.

    Parameters
    ----------
    system
        Operators.
    path
        K-points.
    e_fermi
        Fermi level, eV.
    project
        Grouping of orbitals for fat bands, of `projection.GROUPINGS`; None for energies only.
    n_drop, n_jobs, track
        See `levels.channel_energies`.

    Raises
    ------
    OverlapNotPositiveError
        S(k) is not positive definite.
    """
    if project is None:
        energies = channel_energies(system, path.k, n_drop, n_jobs, track)
        return Bands(system.atoms, path, energies, e_fermi)
    energies, weights = projected_states(system, path.k, project, n_drop, n_jobs, track)
    return Bands(system.atoms, path, energies, e_fermi, weights)


def projected_states(
    system: ElectronicSystem,
    k: ArrayLike,
    project: str,
    n_drop: int = 0,
    n_jobs: int = 1,
    track: Callable[..., Any] | None = None,
) -> tuple[FloatArray, dict[str, FloatArray]]:
    """Return energies and Mulliken weights of groups of orbitals.

    Parameters
    ----------
    system
        Operators.
    k
        ``(n_k, 3)``, fractional.
    project
        Grouping of orbitals, of `projection.GROUPINGS`.
    n_drop, n_jobs, track
        See `levels.channel_energies`.

    Returns
    -------
    energies, weights
        ``(n_channel, n_k, n_band)``, eV, and of the same shape for each group by its name.
    """
    names, group = orbital_groups(system.channels[0], project)
    points = np.atleast_2d(np.asarray(k, dtype=np.float64))
    parts = [
        map_k(partial(_projected, H, system.S, group, n_drop), points, n_jobs, track)
        for H in system.channels
    ]
    energies = np.array([[energy for energy, _ in part] for part in parts])
    weights = np.array([[weight for _, weight in part] for part in parts])
    return energies, {name: weights[:, :, n] for n, name in enumerate(names)}


def _projected(
    H: Operator, S: Operator | None, group: Any, n_drop: int, k: FloatArray
) -> list[tuple[FloatArray, FloatArray]]:
    found = []
    for point in k:  # one at a time: states of all k-points would fill the memory
        (energies,), (C,) = eigenstates(H, S, point, n_drop)
        SC = C if S is None else overlap_at(S, point, H.n_spin) @ C
        found.append((energies, mulliken_weights(C, SC, group)))
    return found


def bands_near(
    atoms: Atoms,
    solvers: Sequence[SparseSolver],
    path: BandPath,
    e_fermi: float,
    window_eV: tuple[float, float],
    *,
    n_states: int | None = None,
    n_jobs: int = 1,
    track: Callable[..., Any] | None = None,
) -> Bands:
    """Find the states near the Fermi level along a path, by shift-invert Lanczos.

    Parameters
    ----------
    atoms
        Structure.
    solvers
        One for each spin channel.
    path
        K-points.
    e_fermi
        Fermi level, eV.
    window_eV
        Energies relative to the Fermi level between which all states are found.
    n_states
        Take this number of states nearest to the Fermi level instead.
    n_jobs, track
        See `kloop.map_k`.
    """
    low, high = e_fermi + window_eV[0], e_fermi + window_eV[1]
    task = (
        partial(_in_window, low, high)
        if n_states is None
        else partial(_nearest, e_fermi, n_states)
    )
    states = [map_k(partial(task, s), path.k, n_jobs, track) for s in solvers]
    energies, first = aligned(states)
    residual = max(s.residual for part in states for s in part)
    return Bands(atoms, path, energies, e_fermi, first_band=first, residual=residual)


def _in_window(low: float, high: float, solver: SparseSolver, k: FloatArray) -> list[States]:
    return [_bare(solver.window(point, low, high)) for point in k]


def _nearest(e_fermi: float, n: int, solver: SparseSolver, k: FloatArray) -> list[States]:
    return [_bare(solver.nearest(point, e_fermi, n)) for point in k]


def _bare(states: States) -> States:
    """Forget the coefficients: those of all k-points would fill the memory."""
    return states._replace(coefficients=states.coefficients[:, :0])


@dataclass(frozen=True)
class BandDifference:
    """Bands of one Hamiltonian minus those of a reference, each from its own Fermi level.

    Attributes
    ----------
    error
        ``(n_channel, n_k, n_band)``, eV; states are matched by their number.
    is_near
        As `error`: reference states near the Fermi level.
    near_eV
        How near.
    mae, rms, largest
        Of the states near the Fermi level, eV; NaN if there is none.
    e_fermi
        Difference of the Fermi levels, eV (without meaning where a potential zero differs).
    gap
        Difference of the gaps on the path, eV.
    """

    error: FloatArray
    is_near: np.ndarray
    near_eV: float
    mae: float
    rms: float
    largest: float
    e_fermi: float
    gap: float


def compare_bands(reference: Bands, other: Bands, near_eV: float) -> BandDifference:
    """Subtract the bands of a reference from others on the same path.

    Parameters
    ----------
    reference, other
        Bands of the same k-points and number of states.
    near_eV
        Reference states at most so far from the Fermi level count in the numbers.

    Raises
    ------
    DataError
        The two differ in k-points, spin or number of bands.
    """
    reference, other = _common_bands(reference, other)
    if reference.energies.shape != other.energies.shape:
        msg = (
            f"the reference has {reference.energies.shape} channels, k-points and bands, the "
            f"other {other.energies.shape}: they are of different bases, spins or cells. "
            f"Compare two Hamiltonians of one structure and basis."
        )
        raise DataError(msg)
    error = other.relative - reference.relative
    is_near = (np.abs(reference.relative) <= near_eV) & np.isfinite(error)
    near = np.abs(error[is_near])
    found = near.size > 0
    gaps = [bands.edges.gap for bands in (other, reference)]
    return BandDifference(
        error=error,
        is_near=is_near,
        near_eV=near_eV,
        mae=float(near.mean()) if found else np.nan,
        rms=float(np.sqrt((near**2).mean())) if found else np.nan,
        largest=float(near.max()) if found else np.nan,
        e_fermi=other.e_fermi - reference.e_fermi,
        gap=gaps[0] - gaps[1],
    )


def _common_bands(reference: Bands, other: Bands) -> tuple[Bands, Bands]:
    """Keep the band numbers that both have, where only some were computed."""
    first = max(reference.first_band, other.first_band)
    ends = [bands.first_band + bands.energies.shape[2] for bands in (reference, other)]
    if first == 0 and not np.isnan(reference.energies).any():
        return reference, other
    cut = [
        replace(
            bands,
            energies=bands.energies[
                :, :, first - bands.first_band : min(ends) - bands.first_band
            ],
            first_band=first,
        )
        for bands in (reference, other)
    ]
    return cut[0], cut[1]
