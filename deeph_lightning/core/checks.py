"""Checks of a structure and its operators at the border, each raising the typed error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import linalg
from scipy.sparse.linalg import ArpackNoConvergence, eigsh

from deeph_lightning.core.basis import OrbitalBasis, species_labels, structure_name
from deeph_lightning.core.pairs import neighbour_pairs
from deeph_lightning.errors import (
    BasisMismatchError,
    DataError,
    OverlapNotPositiveError,
    PhysicsError,
)

if TYPE_CHECKING:
    from ase import Atoms
    from numpy.typing import NDArray

    from deeph_lightning.core.operator import Operator

#: Atoms closer than this are a mistake, Å.
MIN_DISTANCE = 0.3
#: Longest lattice vector that is not taken for a mistake, Å.
MAX_LENGTH = 1e5
#: Closest lattice planes that a neighbour search gets through, Å.
MIN_SPACING = 0.05
#: Largest disagreement of Hermitian partners: H in eV (files may be rounded), S.
TOL_HERMITIAN_H = 1e-5
TOL_HERMITIAN_S = 1e-6
#: Largest |S - 1| of an orbital with itself; tabulated bases of OpenMX reach 0.015.
TOL_NORM = 0.05
#: Gamma, and a point without symmetry.
CHECKED_K = ((0.0, 0.0, 0.0), (0.137, 0.291, 0.419))
#: Orbitals up to which the smallest eigenvalue of S(k) is computed densely.
MAX_DENSE_ORBITALS = 2000


def check_structure(atoms: Atoms, structure: str | None = None) -> None:
    """Check that positions are finite and no two atoms, images included, are too close.

    Raises
    ------
    PhysicsError
        A coordinate is not finite or enormous, the cell of a periodic structure has no
        volume, is flat or enormous, or two atoms are closer than `MIN_DISTANCE`.
    """
    name = structure or structure_name(atoms)
    cell = np.asarray(atoms.cell.array)
    if not (np.isfinite(atoms.positions).all() and np.isfinite(cell).all()):
        msg = f"structure '{name}': a position or lattice vector is NaN or infinite"
        raise PhysicsError(f"{msg}. Repair the structure file.", structure=name)
    farthest = float(np.abs(atoms.positions).max(initial=0.0))
    if farthest > MAX_LENGTH:
        msg = (
            f"structure '{name}': a position is {farthest:.3g} Å from the origin; expected at "
            f"most {MAX_LENGTH:.0e} Å. Repair the structure file."
        )
        raise PhysicsError(msg, structure=name)
    pbc = np.asarray(atoms.pbc)
    if pbc.any():
        completed = np.asarray(atoms.cell.complete().array)
        _check_lattice(np.where(pbc[:, None], cell, completed), name)
    close = neighbour_pairs(atoms, MIN_DISTANCE)
    close = close.select(close.is_canonical)
    if len(close):
        distances = close.distances(atoms)
        n = int(np.argmin(distances))
        i, j = int(close.i[n]), int(close.j[n])
        symbols = atoms.get_chemical_symbols()
        msg = (
            f"structure '{name}': atoms {i} ({symbols[i]}) and {j} ({symbols[j]}), cell "
            f"R={tuple(close.R[n].tolist())}, are {distances[n]:.3f} Å apart, at least "
            f"{MIN_DISTANCE} Å expected. Check units and lattice, or remove the double atom."
        )
        raise PhysicsError(msg, structure=name)


def _check_lattice(cell: NDArray[np.float64], name: str) -> None:
    """Refuse lattices on which a neighbour search would not end."""
    with np.errstate(all="ignore"):
        normals = np.stack([np.cross(cell[k - 2], cell[k - 1]) for k in range(3)])
        volume = abs(float(np.linalg.det(cell)))
        spacing = float((volume / np.linalg.norm(normals, axis=1)).min())
        length = float(np.linalg.norm(cell, axis=1).max())
    if volume < 1e-6:
        msg = f"structure '{name}': the lattice vectors {cell.tolist()} span no volume"
        raise PhysicsError(f"{msg}. Repair the structure file.", structure=name)
    if not spacing >= MIN_SPACING or length > MAX_LENGTH:
        msg = (
            f"structure '{name}': the lattice vectors {cell.tolist()} are up to {length:.3g} Å "
            f"long, lattice planes {spacing:.3g} Å apart; expected at most {MAX_LENGTH:.0e} Å, "
            f"and at least {MIN_SPACING} Å. Repair the structure file."
        )
        raise PhysicsError(msg, structure=name)


def check_basis(atoms: Atoms, basis: OrbitalBasis, structure: str | None = None) -> None:
    """Check that the orbital map has every species of the structure.

    Raises
    ------
    BasisMismatchError
        It lacks one.
    """
    missing = sorted(set(species_labels(atoms).tolist()) - set(basis.labels))
    if missing:
        msg = (
            f"structure '{structure or structure_name(atoms)}': the orbital map has "
            f"{', '.join(basis.labels)}, but the structure also holds {', '.join(missing)}. "
            f"Add the shells of these species to the map."
        )
        raise BasisMismatchError(msg)


def check_operator(
    op: Operator,
    atoms: Atoms,
    basis: OrbitalBasis,
    tol: float,
    what: str,
    structure: str | None = None,
) -> None:
    """Check that an operator belongs to a structure and basis and is Hermitian.

    That values are finite and blocks fit the orbital map, the operator checks itself.

    Parameters
    ----------
    op
        Operator.
    atoms, basis
        Structure and orbitals it should have.
    tol
        Largest disagreement of partners, in the unit of `op`.
    what
        Its name in messages, "H".

    Raises
    ------
    DataError
        The operator is of another structure.
    BasisMismatchError
        Its orbitals are others.
    HermiticityError
        A partner is missing or differs.
    """
    name = structure or structure_name(atoms)
    if len(op.atoms) != len(atoms) or np.any(species_labels(op.atoms) != species_labels(atoms)):
        msg = (
            f"structure '{name}': {what} is of {op.atoms.get_chemical_formula()}, the "
            f"structure is {atoms.get_chemical_formula()}, or their atoms differ in order. "
            f"Read both from the same calculation."
        )
        raise DataError(msg, structure=name)
    for label in sorted(set(species_labels(atoms).tolist())):
        if op.basis.shells.get(label) != basis.shells.get(label):
            msg = (
                f"structure '{name}', {what}: species '{label}' has shells "
                f"{op.basis.shells.get(label)}, expected {basis.shells.get(label)}. Check the "
                f"orbital map."
            )
            raise BasisMismatchError(msg, structure=name)
    op.check_hermitian(tol, f"{name}, {what}")


def check_overlap_norms(
    S: Operator, structure: str | None = None, tol: float = TOL_NORM
) -> float:
    """Check that every orbital is normalised, to `tol`.

    Returns
    -------
    The largest |S - 1| of an orbital with itself.

    Raises
    ------
    PhysicsError
        One is not: images are folded in, or the file is no overlap.
    """
    worst, atom = 0.0, -1
    for _, _, index, blocks in S.iterate_blocks():
        onsite = np.flatnonzero(S.pairs.is_onsite[index])
        if not len(onsite):
            continue
        error = np.abs(np.diagonal(blocks[onsite], axis1=1, axis2=2) - 1.0).max(axis=1)
        if error.max() > worst:
            worst, atom = float(error.max()), int(S.pairs.i[index[onsite[np.argmax(error)]]])
    if not worst <= tol:
        name = structure or S.name
        msg = (
            f"structure '{name}': an orbital of atom {atom} overlaps with itself by 1 up to "
            f"{worst:.2g}, tolerance {tol}. Periodic images may be folded into one cell, "
            f"or the matrix is no overlap."
        )
        raise PhysicsError(msg, structure=name)
    return worst


def check_overlap_positive(S: Operator, structure: str | None = None) -> float:
    """Check that S(k) is positive definite at Gamma and at a general k-point.

    Returns
    -------
    The smallest eigenvalue found (an upper bound where there are more than
    `MAX_DENSE_ORBITALS` orbitals and the Lanczos iteration has not ended).

    Raises
    ------
    OverlapNotPositiveError
        It is not positive.
    """
    name = structure or S.name
    lowest = np.inf
    for k in CHECKED_K:
        value = _smallest_eigenvalue(S, k)
        lowest = min(lowest, value)
        if not value > 0:
            msg = (
                f"structure '{name}': S(k) at k = {k} has the eigenvalue {value:.2e}, all must "
                f"be positive. Check the orbital order and signs, the sign of R, and that no "
                f"pair of the overlap is missing."
            )
            raise OverlapNotPositiveError(msg, structure=name)
    return lowest


def _smallest_eigenvalue(S: Operator, k: tuple[float, float, float]) -> float:
    """Return the smallest eigenvalue of S(k); Ritz values, which bound it, for large S."""
    if S.n_orb <= MAX_DENSE_ORBITALS:
        S_k = S.bloch(k)
        matrix = S_k if S_k.imag.any() else S_k.real
        return float(linalg.eigvalsh(matrix, subset_by_index=[0, 0])[0])
    start = np.random.default_rng(0).normal(size=S.n_orb)
    try:
        values = eigsh(S.bloch_csr(k), k=1, which="SA", tol=1e-2, maxiter=300, v0=start,
                       return_eigenvectors=False)  # fmt: skip
    except ArpackNoConvergence as unfinished:
        values = unfinished.eigenvalues if len(unfinished.eigenvalues) else np.array([np.inf])
    return float(values[0])


def check_system(
    atoms: Atoms,
    basis: OrbitalBasis,
    H: Operator | None,
    S: Operator | None,
    *,
    structure: str | None = None,
    tol_H: float = TOL_HERMITIAN_H,
    tol_S: float = TOL_HERMITIAN_S,
) -> None:
    """Run all checks of a structure with its operators.

    Parameters
    ----------
    atoms, basis
        Structure and orbital map.
    H, S
        Hamiltonian in eV and overlap, or None.
    structure
        Name for messages; without it that of `atoms`.
    tol_H, tol_S
        Largest disagreement of Hermitian partners.

    Raises
    ------
    PhysicsError, HermiticityError, OverlapNotPositiveError, BasisMismatchError, DataError
        See the single checks.
    """
    check_structure(atoms, structure)
    check_basis(atoms, basis, structure)
    if H is not None:
        check_operator(H, atoms, basis, tol_H, "H", structure)
    if S is not None:
        check_operator(S, atoms, basis, tol_S, "S", structure)
        check_overlap_positive(S, structure)
