"""Other descriptions of the same operator: rotated, renumbered, other cells, other orders.

None of them changes a spectrum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deeph_lightning.core.pairs import PairTable, whole_numbers
from deeph_lightning.core.ragged import (
    IntArray,
    Values,
    block_offsets,
    put_blocks,
    reorder,
    take_blocks,
)
from deeph_lightning.core.rotation import check_orthogonal, orbital_rotation, spin_rotation
from deeph_lightning.errors import ShapeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms
    from numpy.typing import ArrayLike, NDArray

    from deeph_lightning.core.operator import Operator


def on_pairs(op: Operator, pairs: PairTable) -> Operator:
    """Return the operator on other pairs (see `Operator.on_pairs`)."""
    source = op.complete()
    found = source.pairs.locate(pairs)
    size = np.diff(op.orbital_offsets) * op.n_spin
    starts = block_offsets(np.column_stack((size[pairs.i], size[pairs.j])))
    values = np.zeros(starts[-1], dtype=op.values.dtype)
    for a, b, index in pairs.groups(op.atoms):
        which = index[found[index] >= 0]
        blocks = take_blocks(source.values, source.offsets[found[which]], op.shape_of(a, b))
        put_blocks(values, starts[which], blocks)
    return op.replace(pairs=pairs, values=values, is_half=pairs.is_half)


def padded_blocks(
    op: Operator, shells: Sequence[int] | None
) -> tuple[Values, NDArray[np.bool_]]:
    """Embed all blocks in common shells (see `Operator.padded_blocks`)."""
    common = op.basis.common_shells() if shells is None else tuple(shells)
    width = sum(2 * l + 1 for l in common)
    places = {
        label: np.add.outer(
            width * np.arange(op.n_spin), op.basis.embedding(label, common)
        ).ravel()
        for label in op.basis.labels
    }
    padded = np.zeros((len(op.pairs), *(2 * (width * op.n_spin,))), dtype=op.values.dtype)
    mask = np.zeros(padded.shape, dtype=np.bool_)
    for a, b, index, blocks in op.iterate_blocks():
        where = (index[:, None, None], places[a][:, None], places[b])
        padded[where], mask[where] = blocks, True
    return padded, mask


def rotated(op: Operator, Q: ArrayLike) -> Operator:
    """Rotate or reflect positions, cell and blocks.

    Blocks become ``D_i O D_j^T``, with D of `rotation.wigner_d`; spinful ones turn their spin
    too, by the proper part of Q (inversion leaves spin alone), and are then complex. Other
    arrays of the atoms, such as velocities, stay as they are.

    Parameters
    ----------
    op
        Operator.
    Q
        ``(3, 3)``, orthogonal, proper or improper, Cartesian.

    Raises
    ------
    ShapeError
        `Q` is not one orthogonal matrix.
    """
    matrix = check_orthogonal(Q)
    if matrix.ndim != 2:
        raise ShapeError(f"rotation has shape {matrix.shape}, expected (3, 3)")
    atoms = op.atoms.copy()
    atoms.set_cell(np.asarray(atoms.cell.array) @ matrix.T)
    atoms.set_positions(op.atoms.get_positions() @ matrix.T, apply_constraint=False)
    spin = spin_rotation(matrix) if op.is_spinful else np.eye(1)
    labels = op.basis.labels
    D = {label: np.kron(spin, orbital_rotation(op.basis, label, matrix)) for label in labels}
    dtype = np.complex128 if op.is_spinful else op.values.dtype
    values = np.empty(op.values.shape, dtype=dtype)
    for a, b, index, blocks in op.iterate_blocks():
        put_blocks(values, op.offsets[index], D[a] @ blocks @ D[b].conj().T)
    return op.replace(atoms=atoms, values=values)


def permuted(op: Operator, order: ArrayLike) -> Operator:
    """Renumber the atoms: new atom n is old atom ``order[n]``.

    Raises
    ------
    ShapeError
        `order` is not a permutation of the atoms.
    """
    index = whole_numbers(order, "order of the atoms")
    n_atom = len(op.atoms)
    if index.shape != (n_atom,) or not np.array_equal(np.sort(index), np.arange(n_atom)):
        raise ShapeError(f"order is not a permutation of the {n_atom} atoms")
    new_number = np.empty(n_atom, dtype=np.int64)
    new_number[index] = np.arange(n_atom)
    pairs = op.pairs
    return _with_pairs(op, op.atoms[index], pairs.R, new_number[pairs.i], new_number[pairs.j])


def with_atoms_shifted(op: Operator, shifts: ArrayLike) -> Operator:
    """Move every atom by a lattice vector, for instance back into the cell.

    The vector of a block stays what it was: ``R' = R + w_i - w_j``.

    Parameters
    ----------
    op
        Operator.
    shifts
        ``(A, 3)`` integers w: new position = old + ``w @ cell``.

    Raises
    ------
    ShapeError
        `shifts` does not fit the atoms.
    """
    w = whole_numbers(shifts, "shifts of the atoms")
    if w.shape != (len(op.atoms), 3):
        raise ShapeError(f"shifts have shape {w.shape}, expected ({len(op.atoms)}, 3)")
    atoms = op.atoms.copy()
    positions = op.atoms.get_positions() + w @ np.asarray(op.atoms.cell.array)
    atoms.set_positions(positions, apply_constraint=False)
    pairs = op.pairs
    return _with_pairs(op, atoms, pairs.R + w[pairs.i] - w[pairs.j], pairs.i, pairs.j)


def with_lattice(op: Operator, matrix: ArrayLike) -> Operator:
    """Describe the same crystal by other lattice vectors, ``matrix @ cell``.

    The atoms stay where they are; a k-point becomes ``matrix @ k``.

    Parameters
    ----------
    op
        Operator.
    matrix
        ``(3, 3)`` integers, determinant +1 or -1.

    Raises
    ------
    ShapeError
        `matrix` is not unimodular, or mixes periodic directions with others.
    """
    M = whole_numbers(matrix, "lattice change")
    if M.shape != (3, 3) or round(abs(np.linalg.det(M))) != 1:
        raise ShapeError(f"lattice change is {M.tolist()}, expected (3, 3) of determinant 1")
    inverse = np.rint(np.linalg.inv(M)).astype(np.int64)
    pbc = np.asarray(op.atoms.pbc)
    is_periodic = ~np.any((M != 0) & ~pbc, axis=1)
    if is_periodic.sum() != pbc.sum():
        msg = f"lattice change {M.tolist()} mixes periodic and other directions, pbc {pbc}"
        raise ShapeError(msg)
    atoms = op.atoms.copy()
    atoms.set_cell(M @ np.asarray(op.atoms.cell.array))
    atoms.set_pbc(is_periodic)
    return _with_pairs(op, atoms, op.pairs.R @ inverse, op.pairs.i, op.pairs.j)


def repeated(op: Operator, repeats: tuple[int, int, int]) -> Operator:
    """Return the operator of a supercell; atoms in the order of ``ase.Atoms.repeat``.

    Its spectrum at k is that of the cell at all ``(k + m) / repeats``, m below `repeats`.

    Parameters
    ----------
    op
        Operator.
    repeats
        Cells along each lattice vector.

    Raises
    ------
    ShapeError
        `repeats` is not three positive integers.
    """
    counts = whole_numbers(repeats, "repeats")
    if counts.shape != (3,) or np.any(counts < 1):
        raise ShapeError(f"repeats are {repeats}, expected three positive integers")
    n_atom, pairs = len(op.atoms), op.pairs
    grid = np.meshgrid(*(np.arange(n) for n in counts), indexing="ij")
    cells: IntArray = np.stack(grid, axis=-1).reshape(-1, 3)  # (M, 3), last index fastest
    target = cells[:, None, :] + pairs.R  # (M, n_pair, 3), cell of atom j
    R, within = np.divmod(target, counts)
    number = (within[..., 0] * counts[1] + within[..., 1]) * counts[2] + within[..., 2]
    i = np.arange(len(cells))[:, None] * n_atom + pairs.i
    j = number * n_atom + pairs.j
    atoms: Atoms = op.atoms.repeat(tuple(counts.tolist()))
    table, order = PairTable.from_arrays(R.reshape(-1, 3), i.ravel(), j.ravel())
    values = reorder(op.values, op.offsets, order % len(pairs)) if len(pairs) else op.values
    return op.replace(atoms=atoms, pairs=table, values=values)


def to_convention(op: Operator, order_name: str) -> Operator:
    """Take the common order to that of a code (see `Operator.to_convention`)."""
    maps = {}
    for label in op.basis.labels:
        take, sign = _with_spin(op, label, order_name)
        inverse = np.argsort(take)
        maps[label] = (inverse, sign[inverse])
    return _reordered(op, maps)


def from_convention(op: Operator, order_name: str) -> Operator:
    """Take the order of a code to the common one (see `Operator.from_convention`)."""
    maps = {label: _with_spin(op, label, order_name) for label in op.basis.labels}
    return _reordered(op, maps)


def _with_spin(op: Operator, label: str, order_name: str) -> tuple[IntArray, IntArray]:
    take, sign = op.basis.permutation(label, order_name)
    takes = [take + s * len(take) for s in range(op.n_spin)]
    return np.concatenate(takes), np.tile(sign, op.n_spin)


def _reordered(op: Operator, maps: dict[str, tuple[IntArray, IntArray]]) -> Operator:
    """Apply ``new = sign * old[take]`` to rows and columns."""
    values = np.empty_like(op.values)
    for a, b, index, blocks in op.iterate_blocks():
        take_i, sign_i = maps[a]
        take_j, sign_j = maps[b]
        new: Values = blocks[:, take_i[:, None], take_j] * (sign_i[:, None] * sign_j)
        put_blocks(values, op.offsets[index], new)
    return op.replace(values=values)


def _with_pairs(op: Operator, atoms: Atoms, R: IntArray, i: IntArray, j: IntArray) -> Operator:
    """Return the same blocks under other names of their pairs."""
    table, order = PairTable.from_arrays(R, i, j)
    return op.replace(atoms=atoms, pairs=table, values=reorder(op.values, op.offsets, order))
