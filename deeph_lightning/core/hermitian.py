"""Hermitian halves of operators, their completion and the check of both halves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deeph_lightning.core.pairs import PairTable
from deeph_lightning.core.ragged import adjoint, chunks, put_blocks, reorder, take_blocks
from deeph_lightning.errors import HermiticityError

if TYPE_CHECKING:
    from deeph_lightning.core.operator import Operator


def half(op: Operator) -> Operator:
    """Keep the canonical pair of each couple (see `Operator.half`)."""
    if op.is_half and op.pairs.is_canonical.all():
        return op
    full = op.complete()
    _check_partners(full, full.name)
    keep = np.flatnonzero(full.pairs.is_canonical)
    values = reorder(full.values, full.offsets, keep)
    return full.replace(pairs=full.pairs.select(keep), values=values, is_half=True)


def complete(op: Operator) -> Operator:
    """Add the partner of every pair of a half operator (see `Operator.complete`)."""
    if not op.is_half:
        return op
    is_hopping = ~op.pairs.is_onsite
    extra = np.flatnonzero(is_hopping)
    pairs, order = PairTable.from_arrays(
        np.concatenate((op.pairs.R, -op.pairs.R[extra])),
        np.concatenate((op.pairs.i, op.pairs.j[extra])),
        np.concatenate((op.pairs.j, op.pairs.i[extra])),
    )
    sizes = np.diff(op.offsets)
    starts = np.zeros(len(pairs) + 1, dtype=np.int64)
    np.cumsum(np.concatenate((sizes, sizes[extra]))[order], out=starts[1:])
    place = np.empty(len(pairs), dtype=np.int64)  # where each old pair, then each partner, goes
    place[order] = np.arange(len(pairs))
    partner_place = np.full(len(op.pairs), -1, dtype=np.int64)
    partner_place[extra] = place[len(op.pairs) :]
    values = np.empty(starts[-1], dtype=op.values.dtype)
    for a, b, index in op.groups:
        shape = op.shape_of(a, b)
        for part in chunks(len(index), shape[0] * shape[1]):
            which = index[part]
            blocks = take_blocks(op.values, op.offsets[which], shape)
            put_blocks(values, starts[place[which]], blocks)
            hops = is_hopping[which]
            put_blocks(values, starts[partner_place[which[hops]]], adjoint(blocks[hops]))
    return op.replace(pairs=pairs, values=values, is_half=False)


def residual(op: Operator) -> tuple[float, int]:
    """Return the largest disagreement and its pair (see `Operator.hermiticity_residual`)."""
    worst, worst_pair = 0.0, -1
    partner = op.pairs.partner
    is_seen = op.pairs.is_onsite if op.is_half else op.pairs.is_canonical | (partner < 0)
    for a, b, index in op.groups:
        shape = op.shape_of(a, b)
        candidates = index[is_seen[index]]
        for part in chunks(len(candidates), shape[0] * shape[1]):
            which = candidates[part]
            blocks = take_blocks(op.values, op.offsets[which], shape)
            has = partner[which] >= 0
            other = op.offsets[partner[which[has]]]
            difference = np.abs(blocks)
            difference[has] = np.abs(
                blocks[has] - adjoint(take_blocks(op.values, other, (shape[1], shape[0])))
            )
            by_pair = difference.reshape(len(which), -1).max(axis=1, initial=0.0)
            n = int(np.argmax(by_pair))
            if worst_pair < 0 or by_pair[n] > worst:
                worst, worst_pair = float(by_pair[n]), int(which[n])
    return worst, worst_pair


def check(op: Operator, tol: float, structure: str) -> None:
    """Raise unless blocks and partners agree to `tol` (see `Operator.check_hermitian`)."""
    if not op.is_half:
        _check_partners(op, structure)
    value, n = residual(op)
    if value <= tol:
        return
    unit = "" if op.unit == "1" else f" {op.unit}"
    if op.pairs.is_onsite[n]:
        cause = (
            "This block is its own partner: it was read with a wrong shape or order, or the "
            "calculation is not converged."
        )
    else:
        cause = (
            "Both were read, so a sign or order is the likely cause: the sign of R, rows and "
            "columns exchanged, or the orbital order."
        )
    msg = (
        f"structure '{structure}', pair {op.pairs.describe(n)} and its Hermitian partner "
        f"differ by {value:.2e}{unit}, tolerance {tol:.0e}{unit}. {cause}"
    )
    raise HermiticityError(msg, structure=structure)


def _check_partners(op: Operator, structure: str) -> None:
    is_alone = op.pairs.partner < 0
    if is_alone.any():
        n = int(np.argmax(is_alone))
        msg = (
            f"structure '{structure}', pair {op.pairs.describe(n)} has no Hermitian partner "
            f"(-R, j, i); {int(is_alone.sum())} of {len(op.pairs)} pairs have none. If the "
            f"file keeps one pair of each couple, read it with is_half=True; else it is "
            f"incomplete."
        )
        raise HermiticityError(msg, structure=structure)
