"""Learning rate, gradient norm, and how far the weights are from their running average."""

from __future__ import annotations

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch.optim import Optimizer


class WeightMonitor(Callback):
    """Log ``train/lr``, ``train/grad_norm`` before clipping, ``train/ema_distance``."""

    def on_before_optimizer_step(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        optimizer: Optimizer,
    ) -> None:
        """Log learning rate and norm of all gradients at the steps that the trainer logs."""
        if (trainer.global_step + 1) % trainer.log_every_n_steps == 0:
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients)
            pl_module.log("train/grad_norm", norm, batch_size=1)
            pl_module.log("train/lr", optimizer.param_groups[0]["lr"], batch_size=1)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the distance to the average, over the norm of the weights."""
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            average = getattr(callback, "_average_model", None)
            if isinstance(callback, WeightAveraging) and average is not None:
                weights = [p.detach() for p in pl_module.parameters()]
                difference = [w - a for w, a in zip(weights, average.parameters(), strict=True)]
                norm = torch.nn.utils.get_total_norm
                value = norm(difference) / norm(weights)
                pl_module.log("train/ema_distance", value, batch_size=1)
