"""Conversion of whole sets: structure by structure, in parallel, with the gates of each."""

from __future__ import annotations

import json
import logging
import shutil
import traceback
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from deeph_lightning.errors import ConfigError, DataError, DeepHError
from deeph_lightning.io.archive import Archive
from deeph_lightning.io.files import in_file, new_file
from deeph_lightning.io.formats import (
    CODES,
    detect_format,
    orbital_files,
    read_structure_folder,
    structure_files,
    write_structure_folder,
)
from deeph_lightning.io.gates import check_gates
from deeph_lightning.io.inputs import find_inputs
from deeph_lightning.io.orbitals import KEPT, orbitals_of_basis
from deeph_lightning.io.parallel import progress_bar, work_on
from deeph_lightning.io.system import UNITS, SystemData

log = logging.getLogger(__name__)

OPERATORS = tuple(UNITS)


@dataclass(frozen=True)
class Task:
    """One structure: where it is, the name it has there, and the folder to write."""

    name: str
    origin: Path
    own_name: str
    folder: Path


@dataclass(frozen=True)
class Outcome:
    """What became of a structure: numbers of the gates, or why it failed; None if there.

    Its orbital files, by species, are where its calculation has them.
    """

    checks: dict[str, float] | None = None
    failure: str | None = None
    orbitals: dict[str, Path] = field(default_factory=dict)


class Conversion:
    """Structures of a source, to be written in one format.

    Parameters
    ----------
    source
        Structure folder or a file of it, folder of such at any depth, archive, or a pattern
        of these (see `inputs.find_inputs`).
    output
        Folder to write: the structure itself if `source` is the folder of one, else a folder
        for each structure, by its name.
    format_name
        One of `formats.WRITERS`.
    skip_checks
        Gates to leave out, of `gates.GATES`.

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
        The worst number of each gate (see `gates.check_gates`): the smallest eigenvalue of
        S(k), else the largest.

    Raises
    ------
    DataError
        The source holds no structure.
    ConfigError
        `output` is the source, or lies in it.
    """

    def __init__(
        self,
        source: str | Path,
        output: Path,
        format_name: str,
        *,
        skip_checks: Collection[str] = (),
    ) -> None:
        self.output, self.format_name = output, format_name
        self.skip_checks = tuple(skip_checks)
        inputs = find_inputs(str(source), output)
        for root in inputs.roots:
            _refuse_source(root, output)
        self.split = inputs.split
        self.names = list(inputs.origins)
        self.folders = {
            name: output if inputs.is_single else output / name for name in self.names
        }
        self._tasks = [
            Task(name, *inputs.origins[name], self.folders[name]) for name in self.names
        ]
        self.n_written = self.n_skipped = 0
        self.failures: dict[str, str] = {}
        self.worst: dict[str, float] = {}

    def run(self, n_worker: int | None = None, *, show_progress: bool = True) -> None:
        """Convert all structures; errors are noted in `failures` and stop no other.

        Parameters
        ----------
        n_worker
            Processes; None uses all cores where there are enough structures.
        show_progress
            Show a progress bar.

        Raises
        ------
        ConfigError
            A process was killed.
        """
        shared = (self.format_name, self.skip_checks)
        with progress_bar("converting", len(self._tasks), show=show_progress) as advance:
            for task, outcome in work_on(convert_structure, shared, self._tasks, n_worker):
                self._note(task.name, outcome)
                advance()
        self.failures = {n: self.failures[n] for n in self.names if n in self.failures}
        self._write_split()

    def summary(self) -> str:
        """Say what was done, and what the checks gave."""
        checks = [f"{key} {value:.1e}" for key, value in sorted(self.worst.items())]
        return (
            f"{self.n_written} structures written, {self.n_skipped} were there already, "
            f"{len(self.failures)} failed: {self.output}"
            + (f"; worst of all: {', '.join(checks)}" if checks else "")
        )

    def _note(self, name: str, outcome: Outcome) -> None:
        if outcome.failure is not None:
            self.failures[name] = outcome.failure
        elif outcome.checks is None:
            self.n_skipped += 1
        else:
            self.n_written += 1
            self._keep_orbitals(outcome.orbitals)
            for key, value in outcome.checks.items():
                choose = min if key == "S(k)" else max
                self.worst[key] = choose(self.worst.get(key, value), value)

    def _keep_orbitals(self, files: dict[str, Path]) -> None:
        """Copy the radial functions of each species; where they are others, the first stay."""
        for label, path in files.items():
            copies = sorted((self.output / KEPT).glob(f"{label}.*"))
            if not copies:
                with new_file(self.output / KEPT / f"{label}.{path.name}") as partial:
                    shutil.copyfile(path, partial)
            elif copies[0].read_bytes() != path.read_bytes():
                log.warning(
                    "%s: its radial functions of %s are others than those kept in %s",
                    *(path, label, copies[0]),
                )

    def _write_split(self) -> None:
        """Write the split of the source, if it has one, without structures that failed."""
        if not self.split:
            return
        split = {
            part: [name for name in names if name not in self.failures]
            for part, names in self.split.items()
        }
        with new_file(self.output / "split.json") as path:
            path.write_text(json.dumps(split, indent=1) + "\n", encoding="utf-8")


def convert_structure(shared: tuple[str, tuple[str, ...]], task: Task) -> Outcome:
    """Convert one structure; whatever goes wrong is in the outcome.

    Parameters
    ----------
    shared
        Format to write and gates to leave out.
    task
        The structure.
    """
    format_name, skip_checks = shared
    try:
        if _is_done(task, format_name):
            return Outcome()
        system = _read(task)
        if not any(True for _ in system.operators()):
            msg = (
                f"{task.origin}: structure '{task.name}' has no matrices, neither H nor S nor "
                f"a density matrix. Restore them, or leave the structure out."
            )
            raise DataError(msg, path=task.origin, structure=task.name)
        with in_file(task.origin, task.name):
            checks = check_gates(system, skip_checks)
        write_structure_folder(system, task.folder, format_name)
        return Outcome(checks, orbitals=_orbitals(task.origin, system))
    except DeepHError as error:
        return Outcome(failure=f"{type(error).__name__}: {error}")
    except OSError as error:
        return Outcome(failure=f"{task.folder}: {error.strerror or error}")
    except Exception as error:  # noqa: BLE001  # a bug met by one structure stops no other
        last = traceback.extract_tb(error.__traceback__)[-1]
        return Outcome(
            failure=(
                f"{task.origin}: unexpected {type(error).__name__}: {error} "
                f"({Path(last.filename).name}, line {last.lineno}). This is a mistake of "
                f"deeph_lightning: please report it with the files."
            )
        )


def _orbitals(origin: Path, system: SystemData) -> dict[str, Path]:
    """Return the files with the radial functions of a calculation, by species."""
    if system.source_format not in CODES:
        return {}
    return orbitals_of_basis(orbital_files(origin), system.basis)


def _read(task: Task) -> SystemData:
    if task.origin.is_file():
        system = _open_archive(task.origin).read(task.own_name, OPERATORS)
        system.name = system.atoms.info["name"] = task.name
        return system
    return read_structure_folder(task.origin, OPERATORS, task.name)


@lru_cache(maxsize=4)
def _open_archive(path: Path) -> Archive:
    return Archive(path)


def _is_done(task: Task, format_name: str) -> bool:
    """Whether the folder is there, complete, and newer than its source."""
    found = detect_format(task.folder)
    if found is None:
        return False
    if found != format_name:
        msg = (
            f"{task.folder}: it holds a structure of format {found}; {format_name} is not "
            f"written beside it. Choose another output."
        )
        raise DataError(msg, path=task.folder, structure=task.name)
    if _newest(task.origin) > _newest(task.folder, only="info.json"):
        return False
    try:
        read_structure_folder(task.folder, OPERATORS, task.name)
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
