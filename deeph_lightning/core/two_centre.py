r"""The two-centre form of an overlap: a test of orbital order, signs, cells and positions.

An overlap of two atoms is invariant under rotations about their axis. Turned into the frame of
the bond it is diagonal in m, equal for m and -m, and depends on the species and the distance
only. A wrong order or sign of orbitals, a flipped R, a wrapped atom or a folded image breaks
this at the level of 0.1, while the integration errors of codes are 1e-3 and far less. Source:
J. C. Slater, G. F. Koster, Phys. Rev. 94, 1498 (1954).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from deeph_lightning.core.ragged import chunks, take_blocks
from deeph_lightning.core.rotation import orbital_rotation
from deeph_lightning.errors import PhysicsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deeph_lightning.core.operator import Operator

#: Largest residual of a right overlap: the integration grids of codes leave up to 1e-3.
TOL_TWO_CENTRE = 1e-2
#: Distances that count as equal, Å.
SAME_DISTANCE = 1e-6


class TwoCentreResidual(NamedTuple):
    """Departure of an overlap from the two-centre form.

    Attributes
    ----------
    axial
        Largest element that couples different m, or difference of m and -m.
    distance
        Largest difference between pairs of the same species and distance.
    axial_pair, distance_pair
        Index of the pair where it is, -1 where there is none.
    """

    axial: float
    distance: float
    axial_pair: int
    distance_pair: int


def two_centre_residual(S: Operator) -> TwoCentreResidual:
    """Measure how far an overlap is from the two-centre form.

    Parameters
    ----------
    S
        Spinless, orbitals in the common order; full or half.

    Returns
    -------
    TwoCentreResidual
        Zero where there are no two atoms with an overlap.
    """
    vectors = S.pairs.vectors(S.atoms)
    lengths = np.linalg.norm(vectors, axis=1)
    worst = [0.0, 0.0]
    pair = [-1, -1]
    for a, b, index in S.groups:
        hops = index[lengths[index] > SAME_DISTANCE]
        shape = S.shape_of(a, b)
        m_a, m_b = S.basis.orbital_m(a), S.basis.orbital_m(b)
        mixed = m_a[:, None] != m_b
        mirror_a, mirror_b = _mirrored(S, a), _mirrored(S, b)
        turned = np.empty((len(hops), *shape))
        for part in chunks(len(hops), shape[0] * shape[1]):
            which = hops[part]
            Q = _bond_frames(vectors[which] / lengths[which, None])
            blocks = take_blocks(S.values, S.offsets[which], shape).real
            D_a, D_b = (orbital_rotation(S.basis, label, Q) for label in (a, b))
            turned[part] = np.swapaxes(D_a, -1, -2) @ blocks @ D_b
        axial = np.where(mixed, turned, turned - turned[:, mirror_a[:, None], mirror_b])
        order = np.argsort(lengths[hops], kind="stable")
        is_same = np.diff(lengths[hops][order]) < SAME_DISTANCE
        steps = np.abs(np.diff(np.where(mixed, 0.0, turned)[order], axis=0))[is_same]
        for n, (errors, members) in enumerate(
            ((np.abs(axial), hops), (steps, hops[order][1:][is_same]))
        ):
            if errors.size and errors.max() > worst[n]:
                worst[n] = float(errors.max())
                pair[n] = int(members[np.argmax(errors.max(axis=(1, 2)))])
    return TwoCentreResidual(*worst, *pair)


def check_two_centre(
    S: Operator, structure: str | None = None, tol: float = TOL_TWO_CENTRE
) -> TwoCentreResidual:
    """Check that an overlap has the two-centre form.

    Parameters
    ----------
    S
        Overlap.
    structure
        Name for the message; without it that of `S`.
    tol
        Largest residual of either kind.

    Raises
    ------
    PhysicsError
        It has not.
    """
    found = two_centre_residual(S)
    for value, pair, what in (
        (found.axial, found.axial_pair, "is not symmetric about the bond"),
        (found.distance, found.distance_pair, "differs from that of another pair as long"),
    ):
        if not value <= tol:
            name = structure or S.name
            msg = (
                f"structure '{name}', S of the pair {S.pairs.describe(pair)} {what}: residual "
                f"{value:.1e}, tolerance {tol:.0e}. Check the order and signs of orbitals, the "
                f"sign of R, the positions of atoms (wrapped into the cell?), and that the "
                f"calculation did not fold images into one cell."
            )
            raise PhysicsError(msg, structure=name)
    return found


def _bond_frames(units: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return reflections that take z to each unit vector, ``(n, 3, 3)``."""
    w = np.array([0.0, 0.0, 1.0]) - units
    norm = np.sum(w * w, axis=1)[:, None, None]
    outer = w[:, :, None] * w[:, None, :]
    return np.eye(3) - 2.0 * np.divide(outer, norm, where=norm > 0, out=np.zeros_like(outer))


def _mirrored(S: Operator, label: str) -> NDArray[np.int64]:
    """Return for each orbital that of the same shell with -m."""
    return np.concatenate(
        [np.arange(s.stop - 1, s.start - 1, -1) for s in S.basis.shell_slices(label)]
    )
