r"""How well an overlap is conditioned, and which states suffer from it.

An error dH of the Hamiltonian moves a level by ``C^dagger dH C``, and coefficients of diffuse
bases are large: ``|C|^2`` is up to one over the smallest eigenvalue of S(k). Where that is
tiny, the combinations of orbitals that have it are left out (canonical orthogonalisation).

Source: P.-O. Löwdin, Adv. Quantum Chem. 5, 185 (1970), on canonical orthogonalisation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from scipy import linalg

from deeph_lightning.errors import OverlapNotPositiveError
from deeph_lightning.solve.dense import eigenstates, overlap_at
from deeph_lightning.solve.kloop import map_k

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from deeph_lightning.core.operator import Operator

#: Combinations of orbitals with a smaller eigenvalue of S(k) count as nearly dependent.
NEARLY_DEPENDENT = 1e-3
#: A state of which more than this part rests on them is suspect: a ghost.
GHOST_WEIGHT = 0.5


@dataclass(frozen=True)
class OverlapCondition:
    """Extreme eigenvalues of S(k) over a set of k-points.

    Attributes
    ----------
    smallest, largest
        Extreme eigenvalues over all k-points.
    k_smallest
        Where the smallest is, fractional.
    n_drop
        Combinations of orbitals to leave out at every k-point: the largest number of
        eigenvalues below the threshold at any of them, so that bands do not begin or end on
        the way.
    """

    smallest: float
    largest: float
    k_smallest: tuple[float, float, float]
    n_drop: int

    @property
    def number(self) -> float:
        """Condition number, largest over smallest eigenvalue."""
        return self.largest / self.smallest if self.smallest > 0 else np.inf


def overlap_condition(
    S: Operator, k: ArrayLike, threshold: float = 1e-8, n_jobs: int = 1
) -> OverlapCondition:
    """Diagonalise S(k) and decide what is left out.

    Parameters
    ----------
    S
        Overlap.
    k
        ``(n_k, 3)``: all k-points that will be solved, grid and path together.
    threshold
        Eigenvectors of S(k) with a smaller eigenvalue are left out.
    n_jobs
        Processes.

    Raises
    ------
    OverlapNotPositiveError
        An eigenvalue is below minus the threshold: that is no rounding but a wrong overlap.
    """
    points = np.atleast_2d(np.asarray(k, dtype=np.float64))
    values = np.array(map_k(partial(_eigenvalues, S), points, n_jobs))
    at = int(np.argmin(values[:, 0]))
    where = (float(points[at, 0]), float(points[at, 1]), float(points[at, 2]))
    smallest = float(values[at, 0])
    if smallest <= -threshold:
        msg = (
            f"structure '{S.name}', k = {list(where)}: S(k) is not positive definite, its "
            f"smallest eigenvalue is {smallest:.2e}; what is below -{threshold:.0e} is more "
            f"than rounding. Check that the overlap belongs to the structure, the orbital "
            f"order, and that no pair is missing (overlap_threshold sets the limit)."
        )
        raise OverlapNotPositiveError(msg, structure=S.name)
    n_drop = int((values < threshold).sum(axis=1).max())
    return OverlapCondition(smallest, float(values[:, -1].max()), where, n_drop)


def _eigenvalues(S: Operator, k: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    return [linalg.eigvalsh(S.bloch(point), check_finite=False) for point in k]


@dataclass(frozen=True)
class GhostCheck:
    """How much the states of an energy window rest on nearly dependent orbitals.

    Attributes
    ----------
    energies
        ``(n,)``, states in the window, eV.
    weight
        ``(n,)``, 0..1, the part on combinations below `NEARLY_DEPENDENT`.
    amplification
        ``(n,)``, ``|C|^2``: an error dH moves the level by at most its 2-norm times this.
    """

    energies: NDArray[np.float64]
    weight: NDArray[np.float64]
    amplification: NDArray[np.float64]

    @property
    def ghosts(self) -> NDArray[np.float64]:
        """Energies of states with more than `GHOST_WEIGHT`, eV."""
        return self.energies[self.weight > GHOST_WEIGHT]


def ghost_check(
    H: Operator, S: Operator, k: ArrayLike, low: float, high: float, n_drop: int = 0
) -> GhostCheck:
    """Weigh the states between two energies at one k-point.

    Parameters
    ----------
    H, S
        Operators.
    k
        ``(3,)``, fractional; where S(k) is worst, see `OverlapCondition`.
    low, high
        eV.
    n_drop
        Combinations of orbitals left out.
    """
    (energies,), (C,) = eigenstates(H, S, k, n_drop)
    inside = (energies >= low) & (energies <= high)
    weight, amplification = ghost_weights(overlap_at(S, k, H.n_spin), C[:, inside])
    return GhostCheck(energies[inside], weight, amplification)


def ghost_weights(
    S_k: NDArray[np.complex128], C: NDArray[np.complex128]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r"""Return how much states rest on nearly dependent combinations of orbitals.

    Parameters
    ----------
    S_k
        ``(n, n)``, overlap at one k-point.
    C
        ``(n, m)``, states with ``C^dagger S C = 1``.

    Returns
    -------
    weight, amplification
        ``(m,)`` each. With ``y = Lambda^{1/2} U^dagger C``, whose squares add up to one, the
        weight is their sum over nearly dependent combinations, in 0..1, and the amplification
        ``|C|^2 = sum_i |y_i|^2 / lambda_i`` bounds the shift of the level by ``|dH|``
        (2-norm) times it.
    """
    values, vectors = linalg.eigh(S_k, check_finite=False)
    parts = np.abs(vectors.conj().T @ C) ** 2  # |y|^2 / lambda
    weight = np.clip(values, 0, None)[:, None] * parts
    return weight[values < NEARLY_DEPENDENT].sum(axis=0), np.asarray(parts.sum(axis=0))
