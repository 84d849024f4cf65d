"""Error of each pair of orbitals as a heat map, shells labelled and separated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import LogNorm, Normalize

from deeph_lightning.viz.style import ERROR_MAP

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

SHELL_LETTERS = "spdfghik"


def shell_labels(shells: Sequence[int]) -> list[str]:
    """Name shells by letter and count within the letter, as in ``s1 s2 p1 p2 d1``."""
    seen: dict[int, int] = {}
    labels = []
    for degree in shells:
        seen[degree] = seen.get(degree, 0) + 1
        labels.append(f"{SHELL_LETTERS[degree]}{seen[degree]}")
    return labels


def orbital_pairs(
    ax: Axes,
    mae_meV: ArrayLike,
    shells_i: Sequence[int],
    shells_j: Sequence[int],
    species_i: str = "",
    species_j: str = "",
) -> Axes:
    """Draw the MAE of every pair of orbitals of a pair of species.

    Parameters
    ----------
    ax
        Where to draw. The map is its first image (for a colour bar).
    mae_meV
        ``(n_i, n_j)``, meV; orbitals in the order of the basis (m = -l..l in a shell). Twice
        as long a side as the shells fill means spin, up first. NaN or zero stays blank.
    shells_i, shells_j
        Degrees l of the shells, in order.
    species_i, species_j
        Names for the axes.

    Returns
    -------
    Axes
        ``ax``.
    """
    mae = np.ma.masked_invalid(np.asarray(mae_meV, dtype=float))
    mae = np.ma.masked_less_equal(mae, 0.0)
    values = mae.compressed()
    low, high = (values.min(), values.max()) if values.size else (0.1, 1.0)
    # three decades show all that matters; what is smaller takes the darkest colour
    norm = LogNorm(max(low, high / 1e3), high) if high > low else Normalize(0.0, high)
    ax.imshow(mae, cmap=ERROR_MAP, norm=norm, aspect="equal")
    n_row, n_column = mae.shape
    for axis, shells, length, species, is_row in (
        (ax.yaxis, shells_i, n_row, species_i, True),
        (ax.xaxis, shells_j, n_column, species_j, False),
    ):
        sizes = [2 * degree + 1 for degree in shells]
        labels = shell_labels(shells)
        n_spin = length // max(sum(sizes), 1)
        if n_spin == 2:
            labels = [f"{name}{arrow}" for arrow in "↑↓" for name in labels]
        edges = np.concatenate([[0], np.cumsum(sizes * n_spin)]) - 0.5
        axis.set_ticks((edges[1:] + edges[:-1]) / 2, labels=labels)
        axis.set_tick_params(length=0)
        for edge in edges[1:-1]:
            (ax.axhline if is_row else ax.axvline)(edge, color="white", lw=0.7)
        if species:
            axis.set_label_text(f"orbital of {species}")
    return ax
