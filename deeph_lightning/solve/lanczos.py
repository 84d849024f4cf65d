"""States nearest to a shift by block Lanczos on ``(H - shift S)^-1 S``.

All vectors are kept and orthogonal, so that the space is a block Krylov space to rounding. A
block finds degenerate states together, and costs solvers and matrices far less than its vectors
one by one.

Source: R. G. Grimes, J. G. Lewis, H. D. Simon, SIAM J. Matrix Anal. Appl. 15, 228 (1994).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import linalg

from deeph_lightning.errors import PhysicsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

#: Vectors of a block.
BLOCK = 16
#: Residual of a converged vector, relative to its eigenvalue of the inverse.
TOLERANCE = 1e-9
#: Squared lengths so much smaller than the longest of a block are rounding.
DEPENDENT = 1e-13
#: The space holds at most so many times the vectors that are sought, and some blocks.
MAX_GROWTH, MAX_BLOCKS = 6, 12


def nearest_vectors(
    inverse: Callable[[NDArray[Any]], NDArray[Any]],
    S: Any,
    n_vector: int,
    dtype: np.dtype[Any],
) -> NDArray[Any]:
    """Return the vectors of the largest eigenvalues, by modulus, of ``inverse S``.

    Parameters
    ----------
    inverse
        Solves with H - shift S, ``(n, m)``.
    S
        Positive definite, multiplies with ``(n, m)``.
    n_vector
        How many.
    dtype
        Of H and S.

    Returns
    -------
    ``(n, n_vector)``, orthonormal by S.

    Raises
    ------
    PhysicsError
        They do not converge.
    """
    n = S.shape[0]
    limit = min(n, MAX_GROWTH * n_vector + MAX_BLOCKS * BLOCK)
    V, SV = (np.empty((n, limit), dtype=dtype, order="F") for _ in range(2))
    T, m = np.zeros((limit, limit), dtype=dtype), 0
    block = np.random.default_rng(0).normal(size=(n, min(BLOCK, limit))).astype(dtype)
    while True:
        block, S_block = _orthonormal(block, S)
        new = slice(m, m + block.shape[1])
        V[:, new], SV[:, new], m = block, S_block, new.stop
        image = inverse(S_block)
        T[:m, new] = SV[:, :m].conj().T @ image
        T[new, :m] = T[:m, new].conj().T
        values, turn = linalg.eigh(T[:m, :m])
        best = np.argsort(-np.abs(values))[:n_vector]
        block = image - V[:, :m] @ T[:m, new]
        block -= V[:, :m] @ (SV[:, :m].conj().T @ block)  # rounding of the first time
        gram = block.conj().T @ (S @ block)
        last = turn[new, best]
        error = np.sqrt(np.einsum("ia,ij,ja->a", last.conj(), gram, last).real.clip(0))
        is_done = error <= TOLERANCE * np.abs(values[best])
        if m >= n_vector and is_done.all():
            return np.asarray(V[:, :m] @ turn[:, best])
        if m == limit:
            msg = f"of {n_vector} states, {int(is_done.sum())} converged"
            raise PhysicsError(msg)
        block = block[:, : limit - m]


def _orthonormal(block: NDArray[Any], S: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return vectors orthonormal by S that span a block, and S times them."""
    for _ in range(2):  # the second time makes up for rounding of the first
        S_block = S @ block
        size, turn = linalg.eigh(block.conj().T @ S_block)
        keep = size > DEPENDENT * size[-1]
        scaled = turn[:, keep] / np.sqrt(size[keep])
        block, S_block = block @ scaled, S_block @ scaled
    return block, S_block
