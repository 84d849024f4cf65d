"""Which structures train, validate and test."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deeph_lightning.errors import ConfigError, DataError
from deeph_lightning.io.split import PARTS, Split, check_split, read_split

log = logging.getLogger(__name__)

#: Parts of a set that comes without a split.
FRACTIONS = {"train": 0.8, "val": 0.1, "test": 0.1}


def resolve_split(
    wanted: str | Path | Mapping[str, Any] | None,
    own: Mapping[str, Sequence[str]] | None,
    names: Sequence[str],
) -> Split:
    """Return the names of every part.

    Parameters
    ----------
    wanted
        JSON file; names ``{"train": [...], "val": [...], "test": [...]}``; or fractions
        ``{"train": 0.8, ...}``, by which structures are dealt out in the order of the hashes of
        their names. None takes the split of the data, and without one `FRACTIONS`.
    own
        Split that comes with the data, if any.
    names
        Structures of the set.

    Raises
    ------
    ConfigError
        `wanted` is none of these.
    FormatError, DataError
        A name is unknown or comes twice, or a part is empty.
    """
    where, split = "the split of the data", own
    if isinstance(wanted, str | Path):
        where, split = f"data.split={wanted}", read_split(Path(wanted), names)
        if split is None:
            msg = f"{where}: there is no such file. Correct the path."
            raise ConfigError(msg, key="data.split")
    elif wanted is None and own is None:
        wanted = FRACTIONS
        log.info("the data bring no split: %s of the structures, by their names", FRACTIONS)
    if isinstance(wanted, Mapping):
        where = "data.split"
        has_numbers = all(isinstance(value, int | float) for value in wanted.values())
        split = (by_fractions if has_numbers else _by_names)(wanted, names)
    assert split is not None
    sizes = ", ".join(f"{part} {len(split.get(part, ()))}" for part in PARTS)
    for part in PARTS:
        if not split.get(part):
            msg = (
                f"{where}: part {part} is empty ({sizes}, of {len(names)} structures). Give it "
                f"at least one structure."
            )
            raise DataError(msg)
    return {part: list(split[part]) for part in PARTS}


def by_fractions(fractions: Mapping[str, float], names: Sequence[str]) -> Split:
    """Deal structures out by the hashes of their names, the same wherever the data lie.

    Raises
    ------
    ConfigError
        A part is unknown or negative, or they are more than 1 together.
    """
    total = sum(fractions.values())
    lowest = min(fractions.values(), default=0.0)
    if set(fractions) - set(PARTS) or total > 1 + 1e-9 or lowest < 0:
        msg = (
            f"data.split: found the fractions {dict(fractions)}, expected fractions of "
            f"{', '.join(PARTS)}, none below 0, at most 1 together."
        )
        raise ConfigError(msg, key="data.split")
    order = sorted(names, key=_hash)
    split, start, reached = {}, 0, 0.0
    for part in PARTS:
        reached += fractions.get(part, 0.0)
        stop = round(reached * len(order))
        chosen = set(order[start:stop])
        split[part] = [name for name in names if name in chosen]
        start = stop
    return split


def limited(names: Sequence[str], limit: int | None) -> list[str]:
    """Return some of the names, in their order; smaller choices lie in larger ones.

    Raises
    ------
    ConfigError
        There are not that many.
    """
    if limit is None:
        return list(names)
    if not 1 <= limit <= len(names):
        msg = (
            f"data.limit_train is {limit}, but there are {len(names)} training structures. "
            f"Choose 1 to {len(names)}, or null for all."
        )
        raise ConfigError(msg, key="data.limit_train")
    chosen = set(sorted(names, key=_hash)[:limit])
    return [name for name in names if name in chosen]


def _by_names(split: Mapping[str, Any], names: Sequence[str]) -> Split:
    return check_split(split, names, Path("data.split"))


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
