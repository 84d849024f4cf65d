"""FHI-aims as an engine: all electrons, crystals and molecules; the program is installed."""

from __future__ import annotations

import shlex
from pathlib import Path
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

    from ase import Atoms

    from deeph_lightning.io.system import SystemData

#: Keys of control.in that this engine sets, and one whose term is not in the matrices.
OWN = ("outputrsmatrices", "output", "kgrid", "includespinorbit")
UNCONVERGED = r"(?i)self-consistency cycle (not yet converged|did not converge)"
#: What every attempt changes.
MIXING: tuple[dict[str, Any], ...] = (
    {},
    {"mixer": "pulay", "charge_mix_param": 0.05, "sc_iter_limit": 300},
    {"mixer": "pulay", "charge_mix_param": 0.02, "sc_iter_limit": 1000},
)


class FHIaims:
    """Settings of a calculation with FHI-aims.

    Parameters
    ----------
    command
        What starts it in the folder of a calculation.
    species_defaults
        Folder of the code with the files of a level of accuracy (``08_O_default``).
    kmesh
        k-points along each lattice vector of a crystal.
    parameters
        Further keys of ``control.in``.

    Raises
    ------
    ConfigError
        A parameter is one that the engine sets.
    """

    n_attempt = len(MIXING)
    incidental = ("command", "species_defaults")

    def __init__(
        self,
        command: str,
        species_defaults: str,
        kmesh: Sequence[int] = (1, 1, 1),
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        self.command, self.kmesh = command, tuple(kmesh)
        self.species_defaults = Path(species_defaults).expanduser().resolve()
        self.parameters = dict(parameters or {})
        check_settings(self.kmesh, self.parameters, OWN, "FHI-aims")

    def check(self, structures: Sequence[Atoms]) -> dict[str, Any]:
        """Check program, species and periodicity (see `engine.Engine`)."""
        check_command(self.command)
        check_structures(structures, None, "engine.species_defaults", molecules=True)
        elements = sorted({symbol for atoms in structures for symbol in atoms.symbols})
        return {"code": "FHI-aims", "species_defaults": digests(self._species(elements))}

    def run(self, structure: Atoms, folder: Path, attempt: int) -> SystemData:
        """Compute one structure (see `engine.Engine`)."""
        (folder / "control.in").write_text(self.control_text(structure, attempt))
        (folder / "geometry.in").write_text(geometry_text(structure))
        start(shlex.split(self.command), folder, "aims.out", structure, unconverged=UNCONVERGED)
        return read_result(folder, "fhi_aims", structure)

    def control_text(self, structure: Atoms, attempt: int) -> str:
        """Return ``control.in`` of an attempt."""
        settings = merged(self.parameters, MIXING[attempt])
        if structure.pbc.any():
            settings["k_grid"] = " ".join(map(str, self.kmesh))
            settings["output_rs_matrices"] = "plain"
        else:
            settings["output"] = "h_s_matrices"
        lines = [f"{key} {value}" for key, value in settings.items()]
        species = self._species(dict.fromkeys(structure.get_chemical_symbols()))
        lines += [path.read_text(encoding="utf-8") for path in species.values()]
        return "\n".join(lines) + "\n"

    def _species(self, elements: Sequence[str] | dict[str, None]) -> dict[str, Path]:
        names = {x: f"{atomic_numbers[x]:02d}_{x}_default" for x in elements}
        paths = {x: str(self.species_defaults / name) for x, name in names.items()}
        return existing_files(paths, "engine.species_defaults")


def geometry_text(structure: Atoms) -> str:
    """Return ``geometry.in``."""
    vectors = structure.cell.array if structure.pbc.any() else ()
    lines = [f"lattice_vector {number_text(vector)}" for vector in vectors]
    for symbol, position, moment in zip(
        structure.get_chemical_symbols(),
        structure.positions,
        structure.get_initial_magnetic_moments(),
        strict=True,
    ):
        lines.append(f"atom {number_text(position)} {symbol}")
        if moment:
            lines.append(f"  initial_moment {float(moment)!r}")
    return "\n".join(lines) + "\n"
