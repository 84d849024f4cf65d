"""Operators from lists of matrix elements, as codes with sparse matrices write them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from deeph_lightning.core.basis import OrbitalBasis, species_labels
from deeph_lightning.core.operator import Operator
from deeph_lightning.core.pairs import PairTable
from deeph_lightning.core.ragged import Values, block_offsets
from deeph_lightning.errors import FormatError

if TYPE_CHECKING:
    from ase import Atoms
    from numpy.typing import NDArray


class Elements(NamedTuple):
    """Elements ``<row, cell 0 | O | column, cell R>`` of an operator.

    Attributes
    ----------
    R
        ``(n, 3)`` integers.
    row, column
        ``(n,)`` orbitals from 0: atom after atom; of a spinful operator all with spin up
        first, then all with spin down.
    values
        ``(n,)``, float64 or complex128.
    """

    R: NDArray[np.int64]
    row: NDArray[np.int64]
    column: NDArray[np.int64]
    values: Values


def operator_from_elements(
    atoms: Atoms,
    basis: OrbitalBasis,
    elements: Elements,
    *,
    unit: str,
    is_spinful: bool = False,
) -> Operator:
    """Gather elements into blocks.

    A pair has a block if one of its elements or of its Hermitian partner's is in the list, or
    if it is onsite; other elements of its block are zero. (Codes drop elements below a
    threshold, so that one of two partners may be missing.)

    Parameters
    ----------
    atoms, basis
        Structure and shells.
    elements
        In any order, each at most once.
    unit
        Unit of the values.
    is_spinful
        Whether orbitals are counted with spin.

    Raises
    ------
    FormatError
        An element comes twice, or its orbital does not exist.
    """
    counts = basis.orbital_counts(species_labels(atoms))
    first = np.concatenate(([0], np.cumsum(counts)))
    n_orb, n_spin = int(first[-1]), 2 if is_spinful else 1
    for index in (elements.row, elements.column):
        if index.size and not 0 <= index.min() <= index.max() < n_orb * n_spin:
            msg = (
                f"an element is of orbital {index.max()}, but the basis has "
                f"{n_orb * n_spin}. Matrix and structure are not of the same calculation."
            )
            raise FormatError(msg)
    i, a = _atom_and_place(elements.row, first, counts)
    j, b = _atom_and_place(elements.column, first, counts)
    pairs, index = _pairs_of(elements.R, i, j, len(atoms))
    size = counts * n_spin
    offsets = block_offsets(np.column_stack((size[pairs.i], size[pairs.j])))
    place = offsets[index] + a * size[j] + b
    values = np.zeros(offsets[-1], dtype=elements.values.dtype)
    values[place] = elements.values
    if len(np.unique(place)) != len(place):
        ordered = np.sort(place)
        double = int(ordered[np.argmax(np.diff(ordered) == 0)])
        pair = pairs.describe(int(np.searchsorted(offsets, double, side="right")) - 1)
        msg = f"an element of pair {pair} comes twice. The file is damaged: make it again."
        raise FormatError(msg)
    return Operator(atoms, basis, pairs, values, unit, is_spinful)


def _atom_and_place(
    orbital: NDArray[np.int64], first: NDArray[np.int64], counts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the atom of each orbital and its row in a block, spin included."""
    n_orb = int(first[-1])
    spin, spatial = orbital // n_orb, orbital % n_orb
    atom = np.searchsorted(first, spatial, side="right").astype(np.int64) - 1
    return atom, spatial - first[atom] + spin * counts[atom]


def _pairs_of(
    R: NDArray[np.int64], i: NDArray[np.int64], j: NDArray[np.int64], n_atom: int
) -> tuple[PairTable, NDArray[np.int64]]:
    """Return all pairs of the elements, partners and onsite ones, and that of each element."""
    rows = np.column_stack((i, j, R))
    distinct, of_element = np.unique(rows, axis=0, return_inverse=True)
    partners = np.column_stack((distinct[:, 1], distinct[:, 0], -distinct[:, 2:]))
    onsite = np.zeros((n_atom, 5), dtype=np.int64)
    onsite[:, 0] = onsite[:, 1] = np.arange(n_atom)
    every = np.unique(np.concatenate((distinct, partners, onsite)), axis=0)
    pairs = PairTable(every[:, 2:], every[:, 0], every[:, 1])
    own, _ = PairTable.from_arrays(distinct[:, 2:], distinct[:, 0], distinct[:, 1])
    return pairs, pairs.locate(own)[of_element.ravel()]


def stack_spins(up: Elements, down: Elements, n_orb: int) -> Elements:
    """Join the two channels of a collinear calculation to one spinful operator.

    Parameters
    ----------
    up, down
        Elements of each channel, orbitals without spin.
    n_orb
        Orbitals of the cell, without spin.
    """
    return Elements(
        np.concatenate((up.R, down.R)),
        np.concatenate((up.row, down.row + n_orb)),
        np.concatenate((up.column, down.column + n_orb)),
        np.concatenate((up.values, down.values)),
    )
