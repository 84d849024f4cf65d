"""Figure of |H| and |S| over the length of the pair."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deeph_lightning.report.inspection import lacks_overlap
from deeph_lightning.viz.decay import elements_by_distance
from deeph_lightning.viz.style import DOUBLE_COLUMN_MM, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from deeph_lightning.io.system import SystemData


def decay_figure(system: SystemData) -> Figure:
    """Draw |H| and |S| of every pair against its length.

    Parameters
    ----------
    system
        Structure with H or S.
    """
    panels = [(key, op) for key, op in system.operators() if key in ("H", "S")]
    fig = new_figure(DOUBLE_COLUMN_MM, 65)
    for ax, (key, op) in zip(
        fig.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        marked = None
        if key == "H" and system.S is not None:
            marked = lacks_overlap(op, system.S)
        unit = " (eV)" if op.unit == "eV" else ""
        elements_by_distance(
            ax, op.pairs.distances(op.atoms), op.largest_elements(), f"largest |{key}|{unit}",
            marked, "pairs that S lacks",
        )  # fmt: skip
    return fig
