r"""Spin of operators: channels, time reversal, the spin-orbit constants of shells.

Time reversal is ``T = i sigma_y K``: an operator without magnetism obeys
``O = sigma_y O^* sigma_y``, that is ``uu = dd^*`` and ``ud = -du^*``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import linalg
from scipy.spatial.transform import Rotation

from deeph_lightning.core.basis import species_labels
from deeph_lightning.core.operator import Operator
from deeph_lightning.core.ragged import adjoint, put_blocks, take_blocks
from deeph_lightning.core.rotation import wigner_d
from deeph_lightning.errors import HermiticityError, ShapeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Angle of the rotations whose logarithms are the angular momenta, rad.
_ANGLE = 0.1


def spin_channel(op: Operator, channel: int) -> Operator:
    """Return the block of one spin direction, spinless: H of spin up of a collinear magnet.

    Parameters
    ----------
    op
        Spinful.
    channel
        0 for up, 1 for down.

    Raises
    ------
    ShapeError
        `op` has no spin, or `channel` is neither 0 nor 1.
    """
    _require_spin(op)
    if channel not in (0, 1):
        raise ShapeError(f"spin channel is {channel}, expected 0 (up) or 1 (down)")
    values = np.empty(len(op.values) // 4, dtype=op.values.dtype)
    for _, _, index, blocks in op.iterate_blocks():
        put_blocks(values, op.offsets[index] // 4, _quarters(blocks)[channel][channel])
    return type(op)(op.atoms, op.basis, op.pairs, values, op.unit, False, op.is_half)


def adjoint_operator(op: Operator) -> Operator:
    """Return the adjoint, ``A[R, i, j] = O[-R, j, i]^dagger``, of a full operator.

    Raises
    ------
    HermiticityError
        A pair has no partner.
    """
    partner = op.pairs.partner
    if (partner < 0).any():
        n = int(np.argmin(partner))
        msg = (
            f"structure '{op.name}': pair {op.pairs.describe(n)} has no Hermitian partner. The "
            f"file is incomplete: make it again."
        )
        raise HermiticityError(msg, structure=op.name)
    values = np.empty_like(op.values)
    for a, b, index in op.groups:
        blocks = take_blocks(op.values, op.offsets[partner[index]], op.shape_of(b, a))
        put_blocks(values, op.offsets[index], adjoint(blocks))
    return op.replace(values=values)


def spinful_operator(uu: Operator, dd: Operator, ud: Operator | None = None) -> Operator:
    """Join the parts of a Hermitian spinor operator; du is the adjoint of ud.

    Parameters
    ----------
    uu, dd, ud
        Spinless operators, real or complex, pairs may differ; without `ud` the spins do not
        mix.

    Returns
    -------
    Operator
        Blocks ``[[uu, ud], [du, dd]]``, on the pairs of all parts.
    """
    parts = [uu, dd] if ud is None else [uu, dd, ud]
    pairs = uu.pairs
    for part in parts:
        pairs = pairs.union(part.pairs)
    uu, dd, *mixed = (part.on_pairs(pairs) for part in parts)
    quarters = {(0, 0): uu, (1, 1): dd}
    for part in mixed:
        quarters |= {(0, 1): part, (1, 0): adjoint_operator(part)}
    values = np.zeros(4 * len(uu.values), dtype=np.result_type(*(p.values for p in parts)))
    for a, b, index in uu.groups:
        n, m = uu.shape_of(a, b)
        blocks = np.zeros((len(index), 2, n, 2, m), dtype=values.dtype)
        for (s, t), part in quarters.items():
            blocks[:, s, :, t] = part.blocks_of(a, b)[1]
        put_blocks(values, 4 * uu.offsets[index], blocks.reshape(-1, 2 * n, 2 * m))
    return Operator(uu.atoms, uu.basis, pairs, values, uu.unit, is_spinful=True)


def spin_mixing(op: Operator) -> float:
    """Return the largest element between spin up and spin down (0 of a collinear operator)."""
    _require_spin(op)
    worst = 0.0
    for _, _, _, blocks in op.iterate_blocks():
        (_, ud), (du, _) = _quarters(blocks)
        worst = max(worst, *(float(np.abs(part).max(initial=0.0)) for part in (ud, du)))
    return worst


def time_reversal_residual(op: Operator) -> float:
    """Return the largest element of ``O - sigma_y O^* sigma_y``: exchange, in the unit of O."""
    _require_spin(op)
    worst = 0.0
    for _, _, _, blocks in op.iterate_blocks():
        (uu, ud), (du, dd) = _quarters(blocks)
        for difference in (uu - dd.conj(), ud + du.conj()):
            worst = max(worst, float(np.abs(difference).max(initial=0.0)))
    return worst


class SpinOrbit(NamedTuple):
    """Spin-orbit constant of a shell of an atom: its onsite block holds ``xi/2 L.sigma``.

    Attributes
    ----------
    atom, shell, l
        Which; the shell counted in its atom.
    xi
        Mean of the three Cartesian directions, in the unit of the operator.
    anisotropy
        Largest difference of a direction from the mean.
    """

    atom: int
    shell: int
    l: int
    xi: float
    anisotropy: float


def spin_orbit_constants(H: Operator) -> list[SpinOrbit]:
    """Project the onsite blocks of every shell with l > 0 on ``L.sigma / 2``.

    Spin-orbit coupling is attractive to j = l - 1/2, so that the constants of valence shells
    are positive; a negative one means that spins are exchanged, or rows and columns of one of
    orbitals and spin. Diffuse shells may have small negative ones.

    Raises
    ------
    ShapeError
        `H` has no spin.
    """
    _require_spin(H)
    labels = species_labels(H.atoms)
    L = {l: angular_momentum(l) for label in H.basis.labels for l in H.basis.shells[label]}
    found = []
    for n in np.flatnonzero(H.pairs.is_onsite):
        atom = int(H.pairs.i[n])
        label = str(labels[atom])
        (uu, ud), (du, dd) = _quarters(H.block(int(n)))
        along = ((ud + du) / 2, 1j * (ud - du) / 2, (uu - dd) / 2)  # 1/2 Tr(sigma_k H)
        slices = H.basis.shell_slices(label)
        for shell, (l, where) in enumerate(zip(H.basis.shells[label], slices, strict=True)):
            if l == 0:
                continue
            xi = np.array(
                [
                    2 * np.vdot(L_k, part[where, where]).real / np.vdot(L_k, L_k).real
                    for L_k, part in zip(L[l], along, strict=True)
                ]
            )
            mean = float(xi.mean())
            found.append(SpinOrbit(atom, shell, l, mean, float(np.abs(xi - mean).max())))
    return found


def angular_momentum(l: int) -> NDArray[np.complex128]:
    """Return L_x, L_y, L_z between the real harmonics of a degree, ``(3, 2l+1, 2l+1)``, hbar.

    They generate the rotations of `rotation.wigner_d`: ``D = exp(-i angle L)``.
    """
    turns = Rotation.from_rotvec(_ANGLE * np.eye(3)).as_matrix()
    logarithms = np.stack([linalg.logm(D) for D in wigner_d(l, turns)])
    return np.asarray(1j * logarithms.real / _ANGLE, dtype=np.complex128)


def _quarters(blocks: NDArray[np.float64] | NDArray[np.complex128]) -> list[list[NDArray]]:  # type: ignore[type-arg]
    """Cut ``(..., 2n, 2m)`` blocks into [[uu, ud], [du, dd]]."""
    n, m = blocks.shape[-2] // 2, blocks.shape[-1] // 2
    return [
        [blocks[..., :n, :m], blocks[..., :n, m:]],
        [blocks[..., n:, :m], blocks[..., n:, m:]],
    ]


def _require_spin(op: Operator) -> None:
    if not op.is_spinful:
        raise ShapeError(
            f"structure '{op.name}': the operator has no spin, expected a spinful one"
        )
