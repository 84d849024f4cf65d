"""Where jobs run: in this process, on this machine, or under Slurm (through Dask)."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import joblib

from deeph_lightning.errors import ConfigError, MissingDependencyError
from deeph_lightning.io.parallel import THREAD_VARIABLES, worker_threads

if TYPE_CHECKING:
    from collections.abc import Mapping

    from distributed import Client

Task = TypeVar("Task")
Result = TypeVar("Result")


class Cluster(Protocol):
    """Somewhere to run tasks."""

    def work_on(
        self, work: Callable[[Any, Task], Result], shared: Any, tasks: Sequence[Task]
    ) -> Iterator[tuple[Task, Result | str]]:
        """Yield every task with its result as it is done, or with why its process died.

        Parameters
        ----------
        work
            Function of a module, called as ``work(shared, task)``.
        shared
            What all tasks need.
        tasks
            What to do, in any order.
        """


class Serial:
    """The process itself, task after task: for engines that run in parallel themselves."""

    def work_on(
        self, work: Callable[[Any, Task], Result], shared: Any, tasks: Sequence[Task]
    ) -> Iterator[tuple[Task, Result | str]]:
        """Work on the tasks in their order (see `Cluster`)."""
        for task in tasks:
            yield task, work(shared, task)


class Local:
    """Processes on this machine.

    Parameters
    ----------
    n_worker
        Processes, or None for one for each `n_thread` cores.
    n_thread
        Threads of each for linear algebra.

    Raises
    ------
    ConfigError
        A number is not positive.
    """

    def __init__(self, n_worker: int | None = None, n_thread: int = 1) -> None:
        for key, number in (("n_worker", n_worker), ("n_thread", n_thread)):
            if number is not None and number < 1:
                msg = f"cluster.{key} = {number}: expected a positive number."
                raise ConfigError(msg, key=f"cluster.{key}")
        self.n_thread = n_thread
        self.n_worker = n_worker or max(1, joblib.cpu_count() // n_thread)

    def work_on(
        self, work: Callable[[Any, Task], Result], shared: Any, tasks: Sequence[Task]
    ) -> Iterator[tuple[Task, Result | str]]:
        """Work on the tasks in processes of a ``LocalCluster`` (see `Cluster`)."""
        distributed = _imported("distributed")
        with (
            worker_threads(self.n_thread),
            distributed.LocalCluster(
                n_workers=min(self.n_worker, len(tasks)),
                threads_per_worker=1,
                processes=True,
                dashboard_address=None,
                silence_logs=logging.ERROR,
            ) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield from _stream(client, work, shared, tasks)


class Slurm:
    """Jobs of Slurm that this process submits and that fetch tasks from it.

    Parameters
    ----------
    n_job
        Jobs to submit.
    options
        Arguments of ``dask_jobqueue.SLURMCluster``: queue, account, cores, processes, memory,
        walltime, job_script_prologue, ...
    n_thread
        Threads of each process for linear algebra.
    """

    def __init__(self, n_job: int, options: Mapping[str, Any], n_thread: int = 1) -> None:
        self.n_job, self.n_thread = n_job, n_thread
        self.options = {key: value for key, value in options.items() if value is not None}

    def cluster(self) -> Any:
        """Return the ``SLURMCluster``, without jobs.

        Raises
        ------
        ConfigError
            An option is not one of its own.
        """
        jobqueue = _imported("dask_jobqueue")
        exports = [f"export {name}={self.n_thread}" for name in THREAD_VARIABLES]
        prologue = [*exports, *self.options.get("job_script_prologue", [])]
        try:
            return jobqueue.SLURMCluster(**self.options | {"job_script_prologue": prologue})
        except (TypeError, ValueError) as error:
            msg = f"cluster.options = {self.options}: dask_jobqueue refuses them ({error})."
            raise ConfigError(msg, key="cluster.options") from None

    def work_on(
        self, work: Callable[[Any, Task], Result], shared: Any, tasks: Sequence[Task]
    ) -> Iterator[tuple[Task, Result | str]]:
        """Work on the tasks in jobs of Slurm (see `Cluster`)."""
        distributed = _imported("distributed")
        with self.cluster() as cluster, distributed.Client(cluster) as client:
            cluster.scale(jobs=self.n_job)
            yield from _stream(client, work, shared, tasks)


def _stream(
    client: Client,
    work: Callable[[Any, Task], Result],
    shared: Any,
    tasks: Sequence[Task],
) -> Iterator[tuple[Task, Result | str]]:
    """Submit all tasks and yield them as they end."""
    distributed = _imported("distributed")
    common = client.scatter(shared, broadcast=False)
    futures = {client.submit(work, common, task, pure=False): task for task in tasks}
    for future in distributed.as_completed(futures):
        task = futures.pop(future)
        if future.status == "finished":
            yield task, future.result()
        else:
            yield task, f"its process died ({type(future.exception()).__name__})"
        future.release()


def _imported(name: str) -> Any:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        msg = (
            f"cluster: the package {error.name} is not installed. Install it by "
            f"pip install 'deeph-lightning[generate]', or compute in this process: "
            f"cluster=serial"
        )
        raise MissingDependencyError(msg) from None
    logging.getLogger("distributed").setLevel(logging.WARNING)  # it tells every connection
    return module
