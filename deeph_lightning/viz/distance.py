"""Error of matrix elements against the length of the pair."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deeph_lightning.viz.style import BLUE, GREY, VERMILION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike


def error_by_distance(
    ax: Axes,
    distance: ArrayLike,
    mae_meV: ArrayLike,
    quantile_meV: ArrayLike,
    typical_meV: ArrayLike,
    onsite: Mapping[str, float] | None = None,
) -> Axes:
    """Draw MAE and 95 % quantile of hopping elements, and mean abs H, over pair length.

    Parameters
    ----------
    ax
        Where to draw; the vertical axis becomes logarithmic.
    distance
        ``(n,)``, centres of the bins, Å.
    mae_meV, quantile_meV, typical_meV
        ``(n,)``, mean abs error, its 95 % quantile and mean abs H of DFT, meV. NaN where a
        bin is empty.
    onsite
        The same three numbers of the onsite blocks under ``mae``, ``quantile`` and
        ``typical``; drawn as single marks at zero.

    Returns
    -------
    Axes
        ``ax``.
    """
    distance = np.asarray(distance, dtype=float)
    onsite = onsite or {}
    for key, values, colour, marker, line, label in (
        ("typical", typical_meV, GREY, "s", ":", "|H| of DFT, mean"),
        ("quantile", quantile_meV, VERMILION, "^", "--", "|ΔH|, 95 % quantile"),
        ("mae", mae_meV, BLUE, "o", "-", "|ΔH|, mean"),
    ):
        values = np.asarray(values, dtype=float)
        keep = np.isfinite(values) & (values > 0)
        ax.plot(distance[keep], values[keep], color=colour, marker=marker, ls=line, label=label)
        if onsite.get(key, 0.0) > 0:
            ax.plot([0.0], [onsite[key]], color=colour, marker=marker, mfc="white", ls="none")
    if onsite:
        ax.annotate(
            "onsite",
            (0.0, max(onsite["mae"], onsite["quantile"])),
            xytext=(0, 5),
            textcoords="offset points",
            fontsize=7,
            ha="center",
        )
    ax.set_yscale("log")
    ax.set_xlim(left=-0.75)
    ax.set_xlabel("pair length (Å)")
    ax.set_ylabel("matrix elements (meV)")
    ax.legend(loc="lower left")
    return ax
