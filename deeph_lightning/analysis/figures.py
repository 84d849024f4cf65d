"""Printed figures of results."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from deeph_lightning.viz import bands as draw_bands
from deeph_lightning.viz import dos as draw_dos
from deeph_lightning.viz.style import SINGLE_COLUMN_MM, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from deeph_lightning.solve.bands import BandDifference, Bands
    from deeph_lightning.solve.dos import DensityOfStates

MEV = 1e3


def _flat(energies: np.ndarray) -> np.ndarray:
    """Put the bands of all channels side by side, ``(n_k, n_channel * n_band)``."""
    return np.concatenate(list(energies), axis=1)


def _title(bands: Bands) -> str:
    formula = re.sub(r"(\d+)", r"$_{\1}$", bands.atoms.get_chemical_formula())
    return f"{formula}, {bands.atoms.info['name']}"


def bands_figure(bands: Bands, window_eV: tuple[float, float]) -> Figure:
    """Draw bands; spin channels as two lines, fat bands as discs."""
    fig = new_figure(SINGLE_COLUMN_MM, 80)
    ax = fig.subplots()
    x, relative = bands.path.x, bands.relative
    second = relative[1] if len(relative) > 1 else None
    draw_bands.bands(
        ax, x, relative[0], second, window_eV=window_eV, labels=("spin up", "spin down")
    )
    if bands.weights:
        weights = {name: _flat(weight) for name, weight in bands.weights.items()}
        draw_bands.fat_bands(ax, x, _flat(relative), weights, window_eV=window_eV)
    else:
        ax.set_title(_title(bands), loc="left")
    draw_bands.kpath_axis(ax, bands.path.tick, bands.path.labels)
    return fig


def comparison_figure(
    reference: Bands,
    other: Bands,
    difference: BandDifference,
    window_eV: tuple[float, float],
    labels: tuple[str, str],
) -> Figure:
    """Draw two sets of bands, and the error of the states near E_F beneath."""
    fig = new_figure(SINGLE_COLUMN_MM, 100)
    upper, lower = fig.subplots(2, 1, sharex=True, height_ratios=[3.2, 1.0])
    x = reference.path.x
    draw_bands.bands(
        upper, x, _flat(reference.relative), _flat(other.relative),
        window_eV=window_eV, labels=labels,
    )  # fmt: skip
    upper.set_title(_title(reference), loc="left")
    near_eV = difference.near_eV
    draw_bands.band_errors(
        lower, x, MEV * _flat(difference.error), _flat(reference.relative), near_eV
    )
    title = rf"within {near_eV:g} eV of $E_\mathrm{{F}}$"
    if difference.is_near.any():
        title += (
            f": mean (line) {MEV * difference.mae:.3g}, largest "
            f"{MEV * difference.largest:.3g} meV"
        )
    lower.set_title(title, fontsize=7, loc="left", pad=2)
    for ax in (upper, lower):
        draw_bands.kpath_axis(ax, reference.path.tick, reference.path.labels)
    upper.tick_params(labelbottom=False)
    return fig


def dos_figure(
    dos: DensityOfStates,
    other: DensityOfStates | None = None,
    labels: tuple[str, str] = ("", ""),
) -> Figure:
    """Draw a density of states with its parts, or two on one another."""
    fig = new_figure(SINGLE_COLUMN_MM, 62)
    ax = fig.subplots()
    curves = {} if other is not None else dos.projected
    draw_dos.density_of_states(ax, dos.energies - dos.e_fermi, dos.total, curves)
    if other is not None:
        draw_dos.second_density(ax, other.energies - other.e_fermi, other.total, labels)
    return fig
