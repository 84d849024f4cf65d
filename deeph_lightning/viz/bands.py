"""Bands of two Hamiltonians on one path, and the error between them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.lines import Line2D

from deeph_lightning.viz.style import (
    BLACK,
    BLUE,
    DFT_COLOUR,
    GREEN,
    GREY,
    ORANGE,
    PREDICTION_COLOUR,
    PURPLE,
    SKY_BLUE,
    VERMILION,
    YELLOW,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

#: Colours of groups of orbitals, heaviest first.
GROUP_COLOURS = (SKY_BLUE, VERMILION, GREEN, PURPLE, ORANGE, BLUE, YELLOW)


def kpath_axis(ax: Axes, tick: ArrayLike, labels: Sequence[str]) -> Axes:
    """Label the special points of a path on the horizontal axis, digits as subscripts."""
    labels = [re.sub(r"(\d+)", r"$_\1$", label) for label in labels]
    tick = np.asarray(tick, dtype=float)
    for at in tick[1:-1]:
        ax.axvline(at, color=GREY, lw=0.4, zorder=0)
    ax.set_xticks(tick, labels)
    ax.tick_params(axis="x", length=0)
    ax.set_xlim(tick[0], tick[-1])
    return ax


def broken(x: np.ndarray, energies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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
    labels: tuple[str, str] = ("DFT", "predicted"),
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
    labels
        Names of the two in the legend, which is drawn where there are two.

    Returns
    -------
    Axes
        ``ax``.
    """
    x = np.asarray(x, dtype=float)
    handles = []
    lone = (BLACK, "-", 0.8, labels[0])
    for energies, colour, style, width, label in (
        (reference_eV, *(lone if predicted_eV is None else (DFT_COLOUR, "-", 1.6, labels[0]))),
        (predicted_eV, PREDICTION_COLOUR, (0, (3.5, 2.5)), 0.8, labels[1]),
    ):
        if energies is None:
            continue
        energies = np.asarray(energies, dtype=float)
        low, high = window_eV
        shown = (energies.max(0) >= low) & (energies.min(0) <= high)
        ax.plot(*broken(x, energies[:, shown]), color=colour, ls=style, lw=width)
        handles.append(Line2D([], [], color=colour, ls=style, lw=width, label=label))
    ax.axhline(0.0, color="black", lw=0.4, ls=":", zorder=0)
    ax.set_ylim(*window_eV)
    ax.set_ylabel(r"$E - E_\mathrm{F}$ (eV)")
    if len(handles) > 1:
        ax.legend(
            handles=handles, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2,
            borderaxespad=0.2,
        )  # fmt: skip
    return ax


def fat_bands(
    ax: Axes,
    x: ArrayLike,
    energies_eV: ArrayLike,
    weights: Mapping[str, ArrayLike],
    *,
    window_eV: tuple[float, float] = (-5.0, 5.0),
) -> Axes:
    """Draw on each state one disc for each group of orbitals, its area the group's weight.

    Parameters
    ----------
    ax
        Where to draw.
    x
        ``(n_k,)``, length along the path.
    energies_eV
        ``(n_k, n_band)``, relative to the Fermi level, eV.
    weights
        Each as `energies_eV`, 0..1, by the name of the group; at most seven are told apart.
    window_eV
        Lowest and highest energy shown.

    Returns
    -------
    Axes
        ``ax``.
    """
    energies = np.asarray(energies_eV, dtype=float)
    where = (energies >= window_eV[0]) & (energies <= window_eV[1])
    points = np.broadcast_to(np.asarray(x, dtype=float)[:, None], energies.shape)[where]
    largest = {name: np.asarray(weight)[where].sum() for name, weight in weights.items()}
    handles = []
    # the heaviest group lies at the bottom, the others stay visible on it
    for name, colour in zip(sorted(largest, key=lambda g: -largest[g]), GROUP_COLOURS):  # noqa: B905
        area = 18.0 * np.clip(np.asarray(weights[name], dtype=float)[where], 0, 1)
        ax.scatter(
            points, energies[where], s=area, color=colour, alpha=0.6, linewidths=0, zorder=3
        )
        handles.append(Line2D([], [], color=colour, marker="o", ls="", label=name))
    ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=4)
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
    ax.plot(*broken(x, mean[:, None]), color="black", lw=0.8)
    ax.set_ylim(bottom=0.0)
    ax.set_ylabel("|error| (meV)")
    return ax
