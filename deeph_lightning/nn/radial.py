"""Radial functions: Gaussian bases and smooth cut-offs."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class RadialBasis(nn.Module):
    """Gaussians of the distance.

    Parameters
    ----------
    centre, width
        ``(n_basis,)`` centres and standard deviations, Å.
    """

    def __init__(self, centre: Tensor, width: Tensor) -> None:
        super().__init__()
        self.register_buffer("centre", centre, persistent=False)
        self.register_buffer("inverse_width", 1.0 / width, persistent=False)

    @classmethod
    def geometric(cls, n_basis: int, r_min: float, r_max: float) -> RadialBasis:
        """Centres spaced geometrically, width = local spacing: dense at bond lengths.

        For a network, which learns what decays like products of orbitals.
        """
        ratio = (r_max / r_min) ** (1.0 / (n_basis - 1))
        centre = r_min * ratio ** torch.arange(n_basis, dtype=torch.float64)
        return cls(centre, centre * (ratio - 1.0))

    @classmethod
    def uniform(cls, spacing: float, r_min: float, r_max: float) -> RadialBasis:
        """Centres at most `spacing` Å apart, width 1.5 spacings.

        For least squares, which resolve each distance by itself.
        """
        n_basis = 1 + math.ceil((r_max - r_min) / spacing)
        centre = torch.linspace(r_min, r_max, n_basis, dtype=torch.float64)
        return cls(centre, torch.full_like(centre, 1.5 * (r_max - r_min) / (n_basis - 1)))

    def __len__(self) -> int:
        """Count the functions."""
        return len(self.centre)

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
