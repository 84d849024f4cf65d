"""Orbital orders of the codes and the orders of vectors."""

from __future__ import annotations

import pytest

from deeph_lightning.core.conventions import (
    ORBITAL_ORDERS,
    shell_permutation,
    vector_to_harmonic,
)
from deeph_lightning.errors import ConfigError, ShapeError

#: What each code stores first, second, ... in a shell, written as the order m of the common
#: table ("z2" is m = 0), from the manuals.
NAMES = {1: ["y", "z", "x"], 2: ["xy", "yz", "z2", "xz", "x2-y2"]}
STORED = {
    "openmx": {1: ["x", "y", "z"], 2: ["z2", "x2-y2", "xy", "xz", "yz"]},
    "abacus": {1: ["z", "x", "y"], 2: ["z2", "xz", "yz", "x2-y2", "xy"]},
    "wannier90": {1: ["z", "x", "y"], 2: ["z2", "xz", "yz", "x2-y2", "xy"]},
    "pyscf": {1: ["x", "y", "z"], 2: NAMES[2]},
    "siesta": NAMES,
    "fhi_aims": NAMES,
    "deeph": NAMES,
}


@pytest.mark.parametrize("code", STORED)
@pytest.mark.parametrize("l", [1, 2])
def test_take_picks_the_named_function(code: str, l: int) -> None:
    take, _ = shell_permutation(code, l)
    assert [STORED[code][l][n] for n in take] == NAMES[l]


@pytest.mark.parametrize(
    ("code", "l", "take"),
    [
        ("openmx", 3, [6, 4, 2, 0, 1, 3, 5]),
        ("abacus", 3, [6, 4, 2, 0, 1, 3, 5]),
        ("abacus", 4, [8, 6, 4, 2, 0, 1, 3, 5, 7]),
        ("pyscf", 3, list(range(7))),
        ("deeph_legacy", 2, [2, 4, 0, 3, 1]),
    ],
)
def test_take_of_high_degrees(code: str, l: int, take: list[int]) -> None:
    assert shell_permutation(code, l)[0].tolist() == take


@pytest.mark.parametrize(
    ("code", "l", "sign"),
    [
        ("abacus", 1, [-1, 1, -1]),
        ("siesta", 2, [1, -1, 1, -1, 1]),
        ("siesta", 3, [-1, 1, -1, 1, -1, 1, -1]),
        ("fhi_aims", 1, [1, 1, -1]),
        ("fhi_aims", 3, [1, 1, 1, 1, -1, 1, -1]),
        ("openmx", 3, [1] * 7),
    ],
)
def test_signs(code: str, l: int, sign: list[int]) -> None:
    assert shell_permutation(code, l)[1].tolist() == sign


@pytest.mark.parametrize("code", ORBITAL_ORDERS)
@pytest.mark.parametrize("l", range(6))
def test_every_table_is_orthogonal(code: str, l: int) -> None:
    take, sign = shell_permutation(code, l)
    assert sorted(take) == list(range(2 * l + 1))
    assert set(sign.tolist()) <= {1, -1}


def test_vector_order() -> None:
    assert vector_to_harmonic([[1.0, 2.0, 3.0]]).tolist() == [[2.0, 3.0, 1.0]]


def test_bad_input() -> None:
    with pytest.raises(ConfigError, match=r"orbital order 'vasp' is unknown.*abacus"):
        shell_permutation("vasp", 1)
    with pytest.raises(ShapeError):
        vector_to_harmonic([1.0, 2.0])
