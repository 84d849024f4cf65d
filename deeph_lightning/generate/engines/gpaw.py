"""GPAW as an engine: PAW in a basis of atomic orbitals; crystals, slabs and molecules."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from deeph_lightning.errors import (
    ConfigError,
    MissingDependencyError,
    NotConvergedError,
    ProgramError,
)
from deeph_lightning.io import gpaw as gpw

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ase import Atoms

    from deeph_lightning.io.system import SystemData

#: What every attempt changes.
MIXING: tuple[dict[str, Any], ...] = (
    {},
    {"mixer": {"beta": 0.02, "nmaxold": 8, "weight": 50.0}},
    {"mixer": {"beta": 0.005, "nmaxold": 3, "weight": 100.0}},
)


class GPAW:
    """Settings of a calculation with GPAW (J. J. Mortensen et al., J. Chem. Phys. 160, 092503).

    Parameters
    ----------
    xc
        Functional, in GPAW's words.
    basis
        Name of the basis set.
    h
        Spacing of the real-space grid, Å.
    kmesh
        k-points along each lattice vector, Gamma included.
    spin
        Whether the calculation is collinear; moments are those of the structure.
    density
        Change of the density per valence electron at which it counts as self-consistent.
    max_cycle
        Cycles of an attempt.

    Raises
    ------
    ConfigError
        A value is out of range.
    """

    n_attempt = len(MIXING)
    incidental = ()

    def __init__(
        self,
        xc: str = "PBE",
        basis: str = "dzp",
        h: float = 0.2,
        kmesh: Sequence[int] = (1, 1, 1),
        spin: bool = False,
        density: float = 1e-7,
        max_cycle: int = 333,
    ) -> None:
        self.xc, self.basis, self.h, self.kmesh = xc, basis, h, tuple(kmesh)
        self.spin, self.density, self.max_cycle = spin, density, max_cycle
        for key, is_right, expected in (
            ("kmesh", len(self.kmesh) == 3 and min(self.kmesh) >= 1, "three positive integers"),
            ("h", h > 0, "a positive length, Å"),
            ("density", density > 0, "a positive number"),
            ("max_cycle", max_cycle >= 1, "at least one"),
            ("xc", not gpw.is_hybrid(xc), "a functional that is no hybrid"),
        ):
            if not is_right:
                value = getattr(self, key)
                msg = f"engine.{key} = {value!r}: expected {expected}."
                raise ConfigError(msg, key=f"engine.{key}")

    def check(self, structures: Sequence[Atoms]) -> dict[str, Any]:
        """Check that GPAW is there and that molecules have a box (see `engine.Engine`)."""
        try:
            import gpaw
        except ImportError:
            msg = (
                "engine=gpaw: GPAW is not installed. Install it by pip install "
                "'deeph-lightning[gpaw]' (compiled, needs BLAS and libxc), or choose another "
                "engine."
            )
            raise MissingDependencyError(msg) from None
        for atoms in structures:
            if atoms.cell.rank < 3:
                msg = (
                    f"structure '{atoms.info['name']}' has no box: GPAW computes on a grid. "
                    f"Give it three lattice vectors with 5 Å of vacuum around the atoms."
                )
                raise ConfigError(msg, key="structure")
        return {"code": "GPAW", "version": gpaw.__version__}

    def run(self, structure: Atoms, folder: Path, attempt: int) -> SystemData:
        """Compute one structure (see `engine.Engine`)."""
        from gpaw import GPAW as Calculator
        from gpaw import KohnShamConvergenceError

        atoms, name = structure.copy(), structure.info["name"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                atoms.calc = Calculator(
                    mode="lcao", xc=self.xc, basis=self.basis, h=self.h, spinpol=self.spin,
                    kpts={"size": self.kmesh, "gamma": True}, maxiter=self.max_cycle,
                    convergence={"density": self.density}, txt=str(folder / "gpaw.txt"),
                    **MIXING[attempt],
                )  # fmt: skip
                atoms.get_potential_energy()
                atoms.calc.write(folder / "deeph.gpw")
            except KohnShamConvergenceError:
                msg = (
                    f"structure '{name}': not self-consistent after {self.max_cycle} cycles "
                    f"(attempt {attempt + 1} of {self.n_attempt})."
                )
                raise NotConvergedError(msg) from None
            except Exception as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                msg = f"structure '{name}': GPAW cannot compute it ({reason}); see {folder}."
                raise ProgramError(msg) from error
        system = gpw.read(folder, ("H", "S"), name)
        system.info["is_converged"] = True
        return system
