"""Checkpoints: what is added to Lightning's, how one is written, read, checked and resumed.

A checkpoint is a plain dictionary that loads with ``weights_only=True``. Beside Lightning's
entries it holds ``deeph``: format number, the node of the model with its basis and ranges,
units, convention, versions and the data it was trained on. ``state_dict`` holds the averaged
weights where averaging was on. This module alone reads that record.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import torch
from lightning.pytorch.plugins import TorchCheckpointIO

from deeph_lightning import __version__
from deeph_lightning.config.targets import listed, locate
from deeph_lightning.errors import CheckpointError, ConfigError
from deeph_lightning.models.base import HamiltonianModel

if TYPE_CHECKING:
    from deeph_lightning.training.module import HamiltonianModule

FORMAT = 3
CONVENTION = (
    "H[R,i,j] = <i,0|H|j,R>, r = tau_j + R - tau_i, H(k) = sum_R exp(2 pi i k.R) H[R]; real "
    "harmonics m = -l..l without Condon-Shortley phase, shells in basis order"
)
UNITS = {"energy": "eV", "length": "angstrom"}
# keys of the data node that do not change what is learnt; the fingerprint stands for the place
_FREE_DATA_KEYS = {"root", "cache_dir", "cache_mb", "num_workers", "progress"}


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write under a temporary name in the same folder, then rename.

    A run that is killed while it writes leaves the checkpoint before it untouched. Lightning's
    own writer goes through the system's temporary folder, from where a move can be a copy.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint file."""
        if storage_options is not None:
            raise TypeError("AtomicCheckpointIO has no storage options")
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            with partial.open("wb") as stream:
                torch.save(checkpoint, stream)
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def make_record(model: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return the ``deeph`` entry of a checkpoint.

    Parameters
    ----------
    model
        Node of the network, `basis`, `r_target` and `r_message` among its arguments.
    more
        Further plain entries: the nodes of data and loss, fingerprint, seed, electrons.
    """
    packages = ("deeph_lightning", "torch", "lightning", "numpy")
    return {
        "format": FORMAT,
        "model": dict(model),
        "basis": model["basis"],
        "r_target": model["r_target"],
        "r_message": model["r_message"],
        "units": UNITS,
        "convention": CONVENTION,
        "versions": {"python": platform.python_version()}
        | {name: version_of(name) for name in packages},
        **more,
    }


def version_of(package: str) -> str:
    """Return the version of an installed package, or ``unknown``."""
    if package == "deeph_lightning":  # a checkout need not be installed
        return __version__
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def find_checkpoint(path: str | Path) -> Path:
    """Return the checkpoint file that a path means: a file, or a run folder's best.

    Raises
    ------
    CheckpointError
        There is none.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return path
    candidates = [
        path / sub / name for sub in ("checkpoints", "") for name in ("best.ckpt", "last.ckpt")
    ]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    found = "has no checkpoints/best.ckpt or last.ckpt" if path.is_dir() else "does not exist"
    raise CheckpointError(
        f"{path}: {found}.\n  Give a .ckpt file or the folder of a finished or stopped run "
        "(outputs/train/<data>_<model>/<date>_<time>).",
        path=path,
    )


def find_last(run_dir: str | Path) -> Path | None:
    """Return the newest ``last.ckpt`` of the runs beside a run folder."""
    run_dir = Path(run_dir).resolve()
    files = [
        path
        for path in run_dir.parent.glob("*/checkpoints/last.ckpt")
        if path.parent.parent != run_dir
    ]
    return max(files, key=lambda path: path.stat().st_mtime, default=None)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of this package, without unpickling anything.

    Raises
    ------
    CheckpointError
        The file is missing, cut off, not a checkpoint of this package, or of a newer format.
    """
    path = find_checkpoint(path)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, BadZipFile, UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path}: cannot be read as a checkpoint ({reason}).\n  The file is cut off or of "
            "another program; take another checkpoint of the run, or train again.",
            path=path,
        ) from None
    record = checkpoint.get("deeph") if isinstance(checkpoint, dict) else None
    if not isinstance(record, dict) or "format" not in record:
        raise CheckpointError(
            f"{path}: is not a checkpoint of deeph_lightning (no entry 'deeph').\n"
            "  Checkpoints of other codes cannot be read; train with this package.",
            path=path,
        )
    if record["format"] != FORMAT:
        is_newer = isinstance(record["format"], int) and record["format"] > FORMAT
        wrote = record.get("versions", {}).get("deeph_lightning", "unknown")
        raise CheckpointError(
            f"{path}: checkpoint format {record['format']}, this version reads {FORMAT}. "
            f"Written by deeph_lightning {wrote}.\n"
            + ("  Update deeph_lightning." if is_newer else "  Train again with this version."),
            path=path,
        )
    needed = {"model", "basis", "r_target", "r_message"}
    absent = sorted(needed - record.keys()) + sorted(
        {"state_dict", "hyper_parameters"} - checkpoint.keys()
    )
    if absent:
        raise CheckpointError(
            f"{path}: the checkpoint lacks {listed(absent)}.\n  Take another checkpoint.",
            path=path,
        )
    network = checkpoint["hyper_parameters"].get("model")
    if network != record["model"] or record["basis"] != network.get("basis"):
        raise CheckpointError(
            f"{path}: its record and its network disagree.\n"
            "  The file was altered; take another checkpoint.",
            path=path,
        )
    return checkpoint


def load_model(
    path: str | Path, *, is_double: bool = False
) -> tuple[HamiltonianModule, dict[str, Any]]:
    """Build the network of a checkpoint with its averaged weights, ready to predict.

    Parameters
    ----------
    path
        Checkpoint file or run folder.
    is_double
        Compute all of it in float64. Otherwise each part has the precision it was built with:
        weights float32, the fitted baseline float64.

    Returns
    -------
    module
        In evaluation mode, on the CPU.
    record
        The ``deeph`` entry, with ``path`` added.

    Raises
    ------
    CheckpointError
        See `read_checkpoint`; or the weights do not fit the network.
    """
    from deeph_lightning.training.module import HamiltonianModule

    path = find_checkpoint(path)
    checkpoint = read_checkpoint(path)
    node = checkpoint["deeph"]["model"]
    network = locate(node.get("_target_"), key="model")
    if not (isinstance(network, type) and issubclass(network, HamiltonianModel)):
        raise CheckpointError(
            f"{path}: {node.get('_target_')} is not a network of this package.\n"
            "  Do not use this file.",
            path=path,
        )
    try:
        module = HamiltonianModule(**checkpoint["hyper_parameters"])
    except ConfigError as error:
        raise CheckpointError(
            f"{path}: its network cannot be built by this version: {error}", path=path
        ) from None
    if is_double:
        module = module.double()
    load_weights(module, checkpoint, path)
    return module.eval(), checkpoint["deeph"] | {"path": str(path)}


def load_weights(
    module: HamiltonianModule, checkpoint: Mapping[str, Any], path: str | Path
) -> None:
    """Copy the (averaged) weights of a checkpoint into a module.

    Raises
    ------
    CheckpointError
        Names or shapes differ, or the basis does.
    """
    theirs, ours = checkpoint["deeph"]["basis"], module.hparams["model"]["basis"]
    if theirs != ours:
        raise CheckpointError(
            f"{path}: was trained with the basis {theirs}, the data have {ours}.\n"
            "  Use data of that basis, or train anew without this checkpoint.",
            path=path,
        )
    try:
        module.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        raise CheckpointError(
            f"{path}: its weights do not fit this network: {listed(lines, 3)}\n  Use the model "
            "settings of that run (config_resolved.yaml), or train anew.",
            path=path,
        ) from None


def check_resume(
    checkpoint: Mapping[str, Any], record: Mapping[str, Any], path: str | Path
) -> None:
    """Check that a run may go on from a checkpoint.

    Parameters
    ----------
    checkpoint
        The checkpoint to resume.
    record
        The ``deeph`` entry that the new run would write.
    path
        The checkpoint's file.

    Raises
    ------
    CheckpointError
        The basis differs.
    ConfigError
        Data, model or loss differ; all differences are listed.
    """
    saved = checkpoint["deeph"]
    if saved["basis"] != record["basis"]:
        raise CheckpointError(
            f"{path}: was trained with the basis {saved['basis']}, the data have "
            f"{record['basis']}.\n  Drop ckpt= to train anew.",
            path=path,
        )
    lines = []
    for part in ("data", "model", "loss", "fingerprint"):
        lines += _differences(saved.get(part), record.get(part), part)
    if lines:
        raise ConfigError(
            f"ckpt: {path} belongs to a run with other settings:\n    "
            + "\n    ".join(lines)
            + "\n  Use the settings of that run to go on with it, or start anew from its "
            f"weights:\n  init_from={path} instead of ckpt=.",
            key="ckpt",
        )


def _differences(saved: Any, new: Any, key: str) -> Iterator[str]:
    """Yield one line for each value that differs, nested keys dotted."""
    if isinstance(saved, Mapping) and isinstance(new, Mapping):
        for name in sorted(saved.keys() | new.keys(), key=str):
            if key != "data" or name not in _FREE_DATA_KEYS:
                yield from _differences(saved.get(name), new.get(name), f"{key}.{name}")
    elif _plain(saved) != _plain(new):
        yield f"{key}: checkpoint {saved!r}, now {new!r}"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
