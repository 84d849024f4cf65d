"""Parity and size of errors, drawn from counts: the points themselves are never kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import LogNorm

from deeph_lightning.viz.style import BLUE, COUNT_MAP, GREY, VERMILION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike


def parity(ax: Axes, centre_eV: ArrayLike, counts: ArrayLike) -> Axes:
    """Draw predicted over DFT matrix elements as hexagons of counts.

    Parameters
    ----------
    ax
        Where to draw. The hexagons are its first collection (for a colour bar).
    centre_eV
        ``(n,)``, centres of the bins, the same for both axes, eV.
    counts
        ``(n, n)``, number of elements; first axis DFT, second axis predicted.

    Returns
    -------
    Axes
        ``ax``.
    """
    centre, counts = np.asarray(centre_eV), np.asarray(counts)
    used = np.flatnonzero(counts.sum(0) + counts.sum(1))
    low, high = (centre[used[0]], centre[used[-1]]) if used.size else (-1.0, 1.0)
    margin = 0.06 * max(high - low, 1e-12)
    low, high = low - margin, high + margin
    row, column = np.nonzero(counts)
    ax.hexbin(
        centre[row],
        centre[column],
        C=counts[row, column],
        reduce_C_function=np.sum,
        gridsize=(44, 44),  # equal numbers: centres of hexagons lie on the diagonal
        extent=(low, high, low, high),
        norm=LogNorm(vmin=1),
        cmap=COUNT_MAP,
        linewidths=0.2,
        rasterized=True,
    )
    ax.plot([low, high], [low, high], color=GREY, lw=0.5, zorder=0)
    ax.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    ax.set_xlabel("H, DFT (eV)")
    ax.set_ylabel("H, predicted (eV)")
    return ax


def error_against_magnitude(
    ax: Axes, magnitude_eV: ArrayLike, error_meV: ArrayLike, counts: ArrayLike
) -> Axes:
    """Draw the error of elements against their size as hexagons of counts, both axes log.

    Dashed lines mark a constant relative error.

    Parameters
    ----------
    ax
        Where to draw. The hexagons are its first collection (for a colour bar).
    magnitude_eV
        ``(n,)``, centres of the bins of abs H, spaced evenly in the logarithm, eV.
    error_meV
        ``(m,)``, centres of the bins of abs error, spaced evenly in the logarithm, meV.
    counts
        ``(n, m)``, number of elements.

    Returns
    -------
    Axes
        ``ax``.
    """
    magnitude, error = np.asarray(magnitude_eV), np.asarray(error_meV)
    counts = np.asarray(counts)
    row, column = np.nonzero(counts)
    ax.set_xlabel("|H|, DFT (eV)")
    ax.set_ylabel("|ΔH| (meV)")
    if row.size == 0:
        ax.text(0.5, 0.5, "no error", transform=ax.transAxes, ha="center")
        return ax
    extent = (
        np.log10(magnitude[row.min()]) - 0.2,
        np.log10(magnitude[row.max()]) + 0.2,
        np.log10(error[column.min()]) - 0.2,
        np.log10(error[column.max()]) + 0.2,
    )
    ax.hexbin(
        magnitude[row],
        error[column],
        C=counts[row, column],
        reduce_C_function=np.sum,
        gridsize=50,
        extent=extent,
        xscale="log",
        yscale="log",
        norm=LogNorm(vmin=1),
        cmap=COUNT_MAP,
        linewidths=0.2,
        rasterized=True,
    )
    ax.set(xlim=10.0 ** np.array(extent[:2]), ylim=10.0 ** np.array(extent[2:]))
    _relative_error_lines(ax, extent)
    return ax


def _relative_error_lines(ax: Axes, extent: tuple[float, float, float, float]) -> None:
    """Mark error = 10^e abs H, each line labelled where it leaves the axes."""
    x_low, x_high, y_low, y_high = extent
    for exponent in (-4, -2, 0):
        shift = 3 + exponent  # meV over eV, in decades
        ends = np.array([x_low, x_high])
        ax.plot(10**ends, 10 ** (ends + shift), color=GREY, lw=0.5, ls=(0, (4, 3)), zorder=3)
        leaves = min(x_high, y_high - shift)
        if leaves - x_low < 0.8 or leaves + shift - y_low < 0.8:
            continue
        text = f"{100 * 10.0**exponent:g} %"
        ax.annotate(
            text,
            (10**leaves, 10 ** (leaves + shift)),
            xytext=(-3, -3),
            textcoords="offset points",
            fontsize=6,
            color="#404040",
            ha="right",
            va="top",
            zorder=4,
            bbox={"boxstyle": "square,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.8},
        )


def error_distribution(
    ax: Axes,
    error_meV: ArrayLike,
    onsite_counts: ArrayLike,
    hopping_counts: ArrayLike,
) -> Axes:
    """Draw how many elements have which error, sideways, beside `error_against_magnitude`.

    Parameters
    ----------
    ax
        Where to draw; its vertical axis is abs error, log.
    error_meV
        ``(m,)``, centres of the bins, spaced evenly in the logarithm, meV.
    onsite_counts, hopping_counts
        ``(m,)``, number of elements.

    Returns
    -------
    Axes
        ``ax``.
    """
    error = np.asarray(error_meV)
    for counts, colour, style, label in (
        (hopping_counts, BLUE, "-", "hopping"),
        (onsite_counts, VERMILION, "--", "onsite"),
    ):
        counts = np.asarray(counts, dtype=float)
        if counts.any():
            ax.step(np.maximum(counts, 0.5), error, where="mid", color=colour, ls=style,
                    label=label)  # fmt: skip
    ax.set(xscale="log", yscale="log")
    most = max(np.max(onsite_counts), np.max(hopping_counts), 1)
    ax.set_xlim(0.7, 30 * most)  # room for a legend beside the large, rare errors
    ax.set_xlabel("elements")
    return ax
