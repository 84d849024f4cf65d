"""Matrix elements of an operator against the length of the pair."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from deeph_lightning.viz.style import BLUE, VERMILION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike


def elements_by_distance(
    ax: Axes,
    distance: ArrayLike,
    largest: ArrayLike,
    ylabel: str,
    is_marked: ArrayLike | None = None,
    marked_label: str = "",
) -> Axes:
    """Draw the largest absolute element of every block over the length of its pair.

    Parameters
    ----------
    ax
        Where to draw; the vertical axis becomes logarithmic.
    distance
        ``(n,)``, Å.
    largest
        ``(n,)``; zeros are left out.
    ylabel
        Quantity and unit.
    is_marked
        ``(n,)`` booleans: pairs to draw in another colour, named in a legend.
    marked_label
        Their name.

    Returns
    -------
    Axes
        ``ax``.
    """
    distance, largest = np.asarray(distance, dtype=float), np.asarray(largest, dtype=float)
    is_seen = largest > 0
    marked = np.zeros(len(distance), dtype=bool) if is_marked is None else np.asarray(is_marked)
    style: dict[str, Any] = {
        "ls": "none",
        "marker": ".",
        "ms": 2.5,
        "mew": 0,
        "rasterized": True,
    }
    rest = is_seen & ~marked
    ax.plot(distance[rest], largest[rest], color=BLUE, **style)
    if np.any(is_seen & marked):
        which = is_seen & marked
        ax.plot(distance[which], largest[which], color=VERMILION, label=marked_label, **style)
        ax.legend(loc="lower left", markerscale=3)
    ax.set_yscale("log")
    ax.set_xlim(left=-0.25)
    ax.set_xlabel("pair length (Å)")
    ax.set_ylabel(ylabel)
    return ax
