"""Writes files of FHI-aims from their description, element by element."""

from __future__ import annotations

from typing import TYPE_CHECKING

import h5py
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from deeph_lightning.core.operator import Operator
    from deeph_lightning.io.system import SystemData

HARTREE = 27.2113845


def basis_lines(system: SystemData) -> list[str]:
    lines, number = ["", "  fn.   type   at.   n   l   m"], 0
    for atom, symbol in enumerate(system.atoms.get_chemical_symbols()):
        for n, l in enumerate(system.basis.shells[symbol]):
            for m in range(-l, l + 1):
                number += 1
                kind = "atomic" if n % 2 else "hydro"
                lines.append(f"{number:5d} {kind:8s} {atom + 1:3d} {l + 1:3d} {l:3d} {m:3d}")
    return lines


def signs(system: SystemData) -> np.ndarray:
    """Return -1 for orbitals with odd positive m, else +1, for the whole cell."""
    out = []
    for symbol in system.atoms.get_chemical_symbols():
        for l in system.basis.shells[symbol]:
            out += [-1.0 if m > 0 and m % 2 else 1.0 for m in range(-l, l + 1)]
    return np.array(out)


def dense(op: Operator, spin: int = 0) -> dict[tuple[int, int, int], np.ndarray]:
    """Return a matrix over all orbitals for each R, of one spin."""
    first = op.orbital_offsets
    matrices: dict[tuple[int, int, int], np.ndarray] = {}
    for n, (i, j, *R) in enumerate(op.pairs.rows.tolist()):
        matrix = matrices.setdefault(tuple(R), np.zeros((first[-1], first[-1])))
        a, b = first[i + 1] - first[i], first[j + 1] - first[j]
        block = op.block(n)[spin * a : spin * a + a, spin * b : spin * b + b]
        matrix[first[i] : first[i + 1], first[j] : first[j + 1]] = block.real
    return matrices


def wrapped(op: Operator) -> Operator:
    """Return the operator with atoms in (-0.5, 0.5], an atom at a time."""
    shifts = []
    for frac in op.atoms.get_scaled_positions(wrap=False):
        shift = [0, 0, 0]
        for axis in range(3):
            while frac[axis] + shift[axis] > 0.5 + 1e-8:
                shift[axis] -= 1
            while frac[axis] + shift[axis] < -0.5 + 1e-8:
                shift[axis] += 1
        shifts.append(shift)
    return op.with_atoms_shifted(shifts)


def write_periodic(folder: Path, system: SystemData, *, use_hdf5: bool = False) -> None:
    """Write H and S, which must have the same pairs."""
    folder.mkdir(exist_ok=True)
    vectors = [
        f"lattice_vector {x!r} {y!r} {z!r}" for x, y, z in system.atoms.cell.array.tolist()
    ]
    atoms = [
        f"atom {x!r} {y!r} {z!r} {symbol}"
        for (x, y, z), symbol in zip(
            system.atoms.positions.tolist(), system.atoms.get_chemical_symbols(), strict=True
        )
    ]
    (folder / "geometry.in").write_text("\n".join(["# a comment", *vectors, *atoms, ""]))
    (folder / "control.in").write_text("xc pbe # functional\nspin none\ncharge 1.\n")
    (folder / "basis-indices.out").write_text("\n".join([*basis_lines(system), ""]))
    H, S = wrapped(system.H), wrapped(system.S)
    n_spin = 2 if H.is_spinful else 1
    sign = signs(system)
    matrices = {"overlap": dense(S)}
    for spin in range(n_spin):
        end = "" if n_spin == 1 else ("_up", ("_down" if use_hdf5 else "_dn"))[spin]
        matrices[f"hamiltonian{end}"] = dense(H, spin)
    n_orb = len(sign)
    cells = sorted(dense(S), key=lambda R: (R != (0, 0, 0), R))
    first, last, column = [], [], []
    values: dict[str, list[float]] = {key: [] for key in matrices}
    for cell in cells:
        R = tuple(-c for c in cell)
        firsts, lasts = [], []
        for i in range(n_orb):
            stored = [j for j in range(i + 1) if matrices["overlap"][R][i, j] != 0.0]
            firsts.append(len(column) + 1 if stored else 0)
            column += [j + 1 for j in stored]
            lasts.append(len(column) if stored else -1)
            for key, by_R in matrices.items():
                unit = 1.0 if key == "overlap" else HARTREE
                values[key] += [by_R[R][i, j] * sign[i] * sign[j] / unit for j in stored]
        first.append(firsts)
        last.append(lasts)
    first.append([0] * n_orb)
    last.append([-1] * n_orb)
    lines = [
        f"n_hamiltonian_matrix_size: {len(column) + 1}",
        f"n_cells_in_hamiltonian: {len(cells) + 1}",
        f"n_basis: {n_orb}",
        "cell_index",
        *(" ".join(map(str, cell)) for cell in [*cells, (999999999,) * 3]),
        "index_hamiltonian(1,:,:)",
        *(" ".join(map(str, row)) for row in first),
        "index_hamiltonian(2,:,:)",
        *(" ".join(map(str, row)) for row in last),
        "column_index_hamiltonian",
        *map(str, [*column, 0]),
        "",
    ]
    (folder / "rs_indices.out").write_text("\n".join(lines))
    for key, numbers in values.items():
        if use_hdf5:
            with h5py.File(folder / f"rs_{key}.h5", "w") as file:
                file["sparse_matrix"] = np.array([*numbers, 0.0])
        else:
            text = "\n".join(f"{x:.17E}" for x in [*numbers, 0.0])
            (folder / f"rs_{key}.out").write_text(text + "\n")
