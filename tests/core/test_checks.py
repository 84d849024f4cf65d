"""What the border refuses, and that it says where and what to do."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from deeph_lightning.core import checks
from deeph_lightning.core.basis import OrbitalBasis
from deeph_lightning.core.operator import Operator
from deeph_lightning.errors import (
    BasisMismatchError,
    DataError,
    HermiticityError,
    OverlapNotPositiveError,
    PhysicsError,
)
from tests.systems import BASIS, random_atoms, random_operator
from tests.tolerances import EIGENVALUE


@pytest.fixture
def atoms(rng: np.random.Generator) -> Atoms:
    return random_atoms(rng)


@pytest.fixture
def H(rng: np.random.Generator, atoms: Atoms) -> Operator:
    return random_operator(rng, atoms)


@pytest.fixture
def S(H: Operator) -> Operator:
    """Return a small random part, plus one: positive."""
    values = 0.01 * H.values
    overlap = H.replace(values=values, unit="1")
    for n in np.flatnonzero(overlap.pairs.is_onsite):
        block = overlap.block(n)
        block += np.eye(len(block))
    return overlap


def test_a_sound_system_passes(atoms: Atoms, H: Operator, S: Operator) -> None:
    checks.check_system(atoms, BASIS, H, S)
    checks.check_system(atoms, BASIS, H.half(), None)
    checks.check_system(atoms, BASIS, None, S.half())


@pytest.mark.parametrize(
    ("positions", "cell", "text"),
    [
        ([[0, 0, 0], [0, 0, 0.2]], [5, 5, 5], r"atoms 0 \(C\) and 1 \(C\).*0.200 Å apart"),
        ([[0, 0, 0.1], [0, 0, 4.9]], [5, 5, 5], r"R=\(0, 0, -1\), are 0.200 Å"),
        ([[0, 0, 0], [1, 0, 0]], [5, 5, 0.25], r"atoms 0 \(C\) and 0 \(C\).*0.250 Å"),
        ([[0, 0, 0], [0, 0, 0]], [5, 5, 5], "0.000 Å"),
        ([[0, 0, 0], [0, 0, np.nan]], [5, 5, 5], "NaN or infinite"),
        ([[0, 0, 0], [0, 0, 7e288]], [5, 5, 5], "7e\\+288 Å from the origin"),
        ([[0, 0, 0], [1, 0, 0]], [[5, 0, 0], [5, 0, 0], [0, 0, 5]], "span no volume"),
    ],
)
def test_structures(positions: list[list[float]], cell: object, text: str) -> None:
    atoms = Atoms("C2", positions=positions, cell=cell, pbc=True)
    with pytest.raises(PhysicsError, match=f"structure 'bad_3': .*{text}"):
        checks.check_structure(atoms, "bad_3")


def test_distances_are_allowed_across_open_boundaries() -> None:
    atoms = Atoms("C2", positions=[[0, 0, 0.1], [0, 0, 4.9]], cell=[5, 5, 5], pbc=False)
    checks.check_structure(atoms)


def test_missing_species(atoms: Atoms) -> None:
    with pytest.raises(BasisMismatchError, match=r"'toy': the orbital map has C.*also holds B"):
        checks.check_basis(atoms, OrbitalBasis({"C": (0,)}))


def test_operator_of_another_structure(atoms: Atoms, H: Operator) -> None:
    other = atoms[[1, 0, 2, 3]]
    with pytest.raises(DataError, match=r"H is of .* atoms differ in order"):
        checks.check_system(other, BASIS, H, None)
    with pytest.raises(DataError, match="S is of"):
        checks.check_system(atoms[:3], BASIS, None, H)


def test_operator_of_another_basis(atoms: Atoms, H: Operator) -> None:
    basis = OrbitalBasis({"C": (1, 0, 0), "B": BASIS.shells["B"]})
    with pytest.raises(BasisMismatchError, match=r"'C' has shells \(0, 1, 0\), expected \(1,"):
        checks.check_system(atoms, basis, H, None)


def test_hermiticity_tolerances(atoms: Atoms, H: Operator, S: Operator) -> None:
    for op, tol in ((H, checks.TOL_HERMITIAN_H), (S, checks.TOL_HERMITIAN_S)):
        position = int(op.offsets[np.argmax(~op.pairs.is_onsite)])
        op.values[position] += 0.5 * tol
        is_H = op is H
        checks.check_system(atoms, BASIS, op if is_H else None, None if is_H else op)
        op.values[position] += tol
        with pytest.raises(HermiticityError, match=f"'toy, {'H' if is_H else 'S'}', pair R="):
            checks.check_system(atoms, BASIS, op if is_H else None, None if is_H else op)


@pytest.mark.parametrize("dense", [True, False])
def test_overlap_that_is_not_positive(
    S: Operator, dense: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not dense:
        monkeypatch.setattr(checks, "MAX_DENSE_ORBITALS", 0)
    spectra = [np.linalg.eigvalsh(S.bloch(k)) for k in checks.CHECKED_K]
    lowest = min(float(values[0]) for values in spectra)
    found = checks.check_overlap_positive(S)
    if dense:
        assert abs(found - lowest) < EIGENVALUE
    else:
        assert found >= lowest - EIGENVALUE
    onsite = int(np.argmax(S.pairs.is_onsite))
    S.block(onsite)[0, 0] = -0.5
    with pytest.raises(
        OverlapNotPositiveError, match=r"'toy': S\(k\) at k = \(0.0.*eigenvalue -"
    ):
        checks.check_overlap_positive(S)


def test_overlap_that_is_wrong_at_a_general_k_only() -> None:
    atoms = Atoms("C", cell=[3, 9, 9], pbc=True)
    basis = OrbitalBasis({"C": (0,)})
    chain = Operator.from_blocks(
        atoms, basis, [[0, 0, 0], [1, 0, 0]], [0, 0], [0, 0], [np.eye(1), 0.9 * np.eye(1)],
        unit="1", is_half=True,
    )  # fmt: skip
    # 1 + 1.8 cos(2 pi k) is positive at Gamma
    assert chain.bloch([0, 0, 0]).real > 0
    shifted = chain.replace(values=np.array([1.0, -0.9]))  # and 1 - 1.8 cos is not
    with pytest.raises(OverlapNotPositiveError, match=r"k = \(0.0, 0.0, 0.0\)"):
        checks.check_overlap_positive(shifted)
    two = Operator.from_blocks(
        atoms, basis, [[0, 0, 0], [4, 0, 0]], [0, 0], [0, 0], [np.eye(1), 0.9 * np.eye(1)],
        unit="1", is_half=True,
    )  # fmt: skip
    with pytest.raises(OverlapNotPositiveError, match=r"k = \(0\.137"):
        checks.check_overlap_positive(two)
