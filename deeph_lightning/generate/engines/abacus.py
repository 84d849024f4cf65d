"""ABACUS as an engine: numerical orbitals, crystals; the program is installed."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from ase.data import atomic_masses, atomic_numbers

from deeph_lightning.errors import ConfigError
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
from deeph_lightning.units import BOHR_ANGSTROM

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ase import Atoms

    from deeph_lightning.io.system import SystemData

#: Keys of INPUT that this engine sets.
FIXED = {
    "suffix": "deeph",
    "calculation": "scf",
    "basis_type": "lcao",
    "gamma_only": 0,
    "out_mat_hs2": 1,
}
OWN = ("suffix", "calculation", "basistype", "gammaonly", "outmaths2", "ntype", "strufile",
       "kpointfile", "pseudodir", "orbitaldir", "latname", "kspacing")  # fmt: skip
#: What every attempt changes.
MIXING: tuple[dict[str, Any], ...] = (
    {},
    {"mixing_beta": 0.1, "mixing_ndim": 20, "scf_nmax": 300},
    {"mixing_beta": 0.02, "mixing_ndim": 20, "scf_nmax": 600},
)


class Abacus:
    """Settings of a calculation with ABACUS.

    Parameters
    ----------
    command
        What starts it in the folder of a calculation.
    pseudopotentials, orbitals
        File of each element.
    kmesh
        k-points along each lattice vector, Gamma included.
    parameters
        Further keys of ``INPUT``.

    Raises
    ------
    ConfigError
        A file does not exist, or a parameter is one that the engine sets.
    """

    n_attempt = len(MIXING)
    incidental = ("command", "pseudopotentials", "orbitals")

    def __init__(
        self,
        command: str,
        pseudopotentials: Mapping[str, str],
        orbitals: Mapping[str, str],
        kmesh: Sequence[int] = (1, 1, 1),
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        self.command, self.kmesh = command, tuple(kmesh)
        self.parameters = dict(parameters or {})
        check_settings(self.kmesh, self.parameters, OWN, "ABACUS")
        self.pseudopotentials = existing_files(pseudopotentials, "engine.pseudopotentials")
        self.orbitals = existing_files(orbitals, "engine.orbitals")
        files = self._files()
        if len({path.name for path in files}) < len(set(files)):
            msg = (
                "engine.pseudopotentials, engine.orbitals: two files have one name. Rename one."
            )
            raise ConfigError(msg, key="engine.orbitals")

    def check(self, structures: Sequence[Atoms]) -> dict[str, Any]:
        """Check program, elements and periodicity (see `engine.Engine`)."""
        check_command(self.command)
        elements = self.pseudopotentials.keys() & self.orbitals.keys()
        check_structures(structures, elements, "engine.pseudopotentials, or engine.orbitals,")
        return {
            "code": "ABACUS",
            "pseudopotentials": digests(self.pseudopotentials),
            "orbitals": digests(self.orbitals),
        }

    def run(self, structure: Atoms, folder: Path, attempt: int) -> SystemData:
        """Compute one structure (see `engine.Engine`)."""
        for path in self._files():
            (folder / path.name).symlink_to(path)
        folders = {"pseudo_dir": "./", "orbital_dir": "./"}
        settings = merged(self.parameters, MIXING[attempt], FIXED, folders)
        lines = ["INPUT_PARAMETERS", *(f"{key} {value}" for key, value in settings.items())]
        (folder / "INPUT").write_text("\n".join(lines) + "\n")
        mesh = " ".join(map(str, self.kmesh))
        (folder / "KPT").write_text(f"K_POINTS\n0\nGamma\n{mesh} 0 0 0\n")
        (folder / "STRU").write_text(self.structure_text(structure))
        start(shlex.split(self.command), folder, "stdout.txt", structure)
        return read_result(folder, "abacus", structure)

    def _files(self) -> list[Path]:
        return [*self.pseudopotentials.values(), *self.orbitals.values()]

    def structure_text(self, structure: Atoms) -> str:
        """Return ``STRU``: species after species; lengths are Å times bohr per Å (CODATA)."""
        symbols = structure.get_chemical_symbols()
        kinds = list(dict.fromkeys(symbols))
        moments = structure.get_initial_magnetic_moments()
        lines = ["ATOMIC_SPECIES"]
        lines += [
            f"{x} {atomic_masses[atomic_numbers[x]]} {self.pseudopotentials[x].name}"
            for x in kinds
        ]
        lines += ["", "NUMERICAL_ORBITAL", *(self.orbitals[x].name for x in kinds)]
        lines += ["", "LATTICE_CONSTANT", repr(1 / BOHR_ANGSTROM)]
        lines += ["", "LATTICE_VECTORS"]
        lines += map(number_text, structure.cell.array)
        lines += ["", "ATOMIC_POSITIONS", "Cartesian"]
        for kind in kinds:
            own = [n for n, symbol in enumerate(symbols) if symbol == kind]
            lines += ["", kind, "0.0", str(len(own))]
            for n in own:
                magnetic = f" mag {float(moments[n])!r}" if moments.any() else ""
                lines.append(f"{number_text(structure.positions[n])} 0 0 0{magnetic}")
        return "\n".join(lines) + "\n"
