"""A run of a generator: what is there is kept, what is missing is computed, all is recorded.

In the output folder are ``generate.json`` (settings and versions, written before the first
calculation), a DeepH folder for each structure, and ``report.json`` (what was left out, and
why). A structure counts as there once its folder can be read, and folders appear complete: a
run that was killed goes on where it was.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import logging
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeph_lightning.errors import ConfigError, DataError, DeepHError
from deeph_lightning.generate.jobs import Job, Outcome, compute
from deeph_lightning.io.files import new_file, read_json, write_json
from deeph_lightning.io.formats import detect_format, read_structure_folder
from deeph_lightning.io.parallel import progress_bar

if TYPE_CHECKING:
    from deeph_lightning.generate.clusters import Cluster
    from deeph_lightning.generate.engine import Engine
    from deeph_lightning.generate.structures import Sample

log = logging.getLogger(__name__)

RECORD, REPORT = "generate.json", "report.json"
#: Where engines work, below the output; hidden, so that it is no part of the data set.
WORK = ".work"
_PACKAGES = ("deeph-lightning", "numpy", "scipy", "ase")


class Run:
    """A data set to compute.

    Parameters
    ----------
    output
        Folder of the data set.
    engine
        What computes.
    cluster
        Where.
    settings
        Everything that decides the result, plain: compared with what `output` was made with.
    keep_files
        Keep the files of the engine of structures that succeed, too.
    retry_unconverged
        Try again what did not converge in a run before; what failed otherwise always is.

    Attributes
    ----------
    n_done, n_there
        Structures that this run computed, and those that were there.
    left_out
        Structures without result, by name: ``state``, ``attempts`` and ``message`` of each.
    """

    def __init__(
        self,
        output: Path,
        engine: Engine,
        cluster: Cluster,
        settings: Mapping[str, Any],
        *,
        keep_files: bool = False,
        retry_unconverged: bool = False,
    ) -> None:
        self.output, self.engine, self.cluster = output, engine, cluster
        self.settings = dict(settings)
        self.keep_files, self.retry_unconverged = keep_files, retry_unconverged
        self.n_done = self.n_there = 0
        self.left_out: dict[str, dict[str, Any]] = {}
        self.seconds = 0.0

    def compute(self, samples: Sequence[Sample], *, show_progress: bool = True) -> None:
        """Compute what is not there yet.

        Parameters
        ----------
        samples
            Structures of the whole data set.
        show_progress
            Show a bar.

        Raises
        ------
        DataError
            The output was made with other settings, or another run writes to it.
        MissingDependencyError, ConfigError
            The engine or the cluster cannot work.
        """
        begin = time.perf_counter()
        facts = self.engine.check([sample.atoms for sample in samples])
        _refuse_foreign(self.output)
        self.output.mkdir(parents=True, exist_ok=True)
        with _only_run(self.output):
            self._record(facts)
            jobs = self._missing(samples)
            total, there = len(samples), len(samples) - len(jobs)
            with progress_bar("computing", total, there, show=show_progress) as advance:
                done = self.cluster.work_on(compute, self.engine, jobs) if jobs else ()
                for job, outcome in done:
                    self._note(job, outcome)
                    advance()
            self._write_report()
        self.seconds = time.perf_counter() - begin

    def summary(self) -> str:
        """Say what was done."""
        rate = f", {60 * self.n_done / self.seconds:.1f} a minute" if self.n_done else ""
        return (
            f"{self.n_done} structures computed in {self.seconds:.0f} s{rate}; {self.n_there} "
            f"were there, {len(self.left_out)} left out: {self.output}"
        )

    def _record(self, facts: Mapping[str, Any]) -> None:
        """Write the record of a new data set, or compare it with that of an old one."""
        path = self.output / RECORD
        own = {"settings": self.settings, "engine": dict(facts)}
        if path.is_file():
            there = read_json(path, self.output.name)
            changed = [
                *_differences(there.get("settings"), own["settings"], ""),
                *_differences(there.get("engine"), own["engine"], "engine: "),
            ]
            if changed:
                msg = (
                    f"{path}: this data set was made with other settings: "
                    f"{'; '.join(changed)}. Calculations of two kinds are not mixed: repeat "
                    f"the old ones, or choose another output."
                )
                raise DataError(msg, path=path)
            return
        versions = {"python": platform.python_version()}
        versions |= {name: importlib.metadata.version(name) for name in _PACKAGES}
        with new_file(path) as partial:
            write_json(partial, {**own, "versions": versions})

    def _missing(self, samples: Sequence[Sample]) -> list[Job]:
        """Return what is to be computed; take over what runs before had left out."""
        path = self.output / REPORT
        before = read_json(path, self.output.name)["left_out"] if path.is_file() else {}
        jobs = []
        for sample in samples:
            name = sample.atoms.info["name"]
            if self._is_there(name):
                self.n_there += 1
            elif before.get(name, {}).get("state") == "unconverged" and (
                not self.retry_unconverged
            ):
                self.left_out[name] = before[name]
            else:
                work = self.output / WORK / name
                folder = self.output / name
                jobs.append(Job(name, sample, folder, work, self.keep_files))
        return jobs

    def _is_there(self, name: str) -> bool:
        folder = self.output / name
        if detect_format(folder) is None:
            return False
        try:
            read_structure_folder(folder)
        except DeepHError as error:
            log.warning("computed again: %s", error)
            return False
        return True

    def _note(self, job: Job, outcome: Outcome | str) -> None:
        if isinstance(outcome, str):
            outcome = Outcome("failed", 1, 0.0, outcome)
        if outcome.state == "done":
            self.n_done += 1
            return
        self.left_out[job.name] = {
            "state": outcome.state,
            "attempts": outcome.attempts,
            "message": outcome.message,
            "files": str(job.work_folder.relative_to(self.output)),
        }
        self._write_report()

    def _write_report(self) -> None:
        with new_file(self.output / REPORT) as partial:
            write_json(
                partial,
                {"computed": self.n_done + self.n_there,
                 "left_out": dict(sorted(self.left_out.items()))},
            )  # fmt: skip


def _refuse_foreign(output: Path) -> None:
    if not output.is_dir() or (output / RECORD).is_file():
        return
    foreign = sorted(p.name for p in output.iterdir() if not p.name.startswith("."))
    if foreign:
        msg = (
            f"{output}: it holds {', '.join(foreign[:4])}, but no {RECORD}. Choose an empty or "
            f"new folder: output=DIR"
        )
        raise DataError(msg, path=output)


def _differences(there: Any, own: Any, key: str) -> Iterator[str]:
    """Yield every value that differs between two plain trees."""
    if isinstance(there, Mapping) and isinstance(own, Mapping):
        for name in dict.fromkeys([*there, *own]):
            dot = "." if key and not key.endswith(" ") else ""
            yield from _differences(there.get(name), own.get(name), f"{key}{dot}{name}")
    elif there != own:
        yield f"{key} was {there!r}, now it is {own!r}"


@contextmanager
def _only_run(output: Path) -> Iterator[None]:
    """Hold a lock on the output, which a run that is killed gives back."""
    path = output / ".lock"
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            msg = (
                f"output={output}: another run writes to this folder. Wait until it has ended."
            )
            raise ConfigError(msg, key="output") from None
        yield
