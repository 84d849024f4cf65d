"""Radial functions: a Gaussian basis that is dense at short distance, smooth cut-offs."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RadialBasis(nn.Module):
    """Gaussians of the distance, centres spaced geometrically, width = local spacing.

    H decays like products of orbitals: what matters is resolution at bond lengths, not a
    uniform grid to the cut-off.

    Parameters
    ----------
    n_basis
        Number of functions.
    r_min, r_max
        First and last centre, Å.
    """

    def __init__(self, n_basis: int, r_min: float, r_max: float) -> None:
        super().__init__()
        ratio = (r_max / r_min) ** (1.0 / (n_basis - 1))
        centre = r_min * ratio ** torch.arange(n_basis, dtype=torch.float64)
        self.register_buffer("centre", centre, persistent=False)
        self.register_buffer("inverse_width", 1.0 / (centre * (ratio - 1.0)), persistent=False)

    def forward(self, distance: Tensor) -> Tensor:
        """Evaluate at ``(P,)`` distances in Å: ``(P, n_basis)``."""
        scaled = (distance[:, None] - self.centre.to(distance)) * self.inverse_width.to(
            distance
        )
        return torch.exp(-0.5 * scaled**2)


def polynomial_envelope(distance: Tensor, r_cut: float | Tensor, p: int = 5) -> Tensor:
    """Smooth cut-off, 1 at zero and 0 with two vanishing derivatives at `r_cut`."""
    t = (distance / r_cut).clamp(max=1.0)
    return (
        1.0
        - (p + 1) * (p + 2) / 2 * t**p
        + p * (p + 2) * t ** (p + 1)
        - p * (p + 1) / 2 * t ** (p + 2)
    )


def edge_window(distance: Tensor, r_cut: float | Tensor, width: float = 0.6) -> Tensor:
    """One until `width` Å before the cut-off, then a smooth step (C2) to zero at it."""
    t = ((r_cut - distance) / width).clamp(0.0, 1.0)
    return t**3 * (10.0 - 15.0 * t + 6.0 * t**2)
