"""Quantum ESPRESSO in a basis of atomic orbitals, rebuilt by HPRO from the potential.

The folder of a structure has the self-consistent potential that ``pw2bgw.x`` writes (``VSC``)
and the XML file of ``pw.x``. The pseudopotentials that the latter names, and the ``.ion`` files
of SIESTA whose orbitals are the basis (``Mo.ion``), lie in it, in its parent, or in a folder of
either.

Orbitals: radial functions of the ``.ion`` file, sorted by l; m = -l..l, sign +. Plane waves
span more than the orbitals, so that bands lie higher than those of the code. H reaches further
than S, over projectors of a third atom.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from deeph_lightning.io.formats import read_only
from deeph_lightning.io.hpro.espresso import PACKED, Run, is_potential
from deeph_lightning.io.hpro.rebuild import rebuilt
from deeph_lightning.io.system import Header, SystemData, checked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deeph_lightning.io.code_output import Eigenvalues

FILES: dict[str, tuple[str, ...]] = {
    "potential": ("VSC*",),
    "xml": tuple(
        f"{p}{end}" for p in ("*.save/data-file-schema.xml", "*.xml") for end in PACKED
    ),
    "pseudopotentials": ("*.upf*", "*.UPF*"),
    "orbitals": tuple(f"*.ion{end}" for end in PACKED),
}

write = read_only("hpro")


def detect(folder: Path) -> bool:
    """Whether the folder holds a potential, by its first bytes."""
    return any(is_potential(path) for path in folder.glob("VSC*"))


def header(folder: Path, name: str) -> Header:
    """Read basis and spin."""
    return Header(Run.open(folder, name).basis, False)


def read(
    path: str | Path, operators: Sequence[str] = ("H", "S"), name: str | None = None
) -> SystemData:
    """Read and check a folder (see `formats.read_structure_folder`)."""
    folder = Path(path)
    run = Run.open(folder, name or folder.resolve().name)
    system = SystemData(
        name=run.name,
        atoms=run.atoms,
        basis=run.basis,
        fermi_energy=run.fermi_energy(),
        n_electrons=run.number("output/band_structure/nelec"),
        info=run.facts(),
        source_format="hpro",
    )
    wanted = {"H", "S"} & set(operators)
    if wanted:
        found = rebuilt(run)
        system.info["rebuilt_by"] = found.program
        system.H = found.H if "H" in wanted else None
        system.S = found.S if "S" in wanted else None
    return checked(system, {"atoms": run.xml, "H": run.potential, "S": run.potential})


def read_eigenvalues(path: str | Path, name: str | None = None) -> Eigenvalues | None:
    """Read those of the plane waves (see `formats.Reader.read_eigenvalues`)."""
    folder = Path(path)
    return Run.open(folder, name or folder.resolve().name).eigenvalues()


def orbital_files(folder: Path) -> list[Path]:
    """Return the ``.ion`` files of the basis (see `formats.Reader`)."""
    files = Run.open(folder, folder.resolve().name).files
    return [path for name, path in files.items() if name.endswith(".ion")]
