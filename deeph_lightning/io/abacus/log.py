"""What the log and the eigenvalue files of ABACUS say of a calculation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ase.data import atomic_numbers

from deeph_lightning.errors import FormatError
from deeph_lightning.io.files import first_line, open_text
from deeph_lightning.units import BOHR_ANGSTROM

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Log:
    """Content of ``running_*.log``.

    Attributes
    ----------
    labels, symbols
        Species label and element of each atom.
    shells
        Degrees of the shells of each species label, sorted as ABACUS sorts orbitals.
    cell, positions
        ``(3, 3)`` and ``(A, 3)``, Å. (Lengths are computed in bohr, so that they are converted
        by CODATA; ABACUS itself prints Å with a rounded factor.)
    lattice_constant
        Å.
    n_electrons
        Of the neutral cell, or None.
    fermi_energy
        eV, the last one; None without one, or if spin channels have their own.
    is_converged
        Whether the last self-consistent cycle converged; None if the log does not say.
    """

    labels: list[str]
    symbols: list[str]
    shells: dict[str, tuple[int, ...]]
    cell: NDArray[np.float64]
    positions: NDArray[np.float64]
    lattice_constant: float
    n_electrons: float | None
    fermi_energy: float | None
    version: str | None
    functional: str | None
    is_converged: bool | None


def read_log(path: Path, structure: str) -> Log:
    """Read a log; versions from 2.3 to the development line of 2026.

    Raises
    ------
    FormatError
        What structure and basis need is missing, or there are several structures.
    """
    with open_text(path, structure) as file:
        text = file.read()
    try:
        return _parse_log(text)
    except (ValueError, IndexError, KeyError) as error:
        reason = error.args[0] if error.args else error
        msg = (
            f"{path}: structure '{structure}', {reason}. Expected the complete log of one "
            f"ABACUS calculation in an LCAO basis: copy it again, or repeat the calculation."
        )
        raise FormatError(msg, path=path, structure=structure) from None


def _parse_log(text: str) -> Log:
    counts, shells, labels = [], {}, []
    for part in re.split(r"\n\s*READING ATOM TYPE\s+\d+", text)[1:]:
        label = _value(part, r"atom label\s*=\s*(\S+)", "species label")
        degrees = re.findall(
            r"L=(\d{1,2}), number of zeta\s*=\s*(\d{1,3})\b", part, re.IGNORECASE
        )
        counts.append(
            int(_value(part, r"number of atoms? for this type\s*=\s*(\d{1,7})\b", "count"))
        )
        if not degrees:
            raise ValueError(f"the species '{label}' has no line 'L=0, number of zeta = ...'")
        shells[label] = tuple(int(l) for l, n in degrees for _ in range(int(n)))
        labels += [label] * counts[-1]
    if not labels:
        raise ValueError("there is no section 'READING ATOM TYPE'")
    cell, positions, unit = _structure(text, len(labels))
    electrons = re.findall(r"total electron number of element \S+\s*=\s*(\S+)", text, re.I)
    levels = re.findall(r"EFERMI\s*=\s*(\S+)\s*eV|E_Fermi\s+\S+\s+(\S+)", text)
    has_two_levels = re.search(r"E_Fermi_(up|dw)", text) is not None
    convergence = re.findall(
        r"(convergence is achieved|SCF IS CONVERGED)|(convergence has not been achieved|"
        r"SCF IS NOT CONVERGED)",
        text,
    )
    return Log(
        labels=labels,
        symbols=[_element(label) for label in labels],
        shells=shells,
        cell=cell,
        positions=positions,
        lattice_constant=unit,
        n_electrons=sum(float(n) for n in electrons) if electrons else None,
        fermi_energy=float("".join(levels[-1])) if levels and not has_two_levels else None,
        version=_optional(text, r"ABACUS\s+(v\S+)"),
        functional=_optional(text, r"exchange-correlation functional\s*=\s*(\S+)"),
        is_converged=bool(convergence[-1][0]) if convergence else None,
    )


def _structure(
    text: str, n_atom: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Return cell, positions and lattice constant, Å; refuse logs of several structures."""
    tables = re.split(r"\n\s*(?=(?:DIRECT|CARTESIAN) COORDINATES)", text)[1:]
    tables = [table for table in tables if re.search(r"\n\s*atom\s+x\s+y\s+z", table[:200])]
    if len(tables) != 1:
        raise ValueError(
            f"it holds {len(tables)} tables of coordinates, expected one structure"
        )
    unit = float(_value(text, r"lattice constant \(Bohr\)\s*=\s*(\S+)", "lattice constant"))
    exact = re.match(r"CARTESIAN COORDINATES \( UNIT =\s*(\S+) Bohr", tables[0])
    unit = (float(exact[1]) if exact else unit) * BOHR_ANGSTROM
    rows = re.split(r"\n\s*atom\s+x\s+y\s+z[^\n]*\n", tables[0], maxsplit=1)[1].splitlines()
    coordinates = np.array([row.split()[1:4] for row in rows[:n_atom]], dtype=np.float64)
    vectors = re.split(r"Lattice vectors: \(Cartesian coordinate: in unit of a_0\)", text)[1]
    cell = np.array([row.split() for row in vectors.splitlines()[1:4]], dtype=np.float64) * unit
    if coordinates.shape != (n_atom, 3) or cell.shape != (3, 3):
        raise ValueError("the table of coordinates or of lattice vectors is incomplete")
    is_direct = tables[0].startswith("DIRECT")
    return cell, coordinates @ cell if is_direct else coordinates * unit, unit


def read_eigenvalues(
    path: Path, log: Log, structure: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Read ``istate.info`` or ``eig_occ.txt``.

    Returns
    -------
    k, energies, occupations
        ``(n_k, 3)`` fractional; ``(n_spin, n_k, n_band)`` each, eV, and electrons including
        the weight of the k-point.

    Raises
    ------
    FormatError
        The file is not complete.
    """
    is_new = "ionic step" in first_line(path)
    with open_text(path, structure) as file:
        text = file.read()
    try:
        k, table = (
            _new_table(text, log.cell / log.lattice_constant) if is_new else _old_table(text)
        )
        return k, table[..., 0], table[..., 1]
    except (ValueError, IndexError) as error:
        msg = f"{path}: structure '{structure}', {error}. Remove or restore this file."
        raise FormatError(msg, path=path, structure=structure) from None


def _old_table(text: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    k, tables = [], []
    for part in re.split(r"(?m)^BAND.*?Kpoint\s*=\s*\d+\s*", text)[1:]:
        head, *rows = part.splitlines()
        k.append(head.strip(" ()").split())
        tables.append([row.split()[1:] for row in rows if row.strip()])
    table = np.array(tables, dtype=np.float64)  # (K, N, 2 n_spin)
    n_k, n_band, n_column = table.shape
    table = table.reshape(n_k, n_band, n_column // 2, 2).transpose(2, 0, 1, 3)
    return np.array(k, dtype=np.float64), table


def _new_table(
    text: str, cell: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    spins, k, tables = [], [], []
    for part in re.split(r"(?m)^\s*spin=(?=\d+\s+k-point)", text)[1:]:
        head, *rows = part.splitlines()
        spins.append(int(head.split()[0]))
        k.append(head.split("Cartesian=")[1].split("(")[0].split())
        tables.append([row.split()[1:3] for row in rows if row.strip()])
    n_spin = len(set(spins))
    table = np.array(tables, dtype=np.float64)
    table = table.reshape(n_spin, -1, *table.shape[1:])
    points = np.array(k, dtype=np.float64)[: table.shape[1]]  # in units of 2 pi / a_0
    return points @ cell.T, table


def _value(text: str, pattern: str, what: str) -> str:
    found = _optional(text, pattern)
    if found is None:
        raise ValueError(f"it lacks the {what} (pattern {pattern})")
    return found


def _optional(text: str, pattern: str) -> str | None:
    match = re.search(pattern, text, re.IGNORECASE)
    return None if match is None else match[1]


def _element(label: str) -> str:
    """Return the element of a species label: "Fe", "Fe1" and "Fe_up" are iron."""
    match = re.match(r"[A-Z][a-z]?", label)
    for length in (2, 1):
        if match is not None and atomic_numbers.get(match[0][:length], 0) > 0:
            return match[0][:length]
    raise ValueError(f"species '{label}' does not begin with an element")
