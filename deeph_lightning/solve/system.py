"""One structure as the solvers see it: spin channels of H, the overlap, the electrons.

Without spin there is one channel whose states hold two electrons; collinear spin (a spinful H
whose up-down blocks vanish) has two channels, up and down, of one electron a state;
non-collinear spin has one channel of twice the orbitals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deeph_lightning.core.operator import Operator
from deeph_lightning.core.ragged import adjoint, block_offsets, put_blocks, take_blocks
from deeph_lightning.errors import DataError, PhysicsError

if TYPE_CHECKING:
    from ase import Atoms
    from numpy.typing import NDArray

    from deeph_lightning.io.system import SystemData

#: Spin-flip elements up to this size are rounding of a collinear calculation, eV.
COLLINEAR_EV = 1e-12


@dataclass(frozen=True)
class ElectronicSystem:
    """Operators and electrons of one structure.

    Attributes
    ----------
    name
        Name of the structure, as in messages.
    channels
        H of each spin channel, eV, both Hermitian halves present.
    S
        Overlap, spinless; None where the basis is orthonormal.
    n_electrons
        Electrons in the cell, or None if nothing says it.
    stated_fermi
        Fermi level that the data state, eV, or None.
    """

    name: str
    channels: tuple[Operator, ...]
    S: Operator | None
    n_electrons: float | None = None
    stated_fermi: float | None = None

    @property
    def atoms(self) -> Atoms:
        """The structure."""
        return self.channels[0].atoms

    @property
    def degeneracy(self) -> int:
        """Electrons that one state holds."""
        return 2 if len(self.channels) == 1 and not self.channels[0].is_spinful else 1

    @property
    def n_orb(self) -> int:
        """Dimension of H(k) of one channel."""
        return self.channels[0].n_orb

    @property
    def is_periodic(self) -> NDArray[np.bool_]:
        """``(3,)``, directions along which H has a dispersion: no pair crosses a vacuum."""
        return np.asarray(np.any(self.channels[0].pairs.R != 0, axis=0))

    @property
    def has_time_reversal(self) -> bool:
        """Whether H is real, so that E(k) = E(-k) in each channel."""
        return not any(np.iscomplexobj(H.values) and H.values.imag.any() for H in self.channels)

    def electrons(self) -> float:
        """Return the number of electrons.

        Raises
        ------
        PhysicsError
            It is not known, or does not fit into the orbitals.
        """
        capacity = self.degeneracy * self.n_orb * len(self.channels)
        if self.n_electrons is None:
            msg = (
                f"structure '{self.name}': the number of electrons is not known (info.json has "
                f"no key 'occupation'). Give it, valence electrons only if pseudopotentials "
                f"were used: n_electrons=NUMBER"
            )
            raise PhysicsError(msg, structure=self.name)
        if not 0 < self.n_electrons < capacity:
            msg = (
                f"structure '{self.name}': {self.n_electrons:g} electrons do not fit, its "
                f"orbitals hold {capacity}; expected a number between. Give the valence "
                f"electrons of the whole cell: n_electrons=NUMBER"
            )
            raise PhysicsError(msg, structure=self.name)
        return self.n_electrons


def electronic_system(
    data: SystemData, hamiltonian: str = "H", n_electrons: float | None = None
) -> ElectronicSystem:
    """Take operators and electrons out of what was read.

    Parameters
    ----------
    data
        Structure with H (or H_pred) and S.
    hamiltonian
        "H" or "H_pred".
    n_electrons
        Electrons in the cell; without it what the data state.

    Raises
    ------
    DataError
        There is no such H, or neither S nor the word that the basis is orthonormal.
    """
    H: Operator | None = getattr(data, hamiltonian)
    if H is None:
        msg = (
            f"structure '{data.name}': there is no {hamiltonian}. Give a folder with "
            f"hamiltonian.h5 (hamiltonian=H) or hamiltonian_pred.h5 (hamiltonian=H_pred)."
        )
        raise DataError(msg, structure=data.name)
    if data.S is None and not data.info.get("orthogonal_basis", False):
        msg = (
            f"structure '{data.name}': there is no overlap S, and info.json does not say that "
            f"the basis is orthonormal. Add overlap.h5, or name a folder of the same structure "
            f"that has it: overlap=DIR"
        )
        raise DataError(msg, structure=data.name)
    return ElectronicSystem(
        name=data.name,
        channels=spin_channels(hermitised(H)),
        S=None if data.S is None else hermitised(data.S),
        n_electrons=data.n_electrons if n_electrons is None else n_electrons,
        stated_fermi=data.fermi_energy,
    )


def hermitised(op: Operator) -> Operator:
    """Return half the sum of every block and the adjoint of its partner.

    Partners in files differ by rounding; what uses one triangle of H(k) and what uses all of
    it must see the same matrix.
    """
    full = op.complete()
    if full.hermiticity_residual()[0] == 0:
        return full  # no copy of what may fill half of the memory
    partner = full.pairs.partner
    values = np.empty_like(full.values)
    for a, b, index, blocks in full.iterate_blocks():
        starts = full.offsets[partner[index]]
        partners = take_blocks(full.values, starts, full.shape_of(b, a))
        put_blocks(values, full.offsets[index], 0.5 * (blocks + adjoint(partners)))
    return full.replace(values=values)


def spin_channels(H: Operator) -> tuple[Operator, ...]:
    """Split a collinear H into up and down; any other is returned as the only channel."""
    if not H.is_spinful:
        return (H,)
    size = np.diff(H.orbital_offsets)
    shapes = np.column_stack((size[H.pairs.i], size[H.pairs.j]))
    starts = block_offsets(shapes)
    parts = [np.zeros(starts[-1], dtype=H.values.dtype) for _ in range(2)]
    for _, _, index, blocks in H.iterate_blocks():
        n, m = blocks.shape[1] // 2, blocks.shape[2] // 2
        if max(np.abs(blocks[:, :n, m:]).max(), np.abs(blocks[:, n:, :m]).max()) > COLLINEAR_EV:
            return (H,)
        put_blocks(parts[0], starts[index], np.ascontiguousarray(blocks[:, :n, :m]))
        put_blocks(parts[1], starts[index], np.ascontiguousarray(blocks[:, n:, m:]))
    return tuple(
        Operator(H.atoms, H.basis, H.pairs, part if part.imag.any() else part.real, H.unit)
        for part in parts
    )


def spin_doubled(S: Operator) -> Operator:
    """Return diag(S, S) as a spinful operator on the same pairs."""
    shapes = 2 * S.block_shapes
    starts = block_offsets(shapes)
    values = np.zeros(starts[-1], dtype=S.values.dtype)
    for _, _, index, blocks in S.iterate_blocks():
        doubled = np.kron(np.eye(2), blocks)
        put_blocks(values, starts[index], doubled)
    return Operator(S.atoms, S.basis, S.pairs, values, S.unit, is_spinful=True)
