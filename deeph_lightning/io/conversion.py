"""Conversion of whole sets: one structure after another, with the checks of every reader."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

from deeph_lightning.core.checks import check_overlap_positive
from deeph_lightning.core.two_centre import check_two_centre
from deeph_lightning.errors import ConfigError, DataError, DeepHError
from deeph_lightning.io.archive import Archive
from deeph_lightning.io.files import in_file, new_file
from deeph_lightning.io.formats import (
    CODES,
    UNITS,
    SystemData,
    detect_format,
    read_structure_folder,
    structure_files,
    write_structure_folder,
)
from deeph_lightning.io.source import find_archive, structure_folders
from deeph_lightning.io.split import Split, read_split

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OPERATORS = tuple(UNITS)


class Conversion:
    """Structures of a source, to be written in one format.

    Parameters
    ----------
    source
        Structure folder, folder of such at any depth, or archive.
    output
        Folder to write: the structure itself if `source` is the folder of one, else a folder
        for each structure, by its name.
    format_name
        One of `formats.WRITERS`.
    check_overlap
        Refuse structures whose S(k) is not positive definite or whose S has not the
        two-centre form.

    Attributes
    ----------
    names
        Structures.
    folders
        Folder to write, of each structure.
    n_written, n_skipped
        Structures written, and those that were there.
    failures
        Why a structure could not be converted, by its name.
    worst
        Largest disagreement of Hermitian partners of each operator, the smallest eigenvalue
        of S(k) under "S(k)", and the largest deviation of S from the two-centre form.

    Raises
    ------
    DataError
        The source holds no structure.
    ConfigError
        `output` is the source, or lies in it.
    """

    def __init__(
        self, source: Path, output: Path, format_name: str, *, check_overlap: bool = True
    ) -> None:
        self.output, self.format_name = output, format_name
        self.check_overlap = check_overlap
        self._read: dict[str, Callable[[], SystemData]]
        self._origin: dict[str, Path]
        self.split: Split | None = None
        archive_path = find_archive(source)
        _refuse_source(source, output)
        if archive_path is not None:
            archive = Archive(archive_path)
            self._read = {
                name: partial(archive.read, name, OPERATORS) for name in archive.names
            }
            self._origin = dict.fromkeys(archive.names, archive_path)
            self.split = archive.split
        else:
            self._origin = structure_folders(source)
            self._read = {
                name: partial(read_structure_folder, folder, OPERATORS, name)
                for name, folder in self._origin.items()
            }
            self.split = read_split(source / "split.json", self._origin)
        self.names = list(self._origin)
        if not self.names:
            msg = (
                f"{source}: no structure was found in it. Expected DeepH folders, new or "
                f"legacy, or calculations ({', '.join(CODES)}), at any depth, or an archive."
            )
            raise DataError(msg, path=source)
        is_single = self._origin.get(self.names[0]) == source and archive_path is None
        self.folders = {name: output if is_single else output / name for name in self.names}
        self.n_written = self.n_skipped = 0
        self.failures: dict[str, str] = {}
        self.worst: dict[str, float] = {}

    def convert(self, name: str) -> None:
        """Convert one structure; an error is noted in `failures`."""
        try:
            if self._is_done(name):
                self.n_skipped += 1
                return
            system = self._read[name]()
            self._check(system)
            write_structure_folder(system, self.folders[name], self.format_name)
            self.n_written += 1
        except DeepHError as error:
            self.failures[name] = f"{type(error).__name__}: {error}"
        except OSError as error:
            self.failures[name] = f"{self.folders[name]}: {error.strerror or error}"

    def write_split(self) -> None:
        """Write the split of the source, if it has one, without structures that failed."""
        if not self.split:
            return
        split = {
            part: [name for name in names if name not in self.failures]
            for part, names in self.split.items()
        }
        with new_file(self.output / "split.json") as path:
            path.write_text(json.dumps(split, indent=1) + "\n", encoding="utf-8")

    def summary(self) -> str:
        """Say what was done, and what the checks gave."""
        checks = [f"{key} {value:.1e}" for key, value in self.worst.items()]
        return (
            f"{self.n_written} structures written, {self.n_skipped} were there already, "
            f"{len(self.failures)} failed: {self.output}"
            + (f"; checks: {', '.join(checks)}" if checks else "")
        )

    def _check(self, system: SystemData) -> None:
        for key, op in system.operators():
            residual, _ = op.hermiticity_residual()
            self.worst[key] = max(self.worst.get(key, 0.0), residual)
        if system.S is not None and self.check_overlap:
            with in_file(self._origin[system.name], system.name):
                lowest = check_overlap_positive(system.S, system.name)
                form = check_two_centre(system.S, system.name)
            self.worst["S(k)"] = min(self.worst.get("S(k)", lowest), lowest)
            self.worst["two-centre"] = max(self.worst.get("two-centre", 0.0), form.rotation)

    def _is_done(self, name: str) -> bool:
        """Whether the folder is there, complete, and newer than its source."""
        folder = self.folders[name]
        found = detect_format(folder)
        if found is None:
            return False
        if found != self.format_name:
            msg = (
                f"{folder}: it holds a structure of format {found}; {self.format_name} is not "
                f"written beside it. Choose another output."
            )
            raise DataError(msg, path=folder, structure=name)
        if _newest(self._origin[name]) > _newest(folder, only="info.json"):
            return False
        try:
            read_structure_folder(folder, OPERATORS, name)
        except DeepHError:
            return False  # written anew
        return True


def _newest(path: Path, only: str = "*") -> float:
    """Return when a file, or the newest file of a structure's folder, was changed."""
    files = [path]
    if not path.is_file():
        own = structure_files(path, name) if (name := detect_format(path)) else []
        files = [p for p in {*path.glob("*"), *own} if p.is_file() and p.match(only)]
    return max((p.stat().st_mtime for p in files), default=0.0)


def _refuse_source(source: Path, output: Path) -> None:
    origin, target = source.resolve(), output.resolve()
    if origin == target or origin in target.parents:
        msg = (
            f"output={output}: this is the input or lies in it ({origin}); its files would be "
            f"mixed with new ones. Choose another folder: output=DIR"
        )
        raise ConfigError(msg, key="output")
