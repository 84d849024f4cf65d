r"""The conventions of the package: the only place that states them.

Units
    Energies in eV, lengths in Å; overlap and density matrices have no unit.
Blocks
    ``O[R, i, j] = <phi_i, cell 0 | O | phi_j, cell R>``, shape ``(n_orb[i], n_orb[j])``, with R
    an integer triple in units of the lattice vectors (rows of ``cell``). The vector of a block
    is ``r = tau_j + R @ cell - tau_i``.
Bloch sums
    ``O(k) = sum_R exp(+2 pi i k.R) O[R]``, k in fractional coordinates of the reciprocal cell,
    without 2 pi. The phase depends on the cell only, not on the atoms' positions.
Hermiticity
    ``O[R, i, j] = O[-R, j, i]^dagger``. A *half* operator keeps one pair of each couple; the
    *canonical* pair is the lexicographically smaller of ``(i, j, R)`` and ``(j, i, -R)``. An
    onsite pair, i = j and R = 0, is its own partner.
Harmonics
    Real, m = -l..l, without Condon-Shortley phase: p is (y, z, x), d is (xy, yz, 3z2-r2, xz,
    x2-y2). These are e3nn's functions of the vector `vector_to_harmonic`. D acts on columns:
    ``Y(Q v) = D(Q) Y(v)``, and blocks turn as ``D_i(Q) O D_j(Q)^T``.
Orbitals of an atom
    Shell after shell in the order of the basis, each 2l+1 long.
Spin
    A spinful block is ``[[uu, ud], [du, dd]]``: spin is the slower index. In H(k) all up
    orbitals come first, then all down. S never has spin; it is doubled on the fly, diag(S, S).

Orbital orders of the codes: ``common[q] = sign[q] * code[take[q]]`` with q over m = -l..l.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from deeph_lightning.errors import ConfigError, ShapeError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

#: Letters of l = 0, 1, 2, ...
SHELL_LETTERS = "spdfgh"

#: Cartesian axis (x = 0, y = 1, z = 2) of the harmonics m = -1, 0, 1.
AXIS_OF_M = (1, 2, 0)


class OrbitalOrder(NamedTuple):
    """Order and signs of a code's real harmonics.

    Attributes
    ----------
    order
        "ascending": m = -l..l; "alternating": m = 0, +1, -1, +2, -2, ...; "openmx": p is
        (x, y, z), d is (3z2-r2, x2-y2, xy, xz, yz), from f on alternating; "cartesian_p": p is
        (x, y, z), from d on ascending.
    sign
        "plus": all +; "condon_shortley": (-1)^m; "aims": - for odd positive m.
    """

    order: str
    sign: str


#: Orbital orders by code.
ORBITAL_ORDERS: dict[str, OrbitalOrder] = {
    "common": OrbitalOrder("ascending", "plus"),
    "deeph": OrbitalOrder("ascending", "plus"),
    "deeptb": OrbitalOrder("ascending", "plus"),
    "hpro": OrbitalOrder("ascending", "plus"),
    "dftbplus": OrbitalOrder("ascending", "plus"),
    "deeph_legacy": OrbitalOrder("openmx", "plus"),
    "openmx": OrbitalOrder("openmx", "plus"),
    "abacus": OrbitalOrder("alternating", "condon_shortley"),
    "wannier90": OrbitalOrder("alternating", "plus"),
    "siesta": OrbitalOrder("ascending", "condon_shortley"),
    "fhi_aims": OrbitalOrder("ascending", "aims"),
    "pyscf": OrbitalOrder("cartesian_p", "plus"),
}


def vector_to_harmonic(vectors: ArrayLike) -> NDArray[np.float64]:
    """Permute (x, y, z) to (y, z, x), the order of m = -1, 0, 1.

    Parameters
    ----------
    vectors
        ``(..., 3)``, Cartesian.

    Raises
    ------
    ShapeError
        The last axis is not of length three.
    """
    array = np.asarray(vectors, dtype=np.float64)
    if array.ndim == 0 or array.shape[-1] != 3:
        raise ShapeError(f"vectors have shape {array.shape}, expected (..., 3)")
    return array[..., list(AXIS_OF_M)]


@lru_cache(maxsize=128)
def shell_permutation(order_name: str, l: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return how a code's shell becomes one of the common order.

    Parameters
    ----------
    order_name
        A key of `ORBITAL_ORDERS`.
    l
        Degree of the shell.

    Returns
    -------
    take, sign
        ``(2l+1,)`` each: ``common = sign * code[take]`` and ``code[take] = sign * common``.

    Raises
    ------
    ConfigError
        The code is unknown.
    """
    if order_name not in ORBITAL_ORDERS:
        msg = (
            f"orbital order '{order_name}' is unknown. Known orders: "
            f"{', '.join(ORBITAL_ORDERS)}."
        )
        raise ConfigError(msg, key="convention")
    order, sign_rule = ORBITAL_ORDERS[order_name]
    m = np.arange(-l, l + 1)
    take = m + l
    if (order == "openmx" and l >= 3) or order == "alternating":
        take = np.where(m > 0, 2 * m - 1, -2 * m)
    elif l == 1 and order in ("openmx", "cartesian_p"):
        take = np.array([1, 2, 0])
    elif l == 2 and order == "openmx":
        take = np.array([2, 4, 0, 3, 1])
    is_odd = m % 2 == 1
    if sign_rule == "condon_shortley":
        sign = np.where(is_odd, -1, 1)
    elif sign_rule == "aims":
        sign = np.where(is_odd & (m > 0), -1, 1)
    else:
        sign = np.ones_like(m)
    take, sign = take.astype(np.int64), sign.astype(np.int64)
    take.setflags(write=False)  # the cache hands the same arrays to everybody
    sign.setflags(write=False)
    return take, sign
