"""Chebyshev moments of one k-point: the recursion on vectors (see `kpm`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from deeph_lightning.solve.kloop import tracked
from deeph_lightning.solve.pardiso import Pardiso

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from deeph_lightning.solve.factorisation import Factorisation
    from deeph_lightning.solve.levels import FloatArray
    from deeph_lightning.solve.pencil import PencilAtK


def moments_at(
    matrices: PencilAtK,
    factors: Factorisation,
    group: NDArray[np.int64],
    centre: float,
    half_width: float,
    n_moments: int,
    n_vectors: int,
    *,
    seed: int,
    k: ArrayLike,
    track: Callable[..., Any] | None = None,
) -> FloatArray:
    """Return the moments of groups of orbitals at one k-point, ``(n_group, n_moments)``.

    Parameters
    ----------
    matrices, factors
        H and S, and the factors of S.
    group
        ``(n_orb,)``, group of each row.
    centre, half_width, n_moments, n_vectors, seed
        See `Chebyshev` and `chebyshev_dos`.
    k
        ``(3,)``, decides on the random numbers, with the seed.
    track
        Wraps the steps as ``track(steps, total=n)``, to show progress.

    Notes
    -----
    For the total alone, PARDISO's factors give random vectors t of covariance S^-1. Then
    ``mu_n = <t| S T_n |t>``, and as X is Hermitian for the product by S, the products of T_n t
    with itself and with the one after it are moments 2n and 2n + 1: half of the work. S itself
    is not needed, ``s_n = S t_n`` follows the same recursion.
    """
    n_orb, n_group = len(group), int(group.max()) + 1
    vectors = _start(n_orb, n_vectors, seed, np.asarray(k), matrices.H.dtype)
    norm = 1 if n_vectors >= n_orb else n_vectors
    if n_group == 1 and isinstance(factors, Pardiso):
        total = _doubled(matrices, factors, vectors, centre, half_width, n_moments, track)
        return total / norm

    def apply(v: NDArray[Any]) -> NDArray[Any]:
        return (factors.solve(matrices.H @ v) - centre * v) / half_width

    before, now = vectors, apply(vectors)
    moments = np.zeros((n_group, n_moments))
    for n in tracked(range(n_moments), n_moments, track):
        current = (before, now)[min(n, 1)]
        np.add.at(moments[:, n], group, (vectors.conj() * current).real.sum(axis=1))
        if 1 <= n < n_moments - 1:
            before, now = now, 2 * apply(now) - before
    return moments / norm


def _doubled(
    matrices: PencilAtK,
    factors: Pardiso,
    vectors: NDArray[Any],
    centre: float,
    half_width: float,
    n_moments: int,
    track: Callable[..., Any] | None,
) -> FloatArray:
    """Return the sum of moments over vectors, ``(1, n_moments)``: two by each step."""
    t = factors.solve_half(vectors).astype(matrices.H.dtype)
    s = matrices.S @ t
    s_next = (matrices.H @ t - centre * s) / half_width
    first, second = np.vdot(t, s).real, np.vdot(t, s_next).real
    moments = np.zeros((1, n_moments))
    steps = range(0, n_moments, 2)
    for n in tracked(steps, len(steps), track):
        if n:
            t = factors.solve(s_next)
            rest = 2 * (matrices.H @ t - centre * s_next) / half_width - s
            s, s_next = s_next, rest
        moments[0, n : n + 2] = (
            2 * np.vdot(t, s).real - first, 2 * np.vdot(t, s_next).real - second
        )[: n_moments - n]  # fmt: skip
    return moments


def _start(n_orb: int, n_vectors: int, seed: int, k: FloatArray, dtype: Any) -> NDArray[Any]:
    """Return random-phase vectors (signs for real matrices), or the unit vectors."""
    if n_vectors >= n_orb:
        return np.eye(n_orb, dtype=dtype)
    # another draw at every k-point, the same in whatever process it is solved
    rng = np.random.default_rng([seed, *np.round(k * 2**40).astype(np.int64) % 2**62])
    if not np.issubdtype(dtype, np.complexfloating):
        return rng.choice((-1.0, 1.0), size=(n_orb, n_vectors))
    return np.exp(2j * np.pi * rng.uniform(size=(n_orb, n_vectors)))
