"""Work on many structures: in this process or in several, with a progress bar."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

import joblib
from rich import progress as bars
from rich.console import Console

from deeph_lightning.errors import ConfigError

Task = TypeVar("Task")
Result = TypeVar("Result")

#: Tasks for each process below which starting it takes longer than it saves.
MIN_SHARE = 8
#: What libraries of linear algebra read when they are loaded.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def count_workers(n_worker: int | None, n_task: int) -> int:
    """Return how many processes to use; None means all cores where there is enough to do."""
    if n_worker is None:
        return min(joblib.cpu_count(), n_task // MIN_SHARE)
    return min(n_worker, n_task)


def refuse_unguarded_script() -> None:
    """Refuse work in a process that is only just importing the script that started it.

    Such a process would wait for the work of the one that started it, and that one for it.

    Raises
    ------
    ConfigError
        The script does its work when it is imported, too.
    """
    # set by multiprocessing while a new process imports the script; it asks the same itself
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ConfigError(
            "this script starts its work again in each process that it starts. Put what it "
            "does below the line  if __name__ == '__main__':  or start no processes "
            "(n_worker=1, num_workers=0)"
        )


def work_on(
    work: Callable[[Any, Task], Result],
    shared: Any,
    tasks: Sequence[Task],
    n_worker: int | None,
) -> Iterator[tuple[Task, Result]]:
    """Work on tasks in any order; yield each with its result as it is done.

    Parameters
    ----------
    work
        Function of a module, called as ``work(shared, task)``. What it raises ends all.
    shared
        What all tasks need; each process gets a copy once.
    tasks
        Hashable and, for several processes, to be pickled.
    n_worker
        Processes, see `count_workers`; less than two work in this one.

    Raises
    ------
    ConfigError
        A process was killed, as by a system that is out of memory; a script does its work
        when it is imported, too.
    """
    count = count_workers(n_worker, len(tasks))
    if count < 2:
        for task in tasks:
            yield task, work(shared, task)
        return
    refuse_unguarded_script()
    context = multiprocessing.get_context("spawn")
    with worker_threads(1):
        pool = ProcessPoolExecutor(count, context, _set_shared, (work, shared))
        try:
            futures = {pool.submit(_call, task): task for task in tasks}
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            msg = (
                f"one of {count} processes ended; its error is above. If there is none, most "
                f"likely memory ran out. What is done is kept: repeat the command with fewer "
                f"processes (n_worker)."
            )
            raise ConfigError(msg, key="n_worker") from None
        finally:
            pool.shutdown(cancel_futures=True)


_state: dict[str, Any] = {}


def _set_shared(work: Callable[[Any, Any], Any], shared: Any) -> None:
    _state.update(work=work, shared=shared)


def _call(task: Any) -> Any:
    return _state["work"](_state["shared"], task)


@contextmanager
def progress_bar(
    description: str, total: int, done: int = 0, *, show: bool = True
) -> Iterator[Callable[[], None]]:
    """Show a bar with the time that is left; what it gives advances it by one."""
    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with bars.Progress(*columns, console=console, disable=not show, transient=True) as bar:
        task = bar.add_task(description, total=total, completed=done)
        yield lambda: bar.advance(task)


@contextmanager
def worker_threads(n: int) -> Iterator[None]:
    """Make processes that start inside use n threads for linear algebra."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(n)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
