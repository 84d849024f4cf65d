"""Writing a result: numbers, arrays, figure and interactive page of one task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ase.io.jsonio import write_json

from deeph_lightning.analysis.output import write_arrays, write_facts
from deeph_lightning.analysis.page import page
from deeph_lightning.io import deeph
from deeph_lightning.io.files import new_file
from deeph_lightning.io.system import SystemData
from deeph_lightning.solve import export
from deeph_lightning.viz.style import paper_style, save_figure

if TYPE_CHECKING:
    from pathlib import Path

    from deeph_lightning.analysis.case import Case
    from deeph_lightning.analysis.tasks import Result


def write_result(folder: Path, result: Result, case: Case) -> list[Path]:
    """Write ``TASK.json``, and ``TASK.h5``, ``.png`` and ``.html`` where there is something.

    Parameters
    ----------
    folder
        Where to write; it exists.
    result
        What to write.
    case
        Structure and settings.

    Returns
    -------
    list of Path
        The files, each whole.
    """
    config, atoms = case.config, case.system.atoms
    task = config["task"]
    files = [write_facts(folder / f"{task}.json", result.facts)]
    if result.arrays:
        files.append(write_arrays(folder / f"{task}.h5", result.arrays))
    if result.rho is not None:
        rho = result.rho
        system = SystemData(rho.name, rho.atoms, rho.basis, rho.is_spinful, rho=rho)
        deeph.write(system, folder / task)
        files.append(folder / task)
    if result.draw is not None:
        with paper_style():
            files.append(save_figure(result.draw(), folder / f"{task}.png"))
    files += _exports(folder, result, case)
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


def _exports(folder: Path, result: Result, case: Case) -> list[Path]:
    """Write the files for other programs that there is something for."""
    wanted, files = case.config["export"], []
    if result.bands and "ase" in wanted:
        with new_file(folder / "bands_ase.json") as partial:
            write_json(partial, export.to_ase(result.bands[0]))
        files.append(folder / "bands_ase.json")
    if result.bands and "pymatgen" in wanted:
        found = export.to_pymatgen_bands(result.bands[0])
        files.append(export.write_pymatgen(folder / "bands_pymatgen.json", found))
    if result.dos and "pymatgen" in wanted:
        density = export.to_pymatgen_dos(result.dos[0], case.system)
        files.append(export.write_pymatgen(folder / "dos_pymatgen.json", density))
    if "wannier90" in wanted:
        for channel in range(len(case.system.channels)):
            spin = ("_up", "_down")[channel] if len(case.system.channels) > 1 else ""
            name = f"wannier90{spin}"
            path = folder / f"{name}_hr.dat"
            files.append(export.write_wannier90(path, case.system, case.grid, channel))
    return files
