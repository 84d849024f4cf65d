"""Stop at a loss that is not a number, naming the structures and the step."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from deeph_lightning.config.targets import listed
from deeph_lightning.errors import DeepHError


class DivergedError(DeepHError, RuntimeError):
    """The loss is not finite any more."""

    def __init__(self, message: str, *, step: int, structures: list[str]) -> None:
        super().__init__(message)
        self.step = step
        self.structures = structures


class NanGuard(Callback):
    """Raise `DivergedError` at the first loss that is NaN or infinite.

    Looking at a loss makes the CPU wait for the GPU, so losses are kept and looked at together,
    and in any case before a checkpoint is written at the end of the epoch.

    Parameters
    ----------
    every_n_steps
        Batches between looks.
    """

    def __init__(self, every_n_steps: int = 20) -> None:
        self.every_n_steps = max(1, every_n_steps)
        self._seen: list[tuple[int, list[str], Tensor]] = []

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,
        batch: Any,
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Keep the loss; look every few batches."""
        self._seen.append((trainer.global_step, list(batch.name), outputs["loss"].detach()))
        if len(self._seen) >= self.every_n_steps:
            self._look(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Look at the rest."""
        self._look(trainer)

    def _look(self, trainer: Trainer) -> None:
        seen, self._seen = self._seen, []
        if not seen or bool(torch.stack([loss for *_, loss in seen]).isfinite().all()):
            return
        step, names, loss = next(item for item in seen if not item[2].isfinite())
        raise DivergedError(
            f"train/loss = {float(loss)} at step {step} (epoch {trainer.current_epoch}), "
            f"structure {listed(names, 4)}.\n  Labels are checked when data are read, so the "
            "training itself diverged: lower optimizer.lr or\n  trainer.gradient_clip_val, or "
            "lengthen scheduler.warmup_steps. debug=anomaly names the operation.\n"
            "  Checkpoints of earlier epochs are intact.",
            step=step,
            structures=names,
        )
