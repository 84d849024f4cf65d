"""Predict Hamiltonians of structures: ``python -m deeph_lightning.predict --help``."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from deeph_lightning.config.entry import start
from deeph_lightning.config.paths import check_writable
from deeph_lightning.config.targets import listed
from deeph_lightning.config.validate import check_predict, resolve
from deeph_lightning.errors import DataError

if TYPE_CHECKING:
    from ase import Atoms

    from deeph_lightning.inference.overlaps import Overlaps
    from deeph_lightning.inference.predict import Predictor

log = logging.getLogger(__name__)

#: Entries of a prediction's mark that must agree for it to be kept.
_MARK = ("network", "precision", "structure", "overlap")


def run(cfg: DictConfig) -> list[Path]:
    """Predict every structure and write DeepH folders.

    Everything that can be wrong is checked before the first structure is predicted. What is
    complete already is skipped, so that a prediction that was stopped goes on.

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

    from rich.progress import track

    from deeph_lightning.inference.estimate import check_disk, disk_bytes, estimate
    from deeph_lightning.inference.overlaps import Overlaps
    from deeph_lightning.inference.predict import Predictor
    from deeph_lightning.io import deeph
    from deeph_lightning.io.structures import read_structures
    from deeph_lightning.training.environment import set_threads

    set_threads(config["num_threads"])
    structures = read_structures(config["structure"])
    predictor = Predictor(
        config["checkpoint"], config["precision"], config["device"], config["chunk"]
    )
    overlaps = Overlaps.choose(config["overlap"], predictor, config["orbitals"])
    if config["overlap"] is None and overlaps.kind == "none":
        log.warning(
            "no overlap.h5 is written: the checkpoint holds no learned overlaps. Give "
            "overlap=DIR with overlap.h5, or train on a set with overlaps"
        )
    wanted = ("H", "S") if overlaps.kind == "learned" else ("H",)
    names = [str(atoms.info["name"]) for atoms in structures]
    folders = [output] if len(names) == 1 else [output / name for name in names]
    work = [
        (atoms, folder, origin)
        for atoms, folder in zip(structures, folders, strict=True)
        if not _is_done(
            folder, origin := _checked(predictor, overlaps, atoms), config["overwrite"]
        )
    ]
    if len(work) < len(names):
        log.info("%d of %d structures are there already", len(names) - len(work), len(names))
    n_operator = 1 if overlaps.kind == "none" else 2
    sizes = [disk_bytes(predictor.graph(atoms), n_operator) for atoms, _, _ in work]
    check_disk(output, sum(sizes))
    if config["estimate"] and work:
        largest = sizes.index(max(sizes))
        expected = estimate(predictor, work[largest][0], wanted)
        log.info("structure '%s', %s", work[largest][0].info["name"], expected)
        total = expected.seconds * sum(sizes) / sizes[largest]
        log.info("all %d structures: about %.0f s", len(work), total)
    for atoms, folder, origin in track(work, description="predicting", disable=not work):
        system = overlaps.predict(atoms, predictor, {"prediction": origin})
        deeph.write(system, folder)
    log.info("wrote %d structures to %s", len(work), output)
    return folders


def _checked(predictor: Predictor, overlaps: Overlaps, atoms: Atoms) -> dict[str, Any]:
    """Check that a structure can be predicted; return how its prediction is marked."""
    is_known = bool(predictor.network.domain.is_fitted)
    departures = predictor.departures(atoms)
    outside = sorted({n for _, found in departures for n in found.tolist()})
    for what, found in departures:
        log.warning(
            "structure '%s' lies outside the training set: %s (%d of %d atoms: %s)",
            *(atoms.info["name"], what, len(found), len(atoms)),
            listed(map(str, found.tolist()), 6),
        )
    overlaps.check(atoms, predictor)
    mark = {
        "overlap": overlaps.mark,
        "atoms_outside_training_set": len(outside) if is_known else None,
    }
    return predictor.origin(atoms) | mark


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
