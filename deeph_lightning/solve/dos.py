"""Densities of states of dense spectra: Gaussian broadening and linear tetrahedra."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from deeph_lightning.errors import PhysicsError
from deeph_lightning.solve.levels import FloatArray

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike


@dataclass(frozen=True)
class DensityOfStates:
    """Electrons that states hold, by energy.

    Attributes
    ----------
    energies
        ``(n,)``, eV.
    total
        ``(n_channel, n)``, electrons per eV and cell (both spins where a state holds two).
    projected
        Parts of `total` by groups of orbitals, by their name; may be empty.
    e_fermi
        eV.
    """

    energies: FloatArray
    total: FloatArray
    e_fermi: float
    projected: dict[str, FloatArray] = field(default_factory=dict)


def gaussian_dos(
    bands: ArrayLike,
    weight: ArrayLike,
    energies: ArrayLike,
    width_eV: float,
    part: ArrayLike | None = None,
) -> FloatArray:
    """Sum Gaussians.

    Parameters
    ----------
    bands
        ``(n_channel, n_k, n_band)``, eV.
    weight
        ``(n_k,)``, of sum one.
    energies
        ``(n,)``, where to evaluate, eV.
    width_eV
        Standard deviation, eV.
    part
        As `bands`: the weight of a group of orbitals in each state; one without it.

    Returns
    -------
    ``(n_channel, n)``, states per eV. States outside the energies are seen by their tails only.
    """
    levels = np.asarray(bands, dtype=np.float64)
    at, w = np.asarray(energies, dtype=np.float64), np.asarray(weight, dtype=np.float64)
    height = np.broadcast_to(w[:, None], levels.shape)
    if part is not None:
        height = height * np.asarray(part)
    result = np.zeros((len(levels), len(at)))
    for channel in range(len(levels)):
        for E, h in zip(levels[channel], height[channel], strict=True):
            x = (at[:, None] - E) / width_eV
            result[channel] += np.exp(-0.5 * x * x) @ h
    return result / (width_eV * np.sqrt(2 * np.pi))


def gaussian_count(
    bands: ArrayLike, weight: ArrayLike, energy: float, width_eV: float
) -> FloatArray:
    """Return the integral of `gaussian_dos` up to an energy, ``(n_channel,)``."""
    step = special.ndtr((energy - np.asarray(bands, dtype=np.float64)) / width_eV)
    return np.einsum("skn,k->s", step, np.asarray(weight))


def tetrahedron_dos(
    cell: ArrayLike,
    grid: tuple[int, int, int],
    bands: ArrayLike,
    energies: ArrayLike,
    parts: Mapping[str, ArrayLike] | None = None,
) -> tuple[FloatArray, dict[str, FloatArray]]:
    """Interpolate bands linearly in tetrahedra (ASE's implementation).

    Parameters
    ----------
    cell
        ``(3, 3)``, lattice vectors, Å.
    grid
        Points along each axis.
    bands
        ``(n_channel, n_k, n_band)``, eV, on the full Gamma-centred grid, last axis fastest.
    energies
        ``(n,)``, equidistant, eV.
    parts
        Weights of groups of orbitals by name, each as `bands`.

    Returns
    -------
    total, parts
        ``(n_channel, n)`` each, states per eV.

    Raises
    ------
    PhysicsError
        The k-points are not the full grid, or the grid has fewer than two dimensions.

    Notes
    -----
    Source: A. H. MacDonald, S. H. Vosko, P. T. Coleridge, J. Phys. C 12, 2991 (1979).
    """
    from ase.dft.dos import linear_tetrahedron_integration

    levels = np.asarray(bands, dtype=np.float64)
    n_channel, n_k, n_band = levels.shape
    if n_k != np.prod(grid):
        raise PhysicsError(f"tetrahedra need all {np.prod(grid)} k-points, {n_k} are given")
    if sum(n > 1 for n in grid) < 2:
        msg = (
            f"the linear tetrahedron method needs several k-points along two directions at "
            f"least, the grid is {list(grid)}. Give a denser one (kgrid), or method=gaussian."
        )
        raise PhysicsError(msg)
    names = list(parts or {})
    stacked = [np.ones_like(levels), *(np.asarray((parts or {})[name]) for name in names)]
    weights = np.stack(stacked, axis=-1).reshape(n_channel, *grid, n_band, -1)
    found = np.array(
        [
            linear_tetrahedron_integration(
                np.asarray(cell), levels[s].reshape(*grid, n_band), np.asarray(energies), w
            )
            for s, w in enumerate(weights)
        ]
    )  # (n_channel, 1 + n_part, n)
    return found[:, 0], {name: found[:, n + 1] for n, name in enumerate(names)}
