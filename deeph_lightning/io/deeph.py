"""Folders of DeepH 1.x: ``POSCAR``, ``info.json`` and one HDF5 file for each operator.

Matrix files hold ``atom_pairs`` (R1 R2 R3 i j, atoms from 0), ``chunk_shapes``,
``chunk_boundaries`` and ``entries``: both pairs of every Hermitian couple, blocks in C order
and in the common orbital order, H in eV. S has no spin in spinful folders either.
"""

from __future__ import annotations

from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
from ase import Atoms
from ase.io.vasp import read_vasp

from deeph_lightning.core.basis import OrbitalBasis, species_labels
from deeph_lightning.core.checks import check_basis
from deeph_lightning.core.operator import Operator
from deeph_lightning.errors import FormatError
from deeph_lightning.io.code_output import Eigenvalues
from deeph_lightning.io.files import (
    cell_to_write,
    h5_matches,
    in_file,
    new_folder,
    number_text,
    open_h5,
    read_dataset,
    read_json,
    refuse_mixture,
    require,
    write_json,
)
from deeph_lightning.io.info import Info, info_of
from deeph_lightning.io.system import UNITS, Header, SystemData, checked

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

#: File of each operator.
FILES: dict[str, tuple[str, ...]] = {
    "H": ("hamiltonian.h5",),
    "S": ("overlap.h5",),
    "rho": ("density_matrix.h5",),
    "H_pred": ("hamiltonian_pred.h5",),
}


def detect(folder: Path) -> bool:
    """Whether the folder is of this format: by its files, or the content of a matrix file."""
    matrices = [folder / name for names in FILES.values() for name in names]
    matrices = [path for path in matrices if path.is_file()]
    has_poscar, has_info = (folder / "POSCAR").is_file(), (folder / "info.json").is_file()
    if matrices and has_poscar and has_info:
        return True
    if any(
        h5_matches(path, lambda f: "entries" in f and "atom_pairs" in f) for path in matrices
    ):
        return True
    is_legacy = (folder / "lat.dat").is_file()
    return has_poscar and (has_info or bool(matrices)) and not is_legacy


def header(folder: Path, name: str) -> Header:
    """Read basis and spin from ``info.json``."""
    path = folder / "info.json"
    info = Info.from_dict(read_json(path, name), path, name)
    return Header(info.basis, info.is_spinful)


def read(
    path: str | Path, operators: Sequence[str] = ("H", "S"), name: str | None = None
) -> SystemData:
    """Read and check a folder (see `formats.read_structure_folder`)."""
    folder = Path(path)
    name = name or folder.resolve().name
    info_path, poscar = folder / "info.json", folder / "POSCAR"
    info = Info.from_dict(read_json(info_path, name), info_path, name)
    atoms = read_poscar(poscar, name)
    info.label(atoms, info_path, name)
    with in_file(info_path, name):
        check_basis(atoms, info.basis, name)
    info.check_orbitals(atoms, info_path, name)
    system = SystemData(
        name=name,
        atoms=atoms,
        basis=info.basis,
        is_spinful=info.is_spinful,
        fermi_energy=info.fermi_energy,
        n_electrons=info.n_electrons,
        info=info.extra,
        source_format="deeph",
    )
    files = {"atoms": poscar}
    for key in operators:
        files[key] = folder / FILES[key][0]
        if files[key].is_file():
            setattr(system, key, _read_operator(files[key], key, system))
    return checked(system, files)


def write(system: SystemData, path: str | Path) -> None:
    """Write a folder: temporary names until it is complete.

    Parameters
    ----------
    system
        What to write; operators that are None are left out.
    path
        Folder, made if need be. Its other files stay.

    Raises
    ------
    DataError
        The folder holds matrices of another structure, which would stay.
    """
    with structure_folder(system, path, [key for key, _ in system.operators()]) as partial:
        for key, op in system.operators():
            _write_operator(partial / FILES[key][0], op.complete().scaled(UNITS[key]))


@contextmanager
def structure_folder(
    system: SystemData, path: str | Path, operators: Iterable[str]
) -> Iterator[Path]:
    """Give a temporary folder for the matrix files of a structure and complete it at the end.

    Parameters
    ----------
    system
        What ``POSCAR`` and ``info.json`` shall say; its operators are not written.
    path
        The folder, which the temporary one becomes.
    operators
        Operators whose files will be made.

    Raises
    ------
    DataError
        The folder holds matrices of another structure, which would stay.
    """
    folder = Path(path)
    names = {FILES[key][0] for key in operators}
    kept = {name for files in FILES.values() for name in files} - names
    refuse_mixture(folder, sorted(kept), lambda: _read_atoms(folder), system.atoms)
    with new_folder(folder) as partial:
        yield partial
        write_poscar(partial / "POSCAR", system.atoms)
        write_json(partial / "info.json", info_of(system))


def read_eigenvalues(path: str | Path, name: str | None = None) -> Eigenvalues | None:
    """Read the bands of ``band.h5`` (see `formats.Reader`)."""
    file_path = Path(path) / "band.h5"
    if not file_path.is_file():
        return None
    structure = name or Path(path).resolve().name
    with open_h5(file_path, structure) as file:
        k, bands, shift = (
            read_dataset(file, key, structure)
            for key in ("kpoints_frac_list", "band_data", "fermi_energy_before_shift_eV")
        )
    if k.ndim != 2 or bands.ndim != 2 or k.shape != (bands.shape[1], 3) or shift.shape:
        msg = (
            f"{file_path}: structure '{structure}', 'kpoints_frac_list' has shape {k.shape} "
            f"and 'band_data' {bands.shape}, expected (k-points, 3) and (bands, k-points). "
            f"Write the file again."
        )
        raise FormatError(msg, path=file_path, structure=structure)
    return Eigenvalues(k, (bands.T + shift)[None])


def read_poscar(path: Path, structure: str) -> Atoms:
    """Read a POSCAR: symbols, positions and lattice, periodic along all three vectors.

    Raises
    ------
    FormatError
        The file is missing or no POSCAR.
    """
    require(path, structure, "the structure")
    try:
        found = read_vasp(path)
    except Exception as error:  # noqa: BLE001  # ASE's parser raises whatever it meets
        msg = f"{path}: structure '{structure}', this is no POSCAR ({error}). Correct the file."
        raise FormatError(msg, path=path, structure=structure) from None
    atoms = Atoms(found.numbers, positions=found.positions, cell=found.cell, pbc=True)
    atoms.info["name"] = structure
    return atoms


def write_poscar(path: Path, atoms: Atoms) -> None:
    """Write a POSCAR, atoms in their order: runs of one element follow each other."""
    runs = [(symbol, len(list(run))) for symbol, run in groupby(atoms.get_chemical_symbols())]
    lines = [
        str(atoms.symbols),
        "1.0",
        *(number_text(vector) for vector in cell_to_write(atoms)),
        " ".join(symbol for symbol, _ in runs),
        " ".join(str(count) for _, count in runs),
        "Cartesian",
        *(number_text(position) for position in atoms.get_positions()),
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _read_atoms(folder: Path) -> Atoms:
    info_path, name = folder / "info.json", folder.name
    atoms = read_poscar(folder / "POSCAR", name)
    Info.from_dict(read_json(info_path, name), info_path, name).label(atoms, info_path, name)
    return atoms


def _read_operator(path: Path, key: str, system: SystemData) -> Operator:
    with open_h5(path, system.name) as file:
        pairs, shapes, boundaries, entries = (
            read_dataset(file, dataset, system.name)
            for dataset in ("atom_pairs", "chunk_shapes", "chunk_boundaries", "entries")
        )
    for dataset, array, columns in (("atom_pairs", pairs, 5), ("chunk_shapes", shapes, 2)):
        if array.ndim != 2 or array.shape[1] != columns:
            msg = (
                f"{path}: structure '{system.name}', dataset '{dataset}' has shape "
                f"{array.shape}, expected (number of pairs, {columns}). Write the file again."
            )
            raise FormatError(msg, path=path, structure=system.name)
    is_spinful = system.is_spinful and key != "S"
    if key == "rho" and is_spinful:
        is_spinful = _is_doubled(pairs, shapes, system.atoms, system.basis)
    with in_file(path, system.name):
        return Operator.from_flat(
            system.atoms,
            system.basis,
            pairs[:, :3],
            pairs[:, 3],
            pairs[:, 4],
            entries,
            shapes=shapes,
            offsets=boundaries,
            unit=UNITS[key],
            is_spinful=is_spinful,
        )


def _is_doubled(
    pairs: np.ndarray, shapes: np.ndarray, atoms: Atoms, basis: OrbitalBasis
) -> bool:
    """Whether the first block has spin."""
    if not len(pairs) or not 0 <= pairs[0, 3] < len(atoms):
        return False
    counts = basis.orbital_counts(species_labels(atoms))
    return bool(shapes[0, 0] == 2 * counts[pairs[0, 3]])


def _write_operator(path: Path, op: Operator) -> None:
    pairs = np.column_stack((op.pairs.R, op.pairs.i, op.pairs.j))
    with h5py.File(path, "w") as file:
        file["atom_pairs"] = pairs.astype(np.int64)
        file["chunk_shapes"] = op.block_shapes
        file["chunk_boundaries"] = op.offsets
        file["entries"] = op.values
