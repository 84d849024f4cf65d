"""The block-sparse real-space operator: H, S, density matrices and their derivatives.

Blocks lie in one flat array, in the order of the pair table; nothing here loops over pairs in
Python. The conventions of blocks, Bloch sums and spin are those of `conventions`.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from deeph_lightning.core import bloch, hermitian, transforms
from deeph_lightning.core.basis import OrbitalBasis, species_labels, structure_name
from deeph_lightning.core.pairs import PairTable
from deeph_lightning.core.ragged import (
    IntArray,
    Values,
    block_offsets,
    reorder,
    take_blocks,
)
from deeph_lightning.errors import DataError, PhysicsError, ShapeError
from deeph_lightning.units import energy_factor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ase import Atoms
    from numpy.typing import ArrayLike, NDArray
    from scipy.sparse import csr_array


class Operator:
    """Operator in an atomic-orbital basis.

    Parameters
    ----------
    atoms
        Structure; ``atoms.info["name"]`` is the name that messages use.
    basis
        Shells of every species, without spin.
    pairs
        Pairs that carry a block.
    values
        Flat ``(sum of block sizes,)``, float64 or complex128: blocks in the order of `pairs`,
        each in C order.
    unit
        "eV", another key of `units.ENERGY_UNITS`, or "1".
    is_spinful
        Blocks are ``[[uu, ud], [du, dd]]``, twice as long both ways.
    is_half
        One pair of each Hermitian couple is stored, in either orientation, and the onsite ones.

    Attributes
    ----------
    block_shapes
        ``(n_pair, 2)``, rows and columns of each block, spin included.
    offsets
        ``(n_pair + 1,)``, start of each block in `values`, and the end.
    orbital_offsets
        ``(A + 1,)``, first orbital of each atom, without spin, and their number.

    Raises
    ------
    ShapeError
        `values` is not flat or not as long as the blocks need.
    DataError
        An atom of a pair does not exist, or a half operator holds both pairs of a couple.
    PhysicsError
        A value is NaN or infinite.
    BasisMismatchError
        The basis lacks a species.
    """

    def __init__(
        self,
        atoms: Atoms,
        basis: OrbitalBasis,
        pairs: PairTable,
        values: ArrayLike,
        unit: str = "eV",
        is_spinful: bool = False,
        is_half: bool = False,
    ) -> None:
        array = np.asarray(values)
        dtype = np.complex128 if np.iscomplexobj(array) else np.float64
        self.atoms, self.basis, self.pairs = atoms, basis, pairs
        self.values: Values = np.ascontiguousarray(array, dtype=dtype)
        self.unit, self.is_spinful, self.is_half = unit, bool(is_spinful), bool(is_half)
        _check_atoms(pairs, atoms)
        counts = basis.orbital_counts(species_labels(atoms))
        self.orbital_offsets: IntArray = np.concatenate(([0], np.cumsum(counts)))
        size = counts * self.n_spin
        self.block_shapes: IntArray = np.column_stack((size[pairs.i], size[pairs.j]))
        self.offsets: IntArray = block_offsets(self.block_shapes)
        if self.values.shape != (int(self.offsets[-1]),):
            msg = (
                f"structure '{self.name}': values have shape {self.values.shape}, but the "
                f"blocks of {len(pairs)} pairs need ({int(self.offsets[-1])},). Check the "
                f"orbital map and is_spinful={self.is_spinful}."
            )
            raise ShapeError(msg)
        self._check_finite()
        if self.is_half and not pairs.is_half:
            n = int(np.argmax((pairs.partner >= 0) & ~pairs.is_onsite))
            msg = (
                f"structure '{self.name}': the operator is said to be a Hermitian half, but "
                f"pair {pairs.describe(n)} is there with its partner. Pass is_half=False."
            )
            raise DataError(msg)

    @classmethod
    def from_flat(
        cls,
        atoms: Atoms,
        basis: OrbitalBasis,
        R: ArrayLike,
        i: ArrayLike,
        j: ArrayLike,
        values: ArrayLike,
        *,
        shapes: ArrayLike | None = None,
        offsets: ArrayLike | None = None,
        unit: str = "eV",
        is_spinful: bool = False,
        is_half: bool = False,
    ) -> Operator:
        """Build from flat blocks whose pairs have any order, as files have them.

        Parameters
        ----------
        R, i, j
            ``(n, 3)``, ``(n,)``, ``(n,)`` integers.
        values
            Flat blocks, C order, in the order of the arguments.
        shapes
            ``(n, 2)``, shapes as the file states them; compared with those of the basis.
        offsets
            ``(n + 1,)``, start of each block in `values` as the file states it, and the end.

        Raises
        ------
        ShapeError
            A block is not of the shape that the basis says.
        DataError
            A pair comes twice, or names an atom that does not exist.
        """
        pairs, order = PairTable.from_arrays(R, i, j)
        _check_atoms(pairs, atoms)
        size = basis.orbital_counts(species_labels(atoms)) * (2 if is_spinful else 1)
        expected = np.empty((len(pairs), 2), dtype=np.int64)
        expected[order] = np.column_stack((size[pairs.i], size[pairs.j]))
        starts = block_offsets(expected)
        for found, wanted, what in ((shapes, expected, "shape"), (offsets, starts, "offsets")):
            if found is not None:
                _check_layout(np.asarray(found), wanted, what, pairs, order, atoms)
        array = np.asarray(values)
        if array.shape != (int(starts[-1]),):
            msg = (
                f"structure '{structure_name(atoms)}': {len(pairs)} blocks hold values of "
                f"shape {array.shape}, expected ({int(starts[-1])},). The file is truncated, "
                f"or its orbital map or spin is wrong."
            )
            raise ShapeError(msg)
        return cls(
            atoms, basis, pairs, reorder(array, starts, order), unit, is_spinful, is_half
        )

    @classmethod
    def from_blocks(
        cls,
        atoms: Atoms,
        basis: OrbitalBasis,
        R: ArrayLike,
        i: ArrayLike,
        j: ArrayLike,
        blocks: Sequence[Values],
        *,
        unit: str = "eV",
        is_spinful: bool = False,
        is_half: bool = False,
    ) -> Operator:
        """Build from a list of blocks, one for each pair, in any order (see `from_flat`)."""
        shapes = np.array([np.shape(b) for b in blocks], dtype=np.int64).reshape(-1, 2)
        flat = [np.ravel(b) for b in blocks]
        values = np.concatenate(flat) if flat else np.zeros(0)
        return cls.from_flat(
            atoms, basis, R, i, j, values,
            shapes=shapes, unit=unit, is_spinful=is_spinful, is_half=is_half,
        )  # fmt: skip

    def replace(
        self,
        *,
        atoms: Atoms | None = None,
        pairs: PairTable | None = None,
        values: ArrayLike | None = None,
        unit: str | None = None,
        is_half: bool | None = None,
    ) -> Operator:
        """Return a copy with some parts changed; values that are not given are shared."""
        return Operator(
            self.atoms if atoms is None else atoms,
            self.basis,
            self.pairs if pairs is None else pairs,
            self.values if values is None else values,
            self.unit if unit is None else unit,
            self.is_spinful,
            self.is_half if is_half is None else is_half,
        )

    def __repr__(self) -> str:
        flags = ("spinful " if self.is_spinful else "") + ("half" if self.is_half else "full")
        return (
            f"Operator({self.name}, {len(self.atoms)} atoms, {len(self.pairs)} pairs, "
            f"{self.values.dtype}, {self.unit}, {flags})"
        )

    def _check_finite(self) -> None:
        is_bad = ~np.isfinite(self.values)
        if is_bad.any():
            first = int(np.argmax(is_bad))
            n = int(np.searchsorted(self.offsets, first, side="right")) - 1
            msg = (
                f"structure '{self.name}', pair {self.pairs.describe(n)}: the block holds "
                f"{self.values[first]} ({int(is_bad.sum())} values are not finite in all). "
                f"Make the calculation again or leave the structure out."
            )
            raise PhysicsError(msg, structure=self.name)

    # ------------------------------------------------------------------ shapes and blocks

    @property
    def name(self) -> str:
        """Name of the structure, as in messages."""
        return structure_name(self.atoms)

    @property
    def n_spin(self) -> int:
        """Length of the spin index: 2 if spinful, else 1."""
        return 2 if self.is_spinful else 1

    @property
    def n_orb(self) -> int:
        """Dimension of O(k): orbitals of all atoms, times 2 if spinful."""
        return int(self.orbital_offsets[-1]) * self.n_spin

    @cached_property
    def groups(self) -> list[tuple[str, str, IntArray]]:
        """Pairs by species, see `PairTable.groups`."""
        return self.pairs.groups(self.atoms)

    def shape_of(self, label_i: str, label_j: str) -> tuple[int, int]:
        """Shape of the blocks of two species, spin included."""
        return (
            self.basis.n_orb(label_i) * self.n_spin,
            self.basis.n_orb(label_j) * self.n_spin,
        )

    def block(self, n: int) -> Values:
        """Return the block of pair n, a view of shape ``block_shapes[n]``."""
        rows, columns = self.block_shapes[n]
        return self.values[self.offsets[n] : self.offsets[n + 1]].reshape(rows, columns)

    def blocks_of(self, label_i: str, label_j: str) -> tuple[IntArray, Values]:
        """Return all blocks between two species.

        Returns
        -------
        index, blocks
            ``(k,)`` increasing index of the pairs; ``(k, n_i, n_j)`` blocks, which are a view
            of `values` where all pairs are of these species: do not write into them.
        """
        shape = self.shape_of(label_i, label_j)
        for a, b, index in self.groups:
            if (a, b) == (label_i, label_j):
                return index, take_blocks(self.values, self.offsets[index], shape)
        return np.zeros(0, dtype=np.int64), np.zeros((0, *shape), dtype=self.values.dtype)

    def iterate_blocks(self) -> Iterator[tuple[str, str, IntArray, Values]]:
        """Iterate over `groups` with their blocks, ``(k, n_i, n_j)``."""
        for a, b, index in self.groups:
            yield a, b, index, self.blocks_of(a, b)[1]

    def largest_elements(self) -> NDArray[np.float64]:
        """Return the largest absolute element of every block, ``(n_pair,)``."""
        largest = np.zeros(len(self.pairs))
        for _, _, index, blocks in self.iterate_blocks():
            largest[index] = np.abs(blocks).reshape(len(index), -1).max(axis=1)
        return largest

    def padded_blocks(
        self, shells: Sequence[int] | None = None
    ) -> tuple[Values, NDArray[np.bool_]]:
        """Embed all blocks in one list of shells common to the species.

        Parameters
        ----------
        shells
            Common list; without it `OrbitalBasis.common_shells`.

        Returns
        -------
        blocks, mask
            ``(n_pair, n, n)`` each, n orbitals of the common list (twice as many if spinful):
            zeros where a species lacks an orbital, and which elements are real.
        """
        return transforms.padded_blocks(self, shells)

    # ------------------------------------------------------------------ Hermiticity

    def half(self) -> Operator:
        """Keep the canonical pair of each Hermitian couple.

        Raises
        ------
        HermiticityError
            A pair has no partner.
        """
        return hermitian.half(self)

    def complete(self) -> Operator:
        """Return the operator with both pairs of every couple; itself if it is not a half."""
        return hermitian.complete(self)

    def hermiticity_residual(self) -> tuple[float, int]:
        """Return the largest ``|O[R,i,j] - O[-R,j,i]^dagger|`` and the index of its pair.

        A missing partner counts as zero; a half is compared onsite only. Without pairs the
        index is -1.
        """
        return hermitian.residual(self)

    def check_hermitian(self, tol: float, structure: str | None = None) -> None:
        """Raise `HermiticityError` unless blocks and partners agree to `tol` (unit of values).

        Parameters
        ----------
        tol
            Largest difference allowed.
        structure
            Name for the message; without it `name`.

        Raises
        ------
        HermiticityError
            A partner is missing or differs.
        """
        hermitian.check(self, tol, structure or self.name)

    # ------------------------------------------------------------------ Bloch sums

    def bloch(self, k: ArrayLike) -> NDArray[np.complex128]:
        """Sum over R at one k-point, dense: see `bloch.bloch_dense`."""
        return bloch.bloch_dense(self, k)

    def bloch_csr(self, k: ArrayLike) -> csr_array:
        """Sum over R at one k-point, sparse: see `bloch.bloch_csr`."""
        return bloch.bloch_csr(self, k)

    # ------------------------------------------------------------------ other descriptions

    def on_pairs(self, pairs: PairTable) -> Operator:
        """Return the operator on other pairs: zero where it has none, blocks elsewhere dropped.

        A half operator is read in either orientation. The result is a half if `pairs` holds
        one pair of each couple only.
        """
        _check_atoms(pairs, self.atoms)
        return transforms.on_pairs(self, pairs)

    def scaled(self, unit: str) -> Operator:
        """Convert to another unit of energy (CODATA 2018)."""
        factor = energy_factor(self.unit, unit)
        if unit == self.unit:
            return self
        return self.replace(values=self.values * factor, unit=unit)

    def rotated(self, Q: ArrayLike) -> Operator:
        """Rotate structure and blocks: see `transforms.rotated`."""
        return transforms.rotated(self, Q)

    def permuted(self, order: ArrayLike) -> Operator:
        """Renumber the atoms: new atom n is old atom ``order[n]``."""
        return transforms.permuted(self, order)

    def with_atoms_shifted(self, shifts: ArrayLike) -> Operator:
        """Move atoms by lattice vectors: see `transforms.with_atoms_shifted`."""
        return transforms.with_atoms_shifted(self, shifts)

    def with_lattice(self, matrix: ArrayLike) -> Operator:
        """Describe the crystal by other lattice vectors: see `transforms.with_lattice`."""
        return transforms.with_lattice(self, matrix)

    def repeated(self, repeats: tuple[int, int, int]) -> Operator:
        """Return the operator of a supercell: see `transforms.repeated`."""
        return transforms.repeated(self, repeats)

    def to_convention(self, order_name: str) -> Operator:
        """Put the orbitals of every atom in the order and signs of a code, for writing.

        Nothing but `from_convention` and storing should be done with the result: all else
        takes blocks to be in the common order.
        """
        return transforms.to_convention(self, order_name)

    def from_convention(self, order_name: str) -> Operator:
        """Take blocks that are in the order and signs of a code to the common order."""
        return transforms.from_convention(self, order_name)


def _check_atoms(pairs: PairTable, atoms: Atoms) -> None:
    n_atom = len(atoms)
    for index in (pairs.i, pairs.j):
        is_wrong = (index < 0) | (index >= n_atom)
        if is_wrong.any():
            msg = (
                f"structure '{structure_name(atoms)}', pair "
                f"{pairs.describe(int(np.argmax(is_wrong)))}: the structure has {n_atom} "
                f"atoms, numbered from 0. Check that blocks and structure belong together."
            )
            raise DataError(msg, structure=structure_name(atoms))


def _check_layout(
    found: IntArray,
    wanted: IntArray,
    what: str,
    pairs: PairTable,
    order: IntArray,
    atoms: Atoms,
) -> None:
    """Compare shapes or offsets of a file with those of the basis; both in the file's order."""
    name = structure_name(atoms)
    if found.shape != wanted.shape:
        msg = (
            f"structure '{name}': the {what} array of the blocks has shape {found.shape}, "
            f"expected {wanted.shape}. The file is damaged."
        )
        raise ShapeError(msg)
    is_wrong = (found != wanted).reshape(len(wanted), -1).any(axis=1)
    if is_wrong.any():
        n = int(np.argmax(is_wrong))
        where = f", pair {pairs.describe(int(np.argmax(order == n)))}" if n < len(order) else ""
        msg = (
            f"structure '{name}'{where}: the block has {what} {found[n].tolist()}, but the "
            f"orbital map says {wanted[n].tolist()}. Check the orbital map, the spin and the "
            f"order of the pairs."
        )
        raise ShapeError(msg)
