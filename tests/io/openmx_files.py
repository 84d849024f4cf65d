"""Writes the bytes of a .scfout file of OpenMX 3.9 from its description, number by number."""

from __future__ import annotations

import dataclasses
import struct
from typing import TYPE_CHECKING

import numpy as np

from deeph_lightning.core.basis import species_labels
from deeph_lightning.core.spin import spinful_operator

if TYPE_CHECKING:
    from pathlib import Path

    from deeph_lightning.io.system import SystemData

BOHR, HARTREE = 0.529177249, 27.2113845
#: Position of OpenMX's orbitals (p: x y z; d: z2, x2-y2, xy, xz, yz; f: 0, +-1, +-2, +-3)
#: among m = -l..l.
ORDER = {0: [0], 1: [2, 0, 1], 2: [2, 4, 0, 3, 1], 3: [3, 4, 2, 5, 1, 6, 0]}
LETTERS = "spdf"


def orbital_order(shells: tuple[int, ...]) -> list[int]:
    order, start = [], 0
    for l in shells:
        order += [start + m for m in ORDER[l]]
        start += 2 * l + 1
    return order


def input_text(system: SystemData) -> str:
    labels = species_labels(system.atoms).tolist()
    lines = ["System.Name toy", "scf.XcType  GGA-PBE  # LDA|GGA-PBE",
             "<Definition.of.Atomic.Species"]  # fmt: skip
    symbols = dict(zip(labels, system.atoms.get_chemical_symbols(), strict=True))
    for label, symbol in symbols.items():
        shells = system.basis.shells[label]
        orbitals = "".join(f"{LETTERS[l]}{shells.count(l)}" for l in sorted(set(shells)))
        lines.append(f"  {label}  {symbol}7.0-{orbitals}  {symbol}_PBE19")
    lines += ["Definition.of.Atomic.Species>", f"Atoms.Number {len(labels)}",
              "<Atoms.SpeciesAndCoordinates  # in AU"]  # fmt: skip
    positions = system.atoms.positions
    lines += [
        f"  {n + 1} {label} {x:.9f} {y:.9f} {z:.9f} 2.0 2.0"
        for n, (label, (x, y, z)) in enumerate(zip(labels, positions, strict=True))
    ]
    return "\n".join([*lines, "Atoms.SpeciesAndCoordinates>", ""])


def split_spin(block: np.ndarray, spin: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Split a block of H in eV into OpenMX's real and imaginary arrays, hartree."""
    n, m = block.shape
    block = block / HARTREE
    if spin == 0:
        return [block.real], []
    uu, ud, dd = block[: n // 2, : m // 2], block[: n // 2, m // 2 :], block[n // 2 :, m // 2 :]
    if spin == 1:
        return [uu.real, dd.real], []
    share = 0.3  # any part of Im ud may stand in the spin-orbit array
    return (
        [uu.real, dd.real, ud.real, share * ud.imag],
        [uu.imag, dd.imag, (1 - share) * ud.imag],
    )


def write_scfout(
    path: Path,
    system: SystemData,
    spin: int,
    *,
    text: str | None = None,
    appended: str = "",
    electrons: float | None = None,
) -> None:
    """Write H, S and (if the system has one) the density matrix, `spin` = 0, 1 or 3."""
    atoms, basis, H, S, rho = system.atoms, system.basis, system.H, system.S, system.rho
    labels = species_labels(atoms).tolist()
    n_atom = len(atoms)
    cells = sorted({tuple(R) for R in H.pairs.R.tolist()}, key=lambda R: (R != (0, 0, 0), R))
    neighbours: list[list[tuple[int, tuple[int, ...]]]] = [[] for _ in range(n_atom)]
    for i, j, *R in H.pairs.rows.tolist():
        is_self = i == j and not any(R)
        neighbours[i].insert(0 if is_self else len(neighbours[i]), (j, tuple(R)))
    out = bytearray()

    def put(kind: str, *values: float) -> None:
        out.extend(struct.pack(f"<{len(values)}{kind}", *values))

    def array(blocks: dict[tuple, np.ndarray]) -> None:
        for i in range(n_atom):
            for j, R in neighbours[i]:
                rows = orbital_order(basis.shells[labels[i]])
                columns = orbital_order(basis.shells[labels[j]])
                for a in rows:
                    put("d", *(blocks[(i, j, R)][a, b] for b in columns))

    def per_pair(op, make):
        blocks = {
            (i, j, tuple(R)): op.block(n) for n, (i, j, *R) in enumerate(op.pairs.rows.tolist())
        }
        shapes = {
            (i, j, R): (basis.n_orb(labels[i]), basis.n_orb(labels[j]))
            for i in range(n_atom)
            for j, R in neighbours[i]
        }
        factor = 2 if op.is_spinful else 1
        return {
            key: make(blocks.get(key, np.zeros((factor * shape[0], factor * shape[1]))))
            for key, shape in shapes.items()
        }

    def zero() -> None:
        array(per_pair(S, np.zeros_like))

    put("i", n_atom, 4 * 3 + spin, n_atom, 0, 0, len(cells) - 1, 2)
    cell = atoms.cell.array / BOHR
    for R in cells:
        put("d", 0.0, *(np.array(R) @ cell))
    for R in cells:
        put("i", 0, *R)
    put("i", *(basis.n_orb(label) for label in labels))
    put("i", *(len(own) - 1 for own in neighbours))
    for own in neighbours:
        put("i", *(j + 1 for j, _ in own))
    for own in neighbours:
        put("i", *(cells.index(R) for _, R in own))
    for vector in cell:
        put("d", 0.0, *vector)
    for vector in 2 * np.pi * np.linalg.inv(cell).T:
        put("d", 0.0, *vector)
    for position in atoms.positions / BOHR:
        put("d", 0.0, *position)
    parts = per_pair(H, lambda block: split_spin(block, spin))
    for kind in (0, 1):
        for n in range(len(next(iter(parts.values()))[kind])):
            array({key: part[kind][n] for key, part in parts.items()})
    array(per_pair(S, np.real))
    for _ in range(3 * 2 + 3):  # position to second order, momentum
        zero()
    if rho is None:
        for _ in range({0: 1, 1: 2, 3: 4}[spin] + 2):
            zero()
    elif spin == 0:
        array(per_pair(rho, lambda block: block / 2))
        zero(), zero()
    else:
        quarter = per_pair(rho, lambda b: b.reshape(2, b.shape[0] // 2, 2, -1))
        uu, dd, ud = (
            {key: block[s, :, t] for key, block in quarter.items()}
            for s, t in ((0, 0), (1, 1), (0, 1))
        )
        for blocks in [uu, dd] if spin == 1 else [uu, dd, ud]:
            array({key: block.real for key, block in blocks.items()})
        if spin == 3:
            array({key: block.imag for key, block in ud.items()})
        for blocks in (uu, dd):
            array({key: block.imag for key, block in blocks.items()})
    put("i", 3)
    electrons = system.n_electrons if electrons is None else electrons
    put("d", system.fermi_energy / HARTREE, 300.0, *[0.0] * 6, electrons or 0.0, 0.0)
    lines = (input_text(system) if text is None else text).splitlines(keepends=True)
    put("i", len(lines))
    for line in lines:
        out.extend(line.encode()[:255].ljust(256, b"\0"))
    path.write_bytes(bytes(out) + appended.encode())


def spinful(system: SystemData, spin: int) -> SystemData:
    """Return a spinless system as one with spin 0, 1 or 3, both spins alike."""
    if spin == 0:
        return system
    half = system.rho.replace(values=system.rho.values / 2)
    return dataclasses.replace(
        system,
        H=spinful_operator(system.H, system.H),
        rho=spinful_operator(half, half),
        is_spinful=True,
    )
