"""The processes that share a prediction: those that torchrun started, or this one alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist


class Ranks:
    """Which of the processes this one is.

    Attributes
    ----------
    rank, size
        Number of this process, from 0, and of all.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def is_first(self) -> bool:
        """Whether this process reports."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            dist.barrier()

    def total(self, value: float) -> float:
        """Return the sum over all processes; all of them must ask."""
        if self.size == 1:
            return value
        found = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(found)
        return float(found)


@contextmanager
def started_ranks() -> Iterator[Ranks]:
    """Join the processes that torchrun started (its environment variables tell)."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size < 2:
        yield Ranks()
        return
    # messages are numbers, blocks go through files; one process may wait long for another
    dist.init_process_group("gloo", timeout=timedelta(days=7))
    try:
        yield Ranks(dist.get_rank(), size)
    finally:
        dist.destroy_process_group()
