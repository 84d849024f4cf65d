"""How much memory there is, and refusing what would need more."""

from __future__ import annotations

import os
from pathlib import Path

from deeph_lightning.errors import ResourceError

GB = 1e9


def available_memory() -> float:
    """Return the memory that can be used without swapping, bytes."""
    found = Path("/proc/meminfo")
    if found.is_file():
        for line in found.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return float(line.split()[1]) * 1024
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def check_memory(needed: float, what: str, remedy: str, limit: float | None = None) -> None:
    """Refuse a step that does not fit.

    Parameters
    ----------
    needed
        Estimate, bytes.
    what
        The step, for the message.
    remedy
        What to do instead.
    limit
        Bytes that may be used; without it `available_memory`.

    Raises
    ------
    ResourceError
        More is needed than there is.
    """
    there = available_memory() if limit is None else limit
    if needed > there:
        msg = (
            f"{what} needs about {needed / GB:.3g} GB of memory, {there / GB:.3g} GB are "
            f"available. {remedy}"
        )
        raise ResourceError(msg)
