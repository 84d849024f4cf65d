"""Relaxing a structure with a calculator of ASE."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from deeph_lightning.errors import ConfigError, MissingDependencyError, PhysicsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ase import Atoms

#: Packages from which a calculator may be named by its dotted path.
PACKAGES = ("ase", "tblite", "mace", "matgl", "gpaw", "dftd4", "sevenn", "orb_models")


def calculator(name: str, options: Mapping[str, Any]) -> Any:
    """Make a calculator.

    Parameters
    ----------
    name
        Name of ASE (``emt``, ``gpaw``, ``dftb``), or dotted path of a class or a function that
        returns one (``tblite.ase.TBLite``).
    options
        Its arguments.

    Raises
    ------
    ConfigError
        There is no such calculator, or it does not take these arguments.
    MissingDependencyError
        Its package is not installed.
    """
    from ase.calculators.calculator import get_calculator_class

    package, _, inner = name.partition(".")
    if inner and package not in PACKAGES:
        raise ConfigError(
            f"calculator = {name}: expected a name of ASE (emt, gpaw, ...) or a class of "
            f"{', '.join(PACKAGES)}, as in calculator=tblite.ase.TBLite",
            key="calculator",
        )
    try:
        if inner:
            module, _, attribute = name.rpartition(".")
            make = getattr(importlib.import_module(module), attribute)
        else:
            make = get_calculator_class(name)
    except ModuleNotFoundError as error:
        if error.name is not None and not error.name.startswith("ase"):
            raise MissingDependencyError(
                f"calculator = {name}: {error.name} is not installed. "
                f"Install it (pip install {error.name})."
            ) from None
        raise ConfigError(f"calculator = {name}: ASE has none.", key="calculator") from None
    except (AttributeError, ImportError):
        raise ConfigError(
            f"calculator = {name}: there is no such calculator.", key="calculator"
        ) from None
    try:
        return make(**options)
    except TypeError as error:
        raise ConfigError(
            f"calculator_options = {dict(options)}: {name} does not take them ({error}).",
            key="calculator_options",
        ) from None


def relaxed(atoms: Atoms, calc: Any, fmax: float, n_steps: int) -> Atoms:
    """Return a structure with its atoms moved to where forces vanish; the cell is kept.

    Parameters
    ----------
    atoms
        Structure.
    calc
        Calculator of ASE.
    fmax
        Largest force allowed on an atom, eV/Å.
    n_steps
        Steps of the FIRE optimiser at most.

    Raises
    ------
    PhysicsError
        The calculator fails, or forces are larger after all steps.
    """
    from ase.calculators.calculator import CalculatorError
    from ase.optimize import FIRE

    moved = atoms.copy()
    moved.calc = calc
    try:
        is_converged = FIRE(moved, logfile=None).run(fmax=fmax, steps=n_steps)
    except (CalculatorError, NotImplementedError, RuntimeError) as error:
        raise PhysicsError(
            f"relaxation: the calculator failed ({error}). It may not know these elements."
        ) from error
    if not is_converged:
        largest = float((moved.get_forces() ** 2).sum(axis=1).max() ** 0.5)
        raise PhysicsError(
            f"relaxation: forces of {largest:.3g} eV/Å are left after {n_steps} steps, at most "
            f"{fmax:g} wanted. Allow more (n_steps=...) or larger ones (fmax=...)."
        )
    moved.calc = None
    return moved
