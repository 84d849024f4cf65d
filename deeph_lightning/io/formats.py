"""Structures with their operators, and the formats of folders that hold them.

A format is known by the content of its files. To add one: a module with the functions of
`Reader`, and one line in `READERS`.
"""

from __future__ import annotations

import importlib
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import numpy as np

from deeph_lightning.core.cells import cells_of_blocks, with_cells_of_atoms
from deeph_lightning.core.checks import (
    TOL_HERMITIAN_H,
    TOL_HERMITIAN_S,
    check_basis,
    check_structure,
)
from deeph_lightning.errors import (
    BasisMismatchError,
    ConfigError,
    DataError,
    FormatError,
)
from deeph_lightning.io.files import in_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ase import Atoms

    from deeph_lightning.core.basis import OrbitalBasis
    from deeph_lightning.core.operator import Operator
    from deeph_lightning.io.code_output import Eigenvalues

log = logging.getLogger(__name__)

#: Module of each format, in the order in which they are tried.
READERS = {
    "deeph": "deeph_lightning.io.deeph",
    "deeph_legacy": "deeph_lightning.io.deeph_legacy",
    "abacus": "deeph_lightning.io.abacus",
    "siesta": "deeph_lightning.io.siesta",
    "openmx": "deeph_lightning.io.openmx",
    "fhi_aims": "deeph_lightning.io.fhi_aims",
    "wannier90": "deeph_lightning.io.wannier90",
    "deeptb": "deeph_lightning.io.deeptb",
    "hamgnn": "deeph_lightning.io.hamgnn",
}
#: Formats that can be written too.
WRITERS = ("deeph", "deeph_legacy")
#: Formats that are outputs of codes; those that are only refused are not among them.
CODES = tuple(name for name in READERS if name not in (*WRITERS, "hamgnn"))

#: Unit of each operator in `SystemData`.
UNITS = {"H": "eV", "S": "1", "rho": "1", "H_pred": "eV"}


@dataclass
class SystemData:
    """One structure with what is known of it.

    Attributes
    ----------
    name
        Name in its set.
    atoms
        Structure, Å; ``atoms.info["name"]`` is `name`.
    basis
        Shells of every species.
    is_spinful
        Whether H has spin; S never has. Of a collinear calculation H is spinful too, real,
        with zero blocks between the spins.
    H, S, rho
        Hamiltonian in eV, overlap, density matrix (spin-summed, or spinful where the file has
        it so), or None. Each has its own pairs, as the file has them: H may have pairs that S
        lacks.
    fermi_energy
        eV, or None if unknown.
    n_electrons
        Number of electrons in the cell, or None.
    info
        Further facts of the file, kept as they are. Readers of codes add those of
        `code_output.facts`.
    source_format
        Key of `READERS`, or "archive".
    H_pred
        Hamiltonian predicted by a network, in eV, or None.
    """

    name: str
    atoms: Atoms
    basis: OrbitalBasis
    is_spinful: bool = False
    H: Operator | None = None
    S: Operator | None = None
    rho: Operator | None = None
    fermi_energy: float | None = None
    n_electrons: float | None = None
    info: dict[str, Any] = field(default_factory=dict)
    source_format: str = "deeph"
    H_pred: Operator | None = None

    def operators(self) -> Iterator[tuple[str, Operator]]:
        """Iterate over the operators that are there, by name."""
        for key in UNITS:
            op = getattr(self, key)
            if op is not None:
                yield key, op


class Header(NamedTuple):
    """What can be known of a structure without reading its matrices."""

    basis: OrbitalBasis
    is_spinful: bool

    def merged(self, other: Header | None, name: str) -> Header:
        """Return the header of a set with one more structure.

        Parameters
        ----------
        other
            Header of the structures before, or None.
        name
            This structure, for messages.

        Raises
        ------
        DataError
            Spinful and spinless structures are mixed.
        BasisMismatchError
            A species has other shells than before.
        """
        if other is None:
            return self
        if self.is_spinful != other.is_spinful:
            kinds = ("spinless", "spinful")
            msg = (
                f"structure '{name}' is {kinds[self.is_spinful]}, those before it are "
                f"{kinds[other.is_spinful]}. A set holds structures of one kind: keep them in "
                f"two folders."
            )
            raise DataError(msg, structure=name)
        if self.basis == other.basis:
            return other
        try:
            return Header(other.basis.union(self.basis), self.is_spinful)
        except BasisMismatchError as error:
            raise BasisMismatchError(f"structure '{name}': {error}", structure=name) from None


class Reader(Protocol):
    """Functions of the module of a format.

    A format whose folders may hold eigenvalues of the code has also
    ``read_eigenvalues(path, name) -> Eigenvalues | None``.

    Attributes
    ----------
    FILES
        Names of the files of a structure, as patterns of ``Path.glob`` below its folder.
    """

    FILES: dict[str, tuple[str, ...]]

    def detect(self, folder: Path) -> bool:
        """Whether a folder is of this format, by its content."""

    def header(self, folder: Path, name: str) -> Header:
        """Read basis and spin only."""

    def read(
        self,
        path: str | Path,
        operators: Sequence[str] = ("H", "S"),
        name: str | None = None,
    ) -> SystemData:
        """Read a folder, with those of the operators that it has."""

    def write(self, system: SystemData, path: str | Path) -> None:
        """Write a folder, under a temporary name until it is complete."""


def reader_of(format_name: str) -> Reader:
    """Return the module of a format.

    Raises
    ------
    ConfigError
        There is no such format.
    """
    if format_name not in READERS:
        msg = f"format '{format_name}' is unknown. Known formats: {', '.join(READERS)}."
        raise ConfigError(msg, key="format")
    return cast("Reader", importlib.import_module(READERS[format_name]))


def read_only(format_name: str) -> Callable[[SystemData, str | Path], None]:
    """Return the `Reader.write` of a format that is not written: it raises `ConfigError`."""

    def write(system: SystemData, path: str | Path) -> None:
        msg = (
            f"{path}: format '{format_name}' can be read, not written (structure "
            f"'{system.name}'). Formats to write: {', '.join(WRITERS)}."
        )
        raise ConfigError(msg, key="format")

    return write


def structure_files(folder: Path, format_name: str) -> list[Path]:
    """Return the files of a structure that exist, in the order of `Reader.FILES`."""
    patterns = (p for names in reader_of(format_name).FILES.values() for p in names)
    found = (path for p in patterns for path in sorted(folder.glob(p)) if path.is_file())
    return list(dict.fromkeys(found))


def read_eigenvalues(path: str | Path, name: str | None = None) -> Eigenvalues | None:
    """Read the eigenvalues that lie beside the matrices of a folder; None if there are none.

    Raises
    ------
    FormatError
        The folder is of no known format, or the file of eigenvalues is damaged.
    """
    reader = _detected(Path(path))
    found: Eigenvalues | None = getattr(reader, "read_eigenvalues", lambda *_: None)(path, name)
    return found


def detect_format(folder: str | Path) -> str | None:
    """Return the format of a folder, or None if it holds no structure."""
    for name in READERS:
        if reader_of(name).detect(Path(folder)):
            return name
    return None


def read_header(path: str | Path, name: str | None = None) -> Header:
    """Read basis and spin of a folder of any format (errors: see `read_structure_folder`)."""
    folder = Path(path)
    return _detected(folder).header(folder, name or folder.resolve().name)


def read_structure_folder(
    path: str | Path, operators: Sequence[str] = ("H", "S"), name: str | None = None
) -> SystemData:
    """Read and check a folder of any format.

    Parameters
    ----------
    path
        Folder of one structure.
    operators
        Which to read, of "H", "S", "rho", "H_pred"; those without a file are None.
    name
        Name of the structure; without it that of the folder.

    Raises
    ------
    FormatError
        The folder is of no known format, or a file is missing, truncated or not as its
        format says.
    ShapeError
        Blocks do not fit the orbital map, or each other.
    BasisMismatchError
        The orbital map lacks a species.
    PhysicsError
        A number is NaN or infinite, atoms are too close, a Hermitian partner disagrees.
    DataError
        A pair comes twice, or files of two calculations are mixed.
    """
    return _detected(Path(path)).read(path, operators, name)


def write_structure_folder(
    system: SystemData, path: str | Path, format_name: str = "deeph"
) -> None:
    """Write a folder of any format (see `Reader.write`)."""
    reader_of(format_name).write(system, path)


def find_systems(root: str | Path) -> list[Path]:
    """Return the folders below (or at) a root that hold a structure, sorted.

    Hidden folders are passed over, links followed; what lies inside the folder of a structure
    is not searched.
    """
    found: list[Path] = []
    seen: set[str] = set()
    for folder, children, _ in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        is_new = real not in seen
        seen.add(real)
        if is_new and detect_format(folder) is not None:
            found.append(Path(folder))
            is_new = False
        children[:] = sorted(c for c in children if is_new and not c.startswith("."))
    return sorted(found)


def checked(system: SystemData, files: dict[str, Path]) -> SystemData:
    """Run the checks of `core.checks` on what was read, and return it.

    Where a code folds atoms into the cell and the file of the structure does not, R of the
    blocks are counted anew, with a warning.

    Parameters
    ----------
    system
        What was read.
    files
        File of the structure ("atoms") and of every operator, for messages.
    """
    with in_file(files["atoms"], system.name):
        check_structure(system.atoms, system.name)
        check_basis(system.atoms, system.basis, system.name)
    for key, op in system.operators():
        tol = TOL_HERMITIAN_H if UNITS[key] == "eV" else TOL_HERMITIAN_S
        with in_file(files[key], system.name):
            _check_onsite(op)
            op.check_hermitian(tol, system.name)
            setattr(system, key, _in_cells_of_atoms(op, files[key]))
    return system


def _in_cells_of_atoms(op: Operator, file: Path) -> Operator:
    """Count the cells of blocks from the atoms where they are; what changes is said."""
    shifts = cells_of_blocks(op)
    moved = np.flatnonzero(shifts.any(axis=1))
    if not len(moved):
        return op
    log.warning(
        "%s: structure '%s' has atom %d, and %d in all, in another cell than the blocks have "
        "it; R of their pairs counted anew",
        *(file, op.name, moved[0], len(moved)),
    )
    return with_cells_of_atoms(op, shifts)


def _check_onsite(op: Operator) -> None:
    has_block = np.zeros(len(op.atoms), dtype=np.bool_)
    has_block[op.pairs.i[op.pairs.is_onsite]] = True
    if not has_block.all():
        missing = np.flatnonzero(~has_block)
        msg = (
            f"structure '{op.name}': {len(missing)} of {len(op.atoms)} atoms have no onsite "
            f"block, among them atom {missing[0]}; expected the pair R=(0, 0, 0) i=j of every "
            f"atom. The file is incomplete: make it again."
        )
        raise DataError(msg, structure=op.name)


def _detected(folder: Path) -> Reader:
    name = detect_format(folder)
    if name is None:
        found = sorted(p.name for p in folder.iterdir())[:6] if folder.is_dir() else []
        what = f"it holds {', '.join(found)}" if found else "it is empty or no folder"
        msg = (
            f"{folder}: this is no folder of a structure ({what}). Expected POSCAR, info.json "
            f"and hamiltonian.h5 (DeepH), lat.dat, element.dat and hamiltonians.h5 (DeepH "
            f"legacy), or the files of a calculation ({', '.join(CODES)})."
        )
        raise FormatError(msg, path=folder)
    return reader_of(name)
