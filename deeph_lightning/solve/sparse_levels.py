"""Fermi level and gap of systems too large for full diagonalisation.

States below an energy are counted by inertia; only those near the Fermi level are computed.
The result is that of the dense solver on the same grid with the same smearing.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import optimize

from deeph_lightning.errors import PhysicsError
from deeph_lightning.solve.dense import GAP_WIDTHS, kgrid
from deeph_lightning.solve.kloop import map_k
from deeph_lightning.solve.levels import BandEdge, BandEdges, FloatArray, Levels, occupations

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from deeph_lightning.solve.sparse import SparseSolver, States
    from deeph_lightning.solve.system import ElectronicSystem

#: Half width of the window of states around the Fermi level, smearing widths: outside of it
#: occupations are 0 or 1 to 1e-11.
WINDOW_WIDTHS = 25.0
#: Widest search for the electrons, eV from the first guess.
MAX_SEARCH_EV = 2000.0


def sparse_levels(
    system: ElectronicSystem,
    solvers: Sequence[SparseSolver],
    grid: tuple[int, int, int],
    smearing_eV: float,
    *,
    guess_eV: float = 0.0,
    n_jobs: int = 1,
    track: Callable[..., Any] | None = None,
) -> Levels:
    """Find the Fermi level on a Gamma-centred grid by inertia.

    Parameters
    ----------
    system
        Electrons.
    solvers
        One for each spin channel.
    grid
        Points along each axis.
    smearing_eV
        Fermi-Dirac width, eV.
    guess_eV
        Where to begin, eV.
    n_jobs, track
        See `kloop.map_k`.

    Returns
    -------
    Levels
        Its energies are those near the Fermi level, NaN elsewhere; the number of the first is
        in `Levels.first_band`, and the band energy is NaN.

    Raises
    ------
    PhysicsError
        The number of electrons is unknown or does not fit.
    """
    k, weight = kgrid(grid, time_reversal=system.has_time_reversal)
    search = _Search(system, solvers, k, weight, n_jobs, track)
    energy, is_plateau = search.bracket(guess_eV, smearing_eV)
    if is_plateau:
        states = search.around(energy)
        top = max(float(s.energies[s.energies < energy].max()) for part in states for s in part)
        bottom = min(
            float(s.energies[s.energies >= energy].min()) for part in states for s in part
        )
        if bottom - top > GAP_WIDTHS * smearing_eV:
            return search.levels(grid, states, 0.5 * (top + bottom))
    level, states = search.smeared(energy, smearing_eV)
    return search.levels(grid, states, level)


class _Search:
    """Counts and states on one grid."""

    def __init__(
        self,
        system: ElectronicSystem,
        solvers: Sequence[SparseSolver],
        k: NDArray[np.float64],
        weight: NDArray[np.float64],
        n_jobs: int,
        track: Callable[..., Any] | None,
    ) -> None:
        self.solvers, self.k, self.weight = solvers, k, weight
        self.n_jobs, self.track = n_jobs, track
        self.n_states = system.electrons() / system.degeneracy

    def counts(self, energy: float) -> NDArray[np.int64]:
        """States below an energy, ``(n_channel, n_k)``."""
        return np.array(
            [map_k(partial(_counts, s, energy), self.k, self.n_jobs) for s in self.solvers]
        )

    def windows(self, low: float, high: float) -> list[list[States]]:
        """States of a window, by channel and k-point."""
        return [
            map_k(partial(_windows, s, low, high), self.k, self.n_jobs, self.track)
            for s in self.solvers
        ]

    def around(self, energy: float) -> list[list[States]]:
        """States on both sides of an energy in a gap, by channel and k-point."""
        return [
            map_k(partial(_both_sides, s, energy), self.k, self.n_jobs, self.track)
            for s in self.solvers
        ]

    def bracket(self, guess: float, width: float) -> tuple[float, bool]:
        """Return an energy near the Fermi level; whether each k-point is filled alike there."""

        def missing(energy: float) -> tuple[float, bool]:
            found = self.counts(energy)
            per_k = found.sum(axis=0)
            is_plateau = bool(np.all(per_k == per_k[0]) and per_k[0] == self.n_states)
            return self.n_states - float(found.sum(axis=0) @ self.weight), is_plateau

        rest, is_plateau = missing(guess)
        if is_plateau:
            return guess, True
        step = 1.0 if rest > 0 else -1.0
        far = guess + step
        while (gap := missing(far)) and not gap[1] and gap[0] * rest > 0:
            guess, step = far, 2 * step
            far = guess + step
            if abs(step) > MAX_SEARCH_EV:
                raise PhysicsError(f"no energy below which {self.n_states} states lie")
        if gap[1]:
            return far, True
        low, high = sorted((guess, far))
        while high - low > width:
            middle = 0.5 * (low + high)
            rest, is_plateau = missing(middle)
            if is_plateau:
                return middle, True
            low, high = (middle, high) if rest > 0 else (low, middle)
        return 0.5 * (low + high), False

    def smeared(self, energy: float, width: float) -> tuple[float, list[list[States]]]:
        """Count electrons with Fermi-Dirac occupations around an energy."""
        for _ in range(20):
            low, high = energy - WINDOW_WIDTHS * width, energy + WINDOW_WIDTHS * width
            states = self.windows(low, high)

            def excess(level: float, states: Any = states) -> float:
                filled = [
                    [s.first + occupations(s.energies, level, width).sum() for s in part]
                    for part in states
                ]
                return float(np.sum(filled, axis=0) @ self.weight - self.n_states)

            # in the middle of the window nothing outside of it is half filled
            reach = 0.4 * WINDOW_WIDTHS * width
            if excess(energy - reach) * excess(energy + reach) <= 0:
                root = optimize.brentq(excess, energy - reach, energy + reach, xtol=1e-12)
                return float(root), states
            energy += reach if excess(energy) < 0 else -reach
        raise PhysicsError("the Fermi level was not found; give a larger smearing_eV")

    def levels(
        self, grid: tuple[int, int, int], states: list[list[States]], level: float
    ) -> Levels:
        """Put states into one array by the number of their band."""
        energies, first = aligned(states)
        edges = _edges(states, self.k, level)
        return Levels(grid, self.k, self.weight, energies, level, edges, np.nan, first)


def _counts(solver: SparseSolver, energy: float, k: FloatArray) -> list[int]:
    return [solver.n_below(point, energy) for point in k]


def _windows(solver: SparseSolver, low: float, high: float, k: FloatArray) -> list[States]:
    return [solver.window(point, low, high) for point in k]


def _both_sides(solver: SparseSolver, energy: float, k: FloatArray) -> list[States]:
    found = []
    for point in k:
        n_state = 8
        states = solver.nearest(point, energy, n_state)
        while not states.energies.min() < energy <= states.energies.max():
            n_state *= 2
            states = solver.nearest(point, energy, n_state)
        found.append(states)
    return found


def aligned(states: Sequence[Sequence[States]]) -> tuple[FloatArray, int]:
    """Put energies into one array by the number of their band.

    Parameters
    ----------
    states
        By channel and k-point, their first states counted.

    Returns
    -------
    energies, first
        ``(n_channel, n_k, n_band)``, NaN where a state was not computed, and the number of
        the first band.
    """
    first = min(s.first for part in states for s in part)
    last = max(s.first + len(s.energies) for part in states for s in part)
    energies = np.full((len(states), len(states[0]), last - first), np.nan)
    for channel, part in enumerate(states):
        for n, s in enumerate(part):
            energies[channel, n, s.first - first : s.first - first + len(s.energies)] = (
                s.energies
            )
    return energies, first


def _edges(states: Sequence[Sequence[States]], k: ArrayLike, level: float) -> BandEdges:
    points = np.asarray(k)
    filled = [[s.first + int((s.energies <= level).sum()) for s in part] for part in states]
    if any(len(set(part)) > 1 for part in filled):
        return BandEdges(None, None, 0.0, 0.0)
    below = [
        (float(s.energies[s.energies <= level].max(initial=-np.inf)), channel, n)
        for channel, part in enumerate(states)
        for n, s in enumerate(part)
    ]
    above = [
        (float(s.energies[s.energies > level].min(initial=np.inf)), channel, n)
        for channel, part in enumerate(states)
        for n, s in enumerate(part)
    ]
    direct = min(b[0] - a[0] for a, b in zip(below, above, strict=True))
    (top, top_channel, top_k), (bottom, bottom_channel, bottom_k) = max(below), min(above)
    vbm = _edge(top, points[top_k], top_channel, filled[top_channel][0] - 1)
    cbm = _edge(bottom, points[bottom_k], bottom_channel, filled[bottom_channel][0])
    return BandEdges(vbm, cbm, bottom - top, direct)


def _edge(energy: float, k: NDArray[np.float64], channel: int, band: int) -> BandEdge:
    x, y, z = k.tolist()
    return BandEdge(energy, (x, y, z), channel, band)
