"""Engines for tests: the Hamiltonian is a function of the structure alone, at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase import Atoms

from deeph_lightning.core.basis import OrbitalBasis
from deeph_lightning.errors import ConfigError, NotConvergedError
from deeph_lightning.io.code_output import facts
from deeph_lightning.io.system import SystemData
from tests.systems import slater_koster

BASIS = OrbitalBasis({"H": (0,), "O": (0, 1)})


class Toy:
    """Slater-Koster matrices, with failures on demand.

    Parameters
    ----------
    unconverged
        Attempts that each structure needs, by its name.
    broken
        Structures on which the engine has a bug.
    seconds
        Time that each takes.
    version
        What it says of itself.
    """

    n_attempt = 3
    incidental = ()

    def __init__(
        self,
        unconverged: dict[str, int] | None = None,
        broken: list[str] | None = None,
        seconds: float = 0.0,
        version: str = "1",
    ) -> None:
        self.unconverged, self.broken = unconverged or {}, broken or []
        self.seconds, self.version = seconds, version

    def check(self, structures: Sequence[Atoms]) -> dict[str, Any]:
        foreign = {s for atoms in structures for s in atoms.symbols} - set(BASIS.shells)
        if foreign:
            raise ConfigError(f"engine: no basis for {foreign}", key="engine")
        return {"version": self.version}

    def run(self, structure: Atoms, folder: Path, attempt: int) -> SystemData:
        name = structure.info["name"]
        (folder / "log.txt").write_text(f"attempt {attempt}")
        time.sleep(self.seconds)
        if name in self.broken:
            raise ZeroDivisionError("a bug")
        if attempt < self.unconverged.get(name, 0):
            raise NotConvergedError(f"structure '{name}': no self-consistency")
        return SystemData(
            name,
            structure,
            BASIS,
            H=slater_koster(structure, BASIS),
            info=facts(code="toy", is_converged=True),
        )
