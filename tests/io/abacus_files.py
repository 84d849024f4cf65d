"""Writes ABACUS calculations, from the description of the format, by loops over cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deeph_lightning.units import BOHR_ANGSTROM, CODE_CONSTANTS

if TYPE_CHECKING:
    from pathlib import Path

    from ase import Atoms

    from deeph_lightning.core.operator import Operator

RYDBERG = CODE_CONSTANTS["abacus"].rydberg
Cells = dict[tuple[int, int, int], np.ndarray]


def cells_of(op: Operator, *, spin_fastest: bool = False) -> Cells:
    """Return the dense matrix of every R, in the order and signs of ABACUS."""
    stored = op.to_convention("abacus")
    n = int(op.orbital_offsets[-1])
    cells: Cells = {}
    for p, (i, j, *R) in enumerate(op.pairs.rows.tolist()):
        matrix = cells.setdefault(
            tuple(R), np.zeros((op.n_orb, op.n_orb), dtype=op.values.dtype)
        )
        block = stored.block(p)
        n_i, n_j = (size // op.n_spin for size in block.shape)
        for s in range(op.n_spin):
            for t in range(op.n_spin):
                rows = slice(*(op.orbital_offsets[[i, i + 1]] + s * n))
                columns = slice(*(op.orbital_offsets[[j, j + 1]] + t * n))
                matrix[rows, columns] = block[s * n_i : (s + 1) * n_i, t * n_j : (t + 1) * n_j]
    if spin_fastest:
        order = np.arange(2 * n).reshape(2, n).T.ravel()
        cells = {R: matrix[np.ix_(order, order)] for R, matrix in cells.items()}
    return cells


def write_old(path: Path, cells: Cells, symbol: str, *, step: int = 0) -> None:
    """Write the layout of ABACUS 3."""
    n_row = len(next(iter(cells.values())))
    lines = [
        f"STEP: {step}",
        f"Matrix Dimension of {symbol}(R): {n_row}",
        f"Matrix number of {symbol}(R): {len(cells) + 1}",
        "9 9 9 0",  # a listed cell without elements
    ]
    for R, matrix in sorted(cells.items()):
        values, columns, pointers = _csr(matrix)
        lines.append(f"{R[0]} {R[1]} {R[2]} {len(values)}")
        if values:
            lines += [" " + " ".join(line) for line in (values, columns, pointers)]
    path.write_text("\n".join(lines) + "\n")


def write_new(path: Path, cells: Cells, symbol: str, *, n_spin: int = 1, spin: int = 1) -> None:
    """Write the layout of 2026: comments, wrapped lines."""
    n_row = len(next(iter(cells.values())))
    lines = [
        " --- Ionic Step 1 ---",
        f" # print {symbol} matrix in real space {symbol}(R)",
        f" {n_spin} # number of spin directions",
        f" {spin} # spin index",
        f" {n_row} # number of localized basis",
        f" {len(cells)} # number of Bravais lattice vector R",
        "", " user_defined_lattice", " 8.09641", " 0 0.5 0.5", "",
        " #----------------------------#", " #         CSR Format         #",
        " #----------------------------#", "",
    ]  # fmt: skip
    for R, matrix in sorted(cells.items()):
        values, columns, pointers = _csr(matrix)
        lines.append(f" {R[0]} {R[1]} {R[2]} {len(values)}")
        if values:
            for what, words, width in (
                ("values", values, 6), ("column indices", columns, 16),
                ("row pointers", pointers, 16),
            ):  # fmt: skip
                lines.append(f" # CSR {what}")
                lines += [
                    " " + " ".join(words[k : k + width]) for k in range(0, len(words), width)
                ]
        lines.append("")
    path.write_text("\n".join(lines) + "\n")


def _csr(matrix: np.ndarray) -> tuple[list[str], list[str], list[str]]:
    values, columns, pointers = [], [], [0]
    for row in matrix:
        for column, value in enumerate(row.tolist()):
            if value != 0:
                text = repr(value)
                if isinstance(value, complex):
                    text = f"({value.real!r},{value.imag!r})"
                values.append(text)
                columns.append(str(column))
        pointers.append(len(values))
    return values, columns, [str(p) for p in pointers]


def write_log(path: Path, atoms: Atoms, labels: list[str], shells: dict[str, tuple]) -> None:
    """Write a log; atoms must be grouped by species."""
    lines = ["", "                              ABACUS v3.8.1", "", " READING UNITCELL",
             "                  lattice constant (Bohr) = 1.88973"]  # fmt: skip
    kinds = list(dict.fromkeys(labels))
    for number, label in enumerate(kinds, 1):
        lines += ["", f" READING ATOM TYPE {number}", f"   atom label = {label}"]
        lines += [
            f"   L={l}, number of zeta = {list(shells[label]).count(l)}"
            for l in range(max(shells[label]) + 1)
        ]
        lines.append(f"   number of atom for this type = {labels.count(label)}")
    unit = 1 / BOHR_ANGSTROM
    lines += ["", f"CARTESIAN COORDINATES ( UNIT = {unit:.12f} Bohr ).",
              "    atom    x    y    z    mag"]  # fmt: skip
    lines += [
        f"tauc_{label}1 " + " ".join(f"{x:.10f}" for x in position) + " 0.0000"
        for label, position in zip(labels, atoms.positions, strict=True)
    ]
    lines += ["", " Lattice vectors: (Cartesian coordinate: in unit of a_0)"]
    lines += [" ".join(f"{x:+.6g}" for x in vector) for vector in atoms.cell.array]
    lines += ["   exchange-correlation functional = PBE"]
    lines += [
        f"      total electron number of element {label} = {4 * labels.count(label)}"
        for label in kinds
    ]
    lines += [" E_Fermi  0.1  1.36", "charge density convergence is achieved",
              " EFERMI = 1.25 eV"]  # fmt: skip
    path.write_text("\n".join(lines) + "\n")


def write_stru(path: Path, atoms: Atoms, labels: list[str]) -> None:
    """Write STRU with all digits."""
    lines = ["ATOMIC_SPECIES", *(f"{label} 1.0 x.upf" for label in dict.fromkeys(labels)),
             "LATTICE_CONSTANT", repr(1 / BOHR_ANGSTROM), "LATTICE_VECTORS"]  # fmt: skip
    lines += [" ".join(map(repr, map(float, vector))) + " # a" for vector in atoms.cell.array]
    lines += ["", "ATOMIC_POSITIONS", "Cartesian"]
    for label in dict.fromkeys(labels):
        own = [p for p, x in zip(atoms.positions, labels, strict=True) if x == label]
        lines += ["", label, "0.0", str(len(own))]
        lines += [" ".join(map(repr, map(float, p))) + " 1 1 1" for p in own]
    path.write_text("\n".join(lines) + "\n")
