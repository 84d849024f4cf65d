"""A structure with its operators, as readers give it, and its checks."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from deeph_lightning.core.cells import cells_of_blocks, with_cells_of_atoms
from deeph_lightning.core.checks import (
    TOL_HERMITIAN_H,
    TOL_HERMITIAN_S,
    check_basis,
    check_structure,
)
from deeph_lightning.errors import BasisMismatchError, DataError
from deeph_lightning.io.files import in_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ase import Atoms

    from deeph_lightning.core.basis import OrbitalBasis
    from deeph_lightning.core.operator import Operator

log = logging.getLogger(__name__)

#: Unit of each operator in `SystemData`.
UNITS = {"H": "eV", "S": "1", "rho": "1", "H_pred": "eV"}


@dataclass
class SystemData:
    """One structure with what is known of it.

    Attributes
    ----------
    name
        Name in its set.
    atoms
        Structure, Å; ``atoms.info["name"]`` is `name`.
    basis
        Shells of every species.
    is_spinful
        Whether H has spin; S never has. Of a collinear calculation H is spinful too, real,
        with zero blocks between the spins.
    H, S, rho
        Hamiltonian in eV, overlap, density matrix (spin-summed, or spinful where the file has
        it so), or None. Each has its own pairs, as the file has them: H may have pairs that S
        lacks.
    fermi_energy
        eV, or None if unknown.
    n_electrons
        Number of electrons in the cell, or None.
    info
        Further facts of the file, kept as they are. Readers of codes add those of
        `code_output.facts`.
    source_format
        Key of `READERS`, or "archive".
    H_pred
        Hamiltonian predicted by a network, in eV, or None.
    """

    name: str
    atoms: Atoms
    basis: OrbitalBasis
    is_spinful: bool = False
    H: Operator | None = None
    S: Operator | None = None
    rho: Operator | None = None
    fermi_energy: float | None = None
    n_electrons: float | None = None
    info: dict[str, Any] = field(default_factory=dict)
    source_format: str = "deeph"
    H_pred: Operator | None = None

    @property
    def has_augmented_overlap(self) -> bool:
        """Whether S is that of augmented orbitals (PAW), by ``info["augmented_overlap"]``.

        Such orbitals are not normalised, and S has small integrals over three centres.
        """
        return bool(self.info.get("augmented_overlap"))

    def operators(self) -> Iterator[tuple[str, Operator]]:
        """Iterate over the operators that are there, by name."""
        for key in UNITS:
            op = getattr(self, key)
            if op is not None:
                yield key, op


class Header(NamedTuple):
    """What can be known of a structure without reading its matrices."""

    basis: OrbitalBasis
    is_spinful: bool

    def merged(self, other: Header | None, name: str) -> Header:
        """Return the header of a set with one more structure.

        Parameters
        ----------
        other
            Header of the structures before, or None.
        name
            This structure, for messages.

        Raises
        ------
        DataError
            Spinful and spinless structures are mixed.
        BasisMismatchError
            A species has other shells than before.
        """
        if other is None:
            return self
        if self.is_spinful != other.is_spinful:
            kinds = ("spinless", "spinful")
            msg = (
                f"structure '{name}' is {kinds[self.is_spinful]}, those before it are "
                f"{kinds[other.is_spinful]}. A set holds structures of one kind: keep them in "
                f"two folders."
            )
            raise DataError(msg, structure=name)
        if self.basis == other.basis:
            return other
        try:
            return Header(other.basis.union(self.basis), self.is_spinful)
        except BasisMismatchError as error:
            raise BasisMismatchError(f"structure '{name}': {error}", structure=name) from None


def checked(system: SystemData, files: dict[str, Path]) -> SystemData:
    """Run the checks of `core.checks` on what was read, and return it.

    Where a code folds atoms into the cell and the file of the structure does not, R of the
    blocks are counted anew, with a warning.

    Parameters
    ----------
    system
        What was read.
    files
        File of the structure ("atoms") and of every operator, for messages.
    """
    with in_file(files["atoms"], system.name):
        check_structure(system.atoms, system.name)
        check_basis(system.atoms, system.basis, system.name)
    for key, op in system.operators():
        tol = TOL_HERMITIAN_H if UNITS[key] == "eV" else TOL_HERMITIAN_S
        with in_file(files[key], system.name):
            _check_onsite(op)
            op.check_hermitian(tol, system.name)
    _count_cells(system, ("H", "S", "rho"), files)  # of one calculation
    _count_cells(system, ("H_pred",), files)
    return system


def _count_cells(system: SystemData, keys: tuple[str, ...], files: dict[str, Path]) -> None:
    """Count the cells of blocks from the atoms where they are; what changes is said."""
    found = {key: op for key, op in system.operators() if key in keys}
    all_shifts = [cells_of_blocks(op) for op in found.values()]
    shifts = next((shifts for shifts in all_shifts if shifts.any()), None)
    if shifts is None:
        return
    moved = np.flatnonzero(shifts.any(axis=1))
    log.warning(
        "%s: structure '%s' has atom %d, and %d in all, in another cell than the blocks of %s "
        "have it; R of their pairs counted anew",
        *(files["atoms"], system.name, moved[0], len(moved), " and ".join(found)),
    )
    for key, op in found.items():
        setattr(system, key, with_cells_of_atoms(op, shifts))


def _check_onsite(op: Operator) -> None:
    has_block = np.zeros(len(op.atoms), dtype=np.bool_)
    has_block[op.pairs.i[op.pairs.is_onsite]] = True
    if not has_block.all():
        missing = np.flatnonzero(~has_block)
        msg = (
            f"structure '{op.name}': {len(missing)} of {len(op.atoms)} atoms have no onsite "
            f"block, among them atom {missing[0]}; expected the pair R=(0, 0, 0) i=j of every "
            f"atom. The file is incomplete: make it again."
        )
        raise DataError(msg, structure=op.name)
