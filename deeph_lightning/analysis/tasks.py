"""The tasks of ``deeph_lightning.solve``: each turns cases into a `Result`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from deeph_lightning.analysis.densities import density_of_states
from deeph_lightning.analysis.figures import bands_figure, comparison_figure, dos_figure
from deeph_lightning.analysis.output import Array, edge_facts, mass_facts
from deeph_lightning.errors import ConfigError, PhysicsError
from deeph_lightning.solve.bands import (
    BandDifference,
    Bands,
    band_structure,
    bands_near,
    compare_bands,
)
from deeph_lightning.solve.conditioning import ghost_check
from deeph_lightning.solve.density import density
from deeph_lightning.solve.derivatives import effective_mass, refined_extremum
from deeph_lightning.solve.factorisation import library
from deeph_lightning.solve.levels import BandEdges, band_edges

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure

    from deeph_lightning.analysis.case import Case
    from deeph_lightning.core.operator import Operator
    from deeph_lightning.solve.dos import DensityOfStates
    from deeph_lightning.solve.kpath import BandPath

MEV = 1e3


@dataclass
class Result:
    """What a task gives.

    Attributes
    ----------
    facts
        Numbers; names end with their unit.
    arrays
        Arrays by name.
    draw
        Makes the printed figure, inside `viz.style.paper_style`; None without one.
    bands, dos
        One or two band structures or densities of states, for the interactive page.
    rho
        Density matrix.
    """

    facts: dict[str, Any]
    arrays: dict[str, Array] = field(default_factory=dict)
    draw: Callable[[], Figure] | None = None
    bands: tuple[Bands, ...] = ()
    dos: tuple[DensityOfStates, ...] = ()
    rho: Operator | None = None


def level_facts(case: Case, e_fermi: float | None = None) -> dict[str, Any]:
    """Return what is known of the electrons of a case; its own Fermi level if none is given."""
    system = case.system
    facts: dict[str, Any] = {
        "structure": system.name,
        "formula": system.atoms.get_chemical_formula(),
        "n_atoms": len(system.atoms),
        "n_orbitals": system.n_orb,
        "n_spin_channels": len(system.channels),
        "is_spinful": system.channels[0].is_spinful,
        "n_electrons": system.n_electrons,
        "e_fermi_eV": case.e_fermi if e_fermi is None else e_fermi,
        "e_fermi_of_the_data_eV": system.stated_fermi,
        "kgrid": list(case.grid),
        "smearing_eV": case.config["smearing_eV"],
        "solver": "dense"
        if case.is_dense
        else f"sparse, {library(case.config['factorisation'])}",
    }
    if case.condition is not None:
        facts["overlap"] = {
            "smallest_eigenvalue": case.condition.smallest,
            "condition_number": case.condition.number,
            "at_k_fractional": list(case.condition.k_smallest),
            "n_left_out": case.condition.n_drop,
        }
    return facts


def work_facts(case: Case) -> dict[str, Any]:
    """Return how many matrices the sparse solver has factorised; in one process only."""
    if case.is_dense or case.n_jobs != 1:
        return {}
    return {"n_factorisations": sum(solver.n_factorised for solver in case.solvers)}


def state_facts(case: Case) -> dict[str, Any]:
    """Return how far states near the Fermi level can be trusted, where S is worst."""
    condition, S, near = case.condition, case.system.S, case.config["near_eV"]
    if condition is None or S is None:
        return {}
    low, high = case.e_fermi - near, case.e_fermi + near
    k = condition.k_smallest
    found = [ghost_check(H, S, k, low, high, case.n_drop) for H in case.system.channels]
    return {
        "states_near_e_fermi": {
            "at_k_fractional": list(k),
            "within_eV": near,
            "largest_amplification": max(
                float(check.amplification.max(initial=0.0)) for check in found
            ),
            "ghosts_eV": [float(energy) for check in found for energy in check.ghosts],
        }
    }


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
    facts = level_facts(case) | state_facts(case) | edge_facts(_edges(case))
    if other is not None:
        facts["compare"] = level_facts(other) | state_facts(other) | edge_facts(_edges(other))
        difference = facts["compare"]["gap_eV"] - facts["gap_eV"]
        facts["gap_difference_meV"] = MEV * difference
    return Result(facts, _level_arrays(case))


def _edges(case: Case) -> Any:
    levels = case.levels
    if not case.system.is_periodic.any():
        return levels.edges
    along = _bands(case, project=None)
    if case.is_dense:
        energies = np.concatenate((levels.energies, along.energies), axis=1)
        return band_edges(energies, np.concatenate((levels.k, along.path.k)), levels.e_fermi)
    both = [levels.edges, along.edges]
    tops = [edges.vbm for edges in both if edges.vbm is not None]
    bottoms = [edges.cbm for edges in both if edges.cbm is not None]
    if len(tops) < 2 or len(bottoms) < 2:
        return BandEdges(None, None, 0.0, 0.0)
    vbm = max(tops, key=lambda edge: edge.energy)
    cbm = min(bottoms, key=lambda edge: edge.energy)
    direct = min(edges.direct_gap for edges in both)
    return BandEdges(vbm, cbm, cbm.energy - vbm.energy, direct)


def _bands(case: Case, project: str | None, path: BandPath | None = None) -> Bands:
    """Solve along a path, that of the case if no other is given."""
    path = case.path if path is None else path
    if case.is_dense:
        return band_structure(
            case.system, path, case.e_fermi,
            project=project, n_drop=case.n_drop, n_jobs=case.n_jobs, track=case.track,
        )  # fmt: skip
    if project is not None:
        msg = (
            f"project={project}: weights are computed by the dense solver only, which takes up "
            f"to dense_max={case.config['dense_max']} orbitals; structure "
            f"'{case.system.name}' has {case.system.n_orb}. Leave project away, or raise "
            f"dense_max."
        )
        raise ConfigError(msg, key="project")
    low, high = case.config["window_eV"]
    return bands_near(
        case.system.atoms, case.solvers, path, case.e_fermi, (low, high),
        n_states=case.config["n_states"], n_jobs=case.n_jobs, track=case.track,
    )  # fmt: skip


def bands(case: Case, other: Case | None) -> Result:
    """Solve along the path; with a second Hamiltonian, along the same path."""
    path = case.path  # first: a molecule has none
    found = _bands(case, case.config["project"])
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
    return _bands(other, None, case.path)


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


def effective_masses(case: Case, other: Case | None) -> Result:
    """Find slopes and masses at the band edges, or at a k-point and band that are given."""
    _check_alone(case, other, "effective_mass")
    if case.n_drop:
        msg = (
            f"structure '{case.system.name}': {case.n_drop} nearly dependent combinations of "
            f"orbitals were left out, which derivatives do not allow. Lower overlap_threshold"
        )
        raise PhysicsError(msg, structure=case.system.name)
    facts = level_facts(case)
    if case.config["k"] is not None:
        band = case.config["band"]
        if band is None or not 0 <= band < case.system.n_orb:
            msg = (
                f"band={band}: give the number of the band with k=[...], from 0 to "
                f"{case.system.n_orb - 1}"
            )
            raise ConfigError(msg, key="band")
        facts["bands"] = [
            mass_facts(effective_mass(H, case.system.S, case.config["k"], band), channel, band)
            for channel, H in enumerate(case.system.channels)
        ]
        return Result(facts)
    edges = _edges(case)
    if edges.vbm is None or edges.cbm is None:
        msg = (
            f"structure '{case.system.name}' is a metal: it has no band edges. Give a k-point "
            f"and the number of a band: k=[0,0,0] band=3"
        )
        raise PhysicsError(msg, structure=case.system.name)
    facts |= edge_facts(edges)
    for name, edge in (("hole", edges.vbm), ("electron", edges.cbm)):
        H = case.system.channels[edge.channel]
        mass = refined_extremum(H, case.system.S, edge.k, edge.band)
        facts[name] = mass_facts(mass, edge.channel, edge.band)
    return Result(facts)


def density_matrix(case: Case, other: Case | None) -> Result:
    """Sum occupied states: density matrix, Mulliken populations, spin moments."""
    _check_alone(case, other, "density_matrix")
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


def _check_alone(case: Case, other: Case | None, task: str) -> None:
    """Refuse a second Hamiltonian, and systems of which not all states are computed."""
    if other is not None:
        msg = f"compare: task={task} takes one Hamiltonian only. Leave compare away."
        raise ConfigError(msg, key="compare")
    if not case.is_dense:
        msg = (
            f"task={task} needs all states, but structure '{case.system.name}' has "
            f"{case.system.n_orb} orbitals, more than dense_max={case.config['dense_max']}. "
            f"Raise dense_max if time and memory allow."
        )
        raise ConfigError(msg, key="dense_max")


#: Tasks by name: each takes the case of `input` and that of `compare`, or None.
TASKS: dict[str, Callable[[Case, Case | None], Result]] = {
    "bands": bands,
    "density_matrix": density_matrix,
    "dos": dos,
    "effective_mass": effective_masses,
    "fermi": fermi,
    "gap": gap,
}
