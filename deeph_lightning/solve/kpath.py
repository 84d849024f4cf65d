"""Paths of high symmetry through the Brillouin zone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deeph_lightning.errors import PhysicsError

if TYPE_CHECKING:
    from ase import Atoms
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class BandPath:
    """K-points along a path.

    Attributes
    ----------
    k
        ``(n_k, 3)``, fractional coordinates of the reciprocal cell, without 2 pi.
    x
        ``(n_k,)``, length along the path, 1/Å, 2 pi included.
    tick, labels
        Lengths at the special points, and their names; both of one jump share a tick, "K|U".
    """

    k: NDArray[np.float64]
    x: NDArray[np.float64]
    tick: NDArray[np.float64]
    labels: list[str]


def band_path(
    atoms: Atoms, n_point: int = 100, *, is_periodic: ArrayLike | None = None
) -> BandPath:
    """Return the standard path of the lattice of a structure, by ASE.

    Parameters
    ----------
    atoms
        Structure.
    n_point
        K-points in all.
    is_periodic
        ``(3,)``: directions to go along; without it ``atoms.pbc``. A slab given with three
        periodic directions has a path out of its plane, too, unless this says otherwise.

    Raises
    ------
    PhysicsError
        No direction is periodic: there are no bands.

    Notes
    -----
    Source of points and paths: W. Setyawan, S. Curtarolo, Comput. Mater. Sci. 49, 299 (2010).
    """
    pbc = np.asarray(atoms.pbc if is_periodic is None else is_periodic, dtype=np.bool_)
    if not pbc.any():
        name = atoms.info.get("name", atoms.get_chemical_formula())
        raise PhysicsError(f"structure '{name}' has no periodic direction, hence no k-path")
    path = atoms.cell.bandpath(npoints=n_point, pbc=pbc)
    x, tick, names = path.get_linear_kpoint_axis()
    places: list[float] = []
    labels: list[str] = []
    for place, name in zip(tick, names, strict=True):
        if places and place - places[-1] < 1e-9:
            labels[-1] += f"|{name}"
        else:
            places.append(float(place))
            labels.append(str(name))
    return BandPath(np.asarray(path.kpts), np.asarray(x), np.array(places), labels)
