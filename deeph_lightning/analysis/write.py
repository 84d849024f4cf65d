"""Writing a result: numbers, arrays, figure and interactive page of one task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deeph_lightning.analysis.output import write_arrays, write_facts
from deeph_lightning.viz.style import paper_style, save_figure

if TYPE_CHECKING:
    from pathlib import Path

    from deeph_lightning.analysis.tasks import Result


def write_result(folder: Path, task: str, result: Result) -> list[Path]:
    """Write ``TASK.json``, and ``TASK.h5`` and ``TASK.png`` where there is what they hold.

    Parameters
    ----------
    folder
        Where to write; it exists.
    task
        Name of the task.
    result
        What to write.

    Returns
    -------
    list of Path
        The files, each whole.
    """
    files = [write_facts(folder / f"{task}.json", result.facts)]
    if result.arrays:
        files.append(write_arrays(folder / f"{task}.h5", result.arrays))
    if result.draw is not None:
        with paper_style():
            files.append(save_figure(result.draw(), folder / f"{task}.png"))
    return files
