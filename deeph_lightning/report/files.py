"""Writing small text files so that a reader finds the whole file or the one before."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write a text file under a temporary name, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def write_json(path: Path, values: Mapping[str, float]) -> None:
    """Write numbers by name as JSON, keys in their order."""
    write_text(path, json.dumps(dict(values), indent=1, allow_nan=False) + "\n")
