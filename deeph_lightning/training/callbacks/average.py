"""Running average of the weights."""

from __future__ import annotations

import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from deeph_lightning.errors import ConfigError


class WeightAverage(WeightAveraging):
    """Exponential moving average of the weights: what is validated, tested and predicted with.

    The decay grows as (1 + n) / (10 + n) with the steps n until it reaches its value: a short
    run does not end with an average that still remembers where it began. Buffers are copied,
    not averaged: they are constants here, and their average would drift by rounding. A
    checkpoint's ``state_dict`` is the average; the raw weights, which training goes on with,
    are beside it.

    Parameters
    ----------
    decay
        Share of the old average at each step, below 1.
    """

    def __init__(self, decay: float = 0.995) -> None:
        if not 0.0 <= decay < 1.0:
            raise ConfigError(
                f"callbacks.ema.decay = {decay}: expected a number from 0 to below 1.",
                key="callbacks.ema.decay",
            )

        def update(average: list[Tensor], current: list[Tensor], n_averaged: Tensor) -> None:
            n = int(n_averaged)
            torch._foreach_lerp_(average, current, 1.0 - min(decay, (1.0 + n) / (10.0 + n)))

        super().__init__(use_buffers=False, multi_avg_fn=torch.no_grad()(update))
