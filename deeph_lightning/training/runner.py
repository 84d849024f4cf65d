"""One training run, from a resolved configuration to tested weights."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import DDPStrategy

from deeph_lightning.config.paths import check_writable
from deeph_lightning.config.targets import build
from deeph_lightning.errors import ConfigError, DataError
from deeph_lightning.training import history
from deeph_lightning.training.callbacks.checkpoints import BestCheckpoint
from deeph_lightning.training.callbacks.progress import Progress
from deeph_lightning.training.callbacks.throughput import Throughput
from deeph_lightning.training.checkpoint import (
    AtomicCheckpointIO,
    check_resume,
    find_checkpoint,
    find_last,
    load_weights,
    read_checkpoint,
)
from deeph_lightning.training.environment import (
    environment_record,
    keep_freed_memory,
    set_threads,
    write_json,
)
from deeph_lightning.training.module import HamiltonianModule
from deeph_lightning.training.quiet import hush

if TYPE_CHECKING:
    from deeph_lightning.data.datamodule import HamiltonianDataModule

log = logging.getLogger(__name__)

# keys of the trainer node that are read here, not by Lightning's Trainer
_OWN_KEYS = ("num_threads", "matmul_precision")


@dataclass(frozen=True)
class TrainedRun:
    """What a run leaves behind.

    Attributes
    ----------
    run_dir
        Its folder.
    module
        The module with the tested weights.
    datamodule
        The data, set up.
    trainer
        The trainer of `fit`.
    metrics
        ``test/...``, the best monitored value, ``time/train_s`` in s, ``perf/edges_per_s``,
        ``model/parameters``.
    history_csv
        Log over steps, if the csv logger was on.
    """

    run_dir: Path
    module: HamiltonianModule
    datamodule: HamiltonianDataModule
    trainer: Trainer
    metrics: dict[str, float]
    history_csv: Path | None


def train(config: Mapping[str, Any], *, is_multirun: bool = False) -> TrainedRun:
    """Train and test as a resolved and checked configuration says.

    Parameters
    ----------
    config
        Plain containers, as `deeph_lightning.config.validate.check_train` accepts.
    is_multirun
        The run is one of a sweep.

    Raises
    ------
    DeepHError
        Anything a user can act on; before training starts wherever it can be known before.
    """
    hush()
    run_dir = check_writable(config["paths"]["run_dir"], key="paths.output_root", create=True)
    _refuse_parallel_sweep(config["trainer"], is_multirun=is_multirun)
    start = _starting_checkpoint(config, run_dir, is_multirun=is_multirun)
    _set_process(config)

    datamodule = build(config["data"], key="data")
    datamodule.prepare_data()
    datamodule.setup("fit")
    _refuse_spinful(datamodule)
    module = _make_module(config, datamodule)
    _start_weights(module, datamodule, start)
    datamodule.prepare_with(module.model.prepare)
    trainer = _make_trainer(config, run_dir)
    if trainer.is_global_zero:
        record = environment_record(
            seed=config["seed"],
            data_fingerprint=datamodule.fingerprint,
            resumed_from=None if start.resume is None else str(start.resume),
        )
        write_json(run_dir / "env.json", record)
        for logger in trainer.loggers:
            if not isinstance(logger, CSVLogger):  # beside it lies config_resolved.yaml
                logger.log_hyperparams(dict(config))
    n_parameter = sum(p.numel() for p in module.model.parameters())
    log.info("network %s, %d parameters", type(module.model).__name__, n_parameter)
    log.info("run folder %s", run_dir)
    if start.resume is not None and trainer.is_global_zero:
        history.carry_over(start.resume.parent.parent, run_dir, start.n_step)

    trainer.fit(module, datamodule=datamodule, ckpt_path=start.resume, weights_only=True)

    has_log = any(isinstance(logger, CSVLogger) for logger in trainer.loggers)
    if has_log and trainer.is_global_zero:
        history.merge(run_dir)
    metrics = {}
    if config["test"] and not trainer.fast_dev_run:
        metrics = _test(config, trainer, module, datamodule)
    metrics |= _figures_of_merit(trainer, n_parameter)
    history_csv = run_dir / history.LOG if has_log else None
    return TrainedRun(run_dir, module, datamodule, trainer, metrics, history_csv)


@dataclass(frozen=True)
class _Start:
    """From where training starts: nothing, a run to go on with, or weights to start from."""

    resume: Path | None = None
    weights: Path | None = None
    checkpoint: Mapping[str, Any] | None = None

    @property
    def n_step(self) -> int:
        return 0 if self.checkpoint is None else int(self.checkpoint["global_step"])


def _starting_checkpoint(
    config: Mapping[str, Any], run_dir: Path, *, is_multirun: bool
) -> _Start:
    if config["init_from"] is not None:
        path = find_checkpoint(config["init_from"])
        return _Start(weights=path, checkpoint=read_checkpoint(path))
    if config["ckpt"] is None:
        return _Start()
    if config["ckpt"] != "last":
        path = find_checkpoint(config["ckpt"])
        return _Start(resume=path, checkpoint=read_checkpoint(path))
    if is_multirun:
        raise ConfigError(
            "ckpt=last: the runs of a sweep lie in folders by number, not by data and model.\n"
            "  Give the checkpoint: ckpt=multirun/<date>_<time>/<number>/checkpoints/last.ckpt",
            key="ckpt",
        )
    last = find_last(run_dir)
    if last is None:
        log.warning("ckpt=last: no run in %s has a last.ckpt; starting anew", run_dir.parent)
        return _Start()
    log.info("going on with %s", last)
    return _Start(resume=last, checkpoint=read_checkpoint(last))


def _refuse_parallel_sweep(node: Mapping[str, Any], *, is_multirun: bool) -> None:
    has_ranks = "TORCHELASTIC_RUN_ID" in os.environ or "SLURM_NTASKS" in os.environ
    if is_multirun and not _has_one_device(node) and not has_ranks:
        raise ConfigError(
            f"trainer.devices = {node['devices']} in a sweep (-m): every process would run a "
            "sweep of its own.\n  Sweep with trainer.devices=1, or let torchrun or Slurm start "
            "the processes.",
            key="trainer.devices",
        )


def _has_one_device(node: Mapping[str, Any]) -> bool:
    devices = node["devices"]
    if devices == "auto" and torch.cuda.device_count() <= 1:
        return True
    return devices in (1, "1") or (isinstance(devices, list) and len(devices) == 1)


def _refuse_spinful(datamodule: HamiltonianDataModule) -> None:
    if datamodule.is_spinful:
        raise DataError(
            f"{datamodule.root}: the Hamiltonians are spinful, networks predict no spin.\n"
            "  Train on a calculation without spin, or on one spin channel.",
            path=datamodule.root,
        )


def _set_process(config: Mapping[str, Any]) -> None:
    set_threads(config["trainer"]["num_threads"])
    keep_freed_memory()
    torch.set_float32_matmul_precision(config["trainer"]["matmul_precision"])


def _make_module(
    config: Mapping[str, Any], datamodule: HamiltonianDataModule
) -> HamiltonianModule:
    basis = datamodule.basis.to_dict()
    r_target = {pair: float(r) for pair, r in datamodule.r_target.items()}
    optimizer = dict(config["optimizer"])
    if "mixed" in config["trainer"]["precision"] and "fused" in optimizer:
        optimizer["fused"] = False  # Lightning does not clip gradients of a fused one then
    # here, so that what was drawn before (by a store that is made, say) makes no difference
    seed_everything(config["seed"], workers=True, verbose=False)
    module = HamiltonianModule(
        model=dict(config["model"]) | {"basis": basis, "r_target": r_target},
        loss=dict(config["loss"]),
        optimizer=optimizer,
        scheduler=dict(config["scheduler"]),
        about={
            "data": dict(config["data"]),
            "fingerprint": datamodule.fingerprint,
            "n_electrons": datamodule.n_electrons,
            "seed": config["seed"],
        },
    )
    return module.double() if config["trainer"]["precision"] == "64-true" else module


def _start_weights(
    module: HamiltonianModule, datamodule: HamiltonianDataModule, start: _Start
) -> None:
    """Fit baseline and scales to the training set, unless a checkpoint brings them."""
    if start.resume is not None and start.checkpoint is not None:
        check_resume(start.checkpoint, module.record(), start.resume)
    elif start.weights is not None and start.checkpoint is not None:
        load_weights(module, start.checkpoint, start.weights)
        log.info("starting from the weights of %s", start.weights)
    else:
        log.info("fitting the two-centre baseline")
        module.model.fit_statistics(datamodule.train_graphs, datamodule.overlap_graphs)


def _make_trainer(config: Mapping[str, Any], run_dir: Path) -> Trainer:
    node = {k: v for k, v in config["trainer"].items() if k not in _OWN_KEYS}
    parts: dict[str, list[Any]] = {}
    for group in ("callbacks", "logger"):
        items = {name: n for name, n in config[group].items() if n is not None}
        parts[group] = [build(n, key=f"{group}.{name}") for name, n in items.items()]
    is_parallel = not _has_one_device(node) or node.get("num_nodes", 1) > 1
    if node["strategy"] == "ddp" or (node["strategy"] == "auto" and is_parallel):
        # buffers are constants; and a rank that has validated its batches before the others
        # would leave them waiting for its part in a broadcast
        node["strategy"] = DDPStrategy(forward_sync_buffers=False)
    trainer: Trainer = build(
        node,
        key="trainer",
        callbacks=parts["callbacks"],
        logger=parts["logger"] or False,
        plugins=[AtomicCheckpointIO()],
        default_root_dir=str(run_dir),
        **({} if _has_checkpoints(parts["callbacks"]) else {"enable_checkpointing": False}),
    )
    return trainer


def _has_checkpoints(callbacks: list[Any]) -> bool:
    from lightning.pytorch.callbacks import Checkpoint

    return any(isinstance(callback, Checkpoint) for callback in callbacks)


def _test(
    config: Mapping[str, Any],
    trainer: Trainer,
    module: HamiltonianModule,
    datamodule: HamiltonianDataModule,
) -> dict[str, float]:
    """Test the best weights on one device; with several, samplers would pad the set."""
    trainer.strategy.barrier("before the test")
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    if not trainer.is_global_zero:
        return {}
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, BestCheckpoint) and callback.best_model_path:
            path = Path(callback.best_model_path)
            load_weights(module, read_checkpoint(path), path)
            log.info("testing %s", path)
    node = config["trainer"]
    tester = Trainer(
        accelerator=node["accelerator"],
        devices=1,
        precision=node["precision"],
        limit_test_batches=node["limit_test_batches"],
        enable_progress_bar=node["enable_progress_bar"],
        callbacks=[Progress()] if node["enable_progress_bar"] else [],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        default_root_dir=trainer.default_root_dir,
    )
    values = tester.test(module, datamodule=datamodule, verbose=False, weights_only=True)
    return {name: float(value) for name, value in values[0].items()}


def _figures_of_merit(trainer: Trainer, n_parameter: int) -> dict[str, float]:
    values = {"model/parameters": float(n_parameter)}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Throughput):
            values["time/train_s"] = callback.elapsed_s
            values["perf/edges_per_s"] = callback.edges_per_s
        if isinstance(callback, BestCheckpoint) and callback.best_model_score is not None:
            values[str(callback.monitor)] = float(callback.best_model_score)
    return values
