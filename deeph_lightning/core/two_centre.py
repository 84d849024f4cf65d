r"""The two-centre form of an overlap: what only a rightly read one has.

Turned so that the pair lies along z, a block between shells l and l' vanishes but for m = m',
is the same for m and -m, and what remains depends on the two species and the distance alone. A
wrong order or sign of orbitals, a wrong sign of R, exchanged atoms and folded periodic images
break this by 0.1 and more; the integration of the codes by 1e-3 at most.

Source: J. C. Slater, G. F. Koster, Phys. Rev. 94, 1498 (1954).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from deeph_lightning.core.ragged import chunks, take_blocks
from deeph_lightning.core.rotation import wigner_d
from deeph_lightning.errors import ConventionError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deeph_lightning.core.operator import Operator

#: Between what codes leave (1e-3) and what a wrong convention makes (0.1).
TOL_TWO_CENTRE = 1e-2
#: The same of overlaps with augmentation (PAW), which has integrals over three centres.
TOL_AUGMENTED = 5e-2
#: Distances that count as the same, Å.
SAME_DISTANCE = 1e-5


class TwoCentre(NamedTuple):
    """How far an overlap is from the two-centre form.

    Attributes
    ----------
    rotation
        Largest element of a turned block that must vanish, or difference of m and -m.
    distance
        Largest difference of elements of pairs with the same species and distance.
    pair
        Index of the pair of `rotation`, -1 without pairs.
    """

    rotation: float
    distance: float
    pair: int


def two_centre_residual(S: Operator) -> TwoCentre:
    """Compare an overlap, spinless, with the two-centre form; hopping pairs only."""
    full = S.complete()
    lengths = full.pairs.distances(full.atoms)
    worst, worst_pair, spread = 0.0, -1, 0.0
    for a, b, index in full.groups:
        index = index[lengths[index] > SAME_DISTANCE]
        kept = []
        for part in chunks(len(index), 9 * full.basis.n_orb(a) * full.basis.n_orb(b)):
            excess, parameters = _turned(full, a, b, index[part])
            n = int(np.argmax(excess))
            if excess[n] > worst or worst_pair < 0:
                worst, worst_pair = float(excess[n]), int(index[part][n])
            kept.append(parameters)
        if kept:
            spread = max(spread, _spread(lengths[index], np.concatenate(kept)))
    return TwoCentre(worst, spread, worst_pair)


def check_two_centre(
    S: Operator, structure: str | None = None, tol: float = TOL_TWO_CENTRE
) -> TwoCentre:
    """Check that an overlap has the two-centre form to `tol`.

    Raises
    ------
    ConventionError
        It has not.
    """
    found = two_centre_residual(S)
    name = structure or S.name
    if found.rotation > tol:
        msg = (
            f"structure '{name}', pair {S.complete().pairs.describe(found.pair)}: turned along "
            f"z, the block of the overlap has elements up to {found.rotation:.2e} that must "
            f"vanish, tolerance {tol:.0e}. Check order and signs of the orbitals, "
            f"the sign of R, the order of the atoms, and that no periodic images were added up."
        )
        raise ConventionError(msg, structure=name)
    if found.distance > tol:
        msg = (
            f"structure '{name}': overlaps of pairs with the same species and distance differ "
            f"by {found.distance:.2e}, tolerance {tol:.0e}. Check the order of the "
            f"atoms and the sign of R; species of one element with different orbitals need "
            f"labels of their own."
        )
        raise ConventionError(msg, structure=name)
    return found


def _turned(
    S: Operator, a: str, b: str, index: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the violation of each pair, ``(k,)``, and the remaining numbers, ``(k, p)``."""
    blocks = take_blocks(S.values, S.offsets[index], S.shape_of(a, b)).real
    Q = bond_frames(S.pairs.vectors(S.atoms)[index])
    D = {l: wigner_d(l, Q) for l in {*S.basis.shells[a], *S.basis.shells[b]}}
    excess = np.zeros(len(index))
    parameters = []
    for l, rows in zip(S.basis.shells[a], S.basis.shell_slices(a), strict=True):
        left = D[l].transpose(0, 2, 1) @ blocks[:, rows]
        for k, columns in zip(S.basis.shells[b], S.basis.shell_slices(b), strict=True):
            turned = left[:, :, columns] @ D[k]
            same = min(l, k) + 1
            m = np.arange(1 - same, same)
            diagonal = turned[:, l + m, k + m].copy()
            turned[:, l + m, k + m] = 0.0
            excess = np.maximum(excess, np.abs(turned).reshape(len(index), -1).max(axis=1))
            odd = np.abs(diagonal - diagonal[:, ::-1]).max(axis=1)
            excess = np.maximum(excess, odd)
            parameters.append(diagonal[:, same - 1 :])
    return excess, np.concatenate(parameters, axis=1)


def bond_frames(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a rotation of each vector, ``(n, 3, 3)``, that takes z to its direction."""
    z = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    helper = np.eye(3)[np.argmin(np.abs(z), axis=1)]
    x = np.cross(helper, z)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return np.stack((x, np.cross(z, x), z), axis=-1)


def _spread(lengths: NDArray[np.float64], parameters: NDArray[np.float64]) -> float:
    """Return the largest difference between neighbours, by length, of the same length."""
    order = np.argsort(lengths)
    is_same = np.diff(lengths[order]) < SAME_DISTANCE
    difference = np.abs(np.diff(parameters[order], axis=0))[is_same]
    return float(difference.max(initial=0.0))
