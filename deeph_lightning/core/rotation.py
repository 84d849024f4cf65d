"""Wigner matrices of real harmonics and rotations of spinors; no Euler angles."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from deeph_lightning.core.conventions import AXIS_OF_M
from deeph_lightning.errors import ShapeError

if TYPE_CHECKING:
    from deeph_lightning.core.basis import OrbitalBasis

FloatArray = NDArray[np.float64]
ORTHOGONAL_TOL = 1e-6


def check_orthogonal(Q: ArrayLike) -> FloatArray:
    """Return Q, ``(..., 3, 3)``, as float64; raise `ShapeError` unless it is orthogonal."""
    array = np.asarray(Q, dtype=np.float64)
    if array.ndim < 2 or array.shape[-2:] != (3, 3):
        raise ShapeError(f"rotation has shape {array.shape}, expected (..., 3, 3)")
    error = np.abs(array @ np.swapaxes(array, -1, -2) - np.eye(3)).max(initial=0.0)
    if not error <= ORTHOGONAL_TOL:
        msg = (
            f"rotation is not orthogonal: Q Q^T differs from 1 by {error:.1e}, tolerance "
            f"{ORTHOGONAL_TOL:.0e}. Give rotations or reflections in Cartesian axes."
        )
        raise ShapeError(msg)
    return array


def wigner_d(l: int, Q: ArrayLike) -> FloatArray:
    """Compute the Wigner matrix of degree l, for rotations and reflections.

    Real harmonics of `conventions`; D acts on columns, ``Y(Q v) = D(Q) Y(v)``, so that
    ``D(Q1 Q2) = D(Q1) D(Q2)``. An improper Q has the parity (-1)^l of real harmonics.

    Parameters
    ----------
    l
        Degree.
    Q
        ``(..., 3, 3)``, orthogonal, Cartesian.

    Returns
    -------
    ``(..., 2l+1, 2l+1)``, orthogonal.

    Raises
    ------
    ShapeError
        `Q` is not orthogonal to 1e-6.

    Notes
    -----
    The entries are polynomials of those of Q. Source: J. Ivanic, K. Ruedenberg, J. Phys. Chem.
    100, 6342 (1996), with the erratum of 102, 9099 (1998).
    """
    rotation = check_orthogonal(Q)
    sign = np.linalg.det(rotation) if rotation.size else np.ones(rotation.shape[:-2])
    sign = np.sign(sign)[..., None, None]
    axes = list(AXIS_OF_M)
    first = (rotation * sign)[..., axes, :][..., axes]
    D = np.ones((*rotation.shape[:-2], 1, 1))
    for degree in range(1, l + 1):
        D = first if degree == 1 else _next_degree(first, D, degree)
    return D * sign**l


def _next_degree(first: FloatArray, lower: FloatArray, l: int) -> FloatArray:
    """Return the matrix of degree l from those of degrees 1 and l - 1."""

    def product(i: int, a: int, b: int) -> Any:
        """P_i(l; a, b); `a` runs over orders of degree l - 1."""
        row, top = a + l - 1, 2 * l - 2
        if b == l:
            return (first[..., i + 1, 2] * lower[..., row, top]
                    - first[..., i + 1, 0] * lower[..., row, 0])  # fmt: skip
        if b == -l:
            return (first[..., i + 1, 2] * lower[..., row, 0]
                    + first[..., i + 1, 0] * lower[..., row, top])  # fmt: skip
        return first[..., i + 1, 1] * lower[..., row, b + l - 1]

    out = np.zeros((*first.shape[:-2], 2 * l + 1, 2 * l + 1))
    for m in range(-l, l + 1):
        for n in range(-l, l + 1):
            norm = 2 * l * (2 * l - 1) if abs(n) == l else (l + n) * (l - n)
            element = 0.0
            if abs(m) < l:
                element = math.sqrt((l + m) * (l - m) / norm) * product(0, m, n)
            element = element + _v_weight(l, m, norm) * _v_term(product, m, n)
            if m != 0 and l - abs(m) - 1 > 0:
                weight = -0.5 * math.sqrt((l - abs(m) - 1) * (l - abs(m)) / norm)
                element = element + weight * _w_term(product, m, n)
            out[..., m + l, n + l] = element
    return out


def _v_weight(l: int, m: int, norm: int) -> float:
    value = 0.5 * math.sqrt((l + abs(m) - 1) * (l + abs(m)) / norm)
    return -math.sqrt(2.0) * value if m == 0 else value


def _v_term(product: Any, m: int, n: int) -> Any:
    if m == 0:
        return product(1, 1, n) + product(-1, -1, n)
    if m == 1:
        return math.sqrt(2.0) * product(1, 0, n)
    if m == -1:
        return math.sqrt(2.0) * product(-1, 0, n)
    if m > 0:
        return product(1, m - 1, n) - product(-1, -m + 1, n)
    return product(1, m + 1, n) + product(-1, -m - 1, n)


def _w_term(product: Any, m: int, n: int) -> Any:
    if m > 0:
        return product(1, m + 1, n) + product(-1, -m - 1, n)
    return product(1, m - 1, n) - product(-1, -m + 1, n)


def orbital_rotation(basis: OrbitalBasis, label: str, Q: ArrayLike) -> FloatArray:
    """Return the matrix that turns all orbitals of a species, ``(n_orb, n_orb)``."""
    size = basis.n_orb(label)
    D = np.zeros((size, size))
    by_degree = {l: wigner_d(l, Q) for l in set(basis.shells[label])}
    for l, where in zip(basis.shells[label], basis.shell_slices(label), strict=True):
        D[where, where] = by_degree[l]
    return D


def spin_rotation(Q: ArrayLike) -> NDArray[np.complex128]:
    """Return the SU(2) matrix of Q, ``(2, 2)``; inversion leaves spin alone.

    The sign, which no block depends on, is free.
    """
    rotation = check_orthogonal(Q)
    proper = rotation * np.sign(np.linalg.det(rotation))
    x, y, z, w = Rotation.from_matrix(proper).as_quat()
    return np.array([[w - 1j * z, -y - 1j * x], [y - 1j * x, w + 1j * z]])
