"""The density of states of a case, by the method that it asks for."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from deeph_lightning.errors import ConfigError
from deeph_lightning.solve.bands import projected_states
from deeph_lightning.solve.dense import kgrid, unfolded
from deeph_lightning.solve.dos import (
    DensityOfStates,
    gaussian_count,
    gaussian_dos,
    tetrahedron_dos,
)
from deeph_lightning.solve.kpm import Chebyshev, chebyshev_dos, count_noise
from deeph_lightning.solve.memory import GB
from deeph_lightning.solve.pencil import Pencil
from deeph_lightning.solve.projection import orbital_groups

if TYPE_CHECKING:
    from deeph_lightning.analysis.case import Case

log = logging.getLogger(__name__)

#: Random numbers at each k-point: the error of the trace is one over the square root.
RANDOM_NUMBERS = 100_000
#: Uncertainty of E_F by random vectors above which it is said, eV.
E_FERMI_NOISE = 0.05


class Found(NamedTuple):
    """A density of states with its Fermi level and how it was found."""

    dos: DensityOfStates
    e_fermi: float
    facts: dict[str, Any]


def density_of_states(case: Case) -> Found:
    """Compute the density of states of a case.

    Raises
    ------
    ConfigError
        The method does not go with the size or the periodicity of the structure.
    """
    method = case.config["method"]
    if method == "auto":
        method = "gaussian" if case.is_dense else "kpm"
    if method == "kpm":
        return _by_polynomials(case)
    if not case.is_dense:
        msg = (
            f"method={method}: it needs all states, but structure '{case.system.name}' has "
            f"{case.system.n_orb} orbitals, more than dense_max={case.config['dense_max']}. "
            f"Take method=kpm, or raise dense_max."
        )
        raise ConfigError(msg, key="method")
    return _by_states(case, method)


def _energies(case: Case, e_fermi: float) -> np.ndarray:
    low, high = case.config["window_eV"]
    return np.linspace(e_fermi + low, e_fermi + high, case.config["n_energy"])


def _by_states(case: Case, method: str) -> Found:
    levels, project = case.levels, case.config["project"]
    energies = _energies(case, levels.e_fermi)
    parts: dict[str, np.ndarray] = {}
    if project is not None:
        _, parts = projected_states(
            case.system, levels.k, project, case.n_drop, case.n_jobs, case.track
        )
    g = case.system.degeneracy
    if method == "gaussian":
        width = case.config["width_eV"]
        total = g * gaussian_dos(levels.energies, levels.weight, energies, width)
        projected = {
            name: g * gaussian_dos(levels.energies, levels.weight, energies, width, part)
            for name, part in parts.items()
        }
        below = g * gaussian_count(levels.energies, levels.weight, levels.e_fermi, width).sum()
        facts = {"method": method, "width_eV": width, "electrons_below_e_fermi": float(below)}
    else:
        bands = unfolded(levels.energies, case.grid, axis=1)
        whole = {name: unfolded(part, case.grid, axis=1) for name, part in parts.items()}
        cell = case.system.atoms.cell.complete().array
        total, found = tetrahedron_dos(cell, case.grid, bands, energies, whole)
        total, projected = g * total, {name: g * part for name, part in found.items()}
        facts = {"method": method}
    dos = DensityOfStates(energies, total, levels.e_fermi, projected)
    return Found(dos, levels.e_fermi, facts)


def _by_polynomials(case: Case) -> Found:
    config, system = case.config, case.system
    k, weight = kgrid(case.grid, time_reversal=system.has_time_reversal)
    names, group = ["total"], None
    if config["project"] is not None:
        names, group = orbital_groups(system.channels[0], config["project"])
    limit = None if config["memory_GB"] is None else GB * config["memory_GB"]
    n_vectors = config["n_vectors"] or max(4, -(-RANDOM_NUMBERS // system.n_orb))
    found = [
        chebyshev_dos(
            Pencil(H, system.S), k, weight, config["n_moments"], n_vectors,
            group=group, seed=config["seed"], library_name=config["factorisation"],
            precision=config["factor_precision"], memory_limit=limit, n_jobs=case.n_jobs,
            track=case.track,
        )
        for H in system.channels
    ]  # fmt: skip
    n_states = system.electrons() / system.degeneracy
    e_fermi = _fermi_level(found, n_states)
    is_exact = n_vectors >= system.n_orb
    n_random = n_vectors / float((weight**2).sum())
    noise = 0.0 if is_exact else _fermi_noise(found, n_states, n_random)
    if noise > E_FERMI_NOISE:
        log.warning(
            "structure '%s': E_F by counting with random vectors (%d at each k-point) is "
            "uncertain by at least %.2g eV; more n_vectors reduce it by their root, "
            "task=fermi is exact",
            *(system.name, n_vectors, noise),
        )
    energies = _energies(case, e_fermi)
    curves = system.degeneracy * np.array([c.density(energies) for c in found])
    projected = (
        {name: curves[:, n] for n, name in enumerate(names)} if group is not None else {}
    )
    dos = DensityOfStates(energies, curves.sum(axis=1), e_fermi, projected)
    facts = {
        "method": "kpm",
        "n_moments": config["n_moments"],
        "n_vectors": n_vectors,
        "resolution_eV": max(c.resolution for c in found),
        "e_fermi_noise_eV": noise,
        "n_orbitals_integrated": float(sum(c.moments[:, 0].sum() for c in found)),
    }
    return Found(dos, e_fermi, facts)


def _fermi_level(channels: list[Chebyshev], n_states: float) -> float:
    """Count the electrons of all channels together; their scales may differ."""
    if len(channels) == 1:
        return channels[0].fermi_level(n_states)
    from scipy.optimize import brentq

    low = min(c.centre - c.half_width for c in channels)
    high = max(c.centre + c.half_width for c in channels)

    def excess(energy: float) -> float:
        return float(sum(c.count(energy).sum() for c in channels) - n_states)

    return float(brentq(excess, low, high, xtol=1e-9))


def _fermi_noise(channels: list[Chebyshev], n_states: float, n_random: float) -> float:
    """Half the distance between E_F of a noise more and a noise less electrons, eV."""
    every = sum(float(c.moments[:, 0].sum()) for c in channels)
    noise = count_noise(n_states, n_random)
    counts = np.clip((n_states - noise, n_states + noise), 1e-6 * every, (1 - 1e-6) * every)
    low, high = (_fermi_level(channels, n) for n in counts)
    return 0.5 * (high - low)
