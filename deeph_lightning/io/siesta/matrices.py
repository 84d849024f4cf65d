"""Sparse matrices of SIESTA: HSX of versions 0, 1 and 2, TSHS of version 1, DM.

Rows are orbitals of the cell, columns those of a supercell: column ``s n_orb + j`` is orbital
j in cell s. H in rydberg, lengths in bohr. Version 0 of HSX (SIESTA to 4.1) has neither lattice
nor Fermi level and knows cells by vectors only; TSHS has no shells.

Source: the sources of SIESTA, io_hs.F90, io_hsx.F90 and m_ts_io.F90.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deeph_lightning.io.siesta.records import DOUBLE, INT, SINGLE, Records

if TYPE_CHECKING:
    from pathlib import Path

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

#: Fermi levels beyond this mean that none was computed, Ry.
NO_FERMI_LEVEL = 1e30
#: Largest distance of a cell of HSX version 0 from a lattice vector, in units of the lattice.
TOL_CELL = 1e-3
#: Cells farther away than this are a mistake.
MAX_CELL = 1e4


@dataclass
class SiestaMatrices:
    """Content of a file; what it does not have is None.

    Attributes
    ----------
    n_atom, n_spin
        Atoms, and components of H: 1, 2, 4 or 8.
    row, column
        ``(n,)`` orbitals from 0, the column inside its cell.
    R
        ``(n, 3)``; of version 0 set by `set_cells`.
    H
        ``(n_spin, n)``, Ry.
    S
        ``(n,)``.
    cell, positions
        Bohr.
    n_repeat
        ``(3,)``, size of the supercell.
    last_orbital
        ``(A,)``, number of orbitals up to each atom, itself included.
    species
        ``(A,)``, index into `labels` and `shells`.
    fermi_energy
        Ry.
    vectors
        ``(n, 3)``, bohr, from the atom of the row to that of the column (version 0).
    """

    n_spin: int
    row: IntArray
    column: IntArray
    S: FloatArray
    H: FloatArray | None = None
    R: IntArray | None = None
    cell: FloatArray | None = None
    positions: FloatArray | None = None
    n_repeat: IntArray | None = None
    last_orbital: IntArray | None = None
    species: IntArray | None = None
    labels: list[str] | None = None
    shells: list[tuple[int, ...]] | None = None
    fermi_energy: float | None = None
    n_electrons: float | None = None
    vectors: FloatArray | None = None


def read_hsx(path: Path, structure: str) -> SiestaMatrices:
    """Read an HSX file of any version.

    Raises
    ------
    FormatError
        The file is truncated, damaged or of an unknown version.
    """
    records = Records(path, structure)
    if records.next_size == 16:
        return _read_hsx_0(records)
    version = int(records.integers(1)[0])
    if version not in (1, 2):
        raise records.damaged(f"it is HSX of version {version}, known are 0, 1 and 2")
    real = DOUBLE if records.integers(1)[0] != 0 else SINGLE  # a Fortran logical: 1 or -1
    n_atom, n_orb, n_spin, n_species, *n_repeat = records.integers(7).tolist()
    _check_sizes(records, n_atom, n_orb, n_spin, *n_repeat)
    cell, numbers = records.fields((DOUBLE, 9), (DOUBLE, 3))
    n_cell = int(np.prod(n_repeat))
    cells, positions, species, last = records.fields(
        (INT, 3 * n_cell), (DOUBLE, 3 * n_atom), (INT, n_atom), (INT, n_atom)
    )
    labels, sizes = _species(records, n_species)
    shells = [_shells(records, records.integers(3 * n).reshape(n, 3)) for n in sizes]
    if version == 2:
        records.fields((INT, 9), (DOUBLE, 3))  # the k-grid
    row, column, lengths = _pattern(records, n_orb, n_cell)
    H = np.stack([records.rows(real, lengths) for _ in range(n_spin)]).astype(np.float64)
    S = records.rows(real, lengths).astype(np.float64)
    records.end()
    found = SiestaMatrices(
        n_spin, row, column % n_orb, S, H,
        R=cells.reshape(n_cell, 3).astype(np.int64)[column // n_orb],
        cell=cell.reshape(3, 3), positions=positions.reshape(n_atom, 3),
        n_repeat=np.array(n_repeat), last_orbital=last.astype(np.int64),
        species=species.astype(np.int64) - 1, labels=labels, shells=shells,
        fermi_energy=_level(numbers[0]), n_electrons=float(numbers[1]),
    )  # fmt: skip
    _check_atoms(records, found, n_orb)
    return found


def _read_hsx_0(records: Records) -> SiestaMatrices:
    n_orb, n_super, n_spin, n_element = records.integers(4).tolist()
    if n_orb < 1 or n_super % n_orb:
        raise records.damaged(f"{n_super} orbitals in a supercell of {n_orb} in the cell")
    _check_sizes(records, 1, n_orb, n_spin, n_super // n_orb)
    is_gamma = records.integers(1)[0] != 0
    if not is_gamma:
        records.integers(n_super)
    row, column, lengths = _pattern(records, n_orb, n_super // n_orb)
    if len(row) != n_element:
        raise records.damaged(f"rows hold {len(row)} elements, the head says {n_element}")
    H = np.stack([records.rows(SINGLE, lengths) for _ in range(n_spin)]).astype(np.float64)
    S = records.rows(SINGLE, lengths).astype(np.float64)
    n_electrons = float(records.array(DOUBLE, 2)[0])
    vectors = None
    if is_gamma:
        for _ in range(n_orb):
            records.take()
    else:
        vectors = records.rows(SINGLE, 3 * lengths).reshape(-1, 3).astype(np.float64)
    n_species = int(records.integers(1)[0])
    labels, sizes = _species(records, n_species)
    shells = [
        _shells(records, np.array([records.integers(3) for _ in range(n)])) for n in sizes
    ]
    n_atom = int(records.integers(1)[0])
    species = records.integers(n_atom) - 1
    if np.any((species < 0) | (species >= n_species)):
        raise records.damaged("an atom is of a species that does not exist")
    found = SiestaMatrices(
        n_spin, row, column % n_orb, S, H,
        species=species, labels=labels, shells=shells, n_electrons=n_electrons,
        last_orbital=np.cumsum(np.array(sizes)[species]), vectors=vectors,
        n_repeat=np.ones(3, dtype=np.int64) if is_gamma else None,
    )  # fmt: skip
    _check_atoms(records, found, n_orb)
    return found


def read_tshs(path: Path, structure: str) -> SiestaMatrices:
    """Read a TSHS file.

    Raises
    ------
    FormatError
        The file is truncated, damaged or of an unknown version.
    """
    records = Records(path, structure)
    version = int(records.integers(1)[0])
    if version != 1:
        raise records.damaged(f"it is TSHS of version {version}, known is 1")
    n_atom, n_orb, n_super, n_spin, n_element = records.integers(5).tolist()
    n_repeat = records.integers(3)
    _check_sizes(records, n_atom, n_orb, n_spin, *n_repeat.tolist())
    n_cell = int(np.prod(n_repeat))
    if n_super != n_orb * n_cell:
        raise records.damaged(f"{n_super} orbitals in a supercell of {n_cell} x {n_orb}")
    cell, positions = records.fields((DOUBLE, 9), (DOUBLE, 3 * n_atom))
    is_gamma, _, only_S = (records.integers(3) != 0).tolist()
    records.fields((INT, 9), (DOUBLE, 3))  # the k-grid
    numbers = records.array(DOUBLE, 3)
    records.integers(2)  # steps of molecular dynamics
    last = records.integers(n_atom + 1)[1:]
    row, column, lengths = _pattern(records, n_orb, n_cell)
    if len(row) != n_element:
        raise records.damaged(f"rows hold {len(row)} elements, the head says {n_element}")
    S = records.rows(DOUBLE, lengths)
    H = None if only_S else np.stack([records.rows(DOUBLE, lengths) for _ in range(n_spin)])
    cells = np.zeros((n_cell, 3), dtype=np.int64)
    if not is_gamma:
        cells = records.integers(3 * n_cell).reshape(n_cell, 3)
    records.end()
    found = SiestaMatrices(
        n_spin, row, column % n_orb, S, H,
        R=cells[column // n_orb], cell=cell.reshape(3, 3),
        positions=positions.reshape(n_atom, 3), n_repeat=n_repeat, last_orbital=last,
        fermi_energy=_level(numbers[0]), n_electrons=float(numbers[1]),
    )  # fmt: skip
    _check_atoms(records, found, n_orb)
    return found


def read_dm(path: Path, structure: str) -> tuple[IntArray, IntArray, FloatArray, IntArray]:
    """Read a density matrix.

    Returns
    -------
    row, column, rho, n_repeat
        Orbitals from 0, the column in the supercell; ``(n_spin, n)``; size of the supercell.

    Raises
    ------
    FormatError
        The file is truncated, damaged, or older than SIESTA 4.1.
    """
    records = Records(path, structure)
    head = records.integers()
    if len(head) != 5:
        raise records.damaged(
            f"the head has {len(head)} numbers, expected 5 (SIESTA 4.1 and later)"
        )
    n_orb, n_spin, *n_repeat = head.tolist()
    _check_sizes(records, 1, n_orb, n_spin, *n_repeat)
    row, column, lengths = _pattern(records, n_orb, int(np.prod(n_repeat)))
    rho = np.stack([records.rows(DOUBLE, lengths) for _ in range(n_spin)])
    records.end()
    return row, column, rho, np.array(n_repeat)


def set_cells(found: SiestaMatrices, structure_of_row: FloatArray, cell: FloatArray) -> bool:
    """Find the cell of every column of an HSX of version 0 from its vectors.

    Parameters
    ----------
    found
        Content; `SiestaMatrices.R` is set.
    structure_of_row
        ``(n_orb, 3)``, bohr: position of the atom of each orbital.
    cell
        ``(3, 3)``, bohr.

    Returns
    -------
    Whether all vectors lead to atoms.
    """
    if found.vectors is None:
        found.R = np.zeros((len(found.row), 3), dtype=np.int64)
        return True
    between = structure_of_row[found.column] - structure_of_row[found.row]
    shift = (found.vectors - between) @ np.linalg.pinv(cell)
    if not np.abs(shift).max(initial=0.0) < MAX_CELL:
        return False
    found.R = np.rint(shift).astype(np.int64)
    return bool(np.abs(shift - found.R).max(initial=0.0) < TOL_CELL)


def _check_sizes(records: Records, n_atom: int, n_orb: int, n_spin: int, *rest: int) -> None:
    n_byte = len(records._bytes)
    if not (0 < n_atom <= n_byte and 0 < n_orb <= n_byte) or any(
        not 0 < n <= n_byte for n in rest
    ):
        raise records.damaged(f"it says {n_atom} atoms, {n_orb} orbitals, cells {rest}")
    if n_spin not in (1, 2, 4, 8):
        raise records.damaged(f"it says {n_spin} components of spin, expected 1, 2, 4 or 8")


def _pattern(records: Records, n_orb: int, n_cell: int) -> tuple[IntArray, IntArray, IntArray]:
    """Read the sparsity: row and column of each element, and the length of each row."""
    lengths = records.integers(n_orb)
    if np.any(lengths < 0):
        raise records.damaged("a row has a negative length")
    column = records.rows(INT, lengths).astype(np.int64) - 1
    if column.size and not 0 <= column.min() <= column.max() < n_orb * n_cell:
        raise records.damaged(f"a column is outside 1 ... {n_orb * n_cell}")
    return np.repeat(np.arange(n_orb), lengths), column, lengths


def _species(records: Records, n_species: int) -> tuple[list[str], list[int]]:
    """Read label and number of orbitals of each species."""
    kind = np.dtype([("label", "S20"), ("charge", "<f8"), ("n_orb", "<i4")])
    if n_species < 1:
        raise records.damaged(f"it says {n_species} species")
    table = records.array(kind, n_species)
    if np.any(table["n_orb"] < 1):
        raise records.damaged("a species has no orbitals")
    labels = [label.decode("ascii", "replace").strip() for label in table["label"]]
    return labels, table["n_orb"].tolist()


def _shells(records: Records, orbitals: IntArray) -> tuple[int, ...]:
    """Return the degrees of shells from (n, l, zeta) of each orbital."""
    shells, place = [], 0
    while place < len(orbitals):
        l = int(orbitals[place, 1])
        run = orbitals[place : place + 2 * l + 1]
        if l < 0 or len(run) != 2 * l + 1 or np.any(run != run[0]):
            raise records.damaged(
                f"orbital {place + 1} of a species begins no shell of l = {l}"
            )
        shells.append(l)
        place += 2 * l + 1
    return tuple(shells)


def _level(value: float) -> float | None:
    return float(value) if np.isfinite(value) and abs(value) < NO_FERMI_LEVEL else None


def _check_atoms(records: Records, found: SiestaMatrices, n_orb: int) -> None:
    """Check that the orbitals of atoms, and those of their species, fit together."""
    assert found.last_orbital is not None
    counts = np.diff(found.last_orbital, prepend=0)
    is_wrong = found.last_orbital[-1] != n_orb or np.any(counts < 1)
    if found.species is not None and found.shells is not None:
        if np.any((found.species < 0) | (found.species >= len(found.shells))):
            raise records.damaged("an atom is of a species that does not exist")
        sizes = np.array([sum(2 * l + 1 for l in shells) for shells in found.shells])
        is_wrong = is_wrong or bool(np.any(sizes[found.species] != counts))
    if is_wrong:
        raise records.damaged(f"the orbitals of the atoms do not add up to {n_orb}")
