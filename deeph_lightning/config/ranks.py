"""Which of a run's processes this one is, before they know of each other."""

from __future__ import annotations

import os
from datetime import datetime

#: Set by torchrun, by Slurm, and by Lightning for the processes that it starts.
_VARIABLES = ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK")


def is_first_rank() -> bool:
    """Whether this process is the only one of its run, or the one that writes."""
    return _number() == 0


def run_stamp() -> str:
    """Name of a run folder, ``<date>_<time>``; resolver ``${run_stamp:}``.

    Processes that torchrun or Slurm starts read their own clocks. The first names the folder;
    what Hydra writes for another goes to ``.rank<number>`` beside it.
    """
    number = _number()
    return f".rank{number}" if number else datetime.now().strftime("%Y-%m-%d_%H-%M-%S")


def _number() -> int:
    values = (os.environ.get(name, "0") for name in _VARIABLES)
    return next((int(value) for value in values if value.isdigit() and int(value)), 0)
