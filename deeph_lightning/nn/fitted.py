"""Base of what is fitted once to the training set and kept beside the weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Fitted(nn.Module):
    """Buffers that stay in float64, and that a checkpoint may lack.

    Attributes
    ----------
    is_fitted
        False before the fit, and in a network of an older checkpoint that has no such entries.
    """

    is_fitted: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("is_fitted", torch.zeros((), dtype=torch.bool))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Fitted:
        """Move, but keep float64."""

        def move(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return tensor.to(moved.device) if tensor.dtype == torch.float64 else moved

        return super()._apply(move, recurse)

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        if f"{prefix}is_fitted" in state_dict:
            super()._load_from_state_dict(state_dict, prefix, *args)
        else:
            self.is_fitted.fill_(False)
