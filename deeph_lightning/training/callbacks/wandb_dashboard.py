"""Weights & Biases: the logger, and the figures of the report on its dashboard.

wandb is imported here only, and only if the logger is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deeph_lightning.errors import MissingDependencyError

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger, WandbLogger


def make_logger(
    save_dir: str,
    project: str = "deeph_lightning",
    group: str | None = None,
    name: str | None = None,
    offline: bool = True,
    tags: Sequence[str] = (),
) -> WandbLogger:
    """Build the wandb logger; offline it needs neither a network nor an account.

    Parameters
    ----------
    save_dir
        Run folder, in which wandb makes its own.
    project, group, name, tags
        As wandb shows them.
    offline
        Write locally; ``wandb sync`` sends it later.

    Raises
    ------
    MissingDependencyError
        wandb is not installed.
    """
    try:
        import wandb
        from lightning.pytorch.loggers import WandbLogger

        wandb.finish()  # the run before this one, in a sweep
        logger = WandbLogger(
            save_dir=save_dir,
            project=project,
            group=group,
            name=name,
            offline=offline,
            tags=list(tags),
            log_model=False,
        )
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "logger.wandb: the package wandb is not installed.\n  pip install wandb, or use "
            "logger=csv."
        ) from error
    # the smallest value is what the run table shows
    logger.experiment.define_metric("val/H_mae_meV", summary="min")
    return logger


def log_report(
    loggers: Sequence[Logger], figures: Path, metrics: Mapping[str, float], step: int
) -> None:
    """Show the report's numbers in every dashboard, and its figures on the one of wandb.

    Parameters
    ----------
    loggers
        Loggers of the run.
    figures
        Folder of PNG files; each becomes the panel ``figures/<name>``.
    metrics
        Final numbers.
    step
        Optimiser steps of the run.
    """
    from lightning.pytorch.loggers import CSVLogger, WandbLogger

    for logger in loggers:
        if isinstance(logger, CSVLogger):
            continue  # the log over steps; the numbers are in metrics.json
        logger.log_metrics(dict(metrics), step=step)
        if isinstance(logger, WandbLogger):
            for path in sorted(figures.glob("*.png")):
                logger.log_image(key=f"figures/{path.stem}", images=[str(path)], step=step)
        logger.save()
