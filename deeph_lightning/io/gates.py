"""The gates of a conversion: numbers that a right set has, whatever code it comes from.

Hermitian partners are compared by every reader. Here: norms and S(k), the two-centre form of S,
and the number of states below the Fermi level.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import linalg

from deeph_lightning.core.checks import (
    CHECKED_K,
    TOL_NORM,
    check_overlap_norms,
    check_overlap_positive,
)
from deeph_lightning.core.two_centre import TOL_AUGMENTED, TOL_TWO_CENTRE, check_two_centre
from deeph_lightning.errors import PhysicsError

if TYPE_CHECKING:
    from collections.abc import Collection

    from deeph_lightning.core.operator import Operator
    from deeph_lightning.io.system import SystemData

#: Names of the gates that can be left out.
GATES = ("overlap", "two_centre", "electrons")
#: Orbitals, spin included, up to which states are counted.
MAX_COUNTED_ORBITALS = 600
#: Electrons, and share of all, by which a count at a few k-points may be off.
MISCOUNT = (2.0, 0.25)


def check_gates(system: SystemData, skipped: Collection[str] = ()) -> dict[str, float]:
    """Run the gates on what was read.

    Parameters
    ----------
    system
        Structure with its operators.
    skipped
        Gates of `GATES` to leave out.

    Returns
    -------
    dict
        Largest disagreement of Hermitian partners under the name of each operator; smallest
        eigenvalue of S(k) under "S(k)", largest |S - 1| of an orbital with itself under
        "norm", residual of the two-centre form under "two-centre", and electrons counted too
        many or too few under "electrons".

    Raises
    ------
    PhysicsError
        A gate is not passed; the message says how to leave it out.
    """
    found = {key: op.hermiticity_residual()[0] for key, op in system.operators()}
    for gate, check in (
        ("overlap", _overlap),
        ("two_centre", _two_centre),
        ("electrons", _electrons),
    ):
        if gate in skipped:
            continue
        try:
            found |= check(system)
        except PhysicsError as error:
            text = f"{error} To convert it all the same: skip_checks=[{gate}]"
            raise type(error)(text, structure=system.name) from None
    return found


def _overlap(system: SystemData) -> dict[str, float]:
    if system.S is None:
        return {}
    tol = np.inf if system.has_augmented_overlap else TOL_NORM
    return {
        "norm": check_overlap_norms(system.S, system.name, tol),
        "S(k)": check_overlap_positive(system.S, system.name),
    }


def _two_centre(system: SystemData) -> dict[str, float]:
    if system.S is None:
        return {}
    tol = TOL_AUGMENTED if system.has_augmented_overlap else TOL_TWO_CENTRE
    form = check_two_centre(system.S, system.name, tol)
    return {"two-centre": max(form.rotation, form.distance)}


def _electrons(system: SystemData) -> dict[str, float]:
    """Count states below E_F at two k-points: far off where a unit is wrong."""
    H, S, n_electrons = system.H, system.S, system.n_electrons
    if H is None or S is None or H.n_orb > MAX_COUNTED_ORBITALS:
        return {}
    if not n_electrons or not system.fermi_energy:  # 0 is also written for "unknown"
        return {}
    counts = [_count_states(H, S, k, system.fermi_energy) for k in CHECKED_K]
    miscount = abs(float(np.mean(counts)) - n_electrons)
    if miscount > max(MISCOUNT[0], MISCOUNT[1] * n_electrons):
        msg = (
            f"structure '{system.name}': below the Fermi level of {system.fermi_energy:.3f} eV "
            f"there are states for {np.mean(counts):.1f} electrons, the structure has "
            f"{n_electrons:g}. Check the unit of H, and that H, E_F and the number of "
            f"electrons are of one calculation."
        )
        raise PhysicsError(msg, structure=system.name)
    return {"electrons": miscount}


def _count_states(
    H: Operator, S: Operator, k: tuple[float, float, float], level: float
) -> float:
    n_spin = 2 if H.is_spinful else 1
    overlap = np.kron(np.eye(n_spin), S.bloch(k))
    energies = linalg.eigh(H.bloch(k), overlap, eigvals_only=True)
    return float(np.sum(energies < level)) * (1.0 if H.is_spinful else 2.0)
