"""OpenMX as an engine: pseudo-atomic orbitals, crystals; the program is installed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ase import Atoms

    from deeph_lightning.io.system import SystemData

#: Keys that this engine sets.
FIXED = {
    "System.CurrrentDirectory": "./",  # spelt so by OpenMX
    "System.Name": "deeph",
    "HS.fileout": "on",
    "scf.EigenvalueSolver": "Band",
    "MD.Type": "Nomd",
}
OWN = ("systemcurrrentdirectory", "systemname", "hsfileout", "scfeigenvaluesolver", "mdtype",
       "datapath", "scfkgrid", "speciesnumber", "atomsnumber",
       "atomsspeciesandcoordinatesunit", "atomsunitvectorsunit")  # fmt: skip
#: Stands for the input file in a command: OpenMX wants it as its first argument.
INPUT = "{input}"
#: What every attempt changes.
MIXING: tuple[dict[str, Any], ...] = (
    {},
    {"scf.Mixing.Type": "Rmm-Diisk", "scf.Init.Mixing.Weight": 0.05,
     "scf.Max.Mixing.Weight": 0.1, "scf.Mixing.History": 30, "scf.maxIter": 300},
    {"scf.Mixing.Type": "Rmm-Diisk", "scf.Init.Mixing.Weight": 0.01,
     "scf.Max.Mixing.Weight": 0.03, "scf.Mixing.History": 30, "scf.maxIter": 1000},
)  # fmt: skip


class OpenMX:
    """Settings of a calculation with OpenMX.

    Parameters
    ----------
    command
        What starts it in the folder of a calculation, with ``{input}`` for its input.
    data_path
        Folder of orbitals and pseudopotentials of the code (``DFT_DATA19``).
    orbitals
        Basis of each element, such as ``C6.0-s2p2d1``.
    pseudopotentials
        Name of each element's, such as ``C_PBE19``.
    kmesh
        k-points along each lattice vector.
    parameters
        Further keys of the input.

    Raises
    ------
    ConfigError
        A file does not exist, an orbital or pseudopotential is missing, a parameter is one
        that the engine sets, or the command has no ``{input}``.
    """

    n_attempt = len(MIXING)
    incidental = ("command", "data_path")

    def __init__(
        self,
        command: str,
        data_path: str,
        orbitals: Mapping[str, str],
        pseudopotentials: Mapping[str, str],
        kmesh: Sequence[int] = (1, 1, 1),
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        self.command, self.kmesh = command, tuple(kmesh)
        self.parameters = dict(parameters or {})
        check_settings(self.kmesh, self.parameters, OWN, "OpenMX")
        if INPUT not in command:
            msg = f"engine.command = {command!r}: it lacks {INPUT}, the input file."
            raise ConfigError(msg, key="engine.command")
        self.data_path = Path(data_path).expanduser().resolve()
        self.orbitals, self.pseudopotentials = dict(orbitals), dict(pseudopotentials)
        names = {
            x: f"{self.data_path}/PAO/{o.partition('-')[0]}.pao" for x, o in orbitals.items()
        }
        self._orbital_files = existing_files(names, "engine.orbitals")
        names = {x: f"{self.data_path}/VPS/{p}.vps" for x, p in pseudopotentials.items()}
        self._pseudo_files = existing_files(names, "engine.pseudopotentials")

    def check(self, structures: Sequence[Atoms]) -> dict[str, Any]:
        """Check program, elements and periodicity (see `engine.Engine`)."""
        check_command(self.command)
        elements = self.orbitals.keys() & self.pseudopotentials.keys()
        check_structures(structures, elements, "engine.orbitals, or engine.pseudopotentials,")
        return {
            "code": "OpenMX",
            "orbitals": digests(self._orbital_files),
            "pseudopotentials": digests(self._pseudo_files),
        }

    def run(self, structure: Atoms, folder: Path, attempt: int) -> SystemData:
        """Compute one structure (see `engine.Engine`)."""
        (folder / "deeph.dat").write_text(self.input_text(structure, attempt))
        command = shlex.split(self.command.replace(INPUT, "deeph.dat"))
        start(command, folder, "stdout.txt", structure)
        return read_result(folder, "openmx", structure)

    def input_text(self, structure: Atoms, attempt: int) -> str:
        """Return the input of an attempt."""
        symbols = structure.get_chemical_symbols()
        kinds = list(dict.fromkeys(symbols))
        of_structure = {
            "DATA.PATH": self.data_path,
            "scf.Kgrid": " ".join(map(str, self.kmesh)),
            "Species.Number": len(kinds),
            "Atoms.Number": len(symbols),
            "Atoms.SpeciesAndCoordinates.Unit": "Ang",
            "Atoms.UnitVectors.Unit": "Ang",
        }
        settings = merged(self.parameters, MIXING[attempt], FIXED, of_structure)
        lines = [f"{key} {value}" for key, value in settings.items()]
        lines += _block(
            "Definition.of.Atomic.Species",
            [f"{x} {self.orbitals[x]} {self.pseudopotentials[x]}" for x in kinds],
        )
        valence = {x: self._valence(x) for x in kinds}
        rows = []
        for n, (symbol, position, moment) in enumerate(
            zip(symbols, structure.positions, structure.get_initial_magnetic_moments(),
                strict=True), 1
        ):  # fmt: skip
            up, down = (0.5 * (valence[symbol] + s * float(moment)) for s in (1, -1))
            rows.append(f"{n} {symbol} {number_text(position)} {up!r} {down!r}")
        lines += _block("Atoms.SpeciesAndCoordinates", rows)
        lines += _block("Atoms.UnitVectors", [number_text(v) for v in structure.cell.array])
        return "\n".join(lines) + "\n"

    def _valence(self, element: str) -> float:
        """Return the electrons of a pseudopotential, by its file."""
        path = self._pseudo_files[element]
        text = path.read_text(encoding="utf-8", errors="replace")
        found = re.search(r"^\s*valence\.electron\s+(\d+\.?\d*)", text, re.MULTILINE)
        if found is None:
            msg = f"{path}: it lacks the line 'valence.electron NUMBER'. Restore the file."
            raise ConfigError(msg, key="engine.pseudopotentials")
        return float(found[1])


def _block(name: str, rows: Sequence[str]) -> list[str]:
    return [f"<{name}", *rows, f"{name}>"]
