r"""Densities of states of very large systems by Chebyshev polynomials (kernel polynomials).

In a non-orthogonal basis the states are those of ``X = S^{-1} H``, and
``Tr delta(E - X)`` is their density. Rescaled to (-1, 1), X has the moments
``mu_n = Tr T_n(X)``, taken with random-phase vectors; the Jackson kernel damps them. The
diagonal of ``delta(E - X)`` is the Mulliken-projected density, so that the same vectors give
the local density of any group of orbitals.

Source: A. Weisse, G. Wellein, A. Alvermann, H. Fehske, Rev. Mod. Phys. 78, 275 (2006).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import optimize
from scipy.linalg import eigh_tridiagonal

from deeph_lightning.errors import PhysicsError
from deeph_lightning.solve.factorisation import MAX_RESIDUAL, library, residual
from deeph_lightning.solve.kloop import map_k
from deeph_lightning.solve.levels import FloatArray
from deeph_lightning.solve.moments import moments_at
from deeph_lightning.solve.precision import ordered

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from deeph_lightning.solve.factorisation import Factorisation
    from deeph_lightning.solve.pencil import Pencil, PencilAtK

#: The spectrum fills this part of (-1, 1).
FILLING = 0.98
#: Relative residual of S with factors in single precision above which S is not to be trusted.
MAX_SINGLE_RESIDUAL = 1e-2
#: Steps of Lanczos for bounds of the spectrum.
LANCZOS_STEPS = 30
#: A residual of this size, relative to the eigenvalues, is zero: the start has no more states.
EXHAUSTED = 1e-10


@dataclass(frozen=True)
class Chebyshev:
    """A density of states as damped Chebyshev moments.

    Attributes
    ----------
    moments
        ``(n_group, N)``, of T_n, summed over k with their weights, undamped.
    centre, half_width
        ``E = centre + half_width x``, eV.
    """

    moments: FloatArray
    centre: float
    half_width: float

    @property
    def resolution(self) -> float:
        """Width of the kernel (standard deviation at the centre), eV."""
        return float(np.pi * self.half_width / self.moments.shape[1])

    def density(self, energies: ArrayLike) -> FloatArray:
        """Return states per eV, ``(n_group, n)``; zero outside the spectrum."""
        x = (np.asarray(energies, dtype=np.float64) - self.centre) / self.half_width
        inside = np.abs(x) < 1
        result = np.zeros((len(self.moments), len(x)))
        angle = np.arccos(x[inside])
        polynomials = np.cos(np.outer(np.arange(self.moments.shape[1]), angle))
        scale = np.pi * self.half_width * np.sin(angle)
        result[:, inside] = self._damped() @ polynomials / scale
        return result

    def count(self, energy: float) -> FloatArray:
        """Return the states below an energy, ``(n_group,)``: the integral of `density`."""
        x = np.clip((energy - self.centre) / self.half_width, -1, 1)
        angle, damped = np.arccos(x), self._damped()
        n = np.arange(1, self.moments.shape[1])
        return np.asarray(
            damped[:, 0] * (1 - angle / np.pi) - damped[:, 1:] @ (np.sin(n * angle) / n) / np.pi
        )

    def fermi_level(self, n_states: float) -> float:
        """Return the energy below which all groups together hold a number of states, eV.

        Raises
        ------
        PhysicsError
            They do not fit.
        """
        if not 0 < n_states < self.moments[:, 0].sum():
            msg = f"{n_states:g} states do not fit into {self.moments[:, 0].sum():g} orbitals"
            raise PhysicsError(msg)
        low, high = self.centre - self.half_width, self.centre + self.half_width
        return float(
            optimize.brentq(lambda E: self.count(E).sum() - n_states, low, high, xtol=1e-9)
        )

    def _damped(self) -> FloatArray:
        factor = 2 * jackson(self.moments.shape[1])
        factor[0] /= 2
        return np.asarray(self.moments * factor)


def jackson(n: int) -> FloatArray:
    """Return the Jackson kernel, ``(n,)``; its first element is one."""
    m, angle = np.arange(n), np.pi / (n + 1)
    cotangent = np.cos(angle) / np.sin(angle)
    values = (n - m + 1) * np.cos(m * angle) + np.sin(m * angle) * cotangent
    return np.asarray(values / (n + 1))


def count_noise(n_states: float, n_random: float) -> float:
    """Return the standard deviation of a number of states that random vectors count.

    Parameters
    ----------
    n_states
        States below the energy.
    n_random
        Random vectors, over all k-points.

    Notes
    -----
    For a projector P in an orthonormal basis and signs g, ``g P g`` has the variance
    ``2 sum_{i != j} |P_ij|^2``, at most twice its trace; with complex phases half of it.
    """
    return float(np.sqrt(2 * n_states / n_random))


def chebyshev_dos(
    pencil: Pencil,
    k: ArrayLike,
    weight: ArrayLike,
    n_moments: int,
    n_vectors: int,
    *,
    group: NDArray[np.int64] | None = None,
    seed: int = 0,
    library_name: str = "auto",
    precision: str = "auto",
    memory_limit: float | None = None,
    n_jobs: int = 1,
    track: Callable[..., Any] | None = None,
) -> Chebyshev:
    """Compute Chebyshev moments of one spin channel.

    Parameters
    ----------
    pencil
        H - E S.
    k, weight
        ``(n_k, 3)`` fractional, and ``(n_k,)`` of sum one.
    n_moments
        Number of polynomials; the resolution is pi times half the width of the spectrum over
        it.
    n_vectors
        Random-phase vectors at each k-point. As many as orbitals or more: unit vectors
        instead, which give the trace exactly.
    group
        ``(n_orb,)``, group of each orbital for local densities; without it one of all.
    seed
        Of the random phases.
    library_name, precision, memory_limit
        Factorisation of S, see `precision.ordered`. Single precision is that of another S,
        nearer to this one than 1e-6.
    n_jobs, track
        See `kloop.map_k`.

    Raises
    ------
    ResourceError
        S does not fit into memory when factorised.
    """
    points, w = np.atleast_2d(np.asarray(k, dtype=np.float64)), np.asarray(weight)
    zeros = np.zeros(pencil.n_orb, dtype=np.int64)
    group = zeros if group is None else group[pencil.orbital]
    prepared = _Prepared(pencil, library(library_name), precision, memory_limit)
    ends = np.array(map_k(partial(_ends, prepared), points, n_jobs))
    low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
    centre, half_width = 0.5 * (low + high), 0.5 * (high - low) / FILLING
    task = partial(_moments, prepared, centre, half_width, n_moments, n_vectors, group, seed)
    if len(points) == 1:  # progress is that of the moments
        moments = task(points, track=track)
    else:
        moments = map_k(task, points, n_jobs, track)
    return Chebyshev(np.einsum("k,kgn->gn", w, moments), centre, half_width)


def overlap_factors(
    matrices: PencilAtK,
    pencil: Pencil,
    name: str,
    precision: str = "auto",
    limit: float | None = None,
) -> Factorisation:
    """Factorise S at one k-point (arguments of `chebyshev_dos`)."""
    factors = ordered(
        matrices.S, pencil.row_block,
        f"structure '{pencil.name}': factorising S of {pencil.n_orb} orbitals",
        "Use fewer processes (n_jobs), or a machine with more memory",
        name=name, precision=precision, limit=limit, is_overlap=True,
    )  # fmt: skip
    factors.factorise(matrices.S)
    is_single = factors.solve(np.zeros(pencil.n_orb)).dtype.itemsize < matrices.S.dtype.itemsize
    error = residual(factors, matrices.S)
    if error > (MAX_SINGLE_RESIDUAL if is_single else MAX_RESIDUAL):
        msg = (
            f"structure '{pencil.name}': S cannot be factorised accurately by {name} (relative "
            f"residual {error:.1e}). Take another library: factorisation=..."
        )
        raise PhysicsError(msg, structure=pencil.name)
    return factors


def spectrum_ends(matrices: PencilAtK, factors: Factorisation) -> tuple[float, float]:
    """Return bounds of the spectrum at one k-point, eV: it lies between them.

    The extreme Ritz values of some steps of Lanczos for S^-1 H, less and plus the norms of
    their residuals (Y. Zhou, R.-C. Li, Linear Algebra Appl. 435, 480 (2011)). Eigenvalues
    themselves would take ten times as many steps, and a margin all the same.
    """
    q: Any = np.random.default_rng(0).normal(size=matrices.H.shape[0])
    S_q = matrices.S @ q.astype(matrices.H.dtype)
    norm = np.sqrt(np.vdot(q, S_q).real)
    q, S_q, S_q_before = q / norm, S_q / norm, np.zeros_like(S_q)
    diagonal: list[float] = []
    beside = [0.0]
    while len(diagonal) < min(LANCZOS_STEPS, len(q)):
        S_r = matrices.H @ q - beside[-1] * S_q_before
        diagonal.append(float(np.vdot(q, S_r).real))
        S_r -= diagonal[-1] * S_q
        r = factors.solve(S_r)
        beside.append(float(np.sqrt(max(np.vdot(r, S_r).real, 0.0))))
        if beside[-1] < EXHAUSTED * np.abs(diagonal).max():
            break
        q, S_q, S_q_before = r / beside[-1], S_r / beside[-1], S_q
    values, vectors = eigh_tridiagonal(diagonal, beside[1:-1])
    error = beside[-1] * np.abs(vectors[-1])
    return float(values[0] - error[0]), float(values[-1] + error[-1])


class _Prepared:
    """Matrices at a k-point with the inverse of S; the last ones are kept."""

    def __init__(self, pencil: Pencil, name: str, precision: str, limit: float | None) -> None:
        self.pencil, self._factors = pencil, (name, precision, limit)
        self._last: tuple[bytes, PencilAtK, Factorisation] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # libraries hold memory of their own, which no other process can use
        return self.__dict__ | {"_last": None}

    def at(self, k: FloatArray) -> tuple[PencilAtK, Factorisation]:
        if self._last is None or self._last[0] != k.tobytes():
            self._last = None  # its memory counts
            matrices = self.pencil.at(k)
            factors = overlap_factors(matrices, self.pencil, *self._factors)
            self._last = (k.tobytes(), matrices, factors)
        return self._last[1:]


def _ends(prepared: _Prepared, k: FloatArray) -> list[tuple[float, float]]:
    return [spectrum_ends(*prepared.at(point)) for point in k]


def _moments(
    prepared: _Prepared,
    centre: float,
    half_width: float,
    n_moments: int,
    n_vectors: int,
    group: NDArray[np.int64],
    seed: int,
    k: FloatArray,
    track: Callable[..., Any] | None = None,
) -> list[FloatArray]:
    found = []
    for point in k:
        matrices, factors = prepared.at(point)
        found.append(
            moments_at(
                matrices, factors, group, centre, half_width, n_moments, n_vectors,
                seed=seed, k=point, track=track,
            )
        )  # fmt: skip
    return found
