"""What engines share that start a program: its command, its files, its end, its output."""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deeph_lightning.errors import (
    ConfigError,
    DataError,
    MissingDependencyError,
    NotConvergedError,
    ProgramError,
)
from deeph_lightning.io.files import SAME_POSITION
from deeph_lightning.io.formats import reader_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from ase import Atoms

    from deeph_lightning.io.system import SystemData

#: Lines of a program's output that a message shows, and their longest.
N_SHOWN, MAX_WIDTH = 6, 160


def existing_files(files: Mapping[str, str], key: str) -> dict[str, Path]:
    """Return absolute paths of files by element.

    Raises
    ------
    ConfigError
        One does not exist.
    """
    paths = {element: Path(name).expanduser().resolve() for element, name in files.items()}
    for element, path in paths.items():
        if not path.is_file():
            msg = f"{key}.{element} = {path}: there is no such file. Correct the path."
            raise ConfigError(msg, key=key)
    return paths


def digests(paths: Mapping[str, Path]) -> dict[str, str]:
    """Return name and hash of the file of each element."""
    return {
        element: f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        for element, path in paths.items()
    }


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Join settings of a program; the last layer that has a key counts.

    Keys are the same that differ in case, ``.``, ``-`` and ``_`` only. What is nested is
    joined by dots: ``{"scf": {"maxIter": 9}}`` is ``scf.maxIter``, as in a configuration.
    """
    found: dict[str, tuple[str, Any]] = {}
    for layer in layers:
        for name, value in _flat(layer):
            key = _plain(name)
            found[key] = (name, value)
    return dict(found.values())


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _plain(name: str) -> str:
    return re.sub(r"[._-]", "", name).lower()


def check_command(command: str, key: str = "engine.command") -> None:
    """Check that the first word of a command is a program.

    Raises
    ------
    MissingDependencyError
        It is not.
    """
    words = shlex.split(command)
    if not words or shutil.which(words[0]) is None:
        msg = (
            f"{key} = {command!r}: there is no program '{words[0] if words else ''}'. Install "
            f"it or load its module, or give another command, with its full path."
        )
        raise MissingDependencyError(msg)


def check_settings(
    kmesh: Sequence[int], parameters: Mapping[str, Any], own: Collection[str], code: str
) -> None:
    """Check k-points, and that parameters are not those that the engine sets itself.

    Parameters
    ----------
    own
        Keys in lower case without ``.``, ``-`` and ``_``.
    code
        Name of the code, for messages.

    Raises
    ------
    ConfigError
        A value is wrong.
    """
    if len(kmesh) != 3 or any(n < 1 for n in kmesh):
        msg = f"engine.kmesh = {list(kmesh)}: expected three positive integers."
        raise ConfigError(msg, key="engine.kmesh")
    for name, _ in _flat(parameters):
        if _plain(name) in own:
            msg = (
                f"engine.parameters.{name}: this key of {code} is set by the engine. Leave it "
                f"out; structure, k-points, species and output of the matrices are not "
                f"parameters."
            )
            raise ConfigError(msg, key="engine.parameters")


def check_structures(
    structures: Sequence[Atoms],
    elements: Collection[str] | None,
    key: str,
    *,
    molecules: bool = False,
) -> None:
    """Check elements and periodicity.

    Parameters
    ----------
    elements
        Those that there are files of; None: any.
    key
        Key of the files, for messages.
    molecules
        Whether molecules are computed too, beside crystals.

    Raises
    ------
    ConfigError
        A structure does not suit.
    """
    for atoms in structures:
        name, pbc = atoms.info["name"], atoms.pbc
        missing = [] if elements is None else sorted(set(atoms.symbols) - set(elements))
        if missing:
            msg = f"structure '{name}' has {', '.join(missing)}, of which {key} has no entry."
            raise ConfigError(f"{msg} Add it.", key=key)
        if not (pbc.all() or (molecules and not pbc.any())):
            msg = (
                f"structure '{name}': periodic along {pbc.tolist()}; this engine computes "
                f"structures periodic along all three vectors"
                f"{', and molecules' if molecules else ''}. Give it three "
                f"lattice vectors, with vacuum where it ends, and make it periodic along all "
                f'(pbc="T T T" in extended XYZ).'
            )
            raise ConfigError(msg, key="structure")


def start(
    command: Sequence[str],
    folder: Path,
    output: str,
    structure: Atoms,
    *,
    stdin: str | None = None,
    unconverged: str | None = None,
) -> None:
    """Run a program to its end.

    Parameters
    ----------
    command
        Program and arguments.
    folder
        Where it works.
    output
        File in the folder that receives what it prints.
    structure
        What it computes, for messages.
    stdin
        File in the folder that it reads from standard input.
    unconverged
        Pattern by which the output says that the density is not self-consistent.

    Raises
    ------
    MissingDependencyError
        It cannot be started.
    NotConvergedError
        It says so.
    ProgramError
        It ended with an error.
    """
    name, path = structure.info["name"], folder / output
    source = subprocess.DEVNULL if stdin is None else (folder / stdin).open("rb")
    try:
        with path.open("wb") as sink:
            status = subprocess.run(
                command, cwd=folder, stdin=source, stdout=sink, stderr=subprocess.STDOUT,
                check=False,
            ).returncode  # fmt: skip
    except OSError as error:
        msg = f"structure '{name}': {command[0]} cannot be started ({error})."
        raise MissingDependencyError(f"{msg} Check engine.command.") from None
    finally:
        if not isinstance(source, int):
            source.close()
    text = path.read_text(encoding="utf-8", errors="replace")
    if unconverged is not None and re.search(unconverged, text):
        raise _not_converged(name, path)
    if status != 0:
        last = [line.strip()[:MAX_WIDTH] for line in text.splitlines() if line.strip()]
        shown = "".join(f"\n    {line}" for line in last[-N_SHOWN:]) or " nothing"
        msg = (
            f"structure '{name}': {shlex.join(command)} ended with status {status} in "
            f"{folder}. The last that it printed:{shown}"
        )
        raise ProgramError(msg)


def read_result(folder: Path, format_name: str, structure: Atoms) -> SystemData:
    """Read what a program has written: self-consistent, and of the structure it was given.

    Parameters
    ----------
    folder
        Of the calculation.
    format_name
        Key of `formats.READERS`.
    structure
        What was to be computed.

    Returns
    -------
    SystemData
        With atoms in the order and cells of `structure`.

    Raises
    ------
    NotConvergedError
        The density is not self-consistent.
    DataError
        The output does not say whether it is, or is of another structure.
    FormatError
        A file is missing or damaged.
    """
    name = structure.info["name"]
    system = reader_of(format_name).read(folder, ("H", "S"), name)
    is_converged = system.info.get("is_converged")
    if is_converged is False:
        raise _not_converged(name, folder)
    if is_converged is None:
        msg = (
            f"{folder}: structure '{name}', the output does not say whether the density is "
            f"self-consistent. It is incomplete, or of a version that is not known."
        )
        raise DataError(msg, path=folder, structure=name)
    if system.H is None or system.S is None:
        what = "H" if system.H is None else "S"
        msg = f"{folder}: structure '{name}', the calculation has written no {what}."
        raise DataError(f"{msg} Look at its output.", path=folder, structure=name)
    return _as_given(system, structure, folder)


def _as_given(system: SystemData, structure: Atoms, folder: Path) -> SystemData:
    """Renumber and move atoms as in the input: codes group species and map into the cell."""
    found, name = system.atoms, structure.info["name"]
    is_same = len(found) == len(structure) and (
        not structure.pbc.any()
        or np.allclose(found.cell.array, structure.cell.array, rtol=0, atol=SAME_POSITION)
    )
    order = shifts = np.zeros(0, dtype=np.int64)
    if is_same:
        difference = structure.positions[:, None] - found.positions
        cells = np.zeros_like(difference)
        if structure.pbc.any():
            cells = np.rint(difference @ np.linalg.inv(structure.cell.array))
            difference = difference - cells @ structure.cell.array
        distance = np.linalg.norm(difference, axis=2)
        distance[structure.numbers[:, None] != found.numbers] = np.inf
        order = np.argmin(distance, axis=1)
        rows = np.arange(len(structure))
        shifts = cells[rows, order].astype(np.int64)
        is_same = bool((distance[rows, order] < SAME_POSITION).all())
        is_same = is_same and len(np.unique(order)) == len(order)
    if not is_same:
        msg = (
            f"{folder}: the output is of another structure ({found.symbols}) than '{name}' "
            f"({structure.symbols}), or of other positions. Check that the command computes "
            f"the input of its folder."
        )
        raise DataError(msg, path=folder, structure=name)
    operators: dict[str, Any] = {
        key: op.permuted(order).with_atoms_shifted(shifts) for key, op in system.operators()
    }
    return replace(system, atoms=operators["H"].atoms, **operators)


def _not_converged(name: str, place: Path) -> NotConvergedError:
    return NotConvergedError(
        f"structure '{name}': the density is not self-consistent ({place})."
    )
