"""The structure file of ABACUS, ``STRU``, which has more digits than the log."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from deeph_lightning.errors import FormatError
from deeph_lightning.io.files import open_text
from deeph_lightning.units import BOHR_ANGSTROM

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from deeph_lightning.io.abacus.log import Log

#: Largest difference of STRU and log, relative to the longest vector: the log's rounding.
TOL_STRU = 2e-5
_SECTION = re.compile(r"(ATOMIC|NUMERICAL|LATTICE|ABFS\w*)_[A-Z]+")


def refine(log: Log, path: Path, structure: str) -> Log:
    """Take lattice and positions from ``STRU``.

    Parameters
    ----------
    log
        What the log says; what STRU leaves open (a lattice known by its name) stays.
    path
        File.
    structure
        Name, for messages.

    Raises
    ------
    FormatError
        The file is damaged, or of another structure.
    """
    sections = _sections(path, structure)
    if "LATTICE_VECTORS" not in sections:
        return log
    try:
        cell, positions = _parse(sections)
    except (KeyError, ValueError, IndexError) as error:
        msg = (
            f"{path}: structure '{structure}', the structure cannot be read ({error}). Restore "
            f"the file, or remove it: the log will do, with fewer digits."
        )
        raise FormatError(msg, path=path, structure=structure) from None
    if not _agree(cell, log.cell):
        raise _of_another(path, "lattice", structure)
    if positions is None:
        return replace(log, cell=cell)
    if positions.shape != log.positions.shape:
        raise _of_another(path, "number of atoms", structure)
    # ABACUS may have moved atoms into the cell
    whole = np.rint((positions - log.positions) @ np.linalg.pinv(cell))
    positions = positions - whole @ cell
    if not _agree(positions, log.positions):
        raise _of_another(path, "positions", structure)
    return replace(log, cell=cell, positions=positions)


def _sections(path: Path, structure: str) -> dict[str, list[list[str]]]:
    """Return the words of every line, comments left out, by section."""
    with open_text(path, structure) as file:
        lines = [re.split(r"#|//", line)[0].split() for line in file]
    sections: dict[str, list[list[str]]] = {}
    current: list[list[str]] = []
    for words in filter(None, lines):
        if _SECTION.fullmatch(words[0]):
            current = sections.setdefault(words[0], [])
        else:
            current.append(words)
    return sections


def _parse(
    sections: dict[str, list[list[str]]],
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Return cell and positions, Å; None for positions in coordinates that are not read."""
    unit = float(sections["LATTICE_CONSTANT"][0][0]) * BOHR_ANGSTROM
    vectors = [row[:3] for row in sections["LATTICE_VECTORS"][:3]]
    cell = np.array(vectors, dtype=np.float64).reshape(3, 3) * unit
    kind, *rows = sections["ATOMIC_POSITIONS"]
    factors = {"Direct": cell, "Cartesian": np.eye(3) * unit, "Cartesian_angstrom": np.eye(3)}
    if kind[0] not in factors:
        return cell, None
    points: list[list[str]] = []
    while rows:  # label, magnetism, number of atoms, atoms
        n_atom = int(rows[2][0])
        points += [row[:3] for row in rows[3 : 3 + n_atom]]
        rows = rows[3 + max(n_atom, 0) :]
    table = np.array(points, dtype=np.float64).reshape(-1, 3)
    if not (np.isfinite(table).all() and np.isfinite(cell).all()):
        raise ValueError("a number is not finite")
    return cell, table @ factors[kind[0]]


def _agree(found: NDArray[np.float64], expected: NDArray[np.float64]) -> bool:
    scale = max(float(np.abs(expected).max(initial=0.0)), 1.0)
    return bool(np.abs(found - expected).max(initial=0.0) <= TOL_STRU * scale)


def _of_another(path: Path, what: str, structure: str) -> FormatError:
    msg = (
        f"{path}: structure '{structure}', the {what} of this file and of the log differ. "
        f"Files of two calculations are mixed here: keep each in a folder of its own."
    )
    return FormatError(msg, path=path, structure=structure)
