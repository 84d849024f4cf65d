"""What tasks share: the result, facts of a case, and what a task can be asked of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deeph_lightning.errors import ConfigError, PhysicsError
from deeph_lightning.solve.conditioning import ghost_check
from deeph_lightning.solve.factorisation import library

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure

    from deeph_lightning.analysis.case import Case
    from deeph_lightning.analysis.output import Array
    from deeph_lightning.core.operator import Operator
    from deeph_lightning.solve.bands import Bands
    from deeph_lightning.solve.dos import DensityOfStates


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


def check_alone(case: Case, other: Case | None, task: str) -> None:
    """Refuse a second Hamiltonian, and systems of which not all states are computed."""
    if other is not None:
        msg = f"compare: task={task} takes one Hamiltonian only. Leave compare away."
        raise ConfigError(msg, key="compare")
    check_all_states(case, f"task={task}")


def check_all_states(case: Case, what: str) -> None:
    """Refuse what needs all states where only those near the Fermi level are computed."""
    if not case.is_dense:
        msg = (
            f"{what} needs all states, but structure '{case.system.name}' has "
            f"{case.system.n_orb} orbitals, more than dense_max={case.config['dense_max']}. "
            f"Raise dense_max if time and memory allow."
        )
        raise ConfigError(msg, key="dense_max")


def check_derivatives(case: Case) -> None:
    """Refuse derivatives where combinations of orbitals are left out."""
    if case.n_drop:
        msg = (
            f"structure '{case.system.name}': {case.n_drop} nearly dependent combinations of "
            f"orbitals were left out, which derivatives do not allow. Lower overlap_threshold"
        )
        raise PhysicsError(msg, structure=case.system.name)
