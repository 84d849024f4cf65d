"""HamGNN: ``graph_data.npz``, which is recognised and refused.

The file is a NumPy archive of pickled Python objects. Loading a pickle runs whatever code it
names, so that none is ever loaded here. All that it holds comes from outputs of a code that are
read as they are.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from numpy.lib import format as npy

from deeph_lightning.errors import FormatError
from deeph_lightning.io.formats import read_only

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deeph_lightning.io.system import Header, SystemData

FILES: dict[str, tuple[str, ...]] = {"graphs": ("graph_data*.npz",)}

write = read_only("hamgnn")


def detect(folder: Path) -> bool:
    """Whether the folder holds a file of this name with pickled objects."""
    return any(holds_objects(path) for path in sorted(folder.glob(FILES["graphs"][0])))


def holds_objects(path: Path) -> bool:
    """Whether a file is a NumPy archive with an array of Python objects; none is loaded."""
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as file:
                    version = npy.read_magic(file)
                    read = {
                        (1, 0): npy.read_array_header_1_0,
                        (2, 0): npy.read_array_header_2_0,
                    }[version]
                    if read(file)[2].hasobject:
                        return True
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile):
        return False
    return False


def header(folder: Path, name: str) -> Header:
    """Refuse the folder (see `read`)."""
    _refuse(folder, name)


def read(
    path: str | Path,
    operators: Sequence[str] = ("H", "S"),  # noqa: ARG001
    name: str | None = None,
) -> SystemData:
    """Refuse the folder.

    Raises
    ------
    FormatError
        Always.
    """
    folder = Path(path)
    _refuse(folder, name or folder.resolve().name)


def _refuse(folder: Path, name: str) -> NoReturn:
    file = next(iter(sorted(folder.glob(FILES["graphs"][0]))), folder)
    msg = (
        f"{file}: structure '{name}', this is a data set of HamGNN, a pickle: loading it would "
        f"run code that the file names, so it is not loaded. Give the calculations it was made "
        f"from instead: the .scfout files of OpenMX (3.9), or the outputs of SIESTA or ABACUS."
    )
    raise FormatError(msg, path=file, structure=name)
