"""Spinful operators from their parts, as codes write them."""

from __future__ import annotations

import numpy as np

from deeph_lightning.core.operator import Operator
from deeph_lightning.core.ragged import adjoint, put_blocks, take_blocks
from deeph_lightning.errors import HermiticityError


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
