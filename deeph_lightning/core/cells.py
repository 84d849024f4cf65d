"""In which cell the blocks of an operator have each atom.

The R of a block counts cells between atoms as the code had them, often folded back into the
cell; a structure file written apart from it may have one of them a lattice vector away. Then
every vector of that atom's pairs is wrong by a lattice vector, and nothing else tells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from deeph_lightning.core.operator import Operator
    from deeph_lightning.core.pairs import IntArray

#: Mean square length of the vectors of an atom's pairs, weighted by their largest elements
#: squared, after over before: the atom is elsewhere if a lattice vector makes it less than
#: this. One of 1.4 Å that is off by 2.5 Å makes 0.2; an atom in its place, 1 and more.
_LARGEST_RATIO = 0.5
#: Nothing is said of atoms with fewer pairs than this, or whose large blocks are more than this
#: part of them: these do not show which atoms are close.
_LEAST_PAIRS, _LARGEST_SHARE = 20, 1.0 / 3.0


def cells_of_blocks(op: Operator) -> IntArray:
    """Find by how many cells the positions of atoms differ from those that the blocks mean.

    Large blocks belong to close atoms. An atom whose few large blocks point to atoms one
    lattice vector away stands in another cell than its blocks have it.

    Parameters
    ----------
    op
        Operator; of one whose R are all 0 (images folded) nothing is said.

    Returns
    -------
    ``(A, 3)`` integers n: the blocks mean position + ``n @ cell``; zero where they agree.
    """
    n_atom, cell = len(op.atoms), np.asarray(op.atoms.cell.array)
    shifts = np.zeros((n_atom, 3), dtype=np.int64)
    pairs = op.pairs
    keep = pairs.i != pairs.j  # the vectors of an atom with its images do not change
    if not (pairs.R[keep] != 0).any():
        return shifts
    i, j = pairs.i[keep], pairs.j[keep]
    vectors, weights = pairs.vectors(op.atoms)[keep], op.largest_elements()[keep] ** 2
    if op.is_half:
        i, j = np.concatenate([i, j]), np.concatenate([j, i])
        vectors = np.concatenate([vectors, -vectors])
        weights = np.concatenate([weights, weights])
    total, count = np.bincount(i, weights, n_atom), np.bincount(i, minlength=n_atom)
    n_large = total**2 / np.maximum(np.bincount(i, weights**2, n_atom), 1e-300)
    is_clear = (count >= _LEAST_PAIRS) & (n_large <= _LARGEST_SHARE * count)
    total[total == 0.0] = 1.0
    inverse = np.linalg.pinv(cell)
    while True:  # ends: every step shortens the large pairs, which are finite in number
        now = vectors + (shifts[j] - shifts[i]) @ cell
        mean = np.stack(
            [np.bincount(i, weights * now[:, c], n_atom) / total for c in range(3)], -1
        )
        square = np.bincount(i, weights * (now**2).sum(-1), n_atom) / total
        step = np.rint(mean @ inverse).astype(np.int64)
        move = step @ cell
        after = square - 2.0 * (mean * move).sum(-1) + (move**2).sum(-1)
        ratio = np.divide(after, square, out=np.ones(n_atom), where=is_clear & (square > 0.0))
        worst = int(np.argmin(ratio))
        if ratio[worst] >= _LARGEST_RATIO:
            home: IntArray = shifts - shifts[_most_common_cell(shifts)]
            return home
        shifts[worst] += step[worst]


def _most_common_cell(shifts: IntArray) -> int:
    """Return an atom of the cell that most atoms are in: only differences count."""
    _, first, counts = np.unique(shifts, axis=0, return_index=True, return_counts=True)
    return int(first[np.argmax(counts)])


def with_cells_of_atoms(op: Operator, shifts: IntArray) -> Operator:
    """Count the cells of blocks anew, from atoms as `op` has them (see `cells_of_blocks`)."""
    moved = op.atoms.copy()
    moved.set_positions(
        op.atoms.get_positions() + shifts @ np.asarray(op.atoms.cell.array),
        apply_constraint=False,
    )
    return op.replace(atoms=moved).with_atoms_shifted(-shifts).replace(atoms=op.atoms)
