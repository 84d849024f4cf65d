"""What readers and writers share: errors that name the file, and writing in one step."""

from __future__ import annotations

import errno
import gzip
import json
import lzma
import os
import re
import shutil
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import h5py
import numpy as np

from deeph_lightning.core.basis import species_labels
from deeph_lightning.errors import DataError, DeepHError, FormatError, ResourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from ase import Atoms
    from numpy.typing import NDArray

#: Contiguous datasets larger than this are mapped into memory, bytes.
MAPPED_BYTES = 1 << 30
#: Empty space around a molecule that has no lattice of its own, Å.
VACUUM = 20.0
#: Largest difference of positions and lattice of what counts as the same structure, Å.
SAME_POSITION = 1e-4


@contextmanager
def in_file(path: Path, structure: str) -> Iterator[None]:
    """Name file and structure in every `DeepHError` that is raised inside."""
    try:
        yield
    except DeepHError as error:
        text = str(error)
        if str(path) in text:
            raise
        where = (
            f"{path}: " if f"'{structure}'" in text else f"{path}: structure '{structure}', "
        )
        located = type(error)(where + text)
        located.__dict__.update(error.__dict__)
        for key, value in (("path", path), ("structure", structure)):
            if getattr(located, key, value) is None:
                setattr(located, key, value)
        raise located from None


def require(path: Path, structure: str, what: str) -> Path:
    """Return the path of a file that must exist.

    Raises
    ------
    FormatError
        It does not.
    """
    if not path.is_file():
        msg = (
            f"{path}: structure '{structure}' lacks this file, expected {what}. Restore it, or "
            f"leave the structure out."
        )
        raise FormatError(msg, path=path, structure=structure)
    return path


@contextmanager
def open_text(path: Path, structure: str) -> Iterator[TextIO]:
    """Open a text file for reading, also one that is compressed (``.xz``, ``.gz``).

    Raises
    ------
    FormatError
        It cannot be opened or decompressed.
    """
    opener: Any = {".xz": lzma.open, ".gz": gzip.open}.get(path.suffix, open)
    try:
        with opener(path, "rt", encoding="utf-8", errors="replace") as file:
            yield cast("TextIO", file)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        msg = (
            f"{path}: structure '{structure}', the file cannot be read ({error}). It is "
            f"truncated, damaged or of another kind: make or copy it again."
        )
        raise FormatError(msg, path=path, structure=structure) from None


def first_line(path: Path) -> str:
    """Return the beginning of the first line of a text file; "" where there is none."""
    try:
        with open_text(path, "") as file:
            return file.readline(200).strip()
    except FormatError:
        return ""


@contextmanager
def open_h5(path: Path, structure: str) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading.

    Raises
    ------
    FormatError
        Opening or reading fails: the file is truncated, damaged or no HDF5.
    """
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError) as error:  # h5py raises each for damaged files
        if isinstance(error, DeepHError):
            raise
        msg = (
            f"{path}: structure '{structure}', the file cannot be read as HDF5 "
            f"({str(error).splitlines()[0]}). It is truncated, damaged or of another kind: "
            f"make or copy it again."
        )
        raise FormatError(msg, path=path, structure=structure) from None


def h5_matches(path: Path, test: Callable[[h5py.File], bool]) -> bool:
    """Whether a file can be opened as HDF5 and its content passes a test."""
    try:
        with h5py.File(path, "r") as file:
            return test(file)
    except (OSError, RuntimeError, KeyError):
        return False


def read_dataset(file: h5py.File, key: str, structure: str) -> NDArray[Any]:
    """Read a dataset of numbers; a very large one is mapped, read-only, not copied to memory.

    Raises
    ------
    FormatError
        It is missing or holds something else.
    """
    found = file.get(key)
    path = Path(file.filename)
    if not isinstance(found, h5py.Dataset):
        keys = ", ".join(str(k) for k in list(file)[:6]) or "nothing"
        msg = (
            f"{path}: structure '{structure}', dataset '{key}' is missing; the file holds "
            f"{keys}. Write it again with all datasets of its format."
        )
        raise FormatError(msg, path=path, structure=structure)
    if found.dtype.kind not in "iufc":
        msg = (
            f"{path}: structure '{structure}', dataset '{key}' has dtype {found.dtype}, "
            f"expected numbers. Write it again."
        )
        raise FormatError(msg, path=path, structure=structure)
    if found.nbytes > MAPPED_BYTES and found.chunks is None and found.dtype.isnative:
        offset = found.id.get_offset()
        if offset is not None:
            return np.memmap(path, found.dtype, mode="r", offset=offset, shape=found.shape)
    return np.asarray(found[()])


def read_json(path: Path, structure: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    FormatError
        The file is missing, or not one JSON object.
    """
    require(path, structure, "a JSON file")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        msg = f"{path}: structure '{structure}', this is not JSON ({error}). Correct the file."
        raise FormatError(msg, path=path, structure=structure) from None
    if not isinstance(data, dict):
        msg = (
            f"{path}: structure '{structure}', found a {type(data).__name__}, expected a JSON "
            f"object. Correct the file."
        )
        raise FormatError(msg, path=path, structure=structure)
    return data


def read_table(path: Path, structure: str, what: str) -> NDArray[np.float64]:
    """Read a text file of numbers, always ``(rows, columns)``.

    Raises
    ------
    FormatError
        The file is missing, or holds no table of numbers.
    """
    require(path, structure, what)
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
        table = np.array([line for line in lines if line], dtype=np.float64)
        if table.ndim != 2:
            raise ValueError("it is empty")
    except ValueError as error:
        msg = f"{path}: structure '{structure}', this is no table of numbers ({error})."
        raise FormatError(f"{msg} Correct the file.", path=path, structure=structure) from None
    return table


def number_text(values: Iterable[float]) -> str:
    """Write numbers on one line, with all their digits."""
    return "  ".join(repr(float(v)) for v in values)


def cell_to_write(atoms: Atoms) -> NDArray[np.float64]:
    """Return lattice vectors, ``(3, 3)``, Å: a box around a molecule that has none."""
    cell = np.array(atoms.cell.array)
    missing = ~cell.any(axis=1)
    if missing.any():
        axes = np.asarray(atoms.cell.complete().array)[missing]
        extent = np.ptp(atoms.get_positions() @ axes.T, axis=0)
        cell[missing] = axes * (extent + VACUUM)[:, None]
    return cell


@contextmanager
def _room_for(target: Path) -> Iterator[None]:
    """Turn a full disk into one message."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # h5py raises the latter when it closes a file
        found = re.search(r"errno = (\d+)", str(error))
        number = getattr(error, "errno", None) or (int(found[1]) if found else None)
        if number not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        msg = (
            f"{target}: there was no room to write it ({os.strerror(number)}); nothing of it "
            f"was kept. Free some space or write to another disk, and repeat the command."
        )
        raise ResourceError(msg) from None


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give a temporary folder beside `target` and rename it at the end.

    Into a folder that exists, the new files are moved one by one, ``info.json`` last; its
    other files stay.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    partial.mkdir()
    try:
        with _room_for(target):
            yield partial
        if target.is_dir():
            for path in sorted(partial.iterdir(), key=lambda p: p.name == "info.json"):
                path.replace(target / path.name)
        else:
            partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """Give a temporary name beside `target` and rename it at the end."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    try:
        with _room_for(target):
            yield partial
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def refuse_mixture(
    folder: Path, kept: Iterable[str], there: Callable[[], Atoms], atoms: Atoms
) -> None:
    """Refuse to write beside matrix files of another structure.

    Parameters
    ----------
    folder
        Where to write.
    kept
        Matrix files that would not be replaced.
    there
        Reads the structure of the folder.
    atoms
        The structure to write.

    Raises
    ------
    DataError
        Matrix files of another structure would stay.
    """
    names = [name for name in kept if (folder / name).exists()]
    if not names:
        return
    old = there()
    if (
        len(old) == len(atoms)
        and np.array_equal(species_labels(old), species_labels(atoms))
        and np.allclose(old.positions, atoms.positions, rtol=0, atol=SAME_POSITION)
        and np.allclose(old.cell.array, cell_to_write(atoms), rtol=0, atol=SAME_POSITION)
    ):
        return
    msg = (
        f"{folder}: it holds {', '.join(names)} of another structure ({old.symbols}), which "
        f"would then stand beside {atoms.symbols}. Choose another output folder, or remove it."
    )
    raise DataError(msg, path=folder)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write JSON, one key a line."""
    lines = (f" {json.dumps(key)}: {json.dumps(data[key])}" for key in data)
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
