"""Small operators with known numbers, and predictions made from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from ase import Atoms

from deeph_lightning.core.basis import OrbitalBasis
from deeph_lightning.core.operator import Operator
from deeph_lightning.core.pairs import PairTable, neighbour_pairs

if TYPE_CHECKING:
    from collections.abc import Callable


def full_pairs(atoms: Atoms, r_cut: float) -> PairTable:
    """All pairs within a cut-off, onsite ones included."""
    hops, n = neighbour_pairs(atoms, r_cut), len(atoms)
    table, _ = PairTable.from_arrays(
        np.concatenate([np.zeros((n, 3), int), hops.R]),
        np.concatenate([np.arange(n), hops.i]),
        np.concatenate([np.arange(n), hops.j]),
    )
    return table


def hermitian(op: Operator) -> Operator:
    """Mean of an operator on full pairs and its adjoint."""
    values = np.empty_like(op.values)
    for n, partner in enumerate(op.pairs.partner):
        block = (op.block(n) + op.block(partner).conj().T) / 2
        values[op.offsets[n] : op.offsets[n + 1]] = block.ravel()
    return op.replace(values=values)


@pytest.fixture
def random_operator() -> Callable[..., Operator]:
    """Factory of random Hermitian operators of a two-species slab; size of values chosen."""

    def make(seed: int = 0, scale: float = 1.0, *, is_spinful: bool = False) -> Operator:
        rng = np.random.default_rng(seed)
        atoms = Atoms(
            "BNB",
            positions=[[0, 0, 0], [1.4, 0.1, 0.2], [0.3, 1.6, 0.1]],
            cell=[3.0, 3.2, 12.0],
            pbc=True,
        )
        basis = OrbitalBasis({"B": (0, 1), "N": (0,)})
        pairs = full_pairs(atoms, 3.5)
        n_spin = 2 if is_spinful else 1
        n_orb = np.array([4, 1, 4]) * n_spin
        size = int((n_orb[pairs.i] * n_orb[pairs.j]).sum())
        values = rng.normal(size=size)
        if is_spinful:
            values = values + 1j * rng.normal(size=size)
        return hermitian(Operator(atoms, basis, pairs, scale * values, is_spinful=is_spinful))

    return make


@pytest.fixture
def chain() -> Callable[..., Operator]:
    """Factory of the one-orbital chain: E(k) = onsite + 2 hopping cos(2 pi k)."""

    def make(onsite: float, hopping: float) -> Operator:
        atoms = Atoms("H", cell=[1.0, 10.0, 10.0], pbc=True)
        pairs = full_pairs(atoms, 1.1)
        values = np.where(pairs.is_onsite, onsite, hopping).astype(float)
        return Operator(atoms, OrbitalBasis({"H": (0,)}), pairs, values)

    return make
