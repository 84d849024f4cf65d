"""Training curves from the rows of a log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from deeph_lightning.viz.style import BLUE, plain_log_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axes._secondary_axes import SecondaryAxis
    from numpy.typing import ArrayLike


def training_curve(
    ax: Axes,
    step: ArrayLike,
    value: ArrayLike,
    *,
    label: str,
    colour: str = BLUE,
    is_smoothed: bool = False,
) -> Axes:
    """Draw one logged quantity over training steps, log axis.

    Parameters
    ----------
    ax
        Where to draw.
    step
        ``(n,)``, optimiser steps.
    value
        ``(n,)``, the quantity; NaN and values that are not positive are left out.
    label
        Name and unit for the vertical axis.
    colour
        Of the line.
    is_smoothed
        Draw the values faintly and their running median on top.

    Returns
    -------
    Axes
        ``ax``.
    """
    x, y = np.asarray(step, dtype=float), np.asarray(value, dtype=float)
    keep = np.isfinite(y) & (y > 0)
    x, y = x[keep], y[keep]
    width = max(len(y) // 40, 1)
    if is_smoothed and width > 1:
        ax.plot(x, y, color=colour, lw=0.4, alpha=0.35)
        windows = np.lib.stride_tricks.sliding_window_view(y, width)
        offset = (width - 1) // 2
        ax.plot(x[offset : offset + len(windows)], np.median(windows, 1), color=colour)
    else:
        ax.plot(x, y, color=colour, marker="o" if len(y) <= 60 else None, ms=2)
    ax.set_yscale("log")
    plain_log_ticks(ax.yaxis)
    ax.set_ylabel(label)
    ax.set_xlabel("training step")
    return ax


def wall_time_axis(ax: Axes, step: ArrayLike, time_s: ArrayLike) -> SecondaryAxis:
    """Add wall time, in minutes (seconds for short runs), along the top of a training curve.

    Parameters
    ----------
    ax
        The curve; its horizontal axis counts steps.
    step, time_s
        ``(n,)``, n >= 2, rising step numbers and seconds since the start at each, rising too.

    Returns
    -------
    SecondaryAxis
        The new axis.
    """
    unit, scale = ("min", 60.0) if np.max(time_s) > 180 else ("s", 1.0)
    x, time = np.asarray(step, dtype=float), np.asarray(time_s, dtype=float) / scale

    def interpolate(at: Any, x: np.ndarray, y: np.ndarray) -> Any:
        """Interpolate, and go on with the mean slope outside."""
        slope = (y[-1] - y[0]) / (x[-1] - x[0])
        outside = np.minimum(at - x[0], 0.0) + np.maximum(at - x[-1], 0.0)
        return np.interp(at, x, y) + slope * outside

    top = ax.secondary_xaxis(
        "top",
        functions=(lambda at: interpolate(at, x, time), lambda at: interpolate(at, time, x)),
    )
    top.set_xlabel(f"wall time ({unit})")
    return top
