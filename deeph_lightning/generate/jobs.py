"""One structure after the other through an engine: what a worker does."""

from __future__ import annotations

import shutil
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from deeph_lightning.errors import DeepHError, NotConvergedError
from deeph_lightning.io.formats import write_structure_folder
from deeph_lightning.io.gates import check_gates

if TYPE_CHECKING:
    from deeph_lightning.generate.engine import Engine
    from deeph_lightning.generate.structures import Sample


@dataclass(frozen=True)
class Job:
    """A structure to compute.

    Attributes
    ----------
    name
        Of the structure.
    sample
        Structure and the entropy that it was drawn with.
    folder
        DeepH folder to write.
    work_folder
        Where the engine may put files.
    keep_files
        Whether they stay after success.
    """

    name: str
    sample: Sample
    folder: Path
    work_folder: Path
    keep_files: bool


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes
    ----------
    state
        "done", "unconverged" (by any attempt) or "failed".
    attempts
        Attempts that were made.
    seconds
        Wall time of all of them.
    message
        Why there is no result, else "".
    """

    state: Literal["done", "unconverged", "failed"]
    attempts: int
    seconds: float
    message: str = ""


def compute(engine: Engine, job: Job) -> Outcome:
    """Compute one structure and write its folder, complete or not at all.

    Parameters
    ----------
    engine
        What computes.
    job
        The structure.

    Returns
    -------
    What became of it; nothing is raised, so that one structure stops no other.
    """
    begin = time.perf_counter()
    attempt, message = 0, ""
    try:
        for attempt in range(engine.n_attempt):
            try:
                _attempt(engine, job, attempt)
            except NotConvergedError as error:
                message = str(error)
            else:
                return Outcome("done", attempt + 1, time.perf_counter() - begin)
        state: Literal["unconverged", "failed"] = "unconverged"
    except DeepHError as error:
        state, message = "failed", f"{type(error).__name__}: {error}"
    except Exception as error:  # noqa: BLE001  # whatever a code does stops no other structure
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}, line {last.lineno}"
        state, message = "failed", f"unexpected {type(error).__name__}: {error} ({where})"
    return Outcome(state, attempt + 1, time.perf_counter() - begin, message)


def _attempt(engine: Engine, job: Job, attempt: int) -> None:
    work = job.work_folder / f"attempt_{attempt}"
    shutil.rmtree(work, ignore_errors=True)  # of a run that was killed
    work.mkdir(parents=True)
    system = engine.run(job.sample.atoms.copy(), work, attempt)
    system.name = system.atoms.info["name"] = job.name
    system.info["generate"] = {"seed": list(job.sample.seed), "attempt": attempt}
    check_gates(system)
    write_structure_folder(system, job.folder)
    if not job.keep_files:
        shutil.rmtree(job.work_folder, ignore_errors=True)
