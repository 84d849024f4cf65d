"""Paths of high symmetry through the Brillouin zone."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ase.dft.kpoints import parse_path_string

from deeph_lightning.core.basis import structure_name
from deeph_lightning.errors import ConfigError, PhysicsError

if TYPE_CHECKING:
    from ase import Atoms
    from ase.dft.kpoints import BandPath as AsePath
    from numpy.typing import ArrayLike, NDArray

#: Latin names of special points that stand for Greek letters, in ASE and in seekpath, where G
#: is another point.
GREEK = {"G": "Γ"}
GREEK_SEEKPATH = {"Gamma": "Γ", "Sigma": "Σ", "Delta": "Δ", "Lambda": "Λ"}


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
    atoms: Atoms,
    n_point: int = 100,
    *,
    is_periodic: ArrayLike | None = None,
    kpath: str | None = None,
) -> BandPath:
    """Return a path of high symmetry through the zone of the cell as it is given.

    Parameters
    ----------
    atoms
        Structure.
    n_point
        K-points in all.
    is_periodic
        ``(3,)``: directions to go along; without it ``atoms.pbc``. A slab given with three
        periodic directions has a path out of its plane, too, unless this says otherwise.
    kpath
        Special points of the lattice as ASE names them, "GMKG" ("GX,KG" jumps); "seekpath" or
        "ase" for a standard path. Without it that of seekpath for crystals, of ASE for slabs
        and chains.

    Raises
    ------
    PhysicsError
        No direction is periodic: there are no bands.
    ConfigError
        The lattice has no such special point.

    Notes
    -----
    Sources of points and paths: W. Setyawan, S. Curtarolo, Comput. Mater. Sci. 49, 299 (2010)
    (ASE); Y. Hinuma et al., Comput. Mater. Sci. 128, 140 (2017) (seekpath).
    """
    pbc = np.asarray(atoms.pbc if is_periodic is None else is_periodic, dtype=np.bool_)
    if not pbc.any():
        msg = (
            f"structure '{structure_name(atoms)}' has no periodic direction (no pair of H "
            f"leaves the cell), hence no k-path. Ask for its levels: task=dos or task=gap"
        )
        raise PhysicsError(msg)
    if kpath == "seekpath" or (kpath is None and pbc.all()):
        path, greek = _seekpath(atoms, n_point), GREEK_SEEKPATH
    else:
        path, greek = _ase_path(atoms, n_point, pbc, None if kpath == "ase" else kpath), GREEK
    x, tick, names = path.get_linear_kpoint_axis()
    places: list[float] = []
    labels: list[str] = []
    for place, point in zip(tick, names, strict=True):
        name = str(point)
        for word, letter in greek.items():
            name = name.replace(word, letter)
        if places and place - places[-1] < 1e-9:
            labels[-1] += f"|{name}"
        else:
            places.append(float(place))
            labels.append(name)
    return BandPath(np.asarray(path.kpts), np.asarray(x), np.array(places), labels)


def _ase_path(atoms: Atoms, n_point: int, pbc: NDArray[np.bool_], kpath: str | None) -> AsePath:
    cell = atoms.cell
    points = cell.bandpath(npoints=0, pbc=pbc).special_points
    names = (
        [] if kpath is None else [name for part in parse_path_string(kpath) for name in part]
    )
    unknown = sorted(set(names) - set(points))
    if unknown or (kpath is not None and len(names) < 2):
        msg = (
            f"kpath = {kpath}: {', '.join(unknown) or 'a path'} is not known for structure "
            f"'{structure_name(atoms)}'. Its lattice ({cell.get_bravais_lattice(pbc=pbc)}) has "
            f"{', '.join(points)}: give two or more of them, for example "
            f"kpath={''.join(list(points)[:3])}"
        )
        raise ConfigError(msg, key="kpath")
    return cell.bandpath(kpath, npoints=n_point, pbc=pbc)


def _seekpath(atoms: Atoms, n_point: int) -> AsePath:
    """Hand seekpath's points and segments to ASE, which spaces the points evenly."""
    import seekpath  # here, because it loads spglib

    cell = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    with warnings.catch_warnings():  # it says that folded bands of supercells are longer
        warnings.simplefilter("ignore")
        found = seekpath.get_path_orig_cell(cell, with_time_reversal=True)
    names = {name: _ase_name(name) for name in found["point_coords"]}
    points = {names[name]: np.array(at) for name, at in found["point_coords"].items()}
    parts = [names[found["path"][0][0]]]
    for before, (start, end) in zip([None, *found["path"][:-1]], found["path"], strict=True):
        if before is not None and before[1] != start:
            parts += [",", names[start]]
        parts.append(names[end])
    return atoms.cell.bandpath("".join(parts), npoints=n_point, special_points=points)


def _ase_name(name: str) -> str:
    """Write a point as ASE can read it: GAMMA is Gamma, X_1 is X1."""
    return name[0] + name[1:].lower().replace("_", "")
