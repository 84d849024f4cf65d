"""Training curves from the rows of a log."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from deeph_lightning.viz.style import BLUE, plain_log_ticks


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
    step, value = np.asarray(step, dtype=float), np.asarray(value, dtype=float)
    keep = np.isfinite(value) & (value > 0)
    step, value = step[keep], value[keep]
    width = max(len(value) // 40, 1)
    if is_smoothed and width > 1:
        ax.plot(step, value, color=colour, lw=0.4, alpha=0.35)
        windows = np.lib.stride_tricks.sliding_window_view(value, width)
        offset = (width - 1) // 2
        ax.plot(step[offset : offset + len(windows)], np.median(windows, 1), color=colour)
    else:
        marker = "o" if len(value) <= 60 else None
        ax.plot(step, value, color=colour, marker=marker, ms=2)
    ax.set_yscale("log")
    plain_log_ticks(ax.yaxis)
    ax.set_ylabel(label)
    ax.set_xlabel("training step")
    return ax


def wall_time_axis(ax: Axes, step: ArrayLike, time_s: ArrayLike) -> Axes:
    """Add wall time, in minutes (seconds for short runs), along the top of a training curve.

    Parameters
    ----------
    ax
        The curve; its horizontal axis counts steps.
    step, time_s
        ``(n,)``, rising step numbers and seconds since the start at each.

    Returns
    -------
    Axes
        The new axis.
    """
    step, time_s = np.asarray(step, dtype=float), np.asarray(time_s, dtype=float)
    unit, scale = ("min", 60.0) if time_s[-1] > 180 else ("s", 1.0)
    time = time_s / scale
    slope = (time[-1] - time[0]) / max(step[-1] - step[0], 1e-12)
    slope = max(slope, 1e-12)

    def to_time(x: np.ndarray) -> np.ndarray:
        """Interpolate, and go on with the mean speed outside of the log."""
        inside = np.interp(x, step, time)
        before = np.minimum(x - step[0], 0.0) * slope
        after = np.maximum(x - step[-1], 0.0) * slope
        return inside + before + after

    def to_step(t: np.ndarray) -> np.ndarray:
        """Undo `to_time`."""
        inside = np.interp(t, time, step)
        before = np.minimum(t - time[0], 0.0) / slope
        after = np.maximum(t - time[-1], 0.0) / slope
        return inside + before + after

    top = ax.secondary_xaxis("top", functions=(to_time, to_step))
    top.set_xlabel(f"wall time ({unit})")
    return top
