"""The formats of folders that hold structures with their operators.

A format is known by the content of its files. To add one: a module with the functions of
`Reader`, and one line in `READERS`.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from deeph_lightning.errors import ConfigError, FormatError
from deeph_lightning.io import orbitals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from deeph_lightning.io.code_output import Eigenvalues
    from deeph_lightning.io.system import Header, SystemData

#: Module of each format, in the order in which they are tried.
READERS = {
    "deeph": "deeph_lightning.io.deeph",
    "deeph_legacy": "deeph_lightning.io.deeph_legacy",
    "abacus": "deeph_lightning.io.abacus",
    "siesta": "deeph_lightning.io.siesta",
    "openmx": "deeph_lightning.io.openmx",
    "fhi_aims": "deeph_lightning.io.fhi_aims",
    "pyscf": "deeph_lightning.io.pyscf",
    "wannier90": "deeph_lightning.io.wannier90",
    "deeptb": "deeph_lightning.io.deeptb",
    "gpaw": "deeph_lightning.io.gpaw",
    "hpro": "deeph_lightning.io.hpro",
    "hamgnn": "deeph_lightning.io.hamgnn",
}
#: Formats that can be written too.
WRITERS = ("deeph", "deeph_legacy")
#: Formats that are outputs of codes; those that are only refused are not among them.
CODES = tuple(name for name in READERS if name not in (*WRITERS, "hamgnn"))


class Reader(Protocol):
    """Functions of the module of a format.

    A format whose folders may hold eigenvalues of the code has also
    ``read_eigenvalues(path, name) -> Eigenvalues | None``, one whose files of radial
    functions may lie elsewhere ``orbital_files(folder) -> list[Path]``.

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


def orbital_files(path: str | Path) -> list[Path]:
    """Return the files with radial functions that lie with the calculation of a folder.

    Raises
    ------
    FormatError
        The folder is of no known format, or damaged.
    """
    folder = Path(path)
    found: list[Path] = getattr(_detected(folder), "orbital_files", orbitals.files_in)(folder)
    return found


def detect_format(folder: str | Path) -> str | None:
    """Return the format of a folder, the first of several; None if it holds no structure."""
    return next(_formats_of(Path(folder), READERS), None)


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
    if name in CODES:
        _refuse_two_codes(folder)
    return reader_of(name)


def _formats_of(folder: Path, names: Iterable[str]) -> Iterator[str]:
    return (name for name in names if reader_of(name).detect(folder))


def _refuse_two_codes(folder: Path) -> None:
    found = list(_formats_of(folder, CODES))
    if len(found) > 1:
        named = "; ".join(
            f"{name}: {', '.join(p.name for p in structure_files(folder, name)[:3])}"
            for name in found
        )
        msg = (
            f"{folder}: it holds calculations of {len(found)} codes ({named}), and which one "
            f"is meant is not known. Keep each in a folder of its own: move or link the files "
            f"of one of them."
        )
        raise FormatError(msg, path=folder)
