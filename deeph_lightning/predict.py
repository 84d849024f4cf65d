"""Predict Hamiltonians of structures: ``python -m deeph_lightning.predict --help``."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from omegaconf import DictConfig

from deeph_lightning.config.entry import start
from deeph_lightning.config.paths import check_writable
from deeph_lightning.config.targets import listed
from deeph_lightning.config.validate import check_predict, resolve
from deeph_lightning.errors import DataError, DeepHError

if TYPE_CHECKING:
    from ase import Atoms
    from rich.progress import Progress, TaskID

    from deeph_lightning.inference.overlaps import Overlaps
    from deeph_lightning.inference.predict import Predictor
    from deeph_lightning.inference.ranks import Ranks

log = logging.getLogger(__name__)

#: Entries of a prediction's mark that must agree for it to be kept.
_MARK = ("network", "precision", "structure", "overlap")


def run(cfg: DictConfig) -> list[Path]:
    """Predict every structure and write DeepH folders.

    Everything that can be wrong is checked before the first structure is predicted. What is
    complete already is skipped, so that a prediction that was stopped goes on. Processes that
    torchrun started share the structures or, if there are fewer of these, their parts.

    Parameters
    ----------
    cfg
        Composed from ``conf/predict.yaml``.

    Returns
    -------
    list of Path
        The folder of each structure.

    Raises
    ------
    DeepHError
        Anything a user can act on.
    """
    config = resolve(cfg)
    check_predict(config)
    output = check_writable(config["output"], key="output")

    from deeph_lightning.inference.overlaps import Overlaps
    from deeph_lightning.inference.predict import Predictor
    from deeph_lightning.inference.ranks import started_ranks
    from deeph_lightning.io.structures import read_structures
    from deeph_lightning.training.environment import set_threads

    set_threads(config["num_threads"])
    with started_ranks() as ranks:
        structures = read_structures(config["structure"])
        predictor = Predictor(
            config["checkpoint"], config["precision"], config["device"], config["chunk"]
        )
        overlaps = Overlaps.choose(config["overlap"], predictor, config["orbitals"])
        if config["overlap"] is None and overlaps.kind == "none" and ranks.is_first:
            log.warning(
                "no overlap.h5 is written: the checkpoint holds no learned overlaps. Give "
                "overlap=DIR with overlap.h5, orbitals=FILES, or train on a set with overlaps"
            )
        names = [str(atoms.info["name"]) for atoms in structures]
        folders = [output] if len(names) == 1 else [output / name for name in names]
        work = [
            _Task(atoms, folder, origin)
            for atoms, folder in zip(structures, folders, strict=True)
            if not _is_done(
                folder,
                origin := predictor.origin(atoms) | {"overlap": overlaps.mark},
                config["overwrite"],
            )
        ]
        ranks.wait()  # all have looked before one writes
        if ranks.is_first and len(work) < len(names):
            log.info(
                "%d of %d structures are there already", len(names) - len(work), len(names)
            )
        _work(config, work, predictor, overlaps, ranks)
        ranks.wait()
        if ranks.is_first:
            log.info("wrote %d structures to %s", len(work), output)
    return folders


class _Task(NamedTuple):
    """A structure, where it goes, and its mark."""

    atoms: Atoms
    folder: Path
    origin: dict[str, Any]


def _work(
    config: Mapping[str, Any],
    work: list[_Task],
    predictor: Predictor,
    overlaps: Overlaps,
    ranks: Ranks,
) -> None:
    """Check, then predict, this process's share of the structures or of their parts."""
    from rich.progress import Progress

    from deeph_lightning.inference.estimate import check_disk, disk_bytes, estimate
    from deeph_lightning.inference.ranks import Ranks
    from deeph_lightning.inference.write import PartedStructure

    helpers = ranks
    if len(work) >= ranks.size > 1:
        work = sorted(work, key=lambda task: len(task.atoms))[ranks.rank :: ranks.size]
        helpers = Ranks()
    n_part = max(config["parts"], helpers.size)
    failure: DeepHError | None = None
    sizes: list[float] = []
    try:
        for task in work:
            graph = predictor.graph(task.atoms)
            overlaps.check(task.atoms, predictor)
            if helpers.is_first:
                task.origin["atoms_outside_training_set"] = _outside(predictor, task.atoms)
            sizes.append(disk_bytes(graph, 1 if overlaps.kind == "none" else 2))
    except DeepHError as error:
        failure = error
    if ranks.total(float(failure is not None)):
        if failure is None or not helpers.is_first:
            raise SystemExit(2)  # another process says why
        raise failure
    shares = 1 if helpers.size > 1 else ranks.size
    check_disk(Path(config["output"]), ranks.total(sum(sizes)) * shares / ranks.size)
    if config["estimate"] and work and helpers.is_first:
        largest = sizes.index(max(sizes))
        parted = PartedStructure(predictor, work[largest].atoms, overlaps, n_part)
        expected = estimate(parted)
        log.info("structure '%s', %s", work[largest].atoms.info["name"], expected)
        total = expected.seconds * sum(sizes) / sizes[largest] / helpers.size
        log.info("all %d structures of this process: about %.0f s", len(work), total)
    with Progress(disable=not (work and ranks.is_first)) as bar:
        line = bar.add_task("predicting", total=sum(sizes))
        for task, size in zip(work, sizes, strict=True):
            parted = PartedStructure(predictor, task.atoms, overlaps, n_part)
            spread = parted.write(
                task.folder,
                task.origin,
                helpers,
                partial(_advance, bar, line, size),
            )
            if spread is not None:
                log.info("structure '%s': %s", task.atoms.info["name"], spread)


def _advance(bar: Progress, line: TaskID, size: float, share: float) -> None:
    """Move a bar by a share of a structure."""
    bar.advance(line, share * size)


def _outside(predictor: Predictor, atoms: Atoms) -> int | None:
    """Count the atoms outside the training set, with a warning; None if that is unknown."""
    departures = predictor.departures(atoms)
    for what, found in departures:
        log.warning(
            "structure '%s' lies outside the training set: %s (%d of %d atoms: %s)",
            *(atoms.info["name"], what, len(found), len(atoms)),
            listed(map(str, found.tolist()), 6),
        )
    if not predictor.network.domain.is_fitted:
        return None
    return len({n for _, found in departures for n in found.tolist()})


def _is_done(folder: Path, origin: dict[str, Any], overwrite: bool) -> bool:
    """Whether the prediction is there; refuse to replace anything else."""
    if not (folder / "hamiltonian.h5").exists():
        return False
    info = folder / "info.json"
    there = json.loads(info.read_text(encoding="utf-8")) if info.is_file() else {}
    mark = there.get("prediction")
    if mark is None:
        raise DataError(
            f"{folder}: holds a hamiltonian.h5 that is not a prediction; it is not replaced.\n"
            "  Choose another folder: output=DIR",
            path=folder,
        )
    if all(mark.get(key) == origin[key] for key in _MARK):
        return True
    if overwrite:
        return False
    raise DataError(
        f"{folder}: holds a prediction by {mark.get('checkpoint')} or of another structure, or "
        "with another overlap.\n"
        "  Choose another folder: output=DIR, or replace it: overwrite=true",
        path=folder,
    )


def main() -> None:
    """Start from the command line."""
    start(run, "predict", check_predict)


if __name__ == "__main__":
    main()
