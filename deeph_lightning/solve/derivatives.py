r"""Group velocities and effective masses, from derivatives of H(k) and S(k).

With ``H(k) = sum_R exp(i k.R) H(R)``, k Cartesian, the derivatives are sums of
``i R_a H(R)`` and ``-R_a R_b H(R)``. For states with ``C^dagger S C = 1``

.. math:: \partial_a E_n &= C_n^\dagger (\partial_a H - E_n \partial_a S) C_n , \\
   \partial_a \partial_b E_n &= C_n^\dagger (\partial_{ab} H - E_n \partial_{ab} S) C_n
   - \partial_a E_n\, C_n^\dagger \partial_b S\, C_n
   - \partial_b E_n\, C_n^\dagger \partial_a S\, C_n
   + 2 \mathrm{Re} \sum_{m \ne n} \frac{Y^a_{nm} Y^{b*}_{nm}}{E_n - E_m},

``Y^a_nm = C_n^dagger (d_a H - E_n d_a S) C_m``: second-order perturbation theory of the
generalised eigenproblem.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from deeph_lightning.errors import PhysicsError
from deeph_lightning.solve.dense import ComplexArray, FloatArray, eigenstates
from deeph_lightning.solve.system import spin_doubled
from deeph_lightning.units import HBAR2_OVER_ELECTRON_MASS

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from deeph_lightning.core.operator import Operator

#: Bands closer than this count as degenerate, eV.
DEGENERATE_EV = 1e-5
#: Newton steps to an extremum, and the longest one, 1/Å.
MAX_STEPS, MAX_STEP = 30, 0.05
#: Slope at which an extremum is reached, eV Å.
SMALL_SLOPE = 1e-7
#: Curvatures below this are those of a flat band, eV Å^2.
FLAT = 1e-6


def bloch_derivative(op: Operator, k: ArrayLike, *axes: int) -> ComplexArray:
    """Return a derivative of O(k) by Cartesian components of k.

    Parameters
    ----------
    op
        Operator, both Hermitian halves present.
    k
        ``(3,)``, fractional.
    axes
        One number of 0, 1, 2 for each derivative.

    Returns
    -------
    ``(n_orb, n_orb)``, unit of `op` times Å for each derivative.
    """
    vectors = op.pairs.R @ np.asarray(op.atoms.cell.array)
    factor = np.prod(vectors[:, list(axes)], axis=1)
    values = op.values * np.repeat(factor, np.diff(op.offsets))
    return 1j ** len(axes) * op.replace(values=values).bloch(k)


def band_slopes(H: Operator, S: Operator | None, k: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return band energies and their gradients at one k-point.

    Parameters
    ----------
    H, S
        Operators; S is doubled for a spinful H, None where the basis is orthonormal.
    k
        ``(3,)``, fractional.

    Returns
    -------
    energies, slopes
        ``(n_band,)`` eV, and ``(n_band, 3)``, ``hbar`` times the group velocity, eV Å; in
        degenerate bands the slopes along each axis, ascending, whose states may differ from
        axis to axis.
    """
    (energies,), (C,) = eigenstates(H, S, k)
    S = None if S is None else _with_spin(S, H)
    slopes = np.empty((len(energies), 3))
    for axis in range(3):
        X = C.conj().T @ bloch_derivative(H, k, axis) @ C
        if S is not None:
            X = X - (C.conj().T @ bloch_derivative(S, k, axis) @ C) * energies
        for group in _groups(energies):
            slopes[group, axis] = np.linalg.eigvalsh(X[group, group])
    return energies, slopes


def slopes_at(H: Operator, S: Operator | None, k: FloatArray) -> list[FloatArray]:
    """Return the slopes of `band_slopes` at each of ``(n_k, 3)`` k-points."""
    return [band_slopes(H, S, point)[1] for point in k]


@dataclass(frozen=True)
class EffectiveMass:
    """Curvature of a band at one k-point.

    Attributes
    ----------
    energy
        eV.
    k
        ``(3,)``, fractional.
    slope
        ``(3,)``, Cartesian, eV Å.
    curvature
        ``(3, 3)``, Cartesian second derivatives, eV Å^2.
    """

    energy: float
    k: FloatArray
    slope: FloatArray
    curvature: FloatArray

    @property
    def inverse_tensor(self) -> FloatArray:
        """``(3, 3)``, inverse of the effective mass, in units of one over the electron's."""
        return self.curvature / HBAR2_OVER_ELECTRON_MASS

    def principal(self) -> tuple[FloatArray, FloatArray]:
        """Return masses, ``(3,)`` in electron masses (inf if flat), and axes as columns."""
        values, axes = np.linalg.eigh(self.curvature)
        with np.errstate(divide="ignore"):
            masses = HBAR2_OVER_ELECTRON_MASS / values
        return np.where(np.abs(values) < FLAT, np.inf, masses), axes


def effective_mass(H: Operator, S: Operator | None, k: ArrayLike, band: int) -> EffectiveMass:
    """Return slope and curvature of one band at one k-point.

    Parameters
    ----------
    H, S
        See `band_slopes`.
    k
        ``(3,)``, fractional.
    band
        Number of the band, from 0.

    Raises
    ------
    PhysicsError
        Other bands have the same energy, but for the pair that spin makes in a spinful H: then
        the curvature is no tensor.
    """
    point = np.asarray(k, dtype=np.float64)
    (energies,), (C,) = eigenstates(H, S, point)
    group = next(g for g in _groups(energies) if g.start <= band < g.stop)
    allowed = 2 if H.is_spinful else 1
    if group.stop - group.start > allowed:
        msg = (
            f"structure '{H.name}', k = {np.round(point, 4).tolist()}: bands {group.start} to "
            f"{group.stop - 1} have the same energy; their masses depend on the direction in "
            f"a way no tensor describes. Ask a little beside this k-point: k=[...]"
        )
        raise PhysicsError(msg, structure=H.name)
    S = None if S is None else _with_spin(S, H)
    E, states = energies[band], C[:, group]
    others = np.delete(np.arange(len(energies)), np.arange(group.start, group.stop))
    first, overlap = np.empty((3, states.shape[1], len(energies)), complex), np.zeros(3)
    slope = np.empty(3)
    for a in range(3):
        D = bloch_derivative(H, point, a)
        if S is not None:
            S_a = bloch_derivative(S, point, a)
            overlap[a] = _mean(states, S_a)
            D = D - E * S_a
        first[a] = states.conj().T @ D @ C
        slope[a] = _mean(states, D)
    curvature = np.empty((3, 3))
    for a in range(3):
        for b in range(a, 3):
            D = bloch_derivative(H, point, a, b)
            if S is not None:
                D = D - E * bloch_derivative(S, point, a, b)
            Y = first[a][:, others] * first[b][:, others].conj() / (E - energies[others])
            value = _mean(states, D) + 2 * Y.real.sum() / states.shape[1]
            value -= slope[a] * overlap[b] + slope[b] * overlap[a]
            curvature[a, b] = curvature[b, a] = value
    return EffectiveMass(float(E), point, slope, curvature)


def refined_extremum(H: Operator, S: Operator | None, k: ArrayLike, band: int) -> EffectiveMass:
    """Go from a k-point to the extremum of a band nearby by Newton's method.

    Returns the starting point where the way leads to another kind of extremum, or the band
    meets others (arguments and errors of `effective_mass`).
    """
    start = effective_mass(H, S, k, band)
    found, cell = start, np.asarray(H.atoms.cell.array)
    kind = np.sign(np.trace(start.curvature))
    for _ in range(MAX_STEPS):
        if np.abs(found.slope).max() < SMALL_SLOPE:
            return found
        step = -np.linalg.pinv(found.curvature, rcond=1e-6) @ found.slope
        step = step * min(1.0, MAX_STEP / float(np.linalg.norm(step)))
        try:
            found = effective_mass(H, S, found.k + cell @ step / (2 * np.pi), band)
        except PhysicsError:
            return start
        values = np.linalg.eigvalsh(found.curvature)
        if np.any(kind * values < -FLAT):
            return start
    return start


def _with_spin(S: Operator, H: Operator) -> Operator:
    return spin_doubled(S) if H.is_spinful and not S.is_spinful else S


def _mean(states: ComplexArray, matrix: ComplexArray) -> float:
    """Average over degenerate states."""
    return float(np.einsum("mn,mk,kn->", states.conj(), matrix, states).real / states.shape[1])


def _groups(energies: FloatArray) -> list[slice]:
    """Return the ranges of degenerate bands."""
    edges = np.flatnonzero(np.diff(energies) > DEGENERATE_EV) + 1
    ends = [0, *edges.tolist(), len(energies)]
    return [slice(a, b) for a, b in pairwise(ends)]
