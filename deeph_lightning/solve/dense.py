"""Dense generalised eigenproblems H(k) C = S(k) C E, k-grids and the Fermi level."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg, optimize, special

from deeph_lightning.errors import OverlapNotPositiveError, PhysicsError, ShapeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ase import Atoms

    from deeph_lightning.core.operator import Operator

FloatArray = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]

#: A gap wider than this many smearing widths puts the Fermi level at its middle.
GAP_WIDTHS = 5.0


def kgrid(
    size: ArrayLike, *, is_gamma_centred: bool = True, time_reversal: bool = False
) -> tuple[FloatArray, FloatArray]:
    """Return a uniform grid of k-points.

    Parameters
    ----------
    size
        ``(3,)`` positive integers.
    is_gamma_centred
        ``k = n / size``; else Monkhorst and Pack's ``k = (2n + 1 - size) / (2 size)``, which
        is the same for odd sizes, up to a reciprocal vector.
    time_reversal
        Keep one of k and -k: E(k) = E(-k) for real H, and for any without magnetism.

    Returns
    -------
    k, weight
        ``(n_k, 3)`` fractional, and ``(n_k,)``, of sum one.

    Raises
    ------
    ShapeError
        `size` is not three positive integers.

    Notes
    -----
    Source: H. J. Monkhorst, J. D. Pack, Phys. Rev. B 13, 5188 (1976).
    """
    counts = np.asarray(size, dtype=np.int64)
    if counts.shape != (3,) or np.any(counts < 1):
        raise ShapeError(f"k-grid is {counts.tolist()}, expected three positive integers")
    grid = np.meshgrid(*(np.arange(n) for n in counts), indexing="ij")
    n = np.stack(grid, axis=-1).reshape(-1, 3)
    if is_gamma_centred:
        k, minus = n / counts, -n % counts
    else:
        k, minus = (2 * n + 1 - counts) / (2 * counts), counts - 1 - n
    weight = np.full(len(k), 1.0 / len(k))
    if not time_reversal:
        return k, weight
    kept, times = np.unique(_first_of_pair(counts, minus), return_counts=True)
    return k[kept], times / len(k)


def unfolded(values: ArrayLike, size: ArrayLike, axis: int = 0) -> FloatArray:
    """Put values of a grid reduced by time reversal on the whole Gamma-centred grid.

    Parameters
    ----------
    values
        One entry along `axis` for each k-point of ``kgrid(size, time_reversal=True)``, or
        for each of the whole grid, which is returned as it is.
    size
        ``(3,)`` points along each axis.
    axis
        The axis of k-points.
    """
    counts, array = np.asarray(size, dtype=np.int64), np.asarray(values)
    if array.shape[axis] == np.prod(counts):
        return array
    n = np.stack(np.meshgrid(*(np.arange(m) for m in counts), indexing="ij"), axis=-1)
    _, index = np.unique(
        _first_of_pair(counts, -n.reshape(-1, 3) % counts), return_inverse=True
    )
    return np.take(array, index, axis=axis)


def _first_of_pair(counts: NDArray[np.int64], minus: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the smaller of the numbers of k and -k, for each k of a grid."""
    partner = np.ravel_multi_index(tuple(minus.T), tuple(counts.tolist()))
    return np.minimum(partner, np.arange(len(minus)))


def grid_size(
    atoms: Atoms, k_spacing: float, n_k_min: int = 1, *, is_periodic: ArrayLike | None = None
) -> tuple[int, int, int]:
    """Return the size of a grid of a given density.

    Parameters
    ----------
    atoms
        Structure.
    k_spacing
        Distance of grid points aimed at, 1/Å with 2 pi.
    n_k_min
        Smallest number of points along a periodic direction.
    is_periodic
        ``(3,)``: directions with a dispersion; without it ``atoms.pbc``. Others get one point.
    """
    pbc = np.asarray(atoms.pbc if is_periodic is None else is_periodic, dtype=np.bool_)
    reciprocal = 2 * np.pi * np.linalg.norm(atoms.cell.reciprocal(), axis=1)
    wanted = np.rint(reciprocal / k_spacing).astype(int)
    size = np.where(pbc, np.maximum(wanted, n_k_min), 1)
    return int(size[0]), int(size[1]), int(size[2])


def eigenvalues(H: Operator, S: Operator | None, k: ArrayLike, n_drop: int = 0) -> FloatArray:
    """Return the band energies at a list of k-points.

    Parameters
    ----------
    H
        Hamiltonian.
    S
        Overlap, on its own pairs, spinless (it is doubled for a spinful H); None where the
        basis is orthonormal.
    k
        ``(n_k, 3)`` or ``(3,)``, fractional, without 2 pi.
    n_drop
        Eigenvectors of S(k) left out at every k-point, those of its smallest eigenvalues
        (canonical orthogonalisation; see `conditioning.overlap_condition`).

    Returns
    -------
    ``(n_k, n_orb - n_drop)``, ascending, in the unit of H.

    Raises
    ------
    OverlapNotPositiveError
        S(k) is not positive definite.
    ShapeError
        H and S are not of the same orbitals, or `k` is not a list of k-points.
    """
    solutions = [_solve(*matrices, True, n_drop) for matrices in _matrices(H, S, k)]
    return np.array(solutions, dtype=np.float64).reshape(-1, H.n_orb - n_drop)


def eigenstates(
    H: Operator, S: Operator | None, k: ArrayLike, n_drop: int = 0
) -> tuple[FloatArray, ComplexArray]:
    """Return band energies and coefficients (arguments and errors as of `eigenvalues`).

    Returns
    -------
    energies, coefficients
        ``(n_k, n_band)`` ascending, and ``(n_k, n_orb, n_band)``: column n of each matrix is
        band n, with ``C^dagger S(k) C = 1``, in the phases of `core.bloch`.
    """
    solutions = [_solve(*matrices, False, n_drop) for matrices in _matrices(H, S, k)]
    energies = np.array([solution[0] for solution in solutions])
    return energies, np.array([solution[1] for solution in solutions], dtype=np.complex128)


def _matrices(
    H: Operator, S: Operator | None, k: ArrayLike
) -> Iterator[tuple[ComplexArray, NDArray[Any] | None, FloatArray, str]]:
    points = np.atleast_2d(np.asarray(k, dtype=np.float64))
    if points.ndim != 2 or points.shape[1] != 3:
        raise ShapeError(f"k-points have shape {np.shape(k)}, expected (n_k, 3)")
    if S is not None and (
        not np.array_equal(H.orbital_offsets, S.orbital_offsets) or S.n_spin > H.n_spin
    ):
        msg = (
            f"structure '{H.name}': H has {H.orbital_offsets[-1]} orbitals on {len(H.atoms)} "
            f"atoms, S has {S.orbital_offsets[-1]} on {len(S.atoms)}. They must be of the same "
            f"structure and basis."
        )
        raise ShapeError(msg)
    for point in points:
        if S is None:
            yield H.bloch(point), None, point, H.name
        else:
            yield H.bloch(point), overlap_at(S, point, H.n_spin), point, H.name


def overlap_at(S: Operator, k: ArrayLike, n_spin: int = 1) -> ComplexArray:
    """Return S(k), ``(n_orb, n_orb)``, doubled for a spinful H (`n_spin` two)."""
    return np.asarray(np.kron(np.eye(n_spin // S.n_spin), S.bloch(k)))


def _solve(
    H_k: ComplexArray,
    S_k: NDArray[Any] | None,
    k: FloatArray,
    name: str,
    energies_only: bool,
    n_drop: int,
) -> Any:
    """Solve at one k-point; real arithmetic where both matrices are real."""
    is_real = not H_k.imag.any() and (S_k is None or not S_k.imag.any())
    left: Any = H_k.real if is_real else H_k
    right: Any = S_k.real if S_k is not None and is_real else S_k
    if right is None:
        return linalg.eigh(left, eigvals_only=energies_only, check_finite=False)
    if n_drop:
        values, vectors = linalg.eigh(right, check_finite=False)
        X = vectors[:, n_drop:] / np.sqrt(values[n_drop:])
        projected = X.conj().T @ left @ X
        solution = linalg.eigh(projected, eigvals_only=energies_only, check_finite=False)
        return solution if energies_only else (solution[0], X @ solution[1])
    try:
        return linalg.eigh(left, right, eigvals_only=energies_only, check_finite=False)
    except linalg.LinAlgError as error:
        lowest = linalg.eigvalsh(right, subset_by_index=[0, 0])[0]
        msg = (
            f"structure '{name}', k = {k.tolist()}: S(k) is not positive definite, its "
            f"smallest eigenvalue is {lowest:.2e}. Check that the overlap belongs to the "
            f"structure, the orbital order, and that no pair is missing."
        )
        raise OverlapNotPositiveError(msg, structure=name) from error


def fermi_level(
    energies: ArrayLike,
    weight: ArrayLike,
    n_electron: float,
    smearing_eV: float,
    degeneracy: int = 2,
) -> float:
    """Return the Fermi level by counting electrons with Fermi-Dirac occupations.

    In a gap wider than `GAP_WIDTHS` smearing widths it is the middle of the gap, which the
    count alone does not determine.

    Parameters
    ----------
    energies
        ``(n_k, n_band)``, eV, any order within a k-point.
    weight
        ``(n_k,)``, of sum one.
    n_electron
        Electrons in the cell.
    smearing_eV
        Width kT of the occupations, eV; positive.
    degeneracy
        Electrons that a state holds: 2, or 1 for spinful bands.

    Returns
    -------
    float, eV.

    Raises
    ------
    PhysicsError
        The electrons do not fit into the bands, or the smearing is not positive.
    ShapeError
        `energies` and `weight` do not fit together.
    """
    bands, w = np.asarray(energies, dtype=np.float64), np.asarray(weight, dtype=np.float64)
    if bands.ndim != 2 or w.shape != (len(bands),) or not bands.size:
        msg = f"energies have shape {bands.shape}, weights {w.shape}; expected (n_k, n_band)"
        raise ShapeError(f"{msg} and (n_k,)")
    if not smearing_eV > 0:
        raise PhysicsError(f"smearing is {smearing_eV} eV, expected a positive width")
    n_band = bands.shape[1]
    if not 0 < n_electron < degeneracy * n_band:
        msg = (
            f"{n_electron} electrons do not fit into {n_band} bands of {degeneracy} each: at "
            f"least one state must be filled and one empty. Check the electron count and the "
            f"spin."
        )
        raise PhysicsError(msg)
    bands = np.sort(bands, axis=1)
    n_filled = n_electron / degeneracy
    if abs(n_filled - round(n_filled)) < 1e-6 and 0 < round(n_filled) < n_band:
        top = float(bands[:, round(n_filled) - 1].max())
        bottom = float(bands[:, round(n_filled)].min())
        if bottom - top > GAP_WIDTHS * smearing_eV:
            return 0.5 * (top + bottom)

    def excess(level: float) -> float:
        occupation = special.expit((level - bands) / smearing_eV)
        return float(degeneracy * (w @ occupation.sum(axis=1)) - n_electron)

    margin = 100 * smearing_eV  # beyond it occupations are 0 and 1 to the last bit
    low, high = bands.min() - margin, bands.max() + margin
    return float(optimize.brentq(excess, low, high, xtol=1e-12))
