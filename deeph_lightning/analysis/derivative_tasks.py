"""Velocities and effective masses of a case."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from deeph_lightning.analysis.facts import (
    Result,
    check_all_states,
    check_alone,
    check_derivatives,
    level_facts,
)
from deeph_lightning.analysis.output import edge_facts, mass_facts
from deeph_lightning.errors import ConfigError, PhysicsError
from deeph_lightning.solve.derivatives import effective_mass, refined_extremum, slopes_at
from deeph_lightning.solve.kloop import map_k
from deeph_lightning.units import VELOCITY_PER_SLOPE

if TYPE_CHECKING:
    from deeph_lightning.analysis.case import Case
    from deeph_lightning.solve.kpath import BandPath


def effective_masses(case: Case, other: Case | None) -> Result:
    """Find slopes and masses at the band edges, or at a k-point and band that are given."""
    check_alone(case, other, "effective_mass")
    check_derivatives(case)
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
    edges = case.edges
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


def velocities(case: Case, path: BandPath) -> np.ndarray:
    """Return group velocities along a path, ``(n_channel, n_k, n_band, 3)``, m/s."""
    check_all_states(case, "velocities")
    check_derivatives(case)
    slopes = [
        map_k(partial(slopes_at, H, case.system.S), path.k, case.n_jobs, case.track)
        for H in case.system.channels
    ]
    return VELOCITY_PER_SLOPE * np.array(slopes)
