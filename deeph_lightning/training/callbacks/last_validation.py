"""Validation of the last epoch, wherever it falls."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer


class LastValidation(Callback):
    """Validate after the last epoch, too, where it is no multiple of the interval.

    The learning rate ends there, so that its weights are the best ones; without a validation
    they would neither be kept nor tested.
    """

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Make the interval one for the last epoch."""
        if trainer.current_epoch + 1 == trainer.max_epochs:
            trainer.check_val_every_n_epoch = 1
