"""Radial functions: a Gaussian basis, smooth cut-offs."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RadialBasis(nn.Module):
    """Gaussians of the distance, width = spacing of their centres.

    A fit of H itself needs a uniform grid that resolves the shells of neighbours to the very
    cut-off: wider functions ring where H is small. A network, which learns what such a fit
    leaves, wants most of its resolution at bond lengths: a geometric grid.

    Parameters
    ----------
    n_basis
        Number of functions, at least 2.
    r_min, r_max
        First and last centre, Å.
    geometric
        Centres with a constant ratio instead of a constant difference.
    """

    def __init__(
        self, n_basis: int, r_min: float, r_max: float, *, geometric: bool = False
    ) -> None:
        super().__init__()
        step = torch.linspace(0.0, 1.0, n_basis, dtype=torch.float64)
        if geometric:
            ratio = r_max / r_min
            centre = r_min * ratio**step
            width = centre * (ratio ** (1.0 / (n_basis - 1)) - 1.0)
        else:
            centre = r_min + (r_max - r_min) * step
            width = torch.full_like(centre, (r_max - r_min) / (n_basis - 1))
        self.register_buffer("centre", centre, persistent=False)
        self.register_buffer("width", width, persistent=False)

    def forward(self, distance: Tensor) -> Tensor:
        """Evaluate at ``(P,)`` distances in Å: ``(P, n_basis)``."""
        scaled = (distance[:, None] - self.centre.to(distance)) / self.width.to(distance)
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
