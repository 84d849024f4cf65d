"""The single files of wannier90: input, Hamiltonian, lattice shifts, centres."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from ase.data import atomic_numbers

from deeph_lightning.core.ragged import Values
from deeph_lightning.errors import FormatError
from deeph_lightning.io.elements import Elements
from deeph_lightning.io.files import open_text, require
from deeph_lightning.units import CODE_CONSTANTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

BOHR = CODE_CONSTANTS["wannier90"].bohr


class WinFile(NamedTuple):
    """What the input says: lattice and atoms in Å, level in eV, spin."""

    cell: NDArray[np.float64]
    symbols: list[str]
    positions: NDArray[np.float64]
    fermi_energy: float | None
    is_spinor: bool
    length: float


class HrFile(NamedTuple):
    """H of every lattice vector: ``(n_R, 3)``, ``(n_R,)`` and ``(n_R, n, n)`` [R, m, n]."""

    R: NDArray[np.int64]
    degeneracy: NDArray[np.int64]
    values: NDArray[np.complex128]


def read_win(path: Path, name: str) -> WinFile:
    """Read lattice, atoms, Fermi level and spin of the input.

    Raises
    ------
    FormatError
        The lattice is missing, or a line is not as it should be.
    """
    require(path, name, "the input of the calculation")
    lines = [re.split("[#!]", line)[0].strip() for line in _lines(path, name)]
    text = "\n".join(line for line in lines if line)
    cell_lines, cell_unit = _block(text, "unit_cell_cart")
    cell = _table([line.split() for line in cell_lines], 3, path, name)
    if cell.shape != (3, 3) or abs(np.linalg.det(cell)) < 1e-6:
        raise _damaged(path, name, "the block unit_cell_cart has no three lattice vectors")
    cell = cell * cell_unit
    symbols, positions = [], np.zeros((0, 3))
    for key in ("atoms_cart", "atoms_frac"):
        atom_lines, unit = _block(text, key)
        if atom_lines:
            words = [line.split() for line in atom_lines]
            symbols = [re.sub(r"[^A-Za-z].*", "", w[0]).capitalize() for w in words]
            table = _table([w[1:4] for w in words], 3, path, name)
            positions = table @ cell if key == "atoms_frac" else table * unit
    foreign = sorted(set(symbols) - set(atomic_numbers))
    if foreign:
        raise _damaged(path, name, f"the atoms {', '.join(foreign)} are no elements")
    fermi = _setting(text, "fermi_energy")
    try:
        level = None if fermi is None else float(fermi.lower().replace("d", "e"))
    except ValueError:
        raise _damaged(path, name, f"fermi_energy is '{fermi}', expected a number") from None
    return WinFile(
        cell,
        symbols,
        positions,
        level,
        (_setting(text, "spinors") or "f").lower().strip(".").startswith("t"),
        BOHR if (_setting(text, "length_unit") or "ang").lower() == "bohr" else 1.0,
    )


def read_hr(path: Path, name: str) -> HrFile:
    """Read an _hr.dat file.

    Raises
    ------
    FormatError
        It is truncated, or its numbers do not fit together.
    """
    lines = _lines(path, name)
    try:
        n_function, n_R = (int(line) for line in lines[1:3])
    except ValueError:
        raise _damaged(path, name, "lines 2 and 3 are no numbers of functions and R") from None
    words = " ".join(lines[3:]).split()
    n_row = n_R * n_function**2
    if n_function < 1 or n_R < 1 or len(words) != n_R + 7 * n_row:
        raise _damaged(
            path,
            name,
            f"{n_function} functions and {n_R} lattice vectors need {n_R + 7 * n_row} numbers, "
            f"found {len(words)}",
        )
    table = _table([words[n_R:]], 7 * n_row, path, name).reshape(n_row, 7)
    degeneracy = _table([words[:n_R]], n_R, path, name).ravel()
    whole = np.concatenate((degeneracy, table[:, :5].ravel()))
    if np.any(whole % 1 != 0) or degeneracy.min() < 1 or np.abs(whole).max() > 1e6:
        raise _damaged(path, name, "a degeneracy, lattice vector or function is out of range")
    blocks = table.reshape(n_R, n_function, n_function, 7)
    m, n = np.meshgrid(*[np.arange(1, n_function + 1)] * 2)
    R = blocks[:, 0, 0, :3].astype(np.int64)
    if (
        np.any(blocks[..., 3] != m)
        or np.any(blocks[..., 4] != n)
        or np.any(blocks[..., :3] != R[:, None, None])
        or len(np.unique(R, axis=0)) != n_R
    ):
        raise _damaged(path, name, "lattice vectors or functions are not in their order")
    values = blocks[..., 5] + 1j * blocks[..., 6]  # [R, n, m]: m runs fastest
    return HrFile(R, degeneracy.astype(np.int64), values.transpose(0, 2, 1))


def read_shifts(path: Path, hr: HrFile, name: str) -> Elements:
    """Return all elements over their degeneracy, shared among equivalent lattice vectors.

    Without the file ``_wsvec.dat``, or if it says that it is not used, each stays at its R.

    Raises
    ------
    FormatError
        The file is damaged, or of another calculation.
    """
    values: Values = hr.values / hr.degeneracy[:, None, None]
    if not np.any(values.imag):
        values = values.real
    index, m, n = (a.ravel() for a in np.indices(values.shape))
    lines = _lines(path, name) if path.is_file() else [""]
    if "use_ws_distance=.true." not in lines[0].replace(" ", "").lower():
        return Elements(hr.R[index], m, n, values.ravel())
    numbers = _table([" ".join(lines[1:]).split()], None, path, name).ravel().astype(np.int64)
    size = values.shape[1]
    number_of_R = {tuple(R): k for k, R in enumerate(hr.R.tolist())}
    heads, counts, position = [], [], 0
    while position + 6 <= len(numbers):
        heads.append(position)
        counts.append(int(numbers[position + 5]))
        position += 6 + 3 * max(counts[-1], 0)
    head = numbers[np.array(heads, dtype=np.int64)[:, None] + np.arange(6)]
    which = [number_of_R.get(tuple(R), -1) for R in head[:, :3].tolist()]
    key = np.array(which) * size**2 + (head[:, 3] - 1) * size + head[:, 4] - 1
    count = np.array(counts)
    if (
        position != len(numbers)
        or min(which) < 0
        or count.min() < 1
        or np.any((head[:, 3:5] < 1) | (head[:, 3:5] > size))
        or not np.array_equal(np.sort(key), np.arange(values.size))
    ):
        raise _damaged(path, name, "it does not name every element of _hr.dat once")
    owner = np.repeat(np.arange(len(key)), count)
    start = np.repeat(np.array(heads) + 6, count)
    nth = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    shift = numbers[(start + 3 * nth)[:, None] + np.arange(3)]
    of = key[owner]
    return Elements(hr.R[index[of]] + shift, m[of], n[of], values.ravel()[of] / count[owner])


def read_centres(
    path: Path, wout: Path | None, win: WinFile, n_function: int, name: str
) -> NDArray[np.float64]:
    """Return the centres of all functions, ``(n, 3)``, Å: of _centres.xyz, else of the log.

    Raises
    ------
    FormatError
        They are in neither file, or of another number.
    """
    if path.is_file():
        rows = [line.split() for line in _lines(path, name)]
        words = [row[1:4] for row in rows if row and row[0] == "X"]
        file, unit = path, 1.0
    elif wout is not None:
        file, unit = wout, win.length
        final = "\n".join(_lines(wout, name)).rpartition("Final State")[2]
        found = re.findall(r"WF centre and spread +\d+ +\(([^)]*)\)", final)
        words = [line.replace(",", " ").split() for line in found]
    else:
        msg = (
            f"{path}: structure '{name}' lacks this file, and the log *.wout, either of which "
            f"says where the Wannier functions are. Restore one, or set write_xyz = true."
        )
        raise FormatError(msg, path=path, structure=name)
    if len(words) != n_function:
        raise _damaged(
            file, name, f"it has {len(words)} centres, _hr.dat has {n_function} functions"
        )
    return _table(words, 3, file, name) * unit


def read_bands(
    points: Path, energies: Path, name: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return k, ``(n_k, 3)``, and bands, ``(1, n_k, n_band)``, eV.

    Raises
    ------
    FormatError
        The two files do not fit together.
    """
    k = _table(
        [line.split() for line in _lines(points, name)[1:] if line.split()], 4, points, name
    )
    rows = [line.split() for line in _lines(energies, name) if line.split()]
    table = _table(rows, 2, energies, name)
    if not len(k) or len(table) % len(k):
        raise _damaged(energies, name, f"{len(table)} energies do not fit {len(k)} k-points")
    return k[:, :3], table[:, 1].reshape(-1, len(k)).T[None]


def version_of(wout: Path | None, name: str) -> str | None:
    """Return the release that the log names, or None."""
    text = "" if wout is None else "\n".join(_lines(wout, name))
    found = re.search(r"Release: *(\S+)", text)
    return found[1] if found else None


def _block(text: str, key: str) -> tuple[list[str], float]:
    """Return the lines of a block and the unit of length it begins with."""
    found = re.search(
        rf"^begin\s+{key}\s*$(.*?)^end\s+{key}\s*$", text, re.M | re.S | re.IGNORECASE
    )
    lines = found[1].strip().splitlines() if found else []
    unit = 1.0
    if lines and len(lines[0].split()) == 1:
        unit = BOHR if lines.pop(0).strip().lower() == "bohr" else 1.0
    return lines, unit


def _setting(text: str, key: str) -> str | None:
    found = re.search(rf"^{key}\s*[=:\s]\s*(\S+)", text, re.MULTILINE | re.IGNORECASE)
    return found[1] if found else None


def _table(
    rows: Sequence[Sequence[str]], width: int | None, path: Path, name: str
) -> NDArray[np.float64]:
    try:
        table = np.array(rows, dtype=np.float64)
    except ValueError as error:
        raise _damaged(path, name, f"expected numbers ({error})") from None
    if table.ndim != 2 or (width is not None and table.shape[1] != width):
        raise _damaged(path, name, f"found a table of shape {table.shape}")
    if not np.isfinite(table).all():
        raise _damaged(path, name, "a number is NaN or infinite")
    return table


def _lines(path: Path, name: str) -> list[str]:
    with open_text(path, name) as file:
        return file.read().splitlines()


def _damaged(path: Path, name: str, text: str) -> FormatError:
    msg = (
        f"{path}: structure '{name}', {text}. The file is truncated, damaged or of another "
        f"calculation: make or copy it again."
    )
    return FormatError(msg, path=path, structure=name)
