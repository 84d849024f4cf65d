"""SIESTA as an engine: crystals; the program is installed."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from ase.data import atomic_numbers

from deeph_lightning.generate.program import (
    check_command,
    check_settings,
    check_structures,
    digests,
    existing_files,
    merged,
    read_result,
    start,
)
from deeph_lightning.io.files import number_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ase import Atoms

    from deeph_lightning.io.system import SystemData

#: Keys that this engine sets: H and S at the end, and a supercell in which no images meet.
FIXED = {
    "SystemLabel": "deeph",
    "SaveHS": "T",
    "ForceAuxCell": "T",
    "SCF.MustConverge": "F",
    "MD.NumCGsteps": 0,
}
OWN = ("systemlabel", "systemname", "savehs", "forceauxcell", "scfmustconverge",
       "mdnumcgsteps", "mdsteps", "numberofatoms", "numberofspecies", "latticeconstant",
       "atomiccoordinatesformat", "spinspiral")  # fmt: skip
UNCONVERGED = r"SCF_NOT_CONV|SCF did not converge"
#: What every attempt changes.
MIXING: tuple[dict[str, Any], ...] = (
    {},
    {"SCF.Mixer.Weight": 0.05, "SCF.Mixer.History": 8, "MaxSCFIterations": 500},
    {"SCF.Mixer.Weight": 0.01, "SCF.Mixer.History": 8, "MaxSCFIterations": 2000},
)


class Siesta:
    """Settings of a calculation with SIESTA.

    Parameters
    ----------
    command
        What starts it in the folder of a calculation; the input is its standard input.
    pseudopotentials
        File of each element, ``.psf`` or ``.psml``.
    kmesh
        k-points along each lattice vector.
    parameters
        Further keys of the input (fdf) with their units.

    Raises
    ------
    ConfigError
        A file does not exist, or a parameter is one that the engine sets.
    """

    n_attempt = len(MIXING)
    incidental = ("command", "pseudopotentials")

    def __init__(
        self,
        command: str,
        pseudopotentials: Mapping[str, str],
        kmesh: Sequence[int] = (1, 1, 1),
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        self.command, self.kmesh = command, tuple(kmesh)
        self.parameters = dict(parameters or {})
        check_settings(self.kmesh, self.parameters, OWN, "SIESTA")
        self.pseudopotentials = existing_files(pseudopotentials, "engine.pseudopotentials")

    def check(self, structures: Sequence[Atoms]) -> dict[str, Any]:
        """Check program, elements and periodicity (see `engine.Engine`)."""
        check_command(self.command)
        check_structures(structures, self.pseudopotentials, "engine.pseudopotentials")
        return {"code": "SIESTA", "pseudopotentials": digests(self.pseudopotentials)}

    def run(self, structure: Atoms, folder: Path, attempt: int) -> SystemData:
        """Compute one structure (see `engine.Engine`)."""
        for element in dict.fromkeys(structure.get_chemical_symbols()):
            path = self.pseudopotentials[element]
            (folder / f"{element}{path.suffix}").symlink_to(path)
        (folder / "deeph.fdf").write_text(self.input_text(structure, attempt))
        start(
            shlex.split(self.command), folder, "deeph.out", structure,
            stdin="deeph.fdf", unconverged=UNCONVERGED,
        )  # fmt: skip
        return read_result(folder, "siesta", structure)

    def input_text(self, structure: Atoms, attempt: int) -> str:
        """Return the input of an attempt."""
        symbols = structure.get_chemical_symbols()
        kinds = list(dict.fromkeys(symbols))
        of_structure = {
            "NumberOfAtoms": len(symbols),
            "NumberOfSpecies": len(kinds),
            "LatticeConstant": "1.0 Ang",
            "AtomicCoordinatesFormat": "Ang",
        }
        settings = merged(self.parameters, MIXING[attempt], FIXED, of_structure)
        lines = [f"{key} {value}" for key, value in settings.items()]
        species = [f"{n} {atomic_numbers[x]} {x}" for n, x in enumerate(kinds, 1)]
        lines += _block("ChemicalSpeciesLabel", species)
        lines += _block("LatticeVectors", map(number_text, structure.cell.array))
        lines += _block(
            "AtomicCoordinatesAndAtomicSpecies",
            (
                f"{number_text(position)} {kinds.index(symbol) + 1}"
                for position, symbol in zip(structure.positions, symbols, strict=True)
            ),
        )
        mesh = [[n if i == j else 0 for j in range(3)] for i, n in enumerate(self.kmesh)]
        lines += _block("kgrid_Monkhorst_Pack", (f"{a} {b} {c} 0.0" for a, b, c in mesh))
        moments = structure.get_initial_magnetic_moments()
        if moments.any():
            lines += _block(
                "DM.InitSpin", (f"{n} {float(m)!r}" for n, m in enumerate(moments, 1))
            )
        return "\n".join(lines) + "\n"


def _block(name: str, rows: Any) -> list[str]:
    return [f"%block {name}", *rows, f"%endblock {name}"]
