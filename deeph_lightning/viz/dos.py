"""Densities of states."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deeph_lightning.viz.bands import GROUP_COLOURS
from deeph_lightning.viz.style import BLACK, PREDICTION_COLOUR

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike


def density_of_states(
    ax: Axes,
    energies_eV: ArrayLike,
    total: ArrayLike,
    projected: Mapping[str, ArrayLike] | None = None,
) -> Axes:
    """Draw a density of states, the second spin channel downwards.

    Parameters
    ----------
    ax
        Where to draw.
    energies_eV
        ``(n,)``, relative to the Fermi level, eV.
    total
        ``(n_channel, n)``, electrons per eV.
    projected
        Parts by name, each as `total`; the largest seven are drawn.

    Returns
    -------
    Axes
        ``ax``.
    """
    x = np.asarray(energies_eV, dtype=float)
    parts = {name: np.asarray(part, dtype=float) for name, part in (projected or {}).items()}
    order = sorted(parts, key=lambda name: -parts[name].sum())[: len(GROUP_COLOURS)]
    for channel, curve in enumerate(np.asarray(total, dtype=float)):
        sign = -1.0 if channel else 1.0
        ax.plot(x, sign * curve, color=BLACK, lw=0.8, label=None if channel else "total")
        for name, colour in zip(order, GROUP_COLOURS, strict=False):
            label = None if channel else name
            ax.plot(x, sign * parts[name][channel], color=colour, lw=0.8, label=label)
    if order:
        _legend_above(ax)
    ax.axvline(0.0, color=BLACK, lw=0.4, ls=":", zorder=0)
    ax.set_xlim(x[0], x[-1])
    if len(np.asarray(total)) == 1:
        ax.set_ylim(bottom=0.0)
    else:
        ax.axhline(0.0, color=BLACK, lw=0.4)
    ax.set_xlabel(r"$E - E_\mathrm{F}$ (eV)")
    ax.set_ylabel("DOS (electrons/eV)")
    return ax


def second_density(
    ax: Axes, energies_eV: ArrayLike, total: ArrayLike, labels: tuple[str, str]
) -> Axes:
    """Draw another total density (dashed blue) over that of `density_of_states`."""
    ax.lines[0].set_label(labels[0])
    for channel, curve in enumerate(np.asarray(total, dtype=float)):
        sign = -1.0 if channel else 1.0
        label = None if channel else labels[1]
        ax.plot(
            np.asarray(energies_eV), sign * curve, color=PREDICTION_COLOUR, ls="--", lw=0.8,
            label=label,
        )  # fmt: skip
    _legend_above(ax)
    return ax


def _legend_above(ax: Axes) -> None:
    """Put the legend above the axes, in the columns that a narrow figure has room for."""
    _, labels = ax.get_legend_handles_labels()
    n_column = int(73.0 / (9.0 + 1.3 * max(len(label) for label in labels)))  # mm
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=min(max(n_column, 1), 4))
