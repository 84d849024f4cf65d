"""The two-centre form of an overlap, and what breaks it."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from deeph_lightning.core.basis import OrbitalBasis
from deeph_lightning.core.operator import Operator
from deeph_lightning.core.pairs import PairTable, neighbour_pairs
from deeph_lightning.core.rotation import wigner_d
from deeph_lightning.core.two_centre import (
    TOL_TWO_CENTRE,
    check_two_centre,
    two_centre_residual,
)
from deeph_lightning.errors import ConventionError
from tests.systems import random_atoms, with_onsite
from tests.tolerances import FLOAT64

BASIS = OrbitalBasis({"B": (0, 1, 3), "C": (2, 1, 0)})


def two_centre_operator(atoms: Atoms) -> Operator:
    """Make blocks from elements that depend on species, |m| and distance, by loops."""
    pairs = with_onsite(neighbour_pairs(atoms, 4.5), len(atoms))
    vectors = pairs.vectors(atoms)
    labels = atoms.get_chemical_symbols()
    blocks = []
    for n in range(len(pairs)):
        a, b = labels[pairs.i[n]], labels[pairs.j[n]]
        r = np.linalg.norm(vectors[n])
        block = np.zeros((BASIS.n_orb(a), BASIS.n_orb(b)))
        if r > 0:
            z = vectors[n] / r
            x = np.cross(z, [0.3, -0.5, 0.8])
            x /= np.linalg.norm(x)
            Q = np.stack((x, np.cross(z, x), z), axis=1)
            for p, l in enumerate(BASIS.shells[a]):
                for q, k in enumerate(BASIS.shells[b]):
                    core = np.zeros((2 * l + 1, 2 * k + 1))
                    for m in range(-min(l, k), min(l, k) + 1):
                        core[l + m, k + m] = np.sin(1 + p + 3 * q + abs(m) + r)
                    rows, columns = BASIS.shell_slices(a)[p], BASIS.shell_slices(b)[q]
                    block[rows, columns] = wigner_d(l, Q) @ core @ wigner_d(k, Q).T
        blocks.append(block)
    return Operator.from_blocks(atoms, BASIS, pairs.R, pairs.i, pairs.j, blocks, unit="1")


@pytest.fixture
def S(rng) -> Operator:
    return two_centre_operator(random_atoms(rng))


def test_the_form_is_recognised(S: Operator, rng) -> None:
    found = two_centre_residual(S)
    assert max(found.rotation, found.distance) < 100 * FLOAT64
    Q = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turned = two_centre_residual(S.rotated(Q * np.linalg.det(Q)))
    assert turned.rotation < 100 * FLOAT64
    assert check_two_centre(S) == found


@pytest.mark.parametrize("defect", ["order", "sign", "R", "transposed", "element"])
def test_defects_are_seen(S: Operator, defect: str) -> None:
    if defect == "order":
        wrong = S.from_convention("openmx")
    elif defect == "sign":
        wrong = S.from_convention("siesta")
    elif defect == "R":
        pairs, order = PairTable.from_arrays(-S.pairs.R, S.pairs.i, S.pairs.j)
        blocks = [S.block(n) for n in order]
        wrong = Operator.from_blocks(S.atoms, BASIS, pairs.R, pairs.i, pairs.j, blocks)
    elif defect == "transposed":
        blocks = [S.block(n).T for n in S.pairs.partner]
        blocks = [b if b.shape == tuple(s) else np.zeros(s) for b, s in
                  zip(blocks, S.block_shapes, strict=True)]  # fmt: skip
        values = np.concatenate([b[::-1].ravel() for b in blocks])
        wrong = S.replace(values=values)
    else:
        n = int(np.argmax(~S.pairs.is_onsite))
        values = S.values.copy()
        values[S.offsets[n] + 1] += 0.05
        wrong = S.replace(values=values)
    assert two_centre_residual(wrong).rotation > TOL_TWO_CENTRE
    with pytest.raises(ConventionError, match="Check order and signs"):
        check_two_centre(wrong)


def test_equal_distances_have_equal_elements() -> None:
    atoms = Atoms("BC", positions=[[0, 0, 0], [1.5, 0, 0]], cell=[3.0, 3.1, 3.2], pbc=True)
    S = two_centre_operator(atoms)
    assert check_two_centre(S).distance < 100 * FLOAT64
    labels = np.array(atoms.get_chemical_symbols())
    between = (labels[S.pairs.i] == "B") & (labels[S.pairs.j] == "C")
    one = np.repeat(between & (S.pairs.R[:, 0] == 0), np.diff(S.offsets))
    with pytest.raises(ConventionError, match="same species and distance"):
        check_two_centre(S.replace(values=np.where(one, 1.2, 1.0) * S.values))
