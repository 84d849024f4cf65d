r"""Overlaps of atomic orbitals from their radial functions.

With the spherical Bessel transforms ``p(k)`` of the radial functions, an overlap in the frame
of the bond is diagonal in m and depends on the distance alone:

.. math:: S_m(r) = 8 \sum_L (-1)^{(l - l' - L)/2} \sqrt{\frac{2L+1}{4\pi}}\, G^{L}_{l l' m}
          \int_0^\infty k^2\, p(k)\, p'(k)\, j_L(kr)\, dk

with the Gaunt coefficient ``G`` of (l, m), (l', m), (L, 0). Radial functions vanish beyond a
range, hence S does beyond the sum of two, and a sum over equidistant k that resolves it is
exact but for large k. Tables over distance are turned into the direction of each pair.

Source: T. Ozaki, H. Kino, Phys. Rev. B 72, 045121 (2005), appendix; J. D. Talman, Comput. Phys.
Commun. 180, 332 (2009).
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.special import sph_legendre_p, spherical_jn

from deeph_lightning.core.basis import OrbitalBasis, species_labels
from deeph_lightning.core.operator import Operator
from deeph_lightning.core.pairs import PairTable, neighbour_pairs
from deeph_lightning.core.ragged import block_offsets, chunks, put_blocks
from deeph_lightning.core.rotation import wigner_d
from deeph_lightning.core.two_centre import SAME_DISTANCE, bond_frames

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ase import Atoms
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]

#: Largest wave number, 1/Å; what radial functions of codes have beyond is below 1e-9.
K_MAX = 80.0
#: Distance between the nodes of tables, Å; splines are exact to 1e-9 on it.
STEP = 0.01
#: Points of the Gauss-Legendre rule in each interval of a radial grid.
_N_GAUSS = 4


class RadialFunction(NamedTuple):
    """Radial part of an orbital, ``value(r) Y_lm``.

    Attributes
    ----------
    l
        Degree.
    r
        ``(n,)``, increasing, Å. It vanishes beyond the last.
    value
        ``(n,)``, Å^(-3/2).
    """

    l: int
    r: FloatArray
    value: FloatArray

    def transform(self, k: FloatArray) -> FloatArray:
        """Return the spherical Bessel transform ``int r^2 j_l(kr) value(r) dr``, ``(n_k,)``."""
        x, weight = np.polynomial.legendre.leggauss(_N_GAUSS)
        step = np.diff(self.r)[:, None]
        r = (self.r[:-1, None] + 0.5 * step * (x + 1.0)).ravel()
        integrand = CubicSpline(self.r, self.value)(r) * r**2 * (0.5 * step * weight).ravel()
        return np.asarray(spherical_jn(self.l, np.outer(k, r)) @ integrand)


class OrbitalOverlaps:
    """Overlaps of all pairs of species.

    Parameters
    ----------
    orbitals
        ``{species label: radial functions}``, in the order of the shells.
    """

    def __init__(self, orbitals: Mapping[str, Sequence[RadialFunction]]) -> None:
        self.orbitals = {label: list(functions) for label, functions in orbitals.items()}
        self.basis = OrbitalBasis(
            {label: tuple(f.l for f in functions) for label, functions in orbitals.items()}
        )
        self._tables: dict[tuple[str, str], CubicSpline] = {}

    def reach(self, label: str) -> float:
        """Return the range of the orbitals of a species, Å."""
        return max(float(f.r[-1]) for f in self.orbitals[label])

    @cached_property
    def _k(self) -> FloatArray:
        """Wave numbers, 1/Å, that resolve the longest range."""
        longest = 2.0 * max(map(self.reach, self.orbitals))
        return np.arange(0.0, K_MAX, np.pi / (1.05 * longest))

    @cached_property
    def _transforms(self) -> dict[str, FloatArray]:
        """Transforms of each species, ``(n_shell, n_k)``."""
        return {
            label: np.array([f.transform(self._k) for f in functions])
            for label, functions in self.orbitals.items()
        }

    def two_centre(self, a: str, b: str, distance: FloatArray) -> FloatArray:
        """Return overlaps in the frame of the bond.

        Parameters
        ----------
        a, b
            Species labels.
        distance
            ``(n,)``, Å.

        Returns
        -------
        ``(n, p)``: for each pair of shells those of m = 0 ... min(l, l').
        """
        if (a, b) not in self._tables:
            nodes = np.arange(0.0, self.reach(a) + self.reach(b) + 2 * STEP, STEP)
            self._tables[a, b] = CubicSpline(nodes, self._tabulate(a, b, nodes))
        return np.asarray(self._tables[a, b](distance))

    def _tabulate(self, a: str, b: str, r: FloatArray) -> FloatArray:
        k = self._k
        shells = self.basis.shells[a], self.basis.shells[b]
        bessel = {
            L: spherical_jn(L, np.outer(r, k))
            for L in range(max(shells[0]) + max(shells[1]) + 1)
        }
        columns = []
        for n1, l1 in enumerate(shells[0]):
            for n2, l2 in enumerate(shells[1]):
                g = k**2 * self._transforms[a][n1] * self._transforms[b][n2] * k[1]
                degrees = range(abs(l1 - l2), l1 + l2 + 1, 2)
                waves = np.array([bessel[L] @ g for L in degrees])
                limit = self.orbitals[a][n1].r[-1] + self.orbitals[b][n2].r[-1]
                waves[:, r > limit] = 0.0
                columns += [
                    _factors(l1, l2, m, degrees) @ waves for m in range(min(l1, l2) + 1)
                ]
        return np.array(columns).T

    def operator(self, atoms: Atoms, pairs: PairTable | None = None) -> Operator:
        """Return S of a structure, one pair of every Hermitian couple.

        Parameters
        ----------
        atoms
            Structure.
        pairs
            Pairs to work out; without them all whose orbitals meet, and the onsite ones.

        Raises
        ------
        BasisMismatchError
            There are no orbitals of a species.
        """
        if pairs is None:
            pairs = self.pairs(atoms)
        counts = self.basis.orbital_counts(species_labels(atoms))
        offsets = block_offsets(np.column_stack((counts[pairs.i], counts[pairs.j])))
        values = np.zeros(offsets[-1])
        vectors = pairs.vectors(atoms)
        for a, b, index in pairs.groups(atoms):
            for part in chunks(len(index), 9 * self.basis.n_orb(a) * self.basis.n_orb(b)):
                which = index[part]
                put_blocks(values, offsets[which], self._blocks(a, b, vectors[which]))
        return Operator(atoms, self.basis, pairs, values, unit="1", is_half=True)

    def pairs(self, atoms: Atoms) -> PairTable:
        """Return one of each couple of pairs whose orbitals meet, and the onsite ones."""
        labels = sorted(set(species_labels(atoms).tolist()))
        self.basis.orbital_counts(labels)  # all are known
        ranges = {(a, b): self.reach(a) + self.reach(b) for a in labels for b in labels}
        found = neighbour_pairs(atoms, ranges)
        found = found.select(found.is_canonical)
        own = np.arange(len(atoms))
        return found.union(PairTable(np.zeros((len(own), 3)), own, own))

    def _blocks(self, a: str, b: str, vectors: FloatArray) -> FloatArray:
        """Return the blocks of pairs with the vectors ``(n, 3)``."""
        distance = np.linalg.norm(vectors, axis=1)
        direction = np.where(distance[:, None] > SAME_DISTANCE, vectors, [0.0, 0.0, 1.0])
        Q = bond_frames(direction)
        D = {l: wigner_d(l, Q) for l in {*self.basis.shells[a], *self.basis.shells[b]}}
        table = self.two_centre(a, b, distance)
        out = np.zeros((len(vectors), self.basis.n_orb(a), self.basis.n_orb(b)))
        column = 0
        for l, rows in zip(self.basis.shells[a], self.basis.shell_slices(a), strict=True):
            for k, columns in zip(
                self.basis.shells[b], self.basis.shell_slices(b), strict=True
            ):
                top = min(l, k)
                m = np.arange(-top, top + 1)
                diagonal = table[:, None, column + np.abs(m)]
                out[:, rows, columns] = (D[l][:, :, l + m] * diagonal) @ D[k][
                    :, :, k + m
                ].transpose(0, 2, 1)
                column += top + 1
        return out


def _factors(l1: int, l2: int, m: int, degrees: Sequence[int]) -> FloatArray:
    """Return what multiplies the waves of each degree L at order m, ``(n_L,)``."""
    x, weight = np.polynomial.legendre.leggauss(l1 + l2 + 1)  # exact
    angle = np.arccos(x)

    def harmonic(l: int, order: int) -> FloatArray:  # at azimuth 0
        return np.ravel(sph_legendre_p(l, order, angle))

    product = 2.0 * np.pi * weight * harmonic(l1, m) * harmonic(l2, m)
    return np.array(
        [
            8.0
            * (-1) ** ((l1 - l2 - L) // 2)
            * np.sqrt((2 * L + 1) / (4.0 * np.pi))
            * (product @ harmonic(L, 0))
            for L in degrees
        ]
    )
