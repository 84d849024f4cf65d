"""Train a network: ``python -m deeph_lightning.train --help``."""

from __future__ import annotations

import logging
import math

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from deeph_lightning.config.entry import start, write_resolved
from deeph_lightning.config.paths import check_writable
from deeph_lightning.config.validate import check_train, resolve

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> dict[str, float]:
    """Train, test and report as the configuration says.

    Parameters
    ----------
    cfg
        Composed from ``conf/train.yaml``; ``paths.run_dir`` is the folder to write.

    Returns
    -------
    dict
        The numbers of ``metrics.json``; empty on all ranks but the first.

    Raises
    ------
    DeepHError
        Anything a user can act on.
    """
    config = resolve(cfg)
    check_train(config)
    run_dir = check_writable(config["paths"]["run_dir"], key="paths.output_root", create=True)
    write_resolved(cfg, run_dir)

    # heavy imports only after the configuration is known to be good
    from deeph_lightning.report import write_run_report
    from deeph_lightning.training.callbacks.wandb_dashboard import log_report
    from deeph_lightning.training.environment import write_json
    from deeph_lightning.training.runner import train

    result = train(config, is_multirun=_is_multirun())
    if not result.trainer.is_global_zero:
        return {}
    metrics = result.metrics
    if config["test"] and not config["trainer"]["fast_dev_run"]:
        data, log_file = result.datamodule, result.history_csv
        metrics = write_run_report(run_dir, result.module, data, log_file, metrics, config)
        step = result.trainer.global_step
        log_report(result.trainer.loggers, run_dir / "figures", metrics, step)
    else:
        write_json(run_dir / "metrics.json", metrics)
    return metrics


def _is_multirun() -> bool:
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def _task(cfg: DictConfig) -> float:
    """Run, and return what a sweeper minimises; a run that diverged counts as infinite."""
    from deeph_lightning.training.callbacks.nan_guard import DivergedError

    try:
        metrics = run(cfg)
    except DivergedError as error:
        if not _is_multirun():
            raise
        log.error("%s", error)
        return math.inf
    return metrics.get(cfg.monitor, math.nan)


def main() -> None:
    """Start from the command line."""
    start(_task, "train", check_train)


if __name__ == "__main__":
    main()
