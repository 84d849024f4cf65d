"""Text files of SIESTA: structure, orbitals, eigenvalues, log."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from deeph_lightning.errors import FormatError
from deeph_lightning.io.files import open_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

#: Lines of a log in which the code must name itself.
N_HEAD = 60


class XV(NamedTuple):
    """Structure of an ``.XV`` file: cell and positions in bohr, species from 0."""

    cell: NDArray[np.float64]
    species: NDArray[np.int64]
    symbols: list[str]
    positions: NDArray[np.float64]


class LogFacts(NamedTuple):
    """What a log says; None where it does not."""

    version: str | None = None
    functional: str | None = None
    is_converged: bool | None = None

    @property
    def is_before_5(self) -> bool:
        """Whether the version is one of 4.x or older."""
        found = re.search(r"(\d+)\.", self.version or "")
        return found is not None and int(found[1]) < 5


def read_xv(path: Path, structure: str) -> XV:
    """Read an XV file.

    Raises
    ------
    FormatError
        It is not complete, or holds ghost atoms.
    """
    rows = [row for row in _rows(path, structure) if row]
    try:
        cell = np.array([row[:3] for row in rows[:3]], dtype=np.float64)
        n_atom = int(rows[3][0])
        table = np.array([row[:5] for row in rows[4 : 4 + n_atom]], dtype=np.float64)
        if cell.shape != (3, 3) or table.shape != (n_atom, 5) or n_atom < 1:
            raise ValueError(f"found {len(rows)} lines, expected {4 + n_atom}")
        numbers = table[:, 1].astype(int)
        if np.any((numbers < 1) | (numbers >= len(chemical_symbols))):
            raise ValueError(f"atomic number {numbers.min()} is no element (a ghost atom?)")
    except (ValueError, IndexError) as error:
        raise _damaged(
            path, structure, error, "cell, number and coordinates of atoms"
        ) from None
    symbols = [chemical_symbols[z] for z in numbers]
    return XV(cell, table[:, 0].astype(np.int64) - 1, symbols, table[:, 2:])


def read_orbitals(path: Path, structure: str) -> list[tuple[str, tuple[int, ...]]]:
    """Read ``.ORB_INDX``: species label and shells of every atom.

    Raises
    ------
    FormatError
        It is not complete.
    """
    rows = [row for row in _rows(path, structure) if row]
    try:
        n_orb = int(rows[0][0])
        orbitals = rows[2 : 2 + n_orb]
        atoms: dict[int, list[list[str]]] = {}
        for row in orbitals:
            atoms.setdefault(int(row[1]), []).append(row)
        if len(orbitals) != n_orb or sorted(atoms) != list(range(1, len(atoms) + 1)):
            raise ValueError(f"found {len(orbitals)} orbitals of {n_orb}")
        return [
            (own[0][3], tuple(int(row[6]) for row in own if int(row[7]) == -int(row[6])))
            for _, own in sorted(atoms.items())
        ]
    except (ValueError, IndexError) as error:
        raise _damaged(path, structure, error, "a table of orbitals") from None


def read_eig(path: Path, structure: str) -> tuple[float, NDArray[np.float64]]:
    """Read ``.EIG``.

    Returns
    -------
    fermi_energy, energies
        eV; ``(n_channel, n_k, n_band)``, eV, two channels of a collinear calculation.

    Raises
    ------
    FormatError
        It is not complete.
    """
    words = [word for row in _rows(path, structure) for word in row]
    try:
        n_band, n_spin, n_k = (int(word) for word in words[1:4])
        n_channel = 2 if n_spin == 2 else 1
        table = np.array(words[4:], dtype=np.float64).reshape(n_k, 1 + n_channel * n_band)
        energies = table[:, 1:].reshape(n_k, n_channel, n_band).transpose(1, 0, 2)
        return float(words[0]), energies
    except (ValueError, IndexError) as error:
        raise _damaged(path, structure, error, "eigenvalues of every k-point") from None


def read_kp(path: Path, structure: str) -> NDArray[np.float64]:
    """Read the k-points of ``.KP``, ``(n_k, 3)``, Cartesian, 1/bohr.

    Raises
    ------
    FormatError
        It is not complete.
    """
    rows = [row for row in _rows(path, structure) if row]
    try:
        n_k = int(rows[0][0])
        points = np.array([row[1:4] for row in rows[1:]], dtype=np.float64)
        if points.shape != (n_k, 3):
            raise ValueError(f"found {len(points)} k-points of {n_k}")
        return points
    except (ValueError, IndexError) as error:
        raise _damaged(path, structure, error, "a k-point on each line") from None


def read_log(paths: Sequence[Path]) -> LogFacts:
    """Read the first of some files that is a log of SIESTA."""
    for path in paths:
        with open_text(path, "") as file:
            text = file.read()
        head = "\n".join(text.splitlines()[:N_HEAD])
        version = re.search(r"(?im)^\s*(?:siesta )?version\s*:\s*(?:siesta-)?(\S+)", head)
        if version is None or "siesta" not in head.lower():
            continue
        functional = re.search(
            r"xc_check: Exchange-correlation functional:\s*xc_check: (.+)", text
        )
        convergence = re.findall(
            r"(SCF cycle converged)|(SCF_NOT_CONV|SCF did not converge)", text
        )
        return LogFacts(
            version[1],
            functional[1].strip() if functional else None,
            bool(convergence[-1][0]) if convergence else None,
        )
    return LogFacts()


def symbol_of(label: str) -> str | None:
    """Return the element that a species label begins with ("Fe", "Fe_up", "Fe.1"), or None."""
    match = re.match(r"[A-Z][a-z]?(?![a-z])", label)
    return match[0] if match is not None and atomic_numbers.get(match[0], 0) > 0 else None


def _rows(path: Path, structure: str) -> list[list[str]]:
    with open_text(path, structure) as file:
        return [line.split() for line in file]


def _damaged(path: Path, structure: str, error: Exception, expected: str) -> FormatError:
    msg = (
        f"{path}: structure '{structure}', {error}; expected {expected}. The file is truncated "
        f"or damaged: restore it."
    )
    return FormatError(msg, path=path, structure=structure)
