"""Small systems for tests, and slow readable twins of fast code."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import h5py
import numpy as np
from ase import Atoms
from ase.io import read

from deeph_lightning.core.basis import OrbitalBasis, species_labels
from deeph_lightning.core.operator import Operator
from deeph_lightning.core.pairs import PairTable, neighbour_pairs

if TYPE_CHECKING:
    from pathlib import Path

#: Shells in an order that is not that of l, two species of different size.
BASIS = OrbitalBasis({"C": (0, 1, 0), "B": (2, 0, 1)})

Blocks = dict[tuple[int, int, int, int, int], np.ndarray]


def random_atoms(rng: np.random.Generator, n_atom: int = 4, pbc: object = True) -> Atoms:
    """Make a skew cell with atoms inside and outside of it, none close to another."""
    cell = 4.0 * np.eye(3) + rng.uniform(-0.7, 0.7, (3, 3))
    grid = np.stack(np.meshgrid(*[(0.0, 0.5)] * 3), -1).reshape(-1, 3)
    frac = rng.permutation(grid)[:n_atom] + rng.uniform(-0.08, 0.08, (n_atom, 3))
    frac += rng.integers(-1, 2, (n_atom, 3))
    symbols = ["C", "B"] * (n_atom // 2) + ["C"] * (n_atom % 2)
    atoms = Atoms(symbols, cell=cell, pbc=pbc, scaled_positions=frac)
    atoms.info["name"] = "toy"
    return atoms


def with_onsite(pairs: PairTable, n_atom: int) -> PairTable:
    """Add the onsite pairs of all atoms."""
    atoms = np.arange(n_atom)
    onsite = PairTable(np.zeros((n_atom, 3)), atoms, atoms)
    return pairs.union(onsite)


def random_operator(
    rng: np.random.Generator,
    atoms: Atoms,
    basis: OrbitalBasis = BASIS,
    *,
    r_cut: float = 5.0,
    is_spinful: bool = False,
) -> Operator:
    """Make a full Hermitian operator of random numbers, by Python loops over pairs."""
    pairs = with_onsite(neighbour_pairs(atoms, r_cut), len(atoms))
    labels = species_labels(atoms)
    size = [basis.n_orb(str(label)) * (1 + is_spinful) for label in labels]
    blocks: Blocks = {}
    for i, j, *R in pairs.rows.tolist():
        value = rng.normal(size=(size[i], size[j]))
        if is_spinful:
            value = value + 1j * rng.normal(size=value.shape)
        blocks[(*R, i, j)] = value
    return from_dict(atoms, basis, hermitised(blocks), is_spinful=is_spinful)


def hermitised(blocks: Blocks) -> Blocks:
    """Return half the sum of every block and the adjoint of its partner."""
    return {
        (a, b, c, i, j): 0.5 * (block + blocks[-a, -b, -c, j, i].conj().T)
        for (a, b, c, i, j), block in blocks.items()
    }


def from_dict(
    atoms: Atoms, basis: OrbitalBasis, blocks: Blocks, *, is_spinful: bool = False
) -> Operator:
    """Make an operator of blocks keyed (R1, R2, R3, i, j)."""
    keys = np.array(list(blocks), dtype=np.int64).reshape(-1, 5)
    return Operator.from_blocks(
        atoms,
        basis,
        keys[:, :3],
        keys[:, 3],
        keys[:, 4],
        list(blocks.values()),
        is_spinful=is_spinful,
    )


def to_dict(op: Operator) -> Blocks:
    """Return the blocks keyed (R1, R2, R3, i, j)."""
    return {(*R, i, j): op.block(n) for n, (i, j, *R) in enumerate(op.pairs.rows.tolist())}


def slow_bloch(op: Operator, k: object) -> np.ndarray:
    """Sum blocks over R, one by one; orbitals in the order spin, atom, orbital."""
    starts = op.orbital_offsets
    n = starts[-1]
    matrix = np.zeros((op.n_orb, op.n_orb), dtype=complex)
    for (a, b, c, i, j), block in to_dict(op).items():
        phase = np.exp(2j * np.pi * np.dot(np.asarray(k), (a, b, c)))
        n_i, n_j = starts[i + 1] - starts[i], starts[j + 1] - starts[j]
        for s in range(op.n_spin):
            for t in range(op.n_spin):
                part = block[s * n_i : (s + 1) * n_i, t * n_j : (t + 1) * n_j]
                rows = slice(s * n + starts[i], s * n + starts[i + 1])
                columns = slice(t * n + starts[j], t * n + starts[j + 1])
                matrix[rows, columns] += phase * part
    return matrix


PAULI = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])


def harmonics(l: int, r: np.ndarray) -> np.ndarray:
    """Real harmonics of degree 0, 1, 2 of unit vectors, times a constant, m = -l..l."""
    x, y, z = r
    if l == 0:
        return np.ones(1)
    if l == 1:
        return np.array([y, z, x])
    root = np.sqrt(3.0)
    return np.array(
        [
            root * x * y,
            root * y * z,
            1.5 * z * z - 0.5,
            root * x * z,
            root * (x * x - y * y) / 2,
        ]
    )


def slater_koster(
    atoms: Atoms, basis: OrbitalBasis = BASIS, *, r_cut: float = 5.0, is_spinful: bool = False
) -> Operator:
    """Make a Hamiltonian that is a function of the structure alone, from explicit harmonics.

    Whatever is done to the structure, this function of the result is what the operator must
    become. Blocks of shells (l1, l2) are ``a Y1 Y2^T + b delta`` times a decaying function.
    Spinful ones have a spin-orbit term onsite (p shells) and ``i (r x e_k).sigma`` between s
    and p_k: a true scalar, also under inversion.
    """
    pairs = with_onsite(neighbour_pairs(atoms, r_cut), len(atoms))
    vectors, labels = pairs.vectors(atoms), species_labels(atoms)
    blocks: Blocks = {}
    for (i, j, *R), r in zip(pairs.rows.tolist(), vectors, strict=True):
        a, b = str(labels[i]), str(labels[j])
        blocks[(*R, i, j)] = _block(basis, a, b, r, is_spinful)
    return from_dict(atoms, basis, hermitised(blocks), is_spinful=is_spinful)


def _block(basis: OrbitalBasis, a: str, b: str, r: np.ndarray, is_spinful: bool) -> np.ndarray:
    length = np.linalg.norm(r)
    unit = r / length if length else r
    rows = []
    for p, l1 in enumerate(basis.shells[a]):
        row = []
        for q, l2 in enumerate(basis.shells[b]):
            sign = (-1.0) ** l2  # <i, l1 | j, l2> and <j, l2 | i, l1> agree at r and -r
            shape = np.exp(-0.6 * length) * (1 + 0.3 * (p + 1) * (q + 1))
            part = np.zeros((2 * l1 + 1, 2 * l2 + 1))
            if length:
                part = sign * shape * np.outer(harmonics(l1, unit), harmonics(l2, unit))
            if l1 == l2:
                part = part + (0.4 * shape + (p == q) * (not length)) * np.eye(2 * l1 + 1)
            row.append(np.kron(np.eye(2), part) if is_spinful else part)
            if is_spinful:
                row[-1] = row[-1] + _spin_orbit(l1, l2, p == q and not length, r)
        rows.append(row)
    if not is_spinful:
        return np.block(rows)
    return np.block([[_spin_part(rows, s, t) for t in range(2)] for s in range(2)])


def _spin_part(rows: list[list[np.ndarray]], s: int, t: int) -> np.ndarray:
    parts = [
        [
            x[s * x.shape[0] // 2 : (s + 1) * x.shape[0] // 2][
                :, t * x.shape[1] // 2 : (t + 1) * x.shape[1] // 2
            ]
            for x in row
        ]
        for row in rows
    ]
    return np.block(parts)


def _spin_orbit(l1: int, l2: int, is_diagonal: bool, r: np.ndarray) -> np.ndarray:
    axes = np.eye(3)[[1, 2, 0]]  # of p orbitals, m = -1, 0, 1
    levi = np.cross(axes[:, None], axes[None, :])  # (m, m', 3): e_m x e_m'
    if l1 == l2 == 1 and is_diagonal:  # <m | L_a | m'> = -i e_a . (e_m x e_m')
        return sum(np.kron(PAULI[a], -0.3j * levi[:, :, a]) for a in range(3))
    length = np.linalg.norm(r)
    turn = 0.5j * np.cross(r, axes) * np.exp(-length)  # (m, 3)
    if l1 == 0 and l2 == 1:
        return sum(np.kron(PAULI[a], turn[None, :, a]) for a in range(3))
    if l1 == 1 and l2 == 0:
        return sum(np.kron(PAULI[a], turn[:, None, a]) for a in range(3))
    return np.zeros((4 * l1 + 2, 4 * l2 + 2))


def read_deeph(folder: Path, file: str, unit: str) -> Operator:
    """Read one operator of a DeepH 1.x folder with h5py alone."""
    atoms = read(folder / "POSCAR", format="vasp")
    atoms.info["name"] = folder.name
    info = json.loads((folder / "info.json").read_text())
    with h5py.File(folder / file) as data:
        pairs = data["atom_pairs"][()]
        return Operator.from_flat(
            atoms,
            OrbitalBasis.from_dict(info["elements_orbital_map"]),
            pairs[:, :3],
            pairs[:, 3],
            pairs[:, 4],
            data["entries"][()],
            shapes=data["chunk_shapes"][()],
            offsets=data["chunk_boundaries"][()],
            unit=unit,
        )


def folded_k(k: object, repeats: tuple[int, int, int]) -> np.ndarray:
    """Return the k-points of a cell that a supercell's k-point holds."""
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in repeats), indexing="ij"), -1)
    return (np.asarray(k) + grid.reshape(-1, 3)) / np.asarray(repeats)
