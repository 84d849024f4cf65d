"""Splits by names, file and fractions."""

from __future__ import annotations

import functools
import itertools
import json
import operator
from typing import TYPE_CHECKING

import pytest

from deeph_lightning.data.split import limited, resolve_split
from deeph_lightning.errors import ConfigError, DataError, FormatError

if TYPE_CHECKING:
    from pathlib import Path

NAMES = [f"{n:03d}" for n in range(40)]
OWN = {"train": NAMES[:30], "val": NAMES[30:35], "test": NAMES[35:]}


def test_split_of_the_data_is_taken() -> None:
    assert resolve_split(None, OWN, NAMES) == OWN


def test_names_and_files_come_first(tmp_path: Path) -> None:
    wanted = {"train": ["000"], "val": ["001"], "test": ["002", "003"]}
    assert resolve_split(wanted, OWN, NAMES) == wanted
    (tmp_path / "split.json").write_text(json.dumps(wanted))
    assert resolve_split(tmp_path / "split.json", OWN, NAMES) == wanted
    assert resolve_split(str(tmp_path / "split.json"), None, NAMES) == wanted


@pytest.mark.parametrize("wanted", [None, {"train": 0.8, "val": 0.1, "test": 0.1}])
def test_fractions(wanted: dict[str, float] | None) -> None:
    split = resolve_split(wanted, None, NAMES)
    assert {part: len(names) for part, names in split.items()} == {
        "train": 32,
        "val": 4,
        "test": 4,
    }
    assert sorted(functools.reduce(operator.iadd, split.values(), [])) == NAMES
    assert split == resolve_split(wanted, None, NAMES)
    shuffled = resolve_split(wanted, None, NAMES[::-1])
    assert {p: sorted(n) for p, n in shuffled.items()} == {
        p: sorted(n) for p, n in split.items()
    }
    assert split["test"] != NAMES[-4:]


def test_parts_of_the_set_may_be_left_out() -> None:
    split = resolve_split({"train": 0.5, "val": 0.1, "test": 0.1}, None, NAMES)
    assert sum(map(len, split.values())) == 28


@pytest.mark.parametrize(
    ("wanted", "error", "text"),
    [
        ({"train": 1.0}, DataError, "part val is empty .train 40, val 0, test 0, of 40"),
        ({"train": ["000"], "val": ["001"]}, DataError, "part test is empty"),
        ({"train": 0.9, "val": 0.2}, ConfigError, "at most 1 together"),
        ({"train": 0.9, "valid": 0.1}, ConfigError, "expected fractions of train, val, test"),
        ({"train": ["x"], "val": ["001"], "test": ["002"]}, DataError, "no structure 'x'"),
        ({"train": ["001"], "val": ["001"], "test": ["002"]}, DataError, "'train' and 'val'"),
        ({"training": ["001"]}, FormatError, "this is no split"),
        ("nowhere.json", ConfigError, "nowhere.json: there is no such file"),
    ],
)
def test_what_is_wrong_is_named(wanted: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        resolve_split(wanted, OWN, NAMES)  # type: ignore[arg-type]


def test_empty_part_of_the_own_split() -> None:
    with pytest.raises(DataError, match="the split of the data: part train is empty"):
        resolve_split(None, {"train": [], "val": ["001"], "test": ["002"]}, NAMES)


def test_limits_are_nested() -> None:
    choices = [limited(NAMES, n) for n in (1, 5, 20, 40)]
    for smaller, larger in itertools.pairwise(choices):
        assert set(smaller) < set(larger)
        assert larger == sorted(larger)
    assert limited(NAMES, None) == choices[-1] == NAMES
    assert choices[1] != NAMES[:5]


@pytest.mark.parametrize("limit", [0, 41])
def test_limits_out_of_range(limit: int) -> None:
    with pytest.raises(ConfigError, match=rf"limit_train is {limit}, but there are 40"):
        limited(NAMES, limit)
