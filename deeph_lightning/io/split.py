"""Splits: which structures are for training, validation and test."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from deeph_lightning.errors import DataError, FormatError

if TYPE_CHECKING:
    from pathlib import Path

#: Names of each part; a structure may be in none.
Split = dict[str, list[str]]

PARTS = ("train", "val", "test")


def check_split(data: object, names: Iterable[str], path: Path) -> Split:
    """Check a split against the structures of its set.

    Parameters
    ----------
    data
        ``{"train": [names], "val": [names], "test": [names]}``; parts may be missing.
    names
        Structures of the set.
    path
        File of the split, for messages.

    Raises
    ------
    FormatError
        It is of another kind.
    DataError
        A name is unknown or comes twice.
    """
    is_split = isinstance(data, Mapping) and all(
        part in PARTS
        and isinstance(members, Sequence)
        and not isinstance(members, str)
        and all(isinstance(m, str) for m in members)
        for part, members in data.items()
    )
    if not is_split:
        keys = f"keys {', '.join(map(str, data))}" if isinstance(data, Mapping) else repr(data)
        msg = (
            f"{path}: this is no split (found {keys[:80]}), expected lists of names of "
            f"structures under {', '.join(PARTS)}. Correct it, or remove it."
        )
        raise FormatError(msg, path=path)
    assert isinstance(data, Mapping)
    known = set(names)
    part_of: dict[str, str] = {}
    for part, members in data.items():
        for name in members:
            if name not in known:
                msg = f"{path}: '{part}' of the split names '{name}': "
                raise DataError(msg + _no_structure(name, known), path=path, structure=name)
            if name in part_of:
                msg = (
                    f"{path}: the split has '{name}' in '{part_of[name]}' and '{part}', "
                    f"expected each structure once. Remove one of them."
                )
                raise DataError(msg, path=path, structure=name)
            part_of[name] = part
    return {part: list(members) for part, members in data.items()}


def read_split(path: Path, names: Iterable[str]) -> Split | None:
    """Read a split from a JSON file; None if there is no file.

    Raises
    ------
    FormatError, DataError
        See `check_split`.
    """
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        msg = f"{path}: this is not JSON ({error}). Correct it, or remove it."
        raise FormatError(msg, path=path) from None
    return check_split(data, names, path)


def unknown_name(name: str, names: Iterable[str], path: Path) -> DataError:
    """Return the error of a structure that a set does not have."""
    return DataError(f"{path}: {_no_structure(name, names)}", path=path, structure=name)


def _no_structure(name: str, names: Iterable[str]) -> str:
    known = sorted(names)
    near = difflib.get_close_matches(name, known, n=3) or known[:3]
    return (
        f"there is no structure '{name}' among {len(known)}. Nearest: "
        f"{', '.join(near) or 'none'}. Correct the name."
    )
