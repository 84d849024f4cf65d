"""The look of every figure: sizes, fonts, colours; no global state.

Figures are built on `matplotlib.figure.Figure`, never through pyplot, inside `paper_style`.
Colours are those of Okabe and Ito (safe for colour-blind readers); DFT is solid grey, a
prediction dashed blue, so that line style repeats what colour says.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from matplotlib.axis import Axis

SINGLE_COLUMN_MM = 85.0
DOUBLE_COLUMN_MM = 170.0

BLACK = "#000000"
ORANGE = "#E69F00"
SKY_BLUE = "#56B4E9"
GREEN = "#009E73"
YELLOW = "#F0E442"
BLUE = "#0072B2"
VERMILION = "#D55E00"
PURPLE = "#CC79A7"
GREY = "#7F7F7F"

DFT_COLOUR = "#A6A6A6"
PREDICTION_COLOUR = BLUE
COUNT_MAP = "viridis"
ERROR_MAP = "cividis"

_RC: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "mathtext.fontset": "dejavusans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.0,
    "lines.markersize": 3.5,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,
    "image.interpolation": "none",
}


@contextmanager
def paper_style() -> Iterator[None]:
    """Draw and save with the settings of this file; the caller's settings come back after."""
    chatty = logging.getLogger("fontTools")  # tells every glyph of every PDF
    level = chatty.level
    chatty.setLevel(logging.WARNING)
    try:
        with mpl.rc_context(_RC):
            yield
    finally:
        chatty.setLevel(level)


def new_figure(width_mm: float, height_mm: float) -> Figure:
    """Open a figure of a printed size in millimetres, with constrained layout."""
    return Figure(figsize=(width_mm / 25.4, height_mm / 25.4), layout="constrained")


def plain_log_ticks(axis: Axis) -> None:
    """Label a log axis of less than about two decades with plain numbers (0.05, 0.1, 0.2)."""
    low, high = sorted(axis.get_view_interval())
    if high < 150 * low:
        subs = (1, 2, 5) if high > 8 * low else (1, 1.5, 2, 3, 4, 5, 6, 8)
        axis.set_major_locator(LogLocator(subs=subs))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())


def save_figure(fig: Figure, path: Path, *, pdf: bool = True) -> Path:
    """Write a figure as PNG (300 dpi) and, beside it, as PDF; a file is whole or absent.

    Parameters
    ----------
    fig
        The figure.
    path
        Name of the PNG file; its folder is made.
    pdf
        Write the vector version as well.

    Returns
    -------
    Path
        The PNG file.
    """
    path = path.with_suffix(".png")
    path.parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".png", ".pdf") if pdf else (".png",):
        target = path.with_suffix(suffix)
        partial = target.with_name(f".{target.name}.partial")
        metadata = {"CreationDate": None} if suffix == ".pdf" else {}
        fig.savefig(partial, format=suffix[1:], metadata=metadata)
        partial.replace(target)
    return path
