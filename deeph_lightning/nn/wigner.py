"""Wigner D matrices of many rotations at once, without matrix exponentials or Euler angles.

Convention: real spherical harmonics, m = -l..l, of `core.conventions`; D acts on column vectors
of coefficients, ``Y(Q v) = D(Q) Y(v)``. For l = 1 the basis order is (y, z, x).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from e3nn import o3
from torch import Tensor

#: Cartesian axis (x = 0, y = 1, z = 2) of the harmonics m = -1, 0, 1.
_AXIS_OF_M = (1, 2, 0)


@lru_cache(maxsize=32)
def _stretched_coupling(l: int) -> Tensor:
    """Isometry of degrees (l - 1) x 1 onto l, shape (2l+1, 2l-1, 3), float64."""
    with torch.inference_mode(mode=False):  # what is kept must serve training, too
        return o3.wigner_3j(l, l - 1, 1, dtype=torch.float64).clone() * (2 * l + 1) ** 0.5


def wigner_blocks(rotation: Tensor, l_max: int) -> list[Tensor]:
    r"""Compute the Wigner matrices of degrees 0..l_max.

    .. math:: D^l = C\,(D^{l-1} \otimes D^1)\,C^T,

    with C the Clebsch-Gordan isometry of (l-1) x 1 onto l. The entries
    are polynomials of the rotation's entries: smooth everywhere, no pole along any axis.

    Parameters
    ----------
    rotation
        ``(N, 3, 3)`` proper rotations, Cartesian.
    l_max
        Largest degree.

    Returns
    -------
    list of ``(N, 2l+1, 2l+1)``, in the dtype of `rotation`.
    """
    n = rotation.shape[0]
    axes = list(_AXIS_OF_M)
    first = rotation[:, axes][:, :, axes]
    blocks = [rotation.new_ones(n, 1, 1)]
    if l_max >= 1:
        blocks.append(first)
    for l in range(2, l_max + 1):
        coupling = _stretched_coupling(l).to(rotation)
        size, inner = 2 * l + 1, 2 * l - 1
        left = coupling.permute(0, 2, 1).reshape(size * 3, inner) @ blocks[-1]
        left = left.view(n, size, 3, inner).transpose(2, 3)  # (N, 2l+1, 2l-1, 3)
        product = torch.matmul(left.reshape(n, size * inner, 3), first)
        blocks.append(product.view(n, size, inner * 3) @ coupling.reshape(size, inner * 3).T)
    return blocks


def real_harmonics_from_blocks(blocks: list[Tensor]) -> list[Tensor]:
    """Read Y_l of the direction that the rotations carry to the polar axis.

    Row m = 0 of D(Q) with ``Q r = z`` is Y_l(r) / Y_l0(z): shape (N, 2l+1), norm one.
    """
    return [block[:, l] for l, block in enumerate(blocks)]
