"""The tasks of ``deeph_lightning.solve``: each turns cases into a `Result`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deeph_lightning.analysis.densities import density_of_states
from deeph_lightning.analysis.derivative_tasks import effective_masses, velocities
from deeph_lightning.analysis.facts import (
    Result,
    check_alone,
    level_facts,
    state_facts,
    work_facts,
)
from deeph_lightning.analysis.figures import bands_figure, comparison_figure, dos_figure
from deeph_lightning.analysis.output import Array, edge_facts
from deeph_lightning.errors import PhysicsError
from deeph_lightning.solve.bands import (
    BandDifference,
    Bands,
    compare_bands,
)
from deeph_lightning.solve.density import density

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure

    from deeph_lightning.analysis.case import Case
    from deeph_lightning.solve.dos import DensityOfStates

MEV = 1e3


def fermi(case: Case, other: Case | None) -> Result:
    """Find the Fermi level by counting electrons."""
    facts = level_facts(case)
    facts["band_energy_eV"] = case.levels.band_energy
    facts |= work_facts(case)
    if other is not None:
        facts["compare"] = level_facts(other) | {"band_energy_eV": other.levels.band_energy}
        facts["e_fermi_difference_meV"] = MEV * (other.e_fermi - case.e_fermi)
    return Result(facts, _level_arrays(case))


def _level_arrays(case: Case) -> dict[str, Array]:
    levels = case.levels
    return {
        "energies": Array(levels.energies, "eV", "spin channel, k-point, band"),
        "k": Array(levels.k, "1", "k-point, fractional coordinate of the reciprocal cell"),
        "weight": Array(levels.weight, "1", "k-point"),
    }


def gap(case: Case, other: Case | None) -> Result:
    """Find the band edges on the grid and, in crystals, along the path too."""
    facts = level_facts(case) | state_facts(case) | edge_facts(case.edges)
    if other is not None:
        facts["compare"] = level_facts(other) | state_facts(other) | edge_facts(other.edges)
        difference = facts["compare"]["gap_eV"] - facts["gap_eV"]
        facts["gap_difference_meV"] = MEV * difference
    return Result(facts, _level_arrays(case))


def bands(case: Case, other: Case | None) -> Result:
    """Solve along the path; with a second Hamiltonian, along the same path."""
    path = case.path  # first: a molecule has none
    found = case.bands_along(case.config["project"])
    facts = level_facts(case) | state_facts(case) | {"on_path": edge_facts(found.edges)}
    if not case.is_dense:
        facts["largest_residual_eV"] = found.residual
    facts |= work_facts(case)
    low, high = case.config["window_eV"]
    arrays = {
        "energies": Array(found.energies, "eV", "spin channel, k-point, band"),
        "e_fermi": Array(found.e_fermi, "eV", ""),
        "first_band": Array(found.first_band, "1", ""),
        "k": Array(path.k, "1", "k-point, fractional coordinate of the reciprocal cell"),
        "x": Array(path.x, "1/angstrom", "k-point: length along the path, with 2 pi"),
        "tick": Array(path.tick, "1/angstrom", "special point: length along the path"),
        "labels": Array(path.labels, "1", "special point"),
    } | {
        f"weights/{name}": Array(weight, "1", "spin channel, k-point, band: Mulliken weight")
        for name, weight in found.weights.items()
    }
    if case.config["velocities"]:
        arrays["velocities"] = Array(
            velocities(case, path), "m/s", "spin channel, k-point, band, Cartesian axis"
        )
    if other is None:
        return Result(facts, arrays, lambda: bands_figure(found, (low, high)), (found,))
    second = _compared(case, other)
    difference = compare_bands(found, second, case.config["near_eV"])
    facts["compare"] = (
        level_facts(other) | state_facts(other) | {"on_path": edge_facts(second.edges)}
    )
    facts["difference"] = _difference_facts(difference)
    arrays["compare/energies"] = Array(second.energies, "eV", arrays["energies"].axes)
    arrays["compare/first_band"] = Array(second.first_band, "1", "")
    arrays["compare/e_fermi"] = Array(second.e_fermi, "eV", "")
    labels = (case.config["labels"][0], case.config["labels"][1])

    def draw() -> Figure:
        return comparison_figure(found, second, difference, (low, high), labels)

    return Result(facts, arrays, draw, (found, second))


def _compared(case: Case, other: Case) -> Bands:
    """Solve the second Hamiltonian on the path of the first."""
    if len(case.system.atoms) != len(other.system.atoms):
        msg = (
            f"structures '{case.system.name}' with {len(case.system.atoms)} atoms and "
            f"'{other.system.name}' with {len(other.system.atoms)} cannot be compared band by "
            f"band. Give two Hamiltonians of one structure."
        )
        raise PhysicsError(msg, structure=other.system.name)
    return other.bands_along(None, case.path)


def _difference_facts(difference: BandDifference) -> dict[str, Any]:
    return {
        "near_eV": difference.near_eV,
        "n_states": int(difference.is_near.sum()),
        "mae_meV": MEV * difference.mae,
        "rms_meV": MEV * difference.rms,
        "largest_meV": MEV * difference.largest,
        "e_fermi_meV": MEV * difference.e_fermi,
        "gap_meV": MEV * difference.gap,
    }


def dos(case: Case, other: Case | None) -> Result:
    """Compute densities of states around the Fermi level."""
    found = density_of_states(case)
    facts = level_facts(case, found.e_fermi) | found.facts
    arrays = _dos_arrays(found.dos, "")
    labels = (case.config["labels"][0], case.config["labels"][1])
    if other is None:
        return Result(facts, arrays, lambda: dos_figure(found.dos), dos=(found.dos,))
    second = density_of_states(other)
    facts["compare"] = level_facts(other, second.e_fermi) | second.facts
    arrays |= _dos_arrays(second.dos, "compare/")
    pair = (found.dos, second.dos)
    return Result(facts, arrays, lambda: dos_figure(*pair, labels), dos=pair)


def _dos_arrays(dos: DensityOfStates, prefix: str) -> dict[str, Array]:
    axes = "spin channel, energy"
    arrays = {
        "energies": Array(dos.energies, "eV", "energy, not shifted"),
        "e_fermi": Array(dos.e_fermi, "eV", ""),
        "total": Array(dos.total, "electrons/eV", axes),
    } | {f"projected/{key}": Array(x, "electrons/eV", axes) for key, x in dos.projected.items()}
    return {prefix + name: array for name, array in arrays.items()}


def density_matrix(case: Case, other: Case | None) -> Result:
    """Sum occupied states: density matrix, Mulliken populations, spin moments."""
    check_alone(case, other, "density_matrix")
    found = density(case.system, case.levels, case.config["smearing_eV"], case.n_drop)
    facts = level_facts(case) | {
        "band_energy_eV": found.band_energy,
        "electrons_counted": float(found.populations.sum()),
        "symbols": case.system.atoms.get_chemical_symbols(),
        "mulliken_populations": found.populations,
    }
    if len(case.system.channels) > 1 or case.system.channels[0].is_spinful:
        facts["mulliken_moments_xyz"] = found.moments
    return Result(facts, rho=found.rho)


#: Tasks by name: each takes the case of `input` and that of `compare`, or None.
TASKS: dict[str, Callable[[Case, Case | None], Result]] = {
    "bands": bands,
    "density_matrix": density_matrix,
    "dos": dos,
    "effective_mass": effective_masses,
    "fermi": fermi,
    "gap": gap,
}
