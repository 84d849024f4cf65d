"""wannier90: ``seedname_hr.dat`` with ``seedname.win`` and the centres of the functions.

``H(k) = sum_R exp(2 pi i k.R) H(R) / degeneracy(R)``, eV. Where ``seedname_wsvec.dat`` says so
(``use_ws_distance``, the default of wannier90 3), an element is shared among the equivalent
lattice vectors of its own pair of functions, as in the bands of the code.

Wannier functions have no angular momentum: each is one shell with l = 0. Functions on an atom
belong to it; others sit on sites "X" at their centres. Functions of one spinor calculation are
separate ones, since the file does not tell which spin they have. The basis is orthonormal.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from deeph_lightning.core.basis import OrbitalBasis
from deeph_lightning.core.operator import Operator
from deeph_lightning.core.pairs import PairTable
from deeph_lightning.errors import FormatError
from deeph_lightning.io.code_output import Eigenvalues, facts, label_species, single_file
from deeph_lightning.io.elements import Elements, operator_from_elements
from deeph_lightning.io.files import first_line, in_file
from deeph_lightning.io.formats import read_only
from deeph_lightning.io.system import Header, SystemData, checked
from deeph_lightning.io.wannier90.files import (
    WinFile,
    read_bands,
    read_centres,
    read_hr,
    read_shifts,
    read_win,
    version_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

HR = ("*_hr.dat", "*_hr.dat.xz", "*_hr.dat.gz")
FILES: dict[str, tuple[str, ...]] = {
    "H": HR,
    "text": ("*.win", "*_centres.xyz", "*_wsvec.dat", "*.wout", "*.wout.xz", "*.wout.gz"),
    "bands": ("*_band.kpt", "*_band.dat"),
}
#: A function this close to an atom is on it; functions this close share a site, Å.
ON_SITE = 0.35

write = read_only("wannier90")


def detect(folder: Path) -> bool:
    """Whether the folder has an _hr.dat file beside a .win file."""
    return any(
        first_line(path) and (folder / f"{_seed(path)}.win").is_file()
        for pattern in HR
        for path in folder.glob(pattern)
        if path.is_file()
    )


def header(folder: Path, name: str) -> Header:
    """Read the basis; functions of spinor calculations count as functions without spin."""
    return Header(read(folder, (), name).basis, False)


def read(
    path: str | Path, operators: Sequence[str] = ("H", "S"), name: str | None = None
) -> SystemData:
    """Read and check a folder (see `formats.read_structure_folder`)."""
    folder = Path(path)
    name = name or folder.resolve().name
    file = single_file(folder, HR, name)
    if file is None:
        msg = f"{folder}: structure '{name}', there is no _hr.dat file. Give another folder."
        raise FormatError(msg, path=folder, structure=name)
    seed = _seed(file)
    win_path = folder / f"{seed}.win"
    win = read_win(win_path, name)
    hr = read_hr(file, name)
    wout = single_file(folder, [f"{seed}.wout{end}" for end in ("", ".xz", ".gz")], name)
    centres = read_centres(folder / f"{seed}_centres.xyz", wout, win, len(hr.values[0]), name)
    site, shift, atoms, basis = _sites(centres, win, name)
    system = SystemData(
        name=name,
        atoms=atoms,
        basis=basis,
        fermi_energy=win.fermi_energy,
        info={
            **facts(
                code="wannier90",
                code_version=version_of(wout, name),
                spin="spinor" if win.is_spinor else None,
            ),
            "orthogonal_basis": True,
            "all_atoms": [
                [symbol, *place]
                for symbol, place in zip(win.symbols, win.positions.tolist(), strict=True)
            ],
        },
        source_format="wannier90",
    )
    if "H" in operators:
        elements = read_shifts(folder / f"{seed}_wsvec.dat", hr, name)
        place = np.empty(len(site), dtype=np.int64)
        place[np.argsort(site, kind="stable")] = np.arange(len(site))
        moved = Elements(
            elements.R + shift[elements.column] - shift[elements.row],
            place[elements.row],
            place[elements.column],
            elements.values,
        )
        with in_file(file, name):
            system.H = operator_from_elements(atoms, basis, _added(moved), unit="eV")
    if "S" in operators:
        system.S = _identity(atoms, basis)
    return checked(system, {"atoms": win_path, "H": file, "S": file})


def read_eigenvalues(path: str | Path, name: str | None = None) -> Eigenvalues | None:
    """Read the bands that wannier90 interpolated (``bands_plot``), or None."""
    folder = Path(path)
    name = name or folder.resolve().name
    file = single_file(folder, HR, name)
    points = None if file is None else folder / f"{_seed(file)}_band.kpt"
    energies = None if file is None else folder / f"{_seed(file)}_band.dat"
    if points is None or energies is None or not (points.is_file() and energies.is_file()):
        return None
    return Eigenvalues(*read_bands(points, energies, name))


def _seed(path: Path) -> str:
    return path.name.rpartition("_hr.dat")[0]


def _sites(
    centres: NDArray[np.float64], win: WinFile, name: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], Atoms, OrbitalBasis]:
    """Return site and lattice vector of every function, sites, and their shells."""
    places: list[NDArray[np.float64]] = list(win.positions)
    symbols = list(win.symbols)
    inverse = np.linalg.inv(win.cell)
    site = np.empty(len(centres), dtype=np.int64)
    shift = np.empty((len(centres), 3), dtype=np.int64)
    for n, centre in enumerate(centres):
        delta = (centre - np.array(places).reshape(-1, 3)) @ inverse
        cells = np.rint(delta)
        distance = np.linalg.norm((delta - cells) @ win.cell, axis=1)
        nearest = int(np.argmin(distance)) if len(distance) else 0
        if not len(distance) or distance[nearest] > ON_SITE:
            nearest = len(places)
            places.append(centre)
            symbols.append("X")
            site[n], shift[n] = nearest, 0
        else:
            site[n], shift[n] = nearest, cells[nearest]
    used, site = np.unique(site, return_inverse=True)
    counts = np.bincount(site)
    own = [symbols[k] for k in used]
    labels = label_species(own, [f"{s}{c}" for s, c in zip(own, counts, strict=True)])
    atoms = Atoms(own, positions=np.array(places)[used], cell=win.cell, pbc=True)
    atoms.info["name"] = name
    if labels != own:
        atoms.arrays["species"] = np.array(labels)
    shells = {label: (0,) * int(c) for label, c in zip(labels, counts, strict=True)}
    return site, shift, atoms, OrbitalBasis(shells)


def _added(elements: Elements) -> Elements:
    """Add elements of the same functions and cell."""
    rows = np.column_stack((elements.row, elements.column, elements.R))
    distinct, index = np.unique(rows, axis=0, return_inverse=True)
    values = np.zeros(len(distinct), dtype=elements.values.dtype)
    np.add.at(values, index.ravel(), elements.values)
    return Elements(distinct[:, 2:], distinct[:, 0], distinct[:, 1], values)


def _identity(atoms: Atoms, basis: OrbitalBasis) -> Operator:
    n_atom = len(atoms)
    number = np.arange(n_atom)
    pairs = PairTable(np.zeros((n_atom, 3)), number, number)
    labels = atoms.arrays.get("species", atoms.get_chemical_symbols())
    blocks = [np.eye(basis.n_orb(str(label))).ravel() for label in labels]
    return Operator(atoms, basis, pairs, np.concatenate(blocks), "1")
