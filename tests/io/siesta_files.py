"""Writes SIESTA's binary files, from the description of the format, by loops over rows."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from deeph_lightning.core.basis import species_labels
from deeph_lightning.units import CODE_CONSTANTS

if TYPE_CHECKING:
    from pathlib import Path

    from deeph_lightning.core.operator import Operator

BOHR, _, RYDBERG = CODE_CONSTANTS["siesta"]
N_REPEAT = (9, 9, 9)


def record(*parts: bytes | np.ndarray) -> bytes:
    payload = b"".join(p if isinstance(p, bytes) else np.ascontiguousarray(p).tobytes()
                       for p in parts)  # fmt: skip
    mark = struct.pack("<i", len(payload))
    return mark + payload + mark


def ints(*values: int | np.ndarray) -> np.ndarray:
    return np.concatenate([np.atleast_1d(v).ravel() for v in values]).astype("<i4")


def reals(*values: float | np.ndarray) -> np.ndarray:
    return np.concatenate([np.atleast_1d(v).ravel() for v in values]).astype("<f8")


def offsets() -> np.ndarray:
    """The cells of the supercell in the order of SIESTA, by loops."""
    runs = [[*range(n // 2 + 1), *range(-(n // 2), 0)] for n in N_REPEAT]
    return np.array([(a, b, c) for c in runs[2] for b in runs[1] for a in runs[0]])


class Sparse:
    """Rows of an operator in a supercell: columns and components of H, or of rho, and S."""

    def __init__(self, S: Operator, components: list[Operator]) -> None:
        self.S, n = S, S.n_orb
        cells = {tuple(R): s for s, R in enumerate(offsets().tolist())}
        stored = [op.to_convention("siesta") for op in [S, *components]]
        rows: list[dict[int, list[float]]] = [{} for _ in range(n)]
        for p, (i, j, *R) in enumerate(S.pairs.rows.tolist()):
            blocks = [op.block(p) for op in stored]
            for a in range(blocks[0].shape[0]):
                for b in range(blocks[0].shape[1]):
                    column = cells[tuple(R)] * n + S.orbital_offsets[j] + b
                    rows[S.orbital_offsets[i] + a][column] = [block[a, b] for block in blocks]
        self.numh = [len(row) for row in rows]
        self.columns = [np.array(sorted(row)) for row in rows]
        self.values = [
            [np.array([row[c][m] for c in sorted(row)]) for row in rows]
            for m in range(len(stored))
        ]

    def pattern(self) -> list[bytes]:
        return [record(ints(self.numh)), *(record(ints(c + 1)) for c in self.columns)]

    def component(self, m: int, scale: float = 1.0, kind: str = "<f8") -> list[bytes]:
        return [record((row * scale).astype(kind)) for row in self.values[m]]


def write_hsx(path: Path, rows: Sparse, version: int, is_dp: int = 1) -> None:
    """Write HSX of version 1 or 2; `is_dp` as compilers write .true.: 1 or -1, or 0."""
    atoms, basis = rows.S.atoms, rows.S.basis
    labels = species_labels(atoms).tolist()
    kinds = sorted(set(labels))
    n_spin = len(rows.values) - 1
    kind = "<f8" if is_dp else "<f4"
    parts = [
        record(ints(version)), record(ints(is_dp)),
        record(ints(len(atoms), rows.S.n_orb, n_spin, len(kinds), np.array(N_REPEAT))),
        record(reals(atoms.cell.array / BOHR, -0.3, 8.0, 0.002)),
        record(ints(offsets()), reals(atoms.positions / BOHR),
               ints([kinds.index(x) + 1 for x in labels], rows.S.orbital_offsets[1:])),
        _species(rows, kinds),
    ]  # fmt: skip
    for label in kinds:
        triples = [
            (2, l, zeta) for zeta, l in enumerate(basis.shells[label]) for _ in range(2 * l + 1)
        ]
        parts.append(record(ints(np.array(triples))))
    if version == 2:
        parts.append(record(ints(np.eye(3)), reals(np.zeros(3))))
    parts += rows.pattern()
    for m in range(1, n_spin + 1):
        parts += rows.component(m, 1 / RYDBERG, kind)
    path.write_bytes(b"".join([*parts, *rows.component(0, 1.0, kind)]))


def write_hsx_0(path: Path, rows: Sparse) -> None:
    """Write HSX of version 0: single precision, vectors for cells."""
    S = rows.S
    labels = species_labels(S.atoms).tolist()
    kinds = sorted(set(labels))
    n_spin, n = len(rows.values) - 1, S.n_orb
    n_super = n * len(offsets())
    atom = np.repeat(np.arange(len(labels)), np.diff(S.orbital_offsets))
    parts = [record(ints(n, n_super, n_spin, sum(rows.numh))), record(ints(0)),
             record(ints(np.arange(n_super) % n + 1)), *rows.pattern()]  # fmt: skip
    for m in range(1, n_spin + 1):
        parts += rows.component(m, 1 / CODE_CONSTANTS["siesta_4"].rydberg, "<f4")
    parts += [*rows.component(0, 1.0, "<f4"), record(reals(8.0, 0.002))]
    for row, columns in enumerate(rows.columns):
        R = offsets()[columns // n]
        vector = S.atoms.positions[atom[columns % n]] + R @ S.atoms.cell.array
        vector = (vector - S.atoms.positions[atom[row]]) / CODE_CONSTANTS["siesta_4"].bohr
        parts.append(record(vector.astype("<f4")))
    parts += [record(ints(len(kinds))), _species(rows, kinds)]
    for label in kinds:
        parts += [
            record(ints(2, l, zeta))
            for zeta, l in enumerate(S.basis.shells[label])
            for _ in range(2 * l + 1)
        ]
    parts += [record(ints(len(labels))), record(ints([kinds.index(x) + 1 for x in labels]))]
    path.write_bytes(b"".join(parts))


def write_tshs(path: Path, rows: Sparse) -> None:
    """Write TSHS of version 1."""
    S, n_spin = rows.S, len(rows.values) - 1
    parts = [
        record(ints(1)),
        record(ints(len(S.atoms), S.n_orb, S.n_orb * len(offsets()), n_spin, sum(rows.numh))),
        record(ints(np.array(N_REPEAT))),
        record(reals(S.atoms.cell.array / BOHR, S.atoms.positions / BOHR)),
        record(ints(0, 0, 0)), record(ints(np.eye(3)), reals(np.zeros(3))),
        record(reals(-0.3, 8.0, 0.002)), record(ints(0, 1)), record(ints(S.orbital_offsets)),
        *rows.pattern(), *rows.component(0),
    ]  # fmt: skip
    for m in range(1, n_spin + 1):
        parts += rows.component(m, 1 / RYDBERG)
    path.write_bytes(b"".join([*parts, record(ints(offsets()))]))


def write_dm(path: Path, rows: Sparse) -> None:
    """Write a density matrix."""
    head = record(ints(rows.S.n_orb, len(rows.values) - 1, np.array(N_REPEAT)))
    parts = [head, *rows.pattern()]
    for m in range(1, len(rows.values)):
        parts += rows.component(m)
    path.write_bytes(b"".join(parts))


def write_xv(path: Path, S: Operator, bohr: float = BOHR) -> None:
    """Write XV, with all digits."""
    labels = species_labels(S.atoms).tolist()
    kinds = sorted(set(labels))
    lines = [" ".join(repr(float(x / bohr)) for x in v) + " 0 0 0" for v in S.atoms.cell.array]
    lines.append(str(len(labels)))
    for label, number, position in zip(labels, S.atoms.numbers, S.atoms.positions, strict=True):
        text = " ".join(repr(float(x / bohr)) for x in position)
        lines.append(f"{kinds.index(label) + 1} {number} {text} 0 0 0")
    path.write_text("\n".join(lines) + "\n")


def write_orbitals(path: Path, S: Operator) -> None:
    """Write ORB_INDX."""
    lines = [f"  {S.n_orb}  {S.n_orb} = orbitals in unit cell and supercell. See end.", "",
             " io ia is spec iao n l m z p sym rc isc iuo"]  # fmt: skip
    n = 0
    for atom, label in enumerate(species_labels(S.atoms).tolist(), 1):
        own = 0
        for zeta, l in enumerate(S.basis.shells[label]):
            for m in range(-l, l + 1):
                n, own = n + 1, own + 1
                lines.append(f" {n} {atom} 1 {label} {own} 2 {l} {m} {zeta} F x 3.0 0 0 0 {n}")
    path.write_text("\n".join(lines) + "\n")


def _species(rows: Sparse, kinds: list[str]) -> bytes:
    return record(*(
        struct.pack("<20sdi", label.ljust(20).encode(), 4.0, rows.S.basis.n_orb(label))
        for label in kinds
    ))  # fmt: skip
