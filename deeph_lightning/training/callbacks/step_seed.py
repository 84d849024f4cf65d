"""Random numbers that depend on (seed, step, rank), so that a resumed run draws the same."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class StepSeed(Callback):
    """Seed Python, NumPy and torch before every training batch; it takes microseconds.

    Checkpoints hold no generator states. With this, dropout and the like go on after a resume
    as they would have without the stop, whatever drew numbers in between: the iterator of a
    data loader does, and a resumed run makes one at another moment.

    Parameters
    ----------
    seed
        The seed of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,
    ) -> None:
        """Seed from (seed, epoch, batch, rank)."""
        key = (self.seed, trainer.current_epoch, batch_idx, trainer.global_rank)
        value = int(np.random.SeedSequence(key).generate_state(1)[0])
        random.seed(value)
        np.random.seed(value)  # noqa: NPY002  # third-party code draws from the global state
        torch.manual_seed(value)
