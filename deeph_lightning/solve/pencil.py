"""H(k) and S(k) as sparse matrices on one pattern, the same at every k-point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from deeph_lightning.core.pairs import PairTable
from deeph_lightning.solve.system import spin_doubled

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from deeph_lightning.core.operator import Operator


@dataclass(frozen=True)
class PencilAtK:
    """The two matrices at one k-point, real where both are.

    Attributes
    ----------
    H, S
        csr arrays whose ``indices`` and ``indptr`` are equal; eV, and without unit.
    """

    H: Any
    S: Any

    def shifted(self, energy: float) -> Any:
        """Return H - energy S on the same pattern, eV."""
        values = self.H.data - energy * self.S.data
        matrix = sparse.csr_array((values, self.H.indices, self.H.indptr), shape=self.H.shape)
        matrix.has_sorted_indices = True
        return matrix


class Pencil:
    """H - E S of one spin channel.

    Parameters
    ----------
    H
        Hamiltonian, both Hermitian halves present.
    S
        Overlap, spinless, or None where the basis is orthonormal.

    Attributes
    ----------
    row_block
        ``(n_orb,)``, atom of each row: rows of one atom have the same pattern.
    """

    def __init__(self, H: Operator, S: Operator | None) -> None:
        S = _identity(H) if S is None else S
        pairs = H.pairs.union(S.pairs)
        self.H = H.on_pairs(pairs)
        S = S.on_pairs(pairs)
        self.S = spin_doubled(S) if H.is_spinful else S
        self.name = H.name
        counts = np.diff(H.orbital_offsets)
        self.row_block: NDArray[np.int64] = np.tile(
            np.repeat(np.arange(len(counts)), counts), H.n_spin
        )

    @property
    def n_orb(self) -> int:
        """Dimension of the matrices."""
        return self.H.n_orb

    def at(self, k: ArrayLike) -> PencilAtK:
        """Sum over R at one k-point, ``(3,)``, fractional."""
        H, S = self.H.bloch_csr(k), self.S.bloch_csr(k)
        if not H.data.imag.any() and not S.data.imag.any():
            H, S = H.real, S.real
        return PencilAtK(H, S)


def _identity(H: Operator) -> Operator:
    """Return the overlap of an orthonormal basis, spinless."""
    from deeph_lightning.core.operator import Operator as Op

    atoms = np.arange(len(H.atoms))
    pairs = PairTable(np.zeros((len(atoms), 3)), atoms, atoms)
    values = [np.eye(n).ravel() for n in np.diff(H.orbital_offsets)]
    return Op(H.atoms, H.basis, pairs, np.concatenate(values), "1")
