"""Physical constants, each with its source, and energy units.

Inside the package energies are in eV and lengths in Å. Codes carry slightly different
constants (4e-7 apart, which is 0.04 meV at 100 eV): a reader converts with those of the code
that wrote the file.
"""

from __future__ import annotations

from typing import NamedTuple

from deeph_lightning.errors import ConfigError

#: CODATA 2018.
HARTREE_EV = 27.211386245988
RYDBERG_EV = 13.605693122994
BOHR_ANGSTROM = 0.529177210903
BOLTZMANN_EV_PER_K = 8.617333262e-5
#: hbar^2 over the electron mass, eV Å^2.
HBAR2_OVER_ELECTRON_MASS = 7.619964223
#: Velocity, m/s, of a slope dE/dk of one eV Å.
VELOCITY_PER_SLOPE = 151926.7449


class CodeConstants(NamedTuple):
    """Constants that a code multiplies with: Å per bohr, eV per hartree, eV per rydberg."""

    bohr: float
    hartree: float
    rydberg: float


#: Constants compiled into each code; "codata" are those of CODATA 2018.
CODE_CONSTANTS: dict[str, CodeConstants] = {
    "codata": CodeConstants(BOHR_ANGSTROM, HARTREE_EV, RYDBERG_EV),
    "siesta": CodeConstants(BOHR_ANGSTROM, HARTREE_EV, RYDBERG_EV),
    "siesta_4": CodeConstants(0.529177, 27.2116, 13.6058),  # and older
    "openmx": CodeConstants(0.529177249, 27.2113845, 13.60569225),
    "fhi_aims": CodeConstants(0.529177249, 27.2113845, 13.60569225),
    "abacus": CodeConstants(0.529177, 27.211396, 13.605698),
    "wannier90": CodeConstants(0.52917720859, 27.21138386, 13.60569193),  # CODATA 2006
}

#: eV per unit; "1" is the unit of an overlap or density matrix and converts to nothing else.
ENERGY_UNITS: dict[str, float] = {
    "eV": 1.0,
    "meV": 1e-3,
    "hartree": HARTREE_EV,
    "rydberg": RYDBERG_EV,
}


def energy_factor(source: str, target: str) -> float:
    """Return the number that takes an energy from one unit to another (CODATA 2018).

    Parameters
    ----------
    source, target
        Keys of `ENERGY_UNITS`, or "1" for both.

    Raises
    ------
    ConfigError
        A unit is unknown, or one is an energy and the other "1".
    """
    if source == target == "1":
        return 1.0
    for unit in (source, target):
        if unit not in ENERGY_UNITS:
            msg = (
                f"unit '{unit}' is not an energy: cannot convert '{source}' to '{target}'. "
                f"Known units: {', '.join(ENERGY_UNITS)}."
            )
            raise ConfigError(msg, key="unit")
    return ENERGY_UNITS[source] / ENERGY_UNITS[target]
