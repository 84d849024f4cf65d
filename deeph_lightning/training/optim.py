"""Optimiser and learning-rate schedules, built from plain nodes."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from deeph_lightning.config.targets import build, locate
from deeph_lightning.errors import ConfigError


def build_optimizer(node: Mapping[str, Any], module: nn.Module) -> Optimizer:
    """Build the optimiser; weight decay acts on weights with two or more axes only.

    Biases, gains and other vectors set scales: shrinking them changes what the network is
    normalised to, not how smooth it is.
    """
    weights = [p for p in module.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [{"params": [p for p in weights if p.ndim >= 2]}]
    vectors: dict[str, Any] = {"params": [p for p in weights if p.ndim < 2]}
    if "weight_decay" in node:
        vectors["weight_decay"] = 0.0
    groups.append(vectors)
    optimizer: Optimizer = build(
        node, key="optimizer", params=[group for group in groups if group["params"]]
    )
    return optimizer


def build_scheduler(
    node: Mapping[str, Any], optimizer: Optimizer, total_steps: Callable[[], float]
) -> LRScheduler:
    """Build the schedule, which is stepped after every optimiser step.

    Parameters
    ----------
    node
        Plain node of a scheduler.
    optimizer
        What it steers.
    total_steps
        Number of optimiser steps of the whole training; asked only if the class wants it.

    Raises
    ------
    ConfigError
        The number of steps is unknown (no `max_epochs`) and the schedule needs it.
    """
    extra: dict[str, Any] = {"optimizer": optimizer}
    if "total_steps" in inspect.signature(locate(node["_target_"], key="scheduler")).parameters:
        n_step = total_steps()
        if not math.isfinite(n_step) or n_step < 1:
            raise ConfigError(
                "scheduler: it ends with the training, whose length is not known.\n"
                "  Set trainer.max_epochs=N, or use scheduler=plateau.",
                key="trainer.max_epochs",
            )
        extra["total_steps"] = int(n_step)
    scheduler: LRScheduler = build(node, key="scheduler", **extra)
    return scheduler


class WarmupCosine(LRScheduler):
    """Linear warm-up to the peak, then half a cosine down to the end of training.

    Parameters
    ----------
    optimizer
        Its `lr` is the peak.
    total_steps
        Optimiser steps of the whole training.
    warmup_steps
        Steps of warm-up; at most a fifth of the total.
    final_ratio
        Last learning rate over the peak.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        warmup_steps: int = 100,
        final_ratio: float = 1e-3,
    ) -> None:
        _check_ratio(final_ratio)
        self.total_steps = total_steps
        self.warmup_steps = min(warmup_steps, total_steps // 5)
        self.final_ratio = final_ratio
        super().__init__(optimizer)

    def ratio(self, step: int) -> float:
        """Return the learning rate over its peak at a step, counted from 0."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        length = max(1, self.total_steps - self.warmup_steps)
        progress = min(1.0, (step - self.warmup_steps) / length)
        cosine = 0.5 * (1.0 + math.cos(math.pi * progress))
        return self.final_ratio + (1.0 - self.final_ratio) * cosine

    def get_lr(self) -> list[float]:
        """Return the learning rate of each group."""
        return [base * self.ratio(self.last_epoch) for base in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Return the position; the shape follows the present configuration on resume."""
        return {"last_epoch": self.last_epoch, "_step_count": self._step_count}


class WarmupPlateau(LRScheduler):
    """Linear warm-up, then a reduction whenever validation stops improving.

    The training module reports each validation by `observe`. The state is complete at the end
    of a validation, so that a run resumed from there goes on exactly; torch's own
    `ReduceLROnPlateau` is stepped by Lightning only after the checkpoint is written.

    Parameters
    ----------
    optimizer
        Its `lr` is the peak.
    warmup_steps
        Steps of warm-up.
    factor
        New over old learning rate at a reduction.
    patience
        Validations without improvement before a reduction.
    threshold
        Relative improvement that counts.
    final_ratio
        Smallest learning rate over the peak.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_steps: int = 100,
        factor: float = 0.5,
        patience: int = 10,
        threshold: float = 1e-2,
        final_ratio: float = 1e-3,
    ) -> None:
        _check_ratio(final_ratio)
        if not 0.0 < factor < 1.0:
            raise ConfigError(
                f"scheduler.factor = {factor}: expected a number between 0 and 1.",
                key="scheduler.factor",
            )
        self.warmup_steps, self.factor, self.patience = warmup_steps, factor, patience
        self.threshold, self.final_ratio = threshold, final_ratio
        self.scale, self.best, self.n_worse = 1.0, math.inf, 0
        super().__init__(optimizer)

    def observe(self, value: float) -> None:
        """Take note of one validation, smaller being better."""
        if value < self.best * (1.0 - self.threshold):
            self.best, self.n_worse = value, 0
            return
        self.n_worse += 1
        if self.n_worse > self.patience:
            self.scale, self.n_worse = max(self.scale * self.factor, self.final_ratio), 0

    def get_lr(self) -> list[float]:
        """Return the learning rate of each group."""
        warmup = min(1.0, (self.last_epoch + 1) / (self.warmup_steps + 1))
        return [base * warmup * self.scale for base in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Return position and memory; the shape follows the present configuration."""
        names = ("last_epoch", "_step_count", "scale", "best", "n_worse")
        return {name: getattr(self, name) for name in names}


def _check_ratio(ratio: float) -> None:
    if not 0.0 <= ratio <= 1.0:
        raise ConfigError(
            f"scheduler.final_ratio = {ratio}: expected a number from 0 to 1.",
            key="scheduler.final_ratio",
        )
