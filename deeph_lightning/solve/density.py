r"""Density matrices, populations and the band-structure energy.

``P(k) = sum_n f_n C_n C_n^dagger`` and ``P(R) = sum_k w_k exp(-2 pi i k.R) P(k)``, electrons of
both spins; then ``sum_R Tr P(R) S(R)^dagger`` is their number. Populations are those of
R. S. Mulliken, J. Chem. Phys. 23, 1833 (1955).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deeph_lightning.core.operator import Operator
from deeph_lightning.core.ragged import Values, put_blocks
from deeph_lightning.solve.dense import ComplexArray, eigenstates, overlap_at
from deeph_lightning.solve.levels import FloatArray, occupations

if TYPE_CHECKING:
    from deeph_lightning.solve.levels import Levels
    from deeph_lightning.solve.system import ElectronicSystem


@dataclass(frozen=True)
class Density:
    """Occupied states of a structure.

    Attributes
    ----------
    rho
        Density matrix on the pairs of H, without unit: summed over spin, or spinful for
        non-collinear spin.
    populations
        ``(A,)``, electrons of each atom.
    moments
        ``(A, 3)``, spin up minus down along x, y, z; a collinear moment lies along z.
    band_energy
        Sum of the occupied energies, eV.
    """

    rho: Operator
    populations: FloatArray
    moments: FloatArray
    band_energy: float


def density(
    system: ElectronicSystem, levels: Levels, smearing_eV: float, n_drop: int = 0
) -> Density:
    """Sum the occupied states of a grid.

    Parameters
    ----------
    system
        Operators.
    levels
        Grid and Fermi level.
    smearing_eV
        Fermi-Dirac width, eV.
    n_drop
        Combinations of orbitals left out, see `conditioning`.
    """
    first = system.channels[0]
    is_real = system.has_time_reversal
    total = np.zeros(first.values.shape, dtype=np.float64 if is_real else np.complex128)
    n = int(first.orbital_offsets[-1])
    diagonal = np.zeros((4, n))  # electrons, and spin along x, y, z
    energy = 0.0
    for channel, H in enumerate(system.channels):
        for k, w in zip(levels.k, levels.weight, strict=True):
            (energies,), (C,) = eigenstates(H, system.S, k, n_drop)
            f = system.degeneracy * occupations(energies, levels.e_fermi, smearing_eV)
            energy += float(w * (f @ energies))
            P = (C * f) @ C.conj().T
            total += w * _blocks(H, P, k, is_real)
            PS = P if system.S is None else P @ overlap_at(system.S, k, H.n_spin)
            diagonal += w * _populations(PS, n, channel, len(system.channels))
    rho = Operator(first.atoms, first.basis, first.pairs, total, "1", first.is_spinful)
    counts = np.diff(first.orbital_offsets)
    atom = np.repeat(np.arange(len(counts)), counts)
    by_atom = np.zeros((4, len(counts)))
    np.add.at(by_atom.T, atom, diagonal.T)
    return Density(rho, by_atom[0], by_atom[1:].T, energy)


def _blocks(H: Operator, P: ComplexArray, k: FloatArray, is_real: bool) -> Values:
    """Return P(k) exp(-2 pi i k.R) of every pair, flat; of k and -k together if real."""
    values = np.empty(H.values.shape, dtype=np.complex128)
    phase = np.exp(-2j * np.pi * (H.pairs.R @ k))
    n = int(H.orbital_offsets[-1])
    for a, b, index in H.groups:
        rows, columns = (
            H.orbital_offsets[atoms[index]][:, None] + np.arange(H.basis.n_orb(label))
            for atoms, label in ((H.pairs.i, a), (H.pairs.j, b))
        )
        if H.is_spinful:
            rows, columns = (np.concatenate((x, x + n), axis=1) for x in (rows, columns))
        blocks = P[rows[:, :, None], columns[:, None, :]] * phase[index][:, None, None]
        put_blocks(values, H.offsets[index], blocks)
    return np.asarray(values.real if is_real else values)


def _populations(PS: ComplexArray, n: int, channel: int, n_channel: int) -> FloatArray:
    """Return electrons and spin of each orbital, ``(4, n)``."""
    if len(PS) == n:
        electrons = np.diag(PS).real
        sign = 0.0 if n_channel == 1 else (1.0, -1.0)[channel]
        zero = np.zeros(n)
        return np.stack((electrons, zero, zero, sign * electrons))
    uu, dd = np.diag(PS)[:n].real, np.diag(PS)[n:].real
    ud, du = np.diag(PS[:n, n:]), np.diag(PS[n:, :n])
    return np.stack((uu + dd, (ud + du).real, (1j * (ud - du)).real, uu - dd))
