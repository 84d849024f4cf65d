"""Where full precision is kept under mixed precision: rotations, sums, norms, heads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def full_precision(like: Tensor) -> Any:
    """Context that switches automatic mixed precision off on a tensor's device."""
    return torch.autocast(like.device.type, enabled=False)
