"""The figures of a run: each composes drawing functions of `viz` and writes one PNG and PDF."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from deeph_lightning.report.errors import ERROR_BINS, MAGNITUDE_BINS, MEV, ErrorStatistics
from deeph_lightning.report.history import TIME, TRAINING, VALIDATION, History
from deeph_lightning.viz import bands as draw_bands
from deeph_lightning.viz import curve as draw_curve
from deeph_lightning.viz.distance import error_by_distance
from deeph_lightning.viz.orbital_pairs import orbital_pairs
from deeph_lightning.viz.parity import error_against_magnitude, error_distribution, parity
from deeph_lightning.viz.style import (
    DOUBLE_COLUMN_MM,
    GREY,
    SINGLE_COLUMN_MM,
    new_figure,
    paper_style,
    plain_log_ticks,
    save_figure,
)

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

    from deeph_lightning.report.bands import PathBands

ORBITAL_MAP_MM = 57.0  # longer side of the heat maps


def draw_all(
    folder: Path, statistics: ErrorStatistics, paths: dict[str, PathBands], history: History
) -> list[Path]:
    """Write every figure that there is data for.

    Parameters
    ----------
    folder
        Where the files go.
    statistics
        Errors of the elements of H.
    paths
        Bands along a path of one structure for each cell size.
    history
        Log of the training; without rows there is no training curve.

    Returns
    -------
    list of Path
        The PNG files.
    """
    with paper_style():
        figures = {
            "parity": parity_figure(statistics),
            "error_distance": distance_figure(statistics),
            **orbital_figures(statistics),
            **{f"bands_{file_name(key)}": bands_figure(path) for key, path in paths.items()},
        }
        if history.series(VALIDATION, *TRAINING)[0].size:
            figures["training_curve"] = curve_figure(history)
        return [save_figure(fig, folder / f"{name}.png") for name, fig in figures.items()]


def file_name(label: str) -> str:
    """Keep what is safe in a file name."""
    return re.sub(r"[^\w.+-]+", "_", label)


def parity_figure(statistics: ErrorStatistics) -> Figure:
    """Draw parity, error against size of the element, and the distribution of errors."""
    fig = new_figure(DOUBLE_COLUMN_MM, 68)
    left, middle, right = fig.subplots(1, 3, width_ratios=[1.0, 1.0, 0.44])
    parity(left, statistics.parity.centres, statistics.parity.counts)
    # elements that are zero in DFT (first bin) have no place on a log axis
    error_against_magnitude(
        middle,
        MAGNITUDE_BINS.centres[1:],
        ERROR_BINS.centres,
        statistics.magnitude_counts[1:],
    )
    onsite, hopping = statistics.error_counts()
    if (onsite + hopping).any():
        tail = ERROR_BINS.quantile(onsite + hopping, 0.002)  # noise of numbers near zero
        middle.set_ylim(bottom=max(float(tail), middle.get_ylim()[0]))
    error_distribution(right, ERROR_BINS.centres, onsite, hopping)
    right.set_ylim(middle.get_ylim())
    right.tick_params(labelleft=False)
    right.legend(
        loc="upper right", handlelength=1.2, borderaxespad=0.3, handletextpad=0.5,
        frameon=True, framealpha=0.85, edgecolor="none",
    )  # fmt: skip
    total = statistics.total().metrics()
    left.text(
        0.04,
        0.96,
        f"MAE {total['H_mae_meV']:.3g} meV\nRMSE {total['H_rmse_meV']:.3g} meV",
        transform=left.transAxes,
        va="top",
    )
    maps = [ax.collections[0] for ax in (left, middle) if ax.collections]
    largest = max(float(item.get_array().max()) for item in maps)
    for item in maps:
        item.set_clim(1, max(largest, 2))
    bar = left.inset_axes((0.5, 0.15, 0.45, 0.045))
    fig.colorbar(maps[0], cax=bar, orientation="horizontal")
    bar.set_title("elements", fontsize=7, pad=3)
    return fig


def distance_figure(statistics: ErrorStatistics) -> Figure:
    """Draw errors against pair length."""
    fig = new_figure(SINGLE_COLUMN_MM, 66)
    data = statistics.by_distance()
    error_by_distance(
        fig.subplots(), data.distance, data.mae, data.quantile, data.typical, data.onsite
    )
    return fig


def orbital_figures(statistics: ErrorStatistics) -> dict[str, Figure]:
    """Draw a heat map of hopping, and one of onsite blocks, for each pair of species."""
    mae = statistics.orbital_mae()
    figures = {}
    for a, b in sorted({key[:2] for key in mae}):
        panels = [(flag, mae[a, b, flag]) for flag in (False, True) if (a, b, flag) in mae]
        rows, columns = panels[0][1].shape
        scale = ORBITAL_MAP_MM / max(rows, columns)
        width = len(panels) * (max(columns * scale, 25) + SINGLE_COLUMN_MM - ORBITAL_MAP_MM)
        fig = new_figure(width, max(rows * scale, 25) + 14.5)
        axes = np.atleast_1d(fig.subplots(1, len(panels)))
        for ax, (is_onsite, values) in zip(axes, panels, strict=True):
            shells = statistics.shells
            orbital_pairs(ax, values, shells[a], shells[b], a, b)
            ax.set_title(f"{a}-{b}, " + ("onsite" if is_onsite else "hopping"))
            bar = fig.colorbar(ax.images[0], ax=ax, label="MAE (meV)", pad=0.02)
            plain_log_ticks(bar.ax.yaxis)
        figures[f"orbital_pairs_{file_name(a)}-{file_name(b)}"] = fig
    return figures


def curve_figure(history: History) -> Figure:
    """Draw validation error above, training loss below, and wall time along the top."""
    fig = new_figure(SINGLE_COLUMN_MM, 84)
    upper, lower = fig.subplots(2, 1, sharex=True)
    step, mae = history.series(VALIDATION)
    draw_curve.training_curve(upper, step, mae, label="validation MAE (meV)")
    if len(mae):
        best = f"best {mae.min():.3g} meV, step {step[mae.argmin()]:.0f}"
        upper.text(0.97, 0.93, best, transform=upper.transAxes, ha="right", va="top")
    draw_curve.training_curve(
        lower, *history.series(*TRAINING), label="training loss", colour=GREY, is_smoothed=True
    )
    upper.set_xlabel("")
    fig.align_ylabels()
    step, time_s = history.series(TIME)
    step, first = np.unique(step, return_index=True)
    if len(step) > 1 and np.all(np.diff(time_s[first]) > 0):
        draw_curve.wall_time_axis(upper, step, time_s[first])
    return fig


def bands_figure(data: PathBands) -> Figure:
    """Draw predicted bands over DFT bands, and the error of the states near E_F beneath."""
    fig = new_figure(SINGLE_COLUMN_MM, 100)
    upper, lower = fig.subplots(2, 1, sharex=True, height_ratios=[3.2, 1.0])
    path, near_eV = data.path, data.near_eV
    draw_bands.bands(upper, path.x, data.reference, data.predicted)
    formula = re.sub(r"(\d+)", r"$_{\1}$", data.formula)
    upper.set_title(f"{formula}, {data.name}", loc="left")
    error = MEV * np.abs(data.predicted - data.reference)
    draw_bands.band_errors(lower, path.x, error, data.reference, near_eV)
    title = rf"within {near_eV:g} eV of $E_\mathrm{{F}}$"
    near = error[np.abs(data.reference) <= near_eV]
    if near.size:
        mean, largest = (
            f"{value:.0f}" if value >= 100 else f"{value:.2g}"
            for value in (near.mean(), near.max())
        )
        title += f": mean (line) {mean}, largest {largest} meV"
    lower.set_title(title, fontsize=7, loc="left", pad=2)
    for ax in (upper, lower):
        draw_bands.kpath_axis(ax, path.tick, path.labels)
    upper.tick_params(labelbottom=False)
    return fig
