"""Fermi level, band edges and gap of a system on a k-grid."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from deeph_lightning.errors import PhysicsError
from deeph_lightning.solve.dense import eigenvalues, fermi_level, kgrid
from deeph_lightning.solve.kloop import map_k

if TYPE_CHECKING:
    from collections.abc import Callable

    from deeph_lightning.core.operator import Operator
    from deeph_lightning.solve.system import ElectronicSystem

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class BandEdge:
    """A band edge.

    Attributes
    ----------
    energy
        eV.
    k
        ``(3,)``, fractional, the first k-point of the list that has it.
    channel, band
        Spin channel and number of the band, both from 0.
    """

    energy: float
    k: tuple[float, float, float]
    channel: int
    band: int


@dataclass(frozen=True)
class BandEdges:
    """Highest occupied and lowest empty states of a list of k-points.

    Attributes
    ----------
    vbm, cbm
        The edges; None in a metal.
    gap, direct_gap
        Indirect and smallest direct gap, eV; zero in a metal.
    """

    vbm: BandEdge | None
    cbm: BandEdge | None
    gap: float
    direct_gap: float

    @property
    def is_metal(self) -> bool:
        """Whether a band crosses the Fermi level."""
        return self.vbm is None


@dataclass(frozen=True)
class Levels:
    """Energies on a k-grid with the Fermi level.

    Attributes
    ----------
    grid
        Points along each axis.
    k, weight
        ``(n_k, 3)`` fractional, and ``(n_k,)``, of sum one.
    energies
        ``(n_channel, n_k, n_band)``, eV.
    e_fermi
        eV.
    edges
        Gap on the grid.
    band_energy
        Sum of occupied energies, eV in the cell (the "band-structure energy"); NaN where only
        some states were computed.
    first_band
        Number of the first band of `energies`, from 0.
    """

    grid: tuple[int, int, int]
    k: FloatArray
    weight: FloatArray
    energies: FloatArray
    e_fermi: float
    edges: BandEdges
    band_energy: float
    first_band: int = 0


def channel_energies(
    system: ElectronicSystem,
    k: ArrayLike,
    n_drop: int = 0,
    n_jobs: int = 1,
    track: Callable[..., Any] | None = None,
) -> FloatArray:
    """Return the energies of all channels, ``(n_channel, n_k, n_band)``, eV, ascending.

    Parameters
    ----------
    system
        Operators.
    k
        ``(n_k, 3)``, fractional.
    n_drop
        Combinations of orbitals left out, see `conditioning`.
    n_jobs, track
        See `kloop.map_k`.
    """  # fmt: skip
    points = np.atleast_2d(np.asarray(k, dtype=np.float64))
    return np.array(
        [
            map_k(partial(_energies, H, system.S, n_drop), points, n_jobs, track)
            for H in system.channels
        ]
    )


def _energies(H: Operator, S: Operator | None, n_drop: int, k: FloatArray) -> list[FloatArray]:
    return list(eigenvalues(H, S, k, n_drop))


def grid_levels(
    system: ElectronicSystem,
    grid: tuple[int, int, int],
    smearing_eV: float,
    *,
    n_drop: int = 0,
    n_jobs: int = 1,
    track: Callable[..., Any] | None = None,
) -> Levels:
    """Diagonalise on a Gamma-centred grid and count electrons.

    Parameters
    ----------
    system
        Operators and electrons.
    grid
        Points along each axis.
    smearing_eV
        Fermi-Dirac width, eV.
    n_drop, n_jobs, track
        See `channel_energies`.

    Raises
    ------
    PhysicsError
        The number of electrons is unknown or does not fit.
    """
    n_electrons = system.electrons()
    k, weight = kgrid(grid, time_reversal=system.has_time_reversal)
    energies = channel_energies(system, k, n_drop, n_jobs, track)
    stacked = np.concatenate(list(energies), axis=1)
    level = fermi_level(stacked, weight, n_electrons, smearing_eV, system.degeneracy)
    occupation = occupations(energies, level, smearing_eV)
    total = system.degeneracy * np.einsum("skn,skn,k->", occupation, energies, weight)
    return Levels(
        grid, k, weight, energies, level, band_edges(energies, k, level), float(total)
    )


def occupations(energies: ArrayLike, e_fermi: float, smearing_eV: float) -> FloatArray:
    """Return Fermi-Dirac occupations, 0..1, of energies in eV."""
    return np.asarray(special.expit((e_fermi - np.asarray(energies)) / smearing_eV))


def band_edges(energies: ArrayLike, k: ArrayLike, e_fermi: float) -> BandEdges:
    """Return the highest states below the Fermi level and the lowest above.

    Parameters
    ----------
    energies
        ``(n_channel, n_k, n_band)``, eV, ascending; NaN for states that were not computed.
    k
        ``(n_k, 3)``.
    e_fermi
        eV.

    Returns
    -------
    BandEdges
        Without edges and gap where the number of occupied bands of a channel changes from
        one k-point to another: then a band crosses the Fermi level.

    Raises
    ------
    PhysicsError
        All states are on one side of the Fermi level.
    """
    bands = np.asarray(energies, dtype=np.float64)
    points = np.asarray(k, dtype=np.float64)
    is_filled, is_empty = bands <= e_fermi, bands > e_fermi
    if not (is_filled.any() and is_empty.any()):
        msg = (
            f"the Fermi level {e_fermi:.4f} eV lies outside the bands, {np.nanmin(bands):.4f} "
            f"to {np.nanmax(bands):.4f} eV. Check the number of electrons."
        )
        raise PhysicsError(msg)
    # the number of the first empty band, whether the states on both sides were computed or not
    n_filled = np.where(
        is_filled.any(axis=2),
        bands.shape[2] - np.argmax(is_filled[:, :, ::-1], axis=2),
        np.argmax(is_empty, axis=2),
    )
    is_known = np.any(is_filled | is_empty, axis=2).reshape(n_filled.shape)
    if any(len(np.unique(n[known])) > 1 for n, known in zip(n_filled, is_known, strict=True)):
        return BandEdges(None, None, 0.0, 0.0)
    top = np.where(is_filled, bands, -np.inf)
    bottom = np.where(is_empty, bands, np.inf)
    vbm, cbm = (
        np.unravel_index(index, bands.shape) for index in (top.argmax(), bottom.argmin())
    )

    def edge(at: Any) -> BandEdge:
        channel, point, band = (int(n) for n in at)
        x, y, z = points[point].tolist()
        return BandEdge(float(bands[channel, point, band]), (x, y, z), channel, band)

    direct = (bottom.min(axis=2) - top.max(axis=2)).min()  # spin is conserved by light
    return BandEdges(edge(vbm), edge(cbm), float(bands[cbm] - bands[vbm]), float(direct))
