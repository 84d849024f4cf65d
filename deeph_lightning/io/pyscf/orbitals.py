"""Orbitals of PySCF: which shells each atom has, and dense matrices as operators.

PySCF keeps a basis as integer tables (``_atm``, ``_bas``), which its files hold too. A row of
``_bas`` is a set of contractions of one degree l: orbitals run over contractions, then over m
(p: x, y, z; from d on m = -l..l). Spherical functions are normalised to one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from deeph_lightning.core.basis import OrbitalBasis
from deeph_lightning.core.operator import Operator
from deeph_lightning.core.pairs import PairTable
from deeph_lightning.core.ragged import block_offsets, put_blocks
from deeph_lightning.errors import FormatError
from deeph_lightning.io.code_output import label_species

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms
    from numpy.typing import ArrayLike, NDArray

#: Columns of ``_bas``: atom, degree, contractions.
_ATOM, _DEGREE, _CONTRACTIONS = 0, 1, 3


def element_of(label: str) -> str:
    """Return the element of a label of PySCF, such as "H1" or "o@top"."""
    letters = re.match(r"[A-Za-z]+", label)
    return letters[0].capitalize() if letters else ""


def shells_of(
    bas: ArrayLike, labels: Sequence[str], structure: str
) -> tuple[OrbitalBasis, list[str]]:
    """Return the shells of every species, and the species of every atom.

    Parameters
    ----------
    bas
        ``(n, 8)`` integers, ``_bas``.
    labels
        What PySCF calls each atom.
    structure
        Name, for messages.

    Raises
    ------
    FormatError
        Two atoms of one label have different shells.
    """
    table = np.asarray(bas, dtype=np.int64).reshape(-1, 8)
    counts, degrees = table[:, _CONTRACTIONS], table[:, _DEGREE]
    per_atom = [
        tuple(np.repeat(degrees[own], counts[own]).tolist())
        for own in (table[:, _ATOM] == n for n in range(len(labels)))
    ]
    species = label_species([element_of(label) for label in labels], labels)
    shells: dict[str, tuple[int, ...]] = {}
    for label, own in zip(species, per_atom, strict=True):
        if shells.setdefault(label, own) != own:
            msg = (
                f"structure '{structure}': atoms of species '{label}' have the shells "
                f"{list(own)} and {list(shells[label])}. Give atoms of different basis "
                f"different labels, as in atom='{label}1 ...; {label}2 ...'."
            )
            raise FormatError(msg, structure=structure)
    return OrbitalBasis(shells), species


def all_pairs(n_atom: int) -> PairTable:
    """Return every pair of atoms of a molecule, both directions and onsite."""
    i, j = (index.ravel() for index in np.indices((n_atom, n_atom)))
    return PairTable(np.zeros((n_atom * n_atom, 3), dtype=np.int64), i, j)


def operator_of(
    atoms: Atoms,
    basis: OrbitalBasis,
    pairs: PairTable,
    matrices: NDArray[np.float64] | NDArray[np.complex128],
    which: NDArray[np.int64],
    *,
    unit: str,
    is_spinful: bool = False,
) -> Operator:
    """Cut dense matrices into the blocks of pairs, in the common order of orbitals.

    Parameters
    ----------
    atoms, basis, pairs
        Of the operator.
    matrices
        ``(m, n, n)`` in PySCF's order of orbitals; twice as long, all up orbitals first, if
        spinful.
    which
        ``(n_pair,)``, matrix of each pair.
    unit
        "hartree" (the result is in eV) or "1".
    is_spinful
        Whether the matrices have spin.
    """
    zero = Operator(atoms, basis, PairTable([], [], []), np.zeros(0))
    starts, n_orb = zero.orbital_offsets[:-1], int(zero.orbital_offsets[-1])
    size = np.diff(zero.orbital_offsets) * (2 if is_spinful else 1)
    offsets = block_offsets(np.column_stack((size[pairs.i], size[pairs.j])))
    values = np.zeros(int(offsets[-1]), dtype=matrices.dtype)
    spins = np.array([0, n_orb] if is_spinful else [0])[:, None]
    takes = {label: basis.permutation(label, "pyscf")[0] for label in basis.labels}
    for a, b, index in pairs.groups(atoms):
        rows = starts[pairs.i[index], None] + (spins + takes[a]).ravel()
        columns = starts[pairs.j[index], None] + (spins + takes[b]).ravel()
        blocks = matrices[which[index, None, None], rows[:, :, None], columns[:, None, :]]
        put_blocks(values, offsets[index], blocks)
    in_unit = Operator(atoms, basis, pairs, values, unit, is_spinful)
    return in_unit.scaled("eV") if unit != "1" else in_unit


def fermi_level(energies: ArrayLike, occupations: ArrayLike) -> float:
    """Return the middle between the highest occupied and the lowest empty state.

    Parameters
    ----------
    energies, occupations
        ``(n,)`` each. Without empty states it is the highest occupied energy.
    """
    energy, occupation = np.ravel(energies), np.ravel(occupations)
    half = 0.5 * occupation.max()
    top = float(energy[occupation >= half].max())
    empty = energy[(occupation < half) & (energy >= top)]
    return 0.5 * (top + float(empty.min())) if empty.size else top
