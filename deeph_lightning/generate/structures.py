"""Structures to compute: drawn at random, reproducible one by one, none twice.

Structure n is drawn from start structure n modulo their number, by a generator whose seed is
(seed, n, draw): it does not depend on how many are asked for, nor on which are there already.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, insort
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from ase.data import covalent_radii

from deeph_lightning.core.checks import check_structure
from deeph_lightning.core.pairs import neighbour_pairs
from deeph_lightning.errors import ConfigError
from deeph_lightning.generate.fingerprint import TOL_FINGERPRINT, fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ase import Atoms
    from numpy.typing import NDArray


class Sampler(Protocol):
    """A random change of a structure, with its settings."""

    def check(self, structures: Sequence[Atoms]) -> None:
        """Check that the settings suit the structures that are to be changed next.

        The first sampler gets all start structures at once; each later one gets every
        structure by itself before it draws from it, as samplers before have changed it.

        Raises
        ------
        ConfigError
            They do not.
        MissingDependencyError
            A package is not installed.
        """

    def draw(self, structure: Atoms, rng: np.random.Generator) -> Atoms:
        """Return a changed copy; all randomness comes from `rng`."""


class Sample(NamedTuple):
    """A structure to compute.

    Attributes
    ----------
    atoms
        Structure; ``info`` holds its name only.
    seed
        Entropy of its generator: (seed, number of the structure, draw).
    """

    atoms: Atoms
    seed: tuple[int, int, int]


def sample_name(n: int) -> str:
    """Return the name of structure n, the same however many there are."""
    return f"{n:05d}"


def digest(atoms: Atoms) -> str:
    """Return a hash of elements, positions, lattice and periodicity."""
    state = hashlib.sha256()
    for array in (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc):
        state.update(np.ascontiguousarray(array).tobytes())
    return state.hexdigest()[:16]


def draw_structures(
    starts: Sequence[Atoms],
    samplers: Mapping[str, Sampler],
    n: int,
    seed: int,
    *,
    min_distance: float,
    max_draws: int,
) -> Iterator[Sample]:
    """Draw structures, each unlike all before it.

    Parameters
    ----------
    starts
        Structures to begin with, taken in turn.
    samplers
        Changes, applied in this order.
    n
        How many to draw.
    seed
        Of all randomness.
    min_distance
        Smallest distance of two atoms, as a part of the sum of their covalent radii.
    max_draws
        Draws for one structure until one is accepted.

    Yields
    ------
    Structures in the order of their numbers.

    Raises
    ------
    ConfigError
        A sampler does not suit the structures, or no draw of a structure was accepted.
    """
    for first in list(samplers.values())[:1]:
        first.check(starts)
    seen = _Seen()
    for number in range(n):
        yield _draw(starts, samplers, number, seed, min_distance, max_draws, seen)


def _draw(
    starts: Sequence[Atoms],
    samplers: Mapping[str, Sampler],
    number: int,
    seed: int,
    min_distance: float,
    max_draws: int,
    seen: _Seen,
) -> Sample:
    reason = ""
    for draw in range(max_draws):
        entropy = (seed, number, draw)
        rng = np.random.default_rng(entropy)
        atoms = starts[number % len(starts)].copy()
        for n, sampler in enumerate(samplers.values()):
            if n > 0:
                sampler.check([atoms])
            atoms = sampler.draw(atoms, rng)
        atoms.calc = None
        atoms.info = {"name": sample_name(number)}
        atoms.set_constraint()
        ratio = closest_contact(atoms)
        if ratio < min_distance:
            reason = f"atoms come as close as {ratio:.2f} of the sum of their covalent radii"
            continue
        other = seen.add(fingerprint(atoms), sample_name(number))
        if other is not None:
            reason = f"it is the same as structure {other}"
            continue
        check_structure(atoms)
        return Sample(atoms, entropy)
    msg = (
        f"sampler: structure {sample_name(number)} was refused {max_draws} times, at last "
        f"since {reason}. Structures closer than min_distance = {min_distance:g} and repeated "
        f"ones are not computed. Reduce n or the displacements, or add a sampler: "
        f"'sampler=[{','.join([*samplers, 'rattle'])}]'"
    )
    raise ConfigError(msg, key="sampler")


def closest_contact(atoms: Atoms) -> float:
    """Return the smallest distance over the sum of covalent radii; infinite if none is near."""
    radii = covalent_radii[atoms.numbers]
    pairs = neighbour_pairs(atoms, float(2 * radii.max()))
    if not len(pairs):
        return np.inf
    return float((pairs.distances(atoms) / (radii[pairs.i] + radii[pairs.j])).min())


class _Seen:
    """Fingerprints of structures, sorted by their sums so that few must be compared."""

    def __init__(self) -> None:
        self._sums: list[tuple[float, int]] = []
        self._entries: list[tuple[str, str, NDArray[np.float64]]] = []

    def add(self, found: tuple[str, NDArray[np.float64]], name: str) -> str | None:
        """Keep a structure and return None; or return the name of one that is the same."""
        formula, vector = found
        total, margin = float(vector.sum()), TOL_FINGERPRINT * vector.size
        first = bisect_left(self._sums, (total - margin, -1))
        for other, n in self._sums[first:]:
            if other > total + margin:
                break
            its_name, its_formula, its_vector = self._entries[n]
            if its_formula == formula and np.allclose(
                its_vector, vector, rtol=0, atol=TOL_FINGERPRINT
            ):
                return its_name
        insort(self._sums, (total, len(self._entries)))
        self._entries.append((name, formula, vector))
        return None
