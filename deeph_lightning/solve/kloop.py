"""The loop over k-points: in this process, or in those of a joblib pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

Result = TypeVar("Result")

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
        Processes; each holds its own matrices. 1 stays in this process, -1 takes every core.
    track
        Wraps an iterator as ``track(iterator, total=n)``, to show progress.

    Returns
    -------
    list
        In the order of `k`.
    """
    from joblib import Parallel, delayed, effective_n_jobs

    n_piece = len(k) if n_jobs == 1 else min(len(k), PIECES * effective_n_jobs(n_jobs))
    pieces = np.array_split(k, max(n_piece, 1))
    done: Iterable[list[Result]]
    if n_jobs == 1:
        done = (task(piece) for piece in pieces)
    else:
        pool = Parallel(n_jobs=n_jobs, return_as="generator")
        done = pool(delayed(task)(piece) for piece in pieces)
    if track is not None:
        done = track(done, total=len(pieces))
    return [result for piece in done for result in piece]
