"""Writing a result: numbers, arrays, figure and interactive page of one task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deeph_lightning.analysis.output import write_arrays, write_facts
from deeph_lightning.analysis.page import page
from deeph_lightning.io.files import new_file
from deeph_lightning.viz.style import paper_style, save_figure

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ase import Atoms

    from deeph_lightning.analysis.tasks import Result


def write_result(
    folder: Path, result: Result, atoms: Atoms, config: Mapping[str, Any]
) -> list[Path]:
    """Write ``TASK.json``, and ``TASK.h5``, ``.png`` and ``.html`` where there is something.

    Parameters
    ----------
    folder
        Where to write; it exists.
    result
        What to write.
    atoms
        Structure, for the interactive page.
    config
        Keys of ``conf/solve.yaml``.

    Returns
    -------
    list of Path
        The files, each whole.
    """
    task = config["task"]
    files = [write_facts(folder / f"{task}.json", result.facts)]
    if result.arrays:
        files.append(write_arrays(folder / f"{task}.h5", result.arrays))
    if result.draw is not None:
        with paper_style():
            files.append(save_figure(result.draw(), folder / f"{task}.png"))
    if config["html"] and (result.bands or result.dos):
        low, high = config["window_eV"]
        text = page(
            f"{task.capitalize()} of {atoms.get_chemical_formula()}, {atoms.info['name']}",
            result.facts, atoms, bands=result.bands, dos=result.dos,
            labels=(config["labels"][0], config["labels"][1]), window_eV=(low, high),
        )  # fmt: skip
        with new_file(folder / f"{task}.html") as partial:
            partial.write_text(text, encoding="utf-8")
        files.append(folder / f"{task}.html")
    return files
