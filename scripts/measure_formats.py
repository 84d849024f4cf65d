"""Measure readers on calculations of the codes: residuals of every check, as a table.

python -m scripts.measure_formats DIR            print the table
python -m scripts.measure_formats DIR --write    put it into docs/formats.md

DIR holds calculations at any depth; DeepH folders are passed over. Eigenvalues are compared
with those that the code wrote; of an atom, marked by *, with those of ``deeph_ref`` inside,
which another converter wrote. A folder ``*_no_scfout`` has the text output of OpenMX and
``deeph_ref``, from which the bytes of a .scfout file are made as the tests do; compressed HDF5
files are unpacked. PySCF computes water here, and the calculation of GPAW is that of the tests,
where they are installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import lzma
import re
import shutil
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
from ase.build import molecule
from scipy import linalg

from deeph_lightning.errors import DeepHError
from deeph_lightning.io.code_output import Eigenvalues
from deeph_lightning.io.formats import (
    CODES,
    detect_format,
    find_systems,
    read_eigenvalues,
    read_structure_folder,
    structure_files,
)
from deeph_lightning.io.system import SystemData
from deeph_lightning.report.inspection import inspect_system
from deeph_lightning.units import CODE_CONSTANTS, HARTREE_EV
from tests.io.openmx_files import write_scfout

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "formats.md"
BEGIN, END = "<!-- residuals: made by scripts/measure_formats.py -->\n", "<!-- end -->\n"
HEADER = ("calculation", "code", "eigenvalues, eV", "below E_F, eV", "Hermitian: H, eV", "S",
          "norm - 1", "two-centre form", "smallest S(k)")  # fmt: skip
COLUMNS = ("eigenvalues_eV", "eigenvalues_valence_eV", "hermiticity_H", "hermiticity_S", "norm",
           "two_centre", "smallest_S")  # fmt: skip


def main() -> int:
    """Print the table, and write it if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="calculations, at any depth")
    parser.add_argument("--write", action="store_true", help="put it into docs/formats.md")
    options = parser.parse_args()
    rows, refused = [], []
    with tempfile.TemporaryDirectory() as temporary:
        for name, folder in calculations(options.folder, Path(temporary)):
            try:
                rows.append(measured(name, folder))
            except DeepHError as error:
                refused.append(f"- {name}: {_short(error, options.folder)}")
    if importlib.util.find_spec("pyscf") is not None:
        rows.append(pyscf_water())
    table = "".join(
        f"| {' | '.join(row)} |\n" for row in [HEADER, ("---",) * len(HEADER), *rows]
    )
    print(table + "\nRefused:\n\n" + "\n".join(refused))
    if options.write:
        page = PAGE.read_text(encoding="utf-8")
        head, rest = page.split(BEGIN)
        PAGE.write_text(head + BEGIN + table + END + rest.split(END)[1], encoding="utf-8")
    return 0


def calculations(root: Path, temporary: Path) -> list[tuple[str, Path]]:
    """Return the folders to read by the names to show."""
    found = [
        (path.relative_to(root).as_posix(), path)
        for path in find_systems(root)
        if detect_format(path) in CODES
    ]
    for source in sorted(root.rglob("*_no_scfout")):
        system = read_structure_folder(source / "deeph_ref")
        folder = temporary / source.name
        folder.mkdir()
        text = next(source.glob("*.out")).read_text()
        level = re.findall(r"Chemical potential \(Hartree\) +(\S+)", text)
        system.fermi_energy = float(level[-1]) * CODE_CONSTANTS["openmx"].hartree
        spins = re.findall(r"(?m)^ *\d+ +[A-Z]\w* +\S+ +\S+ +\S+ +([\d.]+) +([\d.]+) *$", text)
        electrons = float(np.array(spins, dtype=np.float64)[: len(system.atoms)].sum())
        write_scfout(
            folder / "openmx.scfout", system, 0, text="", appended=text, electrons=electrons
        )
        name = source.relative_to(root).as_posix().replace("_no_scfout", " (bytes rewritten)")
        found.append((name, folder))
    for source in sorted({path.parent for path in root.rglob("*.h5.xz")}):
        folder = temporary / source.name
        shutil.copytree(source, folder)
        for path in folder.glob("*.h5.xz"):
            path.with_suffix("").write_bytes(lzma.decompress(path.read_bytes()))
        found = [item for item in found if item[1] != source]
        found.append((source.relative_to(root).as_posix(), folder))
    for path in root.rglob("*_hr.dat"):
        # beside a calculation of another code: its own files alone
        seed = path.name.removesuffix("_hr.dat")
        folder = temporary / seed
        folder.mkdir()
        for file in structure_files(path.parent, "wannier90"):
            (folder / file.name).symlink_to(file.resolve())
        found.append((f"wannier90/{seed}, its own files", folder))
    if importlib.util.find_spec("gpaw") is not None:
        found.append(
            ("tests: GaAs, displaced", ROOT / "tests" / "data" / "codes" / "gpaw_GaAs")
        )
    return sorted(found)


def measured(name: str, folder: Path) -> tuple[str, ...]:
    """Return the row of a calculation."""
    system = read_structure_folder(folder, ("H", "S"))
    reference, mark = read_eigenvalues(folder), ""
    other = folder / "deeph_ref"
    if reference is None and other.is_dir() and len(system.atoms) == 1:
        matrices = []
        for file_name in ("hamiltonian.h5", "overlap.h5"):
            with h5py.File(other / file_name) as file:
                matrices.append(file["entries"][()].reshape(file["chunk_shapes"][0]))
        energies = linalg.eigvalsh(*matrices)
        reference, mark = Eigenvalues(np.zeros((1, 3)), energies[None, None]), " *"
    return row(name, system, reference, mark)


def row(
    name: str, system: SystemData, reference: Eigenvalues | None, mark: str = ""
) -> tuple[str, ...]:
    """Return name, code and residuals."""
    numbers = inspect_system(system, reference).numbers
    values = [f"{numbers[key]:.1e}" if key in numbers else "" for key in COLUMNS]
    values[0] += mark if values[0] else ""
    code = " ".join(str(system.info.get(key, "")) for key in ("code", "code_version")).strip()
    return (name, code or system.source_format, *values)


def pyscf_water() -> tuple[str, ...]:
    """Return the row of water, computed by the engine, against a second run of PySCF."""
    from pyscf import dft

    from deeph_lightning.generate.engines.pyscf import PySCF

    engine, atoms = PySCF(), molecule("H2O")
    atoms.info["name"] = "water"
    mf = dft.RKS(engine.molecule(atoms), xc=engine.xc)
    mf.grids.level = engine.grid_level
    mf.conv_tol, mf.conv_tol_grad = 1e-12, engine.conv_tol_grad
    mf.kernel()
    with tempfile.TemporaryDirectory() as folder:
        system = engine.run(atoms, Path(folder), 0)
    energies = mf.mo_energy[None, None] * HARTREE_EV
    return row(
        "computed here: water, PBE, def2-SVP", system, Eigenvalues(np.zeros((1, 3)), energies)
    )


def _short(error: DeepHError, root: Path) -> str:
    text = str(error).replace(f"{root}/", "").splitlines()[0]
    return text if len(text) < 240 else text[:240].rpartition(" ")[0] + " ..."


if __name__ == "__main__":
    sys.exit(main())
