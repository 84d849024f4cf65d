"""The loop over k-points: in this process, or in those of a joblib pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

Result = TypeVar("Result")
Step = TypeVar("Step")

#: Pieces of the list of k-points that each process gets: few keep what is set up once for a
#: piece (orderings, symbolic analyses), several even out the load.
PIECES = 4


def map_k(
    task: Callable[[NDArray[np.float64]], list[Result]],
    k: NDArray[np.float64],
    n_jobs: int = 1,
    track: Callable[..., Iterable[list[Result]]] | None = None,
) -> list[Result]:
    """Run a task on all k-points.

    Parameters
    ----------
    task
        Takes some k-points, ``(m, 3)``, and returns a list of one result each; picklable.
    k
        ``(n_k, 3)``.
    n_jobs
        Processes; each holds its own matrices. 1 stays in this process, as a single k-point
        does; -1 takes every core.
    track
        Wraps an iterator as ``track(iterator, total=n)``, to show progress.

    Returns
    -------
    list
        In the order of `k`.
    """
    from joblib import Parallel, delayed, effective_n_jobs

    n_jobs = 1 if len(k) == 1 else n_jobs  # what a task prepares is there for the next one
    n_piece = len(k) if n_jobs == 1 else min(len(k), PIECES * effective_n_jobs(n_jobs))
    pieces = np.array_split(k, max(n_piece, 1))
    done: Iterable[list[Result]]
    if n_jobs == 1:
        done = (task(piece) for piece in pieces)
    else:
        pool = Parallel(n_jobs=n_jobs, return_as="generator")
        done = pool(delayed(task)(piece) for piece in pieces)
    return [result for piece in tracked(done, len(pieces), track) for result in piece]


def tracked(
    steps: Iterable[Step], n_step: int, track: Callable[..., Iterable[Step]] | None
) -> Iterable[Step]:
    """Show the progress of steps where `track` says how, see `map_k`."""
    return steps if track is None else track(steps, total=n_step)
