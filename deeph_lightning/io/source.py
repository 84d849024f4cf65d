"""Sources: sets of structures, wherever they lie.

An archive (one HDF5 file), a folder that holds one, or a folder of structure folders of any
format and depth, with a ``split.json`` if there is one.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from deeph_lightning.errors import DataError
from deeph_lightning.io.archive import Archive, is_archive
from deeph_lightning.io.files import in_file
from deeph_lightning.io.formats import (
    CODES,
    detect_format,
    find_systems,
    read_header,
    read_structure_folder,
    structure_files,
)
from deeph_lightning.io.split import Split, read_split, unknown_name
from deeph_lightning.io.system import Header, SystemData

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Files up to this size are hashed whole, of larger ones as much in windows, bytes.
WHOLE_FILE = 1 << 22
N_WINDOW = 64
#: Text files that belong to a structure.
SMALL_FILES = ("POSCAR", "info.json", "lat.dat", "site_positions.dat", "element.dat",
               "orbital_types.dat")  # fmt: skip


class Source(Protocol):
    """A set of structures.

    Attributes
    ----------
    names
        Structures, in an order that is always the same.
    split
        ``{"train": [names], "val": [names], "test": [names]}``, or None.
    header
        Basis of all structures together, and whether they are spinful.
    """

    names: list[str]
    split: Split | None
    header: Header

    def read(self, name: str, operators: Sequence[str] = ("H", "S")) -> SystemData:
        """Read and check one structure; its operators hold both pairs of every couple."""

    def fingerprint(self) -> str:
        """Return a hash of names, split and content."""


def open_source(root: str | Path) -> Source:
    """Open a set of structures.

    Parameters
    ----------
    root
        Archive, folder with one archive (``*.h5``), or folder with structure folders at any
        depth, itself included.

    Raises
    ------
    DataError
        There is nothing there, or spinful and spinless structures are mixed.
    BasisMismatchError
        Two structures have other shells for one species.
    FormatError
        The archive, or a file that says what a structure is, is damaged.
    """
    root = Path(root).expanduser()
    archive = find_archive(root)
    return FolderSource(root) if archive is None else Archive(archive)


def find_archive(root: Path) -> Path | None:
    """Return the archive that a path is, or the one that a folder holds; None if it has none.

    Raises
    ------
    DataError
        There is nothing at the path, or the folder holds several archives.
    """
    if root.is_file():
        return root
    if not root.is_dir():
        msg = (
            f"{root}: there is no such file or folder, expected an archive (*.h5) or a folder "
            f"of DeepH folders. Correct the path."
        )
        raise DataError(msg, path=root)
    archives = [path for path in sorted(root.glob("*.h5")) if is_archive(path)]
    if len(archives) > 1:
        msg = (
            f"{root}: it holds {len(archives)} archives "
            f"({', '.join(path.name for path in archives[:4])}). Give one of them."
        )
        raise DataError(msg, path=root)
    return archives[0] if archives else None


class FolderSource:
    """A folder of structure folders.

    The name of a structure is the path of its folder below the root, with ``/``; if the root
    is the folder of a structure, its own name.

    Parameters
    ----------
    root
        Folder.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._folders = structure_folders(self.root)
        self.names: list[str] = list(self._folders)
        common: Header | None = None
        for name, folder in self._folders.items():
            with in_file(self.root, name):
                common = read_header(folder, name).merged(common, name)
        if common is None:
            msg = (
                f"{self.root}: no structure was found in it. Expected folders with POSCAR, "
                f"info.json and hamiltonian.h5 (DeepH), with lat.dat, element.dat and "
                f"hamiltonians.h5 (DeepH legacy), or with the files of a calculation "
                f"({', '.join(CODES)}), at any depth."
            )
            raise DataError(msg, path=self.root)
        self.header = common
        self.split = read_split(self.root / "split.json", self.names)

    def folder(self, name: str) -> Path:
        """Return the folder of a structure."""
        if name not in self._folders:
            raise unknown_name(name, self.names, self.root)
        return self._folders[name]

    def read(self, name: str, operators: Sequence[str] = ("H", "S")) -> SystemData:
        """Read and check one structure (see `formats.read_structure_folder`)."""
        return read_structure_folder(self.folder(name), operators, name)

    def fingerprint(self) -> str:
        """Return a hash of names, split and the content of all files of the structures.

        Of a file above 4 MiB, 64 windows over its length are hashed, and its size.
        """
        state = hashlib.sha256(json.dumps(self.split, sort_keys=True).encode())
        for name, folder in self._folders.items():
            state.update(name.encode() + b"\0")
            small = (folder / file_name for file_name in SMALL_FILES)
            own = structure_files(folder, detect_format(folder) or "")
            for path in (*(p for p in small if p.is_file()), *own):
                file_name = path.relative_to(folder).as_posix()
                state.update(file_name.encode() + b"\0" + _file_digest(path))
        return state.hexdigest()


def structure_folders(root: Path) -> dict[str, Path]:
    """Return the folders of structures at or below a root by their names, sorted."""
    return {
        root.resolve().name if folder == root else folder.relative_to(root).as_posix(): folder
        for folder in find_systems(root)
    }


def _file_digest(path: Path) -> bytes:
    """Return the hash of a file, of windows only if it is large."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= WHOLE_FILE:
            return hashlib.file_digest(file, "sha256").digest()
        state = hashlib.sha256(str(size).encode())
        width = WHOLE_FILE // N_WINDOW
        for n in range(N_WINDOW):
            file.seek(n * (size - width) // (N_WINDOW - 1))
            state.update(file.read(width))
        return state.digest()
