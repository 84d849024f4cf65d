"""The single files of FHI-aims: geometry, basis, index lists, values."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from deeph_lightning.core.basis import OrbitalBasis
from deeph_lightning.core.checks import check_structure
from deeph_lightning.errors import DataError, FormatError
from deeph_lightning.io.elements import Elements
from deeph_lightning.io.files import (
    cell_to_write,
    in_file,
    open_h5,
    open_text,
    read_dataset,
    require,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: A number whose exponent of three digits has pushed out the letter E.
_NO_LETTER = re.compile(r"(\d)([+-]\d{3})(?=\s|$)")
#: What stands in the last cell of the list, which has no elements.
_NO_CELL = 999999999


class BasisTable(NamedTuple):
    """Shells, and the place of every orbital of the code, atoms one after another."""

    basis: OrbitalBasis
    order: NDArray[np.int64]


class SparseIndices(NamedTuple):
    """Where every element of the sparse matrices belongs.

    Attributes
    ----------
    n_value
        Numbers in a file of values; the last one is no element.
    place
        ``(n,)``, which number is the element.
    cell, row, column
        ``(n, 3)``, ``(n,)``, ``(n,)``; orbitals from 0.
    """

    n_value: int
    place: NDArray[np.int64]
    cell: NDArray[np.int64]
    row: NDArray[np.int64]
    column: NDArray[np.int64]


def read_geometry(path: Path, name: str) -> tuple[Atoms, bool]:
    """Read geometry.in, and whether it is periodic; a molecule gets a box.

    Raises
    ------
    FormatError
        It is no geometry, or has species that are no elements, or empty sites.
    """
    require(path, name, "the structure")
    vectors, symbols, positions, is_frac = [], [], [], []
    for line in read_lines(path, name):
        key, *words = line.partition("#")[0].split() or [""]
        if key == "lattice_vector":
            vectors.append(to_numbers(" ".join(words[:3]), path, name))
        elif key in ("atom", "atom_frac") and len(words) >= 4:
            positions.append(to_numbers(" ".join(words[:3]), path, name))
            symbols.append(words[3])
            is_frac.append(key == "atom_frac")
        elif key in ("atom", "atom_frac", "empty"):
            raise _damaged(path, name, f"the line '{line.strip()}' is no atom of an element")
    foreign = sorted(set(symbols) - set(atomic_numbers))
    if foreign or not symbols or len(vectors) not in (0, 3):
        raise _damaged(
            path,
            name,
            f"found {len(symbols)} atoms, {len(vectors)} lattice vectors, and species that are "
            f"no elements: {', '.join(foreign) or 'none'}",
        )
    try:
        cell = np.array(vectors).reshape(-1, 3) if vectors else np.zeros((3, 3))
        places = np.array(positions).reshape(-1, 3)
    except ValueError:
        raise _damaged(path, name, "a line has other than three coordinates") from None
    places = np.where(np.array(is_frac)[:, None], places @ cell, places)
    atoms = Atoms(symbols, positions=places, cell=cell, pbc=True)
    if not vectors:
        atoms.set_cell(cell_to_write(atoms))
    atoms.info["name"] = name
    with in_file(path, name):
        check_structure(atoms, name)
    return atoms, bool(vectors)


def read_basis(path: Path, atoms: Atoms, name: str) -> BasisTable:
    """Read basis-indices.out: columns number, type, atom, n, l, m after a title.

    Raises
    ------
    FormatError
        It is another table.
    DataError
        It is of another structure, or atoms of one element differ.
    """
    rows = [line.split() for line in read_lines(path, name)]
    rows = [row for row in rows if row and row[0] != "fn."]
    if not rows or any(len(row) != 6 for row in rows):
        raise _damaged(path, name, "expected lines of six columns: fn. type at. n l m")
    l, m = (_whole([row[k] for row in rows], path, name) for k in (4, 5))
    starts = _shell_starts(l, m, path, name)
    atom_of_shell = _atoms_of_shells([rows[n][2] for n in starts], atoms, path, name)
    shells: list[list[int]] = [[] for _ in atoms]
    for atom, degree in zip(atom_of_shell.tolist(), l[starts].tolist(), strict=True):
        shells[atom].append(degree)
    by_symbol: dict[str, tuple[int, ...]] = {}
    for n, (symbol, own) in enumerate(zip(atoms.get_chemical_symbols(), shells, strict=True)):
        if not own or by_symbol.setdefault(symbol, tuple(own)) != tuple(own):
            msg = (
                f"{path}: structure '{name}', atom {n + 1} ({symbol}) has shells {own}, others "
                f"{list(by_symbol.get(symbol, ()))}. Files of two calculations are mixed here, "
                f"or species of one element differ, which is not supported."
            )
            raise DataError(msg, path=path, structure=name)
    atom = np.repeat(atom_of_shell, 2 * l[starts] + 1)
    order = np.empty(len(rows), dtype=np.int64)
    order[np.argsort(atom, kind="stable")] = np.arange(len(rows))
    return BasisTable(OrbitalBasis(by_symbol), order)


def _shell_starts(
    l: NDArray[np.int64], m: NDArray[np.int64], path: Path, name: str
) -> NDArray[np.int64]:
    """Return the first line of every radial function."""
    starts, n = [], 0
    while n < len(l):
        stop = n + 2 * int(l[n]) + 1
        wanted = np.arange(-l[n], l[n] + 1) if 0 <= l[n] <= 20 else np.zeros(0)
        if not (np.array_equal(m[n:stop], wanted) and np.all(l[n:stop] == l[n])):
            raise _damaged(
                path, name, f"orbital {n + 1} (l = {l[n]}) begins no run of m = -l ... l"
            )
        starts.append(n)
        n = stop
    return np.array(starts)


def _atoms_of_shells(
    words: Sequence[str], atoms: Atoms, path: Path, name: str
) -> NDArray[np.int64]:
    """Return the atom of every radial function; beyond 999 the code writes stars."""
    if not any("*" in word for word in words):
        atom = _whole(words, path, name) - 1
        if atom.min() < 0 or atom.max() >= len(atoms):
            raise _damaged(path, name, f"atom {atom.max() + 1} of {len(atoms)} has orbitals")
        return atom
    known = _whole([word for word in words if "*" not in word], path, name) - 1
    if len(known) and not (known.min() >= 0 and known.max() < len(atoms)):
        raise _damaged(path, name, f"atom {known.max() + 1} of {len(atoms)} has orbitals")
    count = {atoms.symbols[n]: int(np.sum(known == n)) for n in np.unique(known)}
    missing = sorted(set(atoms.get_chemical_symbols()) - set(count))
    sizes = [count.get(symbol, 0) for symbol in atoms.get_chemical_symbols()]
    atom = np.repeat(np.arange(len(atoms)), sizes)
    if missing or len(atom) != len(words) or not np.array_equal(atom[: len(known)], known):
        raise _damaged(
            path,
            name,
            "numbers of atoms are written as stars, and the rest does not tell which they are",
        )
    return atom


def read_indices(path: Path, n_orb: int, name: str) -> SparseIndices:
    """Read rs_indices.out.

    Raises
    ------
    FormatError
        It is damaged, or of another basis.
    """
    words = " ".join(read_lines(path, name)).split()
    keys = ("n_hamiltonian_matrix_size:", "n_cells_in_hamiltonian:", "n_basis:")
    if tuple(words[0:6:2]) != keys:
        raise _damaged(path, name, f"expected it to begin with {', '.join(keys)}")
    n_value, n_cell, n_basis = _whole(words[1:6:2], path, name).tolist()
    if n_basis != n_orb or n_cell < 2 or n_value < 2:
        raise _damaged(
            path,
            name,
            f"it is of {n_basis} orbitals, {n_cell} cells and {n_value} numbers; the basis has "
            f"{n_orb} orbitals",
        )
    position = 6
    parts = []
    for title, size in (
        ("cell_index", 3 * n_cell),
        ("index_hamiltonian(1,:,:)", n_cell * n_basis),
        ("index_hamiltonian(2,:,:)", n_cell * n_basis),
        ("column_index_hamiltonian", n_value),
    ):
        if words[position : position + 1] != [title]:
            raise _damaged(path, name, f"the list '{title}' is missing or the one before wrong")
        parts.append(_whole(words[position + 1 : position + 1 + size], path, name))
        position += 1 + size
    if position != len(words):
        raise _damaged(path, name, f"expected {position} words, found {len(words)}")
    return _expand(n_value, n_basis, *parts, path=path, name=name)


def _expand(
    n_value: int,
    n_basis: int,
    cells: NDArray[np.int64],
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    column: NDArray[np.int64],
    *,
    path: Path,
    name: str,
) -> SparseIndices:
    """Write out the ranges of elements of all rows."""
    cell = cells.reshape(-1, 3)
    length = np.where(first > 0, last - first + 1, 0)
    is_dummy = np.all(cell == _NO_CELL, axis=1)
    length[np.repeat(is_dummy, n_basis)] = 0
    if length.min() < 0 or np.any(last[length > 0] > n_value) or length.sum() > n_value:
        raise _damaged(path, name, "a range of elements is out of bounds")
    total = int(length.sum())
    begin = np.repeat(first - 1, length)
    within = np.arange(total) - np.repeat(np.cumsum(length) - length, length)
    place = begin + within
    used = column[place] - 1
    distinct = len(np.unique(place))
    if total != n_value - 1 or distinct != total or used.min() < 0 or used.max() >= n_basis:
        raise _damaged(
            path,
            name,
            f"the rows name {distinct} elements of {n_value - 1}, or columns that do not exist",
        )
    row_of = np.repeat(np.arange(len(first)), length)
    return SparseIndices(n_value, place, cell[row_of // n_basis], row_of % n_basis, used)


def read_values(path: Path, n_value: int, name: str) -> NDArray[np.float64]:
    """Read a file of values, text or HDF5.

    Raises
    ------
    FormatError
        It is damaged, or has another length than the index lists say.
    """
    if path.suffix == ".h5":
        with open_h5(path, name) as file:
            values = np.asarray(read_dataset(file, "sparse_matrix", name)).ravel()
    else:
        values = to_numbers(" ".join(read_lines(path, name)), path, name)
    if len(values) not in (n_value - 1, n_value) or np.iscomplexobj(values):
        raise _damaged(
            path, name, f"found {len(values)} numbers, rs_indices.out says {n_value - 1}"
        )
    return values.astype(np.float64)


def read_triangle(path: Path, n_orb: int, name: str) -> Elements:
    """Read a matrix of a molecule: lines ``i j value``, one triangle, orbitals from 1.

    Raises
    ------
    FormatError
        It is damaged, or of another basis.
    """
    lines = list(read_lines(path, name))
    words = " ".join(lines).split()
    size = n_orb * (n_orb + 1) // 2
    if len(words) != 3 * size or any(len(line.split()) not in (0, 3) for line in lines):
        raise _damaged(
            path,
            name,
            f"found {len(words)} words; expected lines 'i j value' for {size} elements, one "
            f"triangle of {n_orb} orbitals without spin",
        )
    row, column = (_whole(words[k::3], path, name) - 1 for k in (0, 1))
    values = to_numbers(" ".join(words[2::3]), path, name)
    return Elements(np.zeros((size, 3), dtype=np.int64), row, column, values)


def read_lines(path: Path, name: str) -> list[str]:
    """Return the lines of a text file, compressed or not."""
    with open_text(path, name) as file:
        return file.read().splitlines()


def _whole(words: Sequence[str], path: Path, name: str) -> NDArray[np.int64]:
    try:
        return np.array(words, dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise _damaged(path, name, f"expected whole numbers ({error})") from None


def to_numbers(text: str, path: Path, name: str) -> NDArray[np.float64]:
    """Return the numbers of a text, also those whose exponent lacks its letter."""
    try:
        return np.array(_NO_LETTER.sub(r"\1E\2", text).split(), dtype=np.float64)
    except ValueError as error:
        raise _damaged(path, name, f"expected numbers ({error})") from None


def _damaged(path: Path, name: str, text: str) -> FormatError:
    msg = (
        f"{path}: structure '{name}', {text}. The file is truncated, damaged or of another "
        f"calculation: make or copy it again."
    )
    return FormatError(msg, path=path, structure=name)
