"""Bands of two Hamiltonians on one path, and the error between them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.lines import Line2D

from deeph_lightning.viz.style import BLUE, DFT_COLOUR, GREY, PREDICTION_COLOUR

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike


def kpath_axis(ax: Axes, tick: ArrayLike, labels: Sequence[str]) -> Axes:
    """Label the special points of a path on the horizontal axis; G is printed as Γ."""
    labels = [re.sub(r"(\d+)", r"$_\1$", label.replace("G", "Γ")) for label in labels]
    tick = np.asarray(tick, dtype=float)
    for at in tick[1:-1]:
        ax.axvline(at, color=GREY, lw=0.4, zorder=0)
    ax.set_xticks(tick, labels)
    ax.tick_params(axis="x", length=0)
    ax.set_xlim(tick[0], tick[-1])
    return ax


def _broken(x: np.ndarray, energies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Insert NaN rows where the path jumps, i.e. where two points share one abscissa."""
    jump = np.flatnonzero(np.diff(x) <= 0) + 1
    return np.insert(x, jump, np.nan), np.insert(energies, jump, np.nan, axis=0)


def bands(
    ax: Axes,
    x: ArrayLike,
    reference_eV: ArrayLike,
    predicted_eV: ArrayLike | None = None,
    *,
    window_eV: tuple[float, float] = (-5.0, 5.0),
) -> Axes:
    """Draw predicted bands (dashed blue) on top of DFT bands (solid grey).

    Parameters
    ----------
    ax
        Where to draw.
    x
        ``(n_k,)``, length along the path.
    reference_eV, predicted_eV
        ``(n_k, n_band)``, each relative to its own Fermi level, eV.
    window_eV
        Lowest and highest energy shown.

    Returns
    -------
    Axes
        ``ax``.
    """
    x = np.asarray(x, dtype=float)
    handles = []
    for energies, colour, style, width, label in (
        (reference_eV, DFT_COLOUR, "-", 1.6, "DFT"),
        (predicted_eV, PREDICTION_COLOUR, (0, (3.5, 2.5)), 0.8, "predicted"),
    ):
        if energies is None:
            continue
        energies = np.asarray(energies, dtype=float)
        low, high = window_eV
        shown = (energies.max(0) >= low) & (energies.min(0) <= high)
        ax.plot(*_broken(x, energies[:, shown]), color=colour, ls=style, lw=width)
        handles.append(Line2D([], [], color=colour, ls=style, lw=width, label=label))
    ax.axhline(0.0, color="black", lw=0.4, ls=":", zorder=0)
    ax.set_ylim(*window_eV)
    ax.set_ylabel(r"$E - E_\mathrm{F}$ (eV)")
    ax.legend(
        handles=handles, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2,
        borderaxespad=0.2,
    )  # fmt: skip
    return ax


def band_errors(
    ax: Axes, x: ArrayLike, error_meV: ArrayLike, reference_eV: ArrayLike, within_eV: float
) -> Axes:
    """Draw abs error of the states near the Fermi level along a path, with mean and largest.

    Parameters
    ----------
    ax
        Where to draw.
    x
        ``(n_k,)``, length along the path.
    error_meV
        ``(n_k, n_band)``, predicted minus DFT, each relative to its Fermi level, meV.
    reference_eV
        ``(n_k, n_band)``, DFT energies relative to the Fermi level, eV.
    within_eV
        States further than this from the Fermi level are left out.

    Returns
    -------
    Axes
        ``ax``.
    """
    x = np.asarray(x, dtype=float)
    near = np.abs(np.asarray(reference_eV)) <= within_eV
    error = np.where(near, np.abs(np.asarray(error_meV, dtype=float)), np.nan)
    points = np.broadcast_to(x[:, None], error.shape)[near]
    ax.plot(points, error[near], ".", color=BLUE, ms=2.4, mew=0)
    has_state = near.any(1)
    count = np.maximum(near.sum(1), 1)
    mean = np.where(has_state, np.nansum(error, 1) / count, np.nan)
    ax.plot(*_broken(x, mean[:, None]), color="black", lw=0.8)
    ax.set_ylim(bottom=0.0)
    ax.set_ylabel("|error| (meV)")
    return ax
