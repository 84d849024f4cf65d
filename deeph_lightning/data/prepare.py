"""Make the graph store of a set: in parallel, resumable, and only when it is needed.

Every structure is first written to a file of its own in ``<store>.partial/``, under a temporary
name and then renamed, so that a build may be killed at any time and goes on where it was. When
all are there, they are copied into one file, which is renamed to the store at the very end.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from deeph_lightning.data.records import record_from_system
from deeph_lightning.data.store import (
    FORMAT,
    SCHEMA_VERSION,
    GraphStore,
    read_header,
    write_record,
)
from deeph_lightning.errors import ConfigError
from deeph_lightning.io.parallel import progress_bar, refuse_unguarded_script, work_on

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from deeph_lightning.io.source import Source
    from deeph_lightning.io.system import Header

log = logging.getLogger(__name__)


def prepare_store(
    source: Source,
    path: str | Path,
    *,
    r_target_max: float | None = None,
    n_worker: int | None = None,
    progress: bool = True,
) -> Path:
    """Make a graph store, unless it is there and made of the same data in the same way.

    A stale store of ours is replaced; the new one is complete before the old one goes.

    Parameters
    ----------
    source
        The set. With several processes it is pickled, and each reads from its own copy.
    path
        File of the store.
    r_target_max
        Longest pair to keep, Å; None keeps all. What it drops is reported.
    n_worker
        Processes; None uses all cores where there are enough structures.
    progress
        Show a progress bar.

    Returns
    -------
    `path`.

    Raises
    ------
    SchemaError
        There is a file at `path` that is not a graph store.
    DataError, PhysicsError
        A structure cannot be read or is wrong (see `io.source.Source.read`).
    ConfigError
        The folder cannot be written, or an option is out of range; a script without a main
        guard started this process.
    """
    path = Path(path)
    if r_target_max is not None and not r_target_max > 0:
        raise ConfigError(
            f"data.r_target_max is {r_target_max}, expected a positive length in Å, or null to "
            f"keep all pairs.",
            key="data.r_target_max",
        )
    made_of = {
        "schema_version": SCHEMA_VERSION,
        "source_fingerprint": source.fingerprint(),
        "r_target_max_angstrom": -1.0 if r_target_max is None else float(r_target_max),
    }
    if _stale_reason(read_header(path), made_of) is None:  # nothing to wait for
        return path
    refuse_unguarded_script()
    with _locked(path):
        reason = _stale_reason(read_header(path), made_of)
        if reason is None:
            return path
        if path.exists():
            log.info("%s is made again: %s", path, reason)
        folder = path.with_name(f"{path.name}.partial")
        _open_partial(folder, made_of)
        abouts = _write_pieces(source, folder, r_target_max, n_worker, progress=progress)
        report = summarise(abouts, source.header)
        _join(path, folder, abouts, made_of | {"report": json.dumps(report)})
        shutil.rmtree(folder)
    _log_report(report, r_target_max)
    return path


def summarise(abouts: Sequence[Mapping[str, Any]], header: Header) -> dict[str, Any]:
    """Return the report of a set.

    Parameters
    ----------
    abouts
        What `_write_piece` notes for each structure.
    header
        Basis and spin of the set.

    Returns
    -------
    Plain dictionary: ``n_structure, n_with_overlap, n_pair, n_H_only, H_only_max_meV,
    n_S_only, n_dropped, dropped_max_meV`` (pairs counted once a couple), ``r_target`` (longest
    pair, Å, of every pair of species), ``shells``, ``is_spinful``, ``elements`` (atomic
    numbers) and ``n_electrons`` of an atom of every species, None if the data do not tell.
    """
    report: dict[str, Any] = {
        "n_structure": len(abouts),
        "n_with_overlap": sum(about["has_S"] for about in abouts),
    }
    for key in ("n_pair", "n_H_only", "n_S_only", "n_dropped"):
        report[key] = sum(about["pairs"][key] for about in abouts)
    for key in ("H_only_max_meV", "dropped_max_meV"):
        report[key] = max(about["pairs"][key] for about in abouts)
    r_target: dict[str, float] = {}
    for about in abouts:
        for key, distance in about["pairs"]["r_target"].items():
            r_target[key] = max(distance, r_target.get(key, 0.0))
    return report | {
        "r_target": dict(sorted(r_target.items())),
        "shells": header.basis.to_dict(),
        "is_spinful": header.is_spinful,
        "elements": sorted({z for about in abouts for z in about["elements"]}),
        "n_electrons": _electrons_of_species(abouts),
    }


def _electrons_of_species(abouts: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    """Solve for electrons an atom, of the structures where they are known.

    The least-norm solution where the formula is always one.
    """
    labels = sorted({label for about in abouts for label in about["count"]})
    known = [about for about in abouts if about["n_electrons"] is not None]
    if {label for about in known for label in about["count"]} < set(labels) or not known:
        return None
    matrix = np.array([[about["count"].get(label, 0) for label in labels] for about in known])
    total = np.array([about["n_electrons"] for about in known])
    solution, *_ = np.linalg.lstsq(matrix, total, rcond=None)
    if np.abs(matrix @ solution - total).max() > 1e-6 * total.max():
        return None
    return {label: round(float(n), 9) for label, n in zip(labels, solution, strict=True)}


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time make a store; the others wait, then find it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.with_name(f".{path.name}.lock").open("w")
    except OSError as error:
        raise ConfigError(
            f"data.cache_dir: {path.parent} cannot be written ({error.strerror}); the graphs "
            f"are kept there. Choose another folder: data.cache_dir=/path/to/folder",
            key="data.cache_dir",
        ) from None
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _stale_reason(header: Mapping[str, Any] | None, made_of: Mapping[str, Any]) -> str | None:
    """Return why a store must be made, or None if it is as it should be."""
    if header is None:
        return "there is none"
    if not header.get("is_complete", False):
        return "it is not complete"
    for key, expected in made_of.items():
        if header.get(key) != expected:
            return f"{key} was {header.get(key)}, now {expected}"
    return None


def _open_partial(folder: Path, made_of: Mapping[str, Any]) -> None:
    """Keep the pieces of an earlier build of the same data, clear others."""
    key = folder / "made_of.json"
    text = json.dumps(dict(made_of))
    if folder.exists() and not (key.is_file() and key.read_text() == text):
        shutil.rmtree(folder)
    folder.mkdir(exist_ok=True)
    key.write_text(text)


def _piece(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.h5"


def _write_pieces(
    source: Source,
    folder: Path,
    r_target_max: float | None,
    n_worker: int | None,
    *,
    progress: bool,
) -> list[dict[str, Any]]:
    """Write all pieces that are missing; return what is known of each structure."""
    abouts: dict[int, dict[str, Any]] = {}
    names, missing = source.names, []
    for number, name in enumerate(names):
        if _piece(folder, number).is_file():
            with h5py.File(_piece(folder, number), "r") as file:
                abouts[number] = json.loads(file.attrs["about"])
        else:
            missing.append((number, name))
    if abouts:
        log.info("going on with %s: %d of %d structures", folder, len(abouts), len(names))
    shared = (source, folder, r_target_max)
    with progress_bar("preparing graphs", len(names), len(abouts), show=progress) as advance:
        for (number, _), about in work_on(_write_piece, shared, missing, n_worker):
            abouts[number] = about
            advance()
    return [abouts[number] for number in range(len(names))]


def _write_piece(
    shared: tuple[Source, Path, float | None], task: tuple[int, str]
) -> dict[str, Any]:
    """Write one structure and return what the report and the index need."""
    source, folder, r_target_max = shared
    number, name = task
    path = _piece(folder, number)
    record, pairs = record_from_system(source.read(name), r_target_max=r_target_max)
    labels, counts = np.unique(np.array(record.labels)[record.species], return_counts=True)
    about = {
        "name": name,
        "digest": record.digest(),
        "n_atom": len(record.species),
        "pairs": asdict(pairs),
        "has_S": record.S_hopping is not None,
        "elements": np.unique(record.number).tolist(),
        "count": dict(zip(labels.tolist(), counts.tolist(), strict=True)),
        "n_electrons": record.n_electrons,
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with h5py.File(temporary, "w") as file:
        write_record(file.create_group("structure"), record)
        file.attrs["about"] = json.dumps(about)
    temporary.replace(path)
    return about


def _join(
    path: Path,
    folder: Path,
    abouts: Sequence[Mapping[str, Any]],
    header: Mapping[str, Any],
) -> None:
    """Copy all pieces into one file and give it its name."""
    temporary = folder / "store.h5"
    digests = "".join(sorted(f"{about['name']}={about['digest']};" for about in abouts))
    with h5py.File(temporary, "w") as file:
        file.attrs["format"] = FORMAT
        file.attrs["is_complete"] = False
        for key, value in header.items():
            file.attrs[key] = value
        file.attrs["fingerprint"] = hashlib.sha256(digests.encode()).hexdigest()[:16]
        structures = file.create_group("structures")
        for number in range(len(abouts)):
            with h5py.File(_piece(folder, number), "r") as piece:
                piece.copy("structure", structures, name=f"{number:06d}")
        index = file.create_group("index")
        names = [about["name"] for about in abouts]
        index.create_dataset("name", data=names, dtype=h5py.string_dtype())
        index.create_dataset("n_atom", data=np.array([about["n_atom"] for about in abouts]))
        n_pair = np.array([about["pairs"]["n_pair"] for about in abouts])
        index.create_dataset("n_pair", data=n_pair)
        file.attrs["is_complete"] = True
    GraphStore(temporary).close()
    temporary.replace(path)


def _log_report(report: Mapping[str, Any], r_target_max: float | None) -> None:
    log.info(
        "graphs of %d structures, %d pairs (one of each couple)",
        report["n_structure"],
        report["n_pair"],
    )
    if report["n_H_only"]:
        log.info(
            "H has %d pairs without an overlap, with elements up to %.2f meV: all kept",
            report["n_H_only"],
            report["H_only_max_meV"],
        )
    if report["n_dropped"]:
        log.warning(
            "r_target_max = %s Å drops %d pairs, with elements of H up to %.3f meV",
            r_target_max,
            report["n_dropped"],
            report["dropped_max_meV"],
        )
