"""The two-centre form of overlaps: planted defects are seen, right sets pass."""

from __future__ import annotations

import numpy as np
import pytest

from deeph_lightning.core.pairs import PairTable
from deeph_lightning.core.two_centre import check_two_centre, two_centre_residual
from deeph_lightning.errors import PhysicsError
from deeph_lightning.io.formats import read_structure_folder
from tests.io.systems import STRUCTURES
from tests.tolerances import TWO_CENTRE_OPENMX, TWO_CENTRE_WRONG


@pytest.fixture(scope="module")
def S():
    return read_structure_folder(STRUCTURES / "MoTe2", ("S",)).S


def with_R_flipped(S):
    S = S.with_atoms_shifted([[0, 0, 0], [1, 0, 0], [0, -1, 0]])  # so that there are R
    pairs, order = PairTable.from_arrays(-S.pairs.R, S.pairs.i, S.pairs.j)
    blocks = [S.block(n).ravel() for n in order]
    return S.replace(pairs=pairs, values=np.concatenate(blocks))


def test_right_overlap(S) -> None:
    found = check_two_centre(S)
    assert found.axial < TWO_CENTRE_OPENMX
    assert found.distance < TWO_CENTRE_OPENMX
    half = two_centre_residual(S.half())
    assert half.axial < TWO_CENTRE_OPENMX


def test_it_does_not_depend_on_the_axes(S, rng) -> None:
    Q = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    found = two_centre_residual(S.rotated(Q))
    assert max(found[:2]) < TWO_CENTRE_OPENMX


@pytest.mark.parametrize(
    "defect",
    [
        with_R_flipped,
        lambda S: S.from_convention("siesta"),  # signs
        lambda S: S.from_convention("abacus"),  # order and signs
        lambda S: S.with_atoms_shifted([[0, 0, 0], [1, 0, 0], [0, -1, 0]]).replace(atoms=S.atoms),
    ],
    ids=["R flipped", "signs", "order", "wrapped atoms"],
)
def test_defects_are_seen(S, defect) -> None:
    wrong = defect(S)
    assert max(two_centre_residual(wrong)[:2]) > TWO_CENTRE_WRONG
    with pytest.raises(PhysicsError, match="'MoTe2', S of the pair R="):
        check_two_centre(wrong)


def test_one_wrong_element_is_found(S) -> None:
    n = int(np.flatnonzero(S.pairs.distances(S.atoms) > 3)[0])
    values = S.values.copy()
    values[S.offsets[n]] += 0.05
    found = two_centre_residual(S.replace(values=values))
    assert found.distance_pair == n or found.distance > 0.049
