"""Samplers that change the cell, the layers or the elements."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from ase.data import atomic_numbers

from deeph_lightning.errors import ConfigError
from deeph_lightning.generate.samplers.displacements import positive

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ase import Atoms


class Strain:
    """Strain a periodic structure at random, atoms with it; directions without period stay.

    Parameters
    ----------
    stdev
        Standard deviation of each element of the symmetric strain.

    Raises
    ------
    ConfigError
        It is not positive.
    """

    def __init__(self, stdev: float = 0.02) -> None:
        self.stdev = positive("strain.stdev", stdev)

    def check(self, structures: Sequence[Atoms]) -> None:
        """Check that the structures are periodic."""
        for atoms in structures:
            if not atoms.pbc.any():
                msg = (
                    f"sampler=strain: structure '{atoms.info.get('name')}' is a molecule, "
                    f"which has no lattice to strain. Use rattle, einstein or md."
                )
                raise ConfigError(msg, key="sampler")

    def draw(self, structure: Atoms, rng: np.random.Generator) -> Atoms:
        """Return a strained copy."""
        atoms = structure.copy()
        random = rng.normal(scale=self.stdev, size=(3, 3))
        strain = np.triu(random) + np.triu(random, 1).T
        # only the plane, or line, that the periodic vectors span is strained
        periodic = np.asarray(atoms.cell.array)[np.asarray(atoms.pbc)]
        axes = np.linalg.qr(periodic.T)[0]
        inside = axes @ axes.T
        change = np.eye(3) + inside @ strain @ inside
        atoms.positions = atoms.positions @ change
        atoms.cell[:] = np.asarray(atoms.cell.array) @ change
        return atoms


class Layers:
    """Shift the layers of a structure against each other.

    Layers are sets of atoms between gaps along one lattice vector; they may pass through a face
    of the cell. The lowest stays; each other one is moved along the other two vectors by any
    part of the cell, and its distance from the one below changes. The cell keeps its height.

    Parameters
    ----------
    axis
        Lattice vector across the layers: 0, 1 or 2.
    gap
        Smallest height without atoms between two layers, Å.
    spacing_stdev
        Standard deviation of the distance between neighbours, Å.

    Raises
    ------
    ConfigError
        A value is out of range.
    """

    def __init__(self, axis: int = 2, gap: float = 2.0, spacing_stdev: float = 0.1) -> None:
        if axis not in (0, 1, 2) or spacing_stdev < 0:
            msg = (
                f"sampler.layers: axis = {axis}, spacing_stdev = {spacing_stdev}; expected 0, "
                f"1 or 2, and a length of at least 0."
            )
            raise ConfigError(msg, key="sampler.layers")
        self.axis, self.gap = axis, positive("layers.gap", gap)
        self.spacing_stdev = spacing_stdev

    def check(self, structures: Sequence[Atoms]) -> None:
        """Check that there are layers, periodic along two vectors."""
        for atoms in structures:
            others = [k for k in range(3) if k != self.axis]
            name = atoms.info.get("name")
            if not atoms.pbc[others].all():
                msg = (
                    f"sampler=layers: structure '{name}' is not periodic along the vectors "
                    f"{others}. Give the vector across the layers: sampler.layers.axis"
                )
                raise ConfigError(msg, key="sampler.layers.axis")
            if self._layer_of(atoms).max() == 0:
                msg = (
                    f"sampler=layers: structure '{name}' has no gap of {self.gap} Å along "
                    f"vector {self.axis}, so it is one layer. Reduce sampler.layers.gap."
                )
                raise ConfigError(msg, key="sampler.layers.gap")

    def draw(self, structure: Atoms, rng: np.random.Generator) -> Atoms:
        """Return a copy with shifted layers."""
        atoms = structure.copy()
        layer = self._layer_of(atoms)
        n = int(layer.max()) + 1
        cell = np.asarray(atoms.cell.array)
        parts = rng.random((n, 3))
        parts[:, self.axis] = 0
        rises = rng.normal(scale=self.spacing_stdev, size=n) if self.spacing_stdev else 0
        shifts = parts @ cell + np.cumsum(rises * np.ones(n))[:, None] * self._normal(atoms)
        shifts -= shifts[0]
        atoms.positions += shifts[layer]
        return atoms

    def _normal(self, atoms: Atoms) -> np.ndarray:
        """Return the unit vector across the layers."""
        a, b = (np.asarray(atoms.cell.array)[k] for k in range(3) if k != self.axis)
        normal = np.cross(a, b)
        return normal / np.linalg.norm(normal)

    def _layer_of(self, atoms: Atoms) -> np.ndarray:
        """Return the layer of each atom, numbered upwards, ``(A,)``.

        Along a periodic vector the lowest layer is the one above the largest gap.
        """
        normal = self._normal(atoms)
        heights = atoms.positions @ normal
        if atoms.pbc[self.axis]:
            period = abs(float(np.asarray(atoms.cell.array)[self.axis] @ normal))
            heights = np.mod(heights, period)
            order = np.argsort(heights)
            below = np.diff(heights[order], prepend=heights[order[-1]] - period)
            heights = np.mod(heights - heights[order[np.argmax(below)]], period)
        order = np.argsort(heights)
        layer = np.empty(len(atoms), dtype=np.int64)
        steps = np.diff(heights[order], prepend=heights[order[0]]) > self.gap
        layer[order] = np.cumsum(steps)
        return layer


class Supercell:
    """Repeat the cell, each structure by one of several choices.

    Parameters
    ----------
    repeats
        Choices, each three integers: ``[[1, 1, 1], [2, 1, 1]]``.

    Raises
    ------
    ConfigError
        A choice is not three positive integers.
    """

    def __init__(self, repeats: Sequence[Sequence[int]]) -> None:
        self.repeats = [tuple(choice) for choice in repeats]
        for choice in self.repeats or [()]:
            if len(choice) != 3 or not all(isinstance(n, int) and n > 0 for n in choice):
                msg = (
                    f"sampler.supercell.repeats = {list(map(list, self.repeats))}: expected "
                    f"choices of three positive integers, [[1,1,1],[2,1,1]]."
                )
                raise ConfigError(msg, key="sampler.supercell.repeats")

    def check(self, structures: Sequence[Atoms]) -> None:
        """Check that the structures are periodic where they are repeated."""
        for atoms in structures:
            for choice in self.repeats:
                if any(n > 1 and not along for n, along in zip(choice, atoms.pbc, strict=True)):
                    msg = (
                        f"sampler.supercell.repeats: {list(choice)} repeats structure "
                        f"'{atoms.info.get('name')}' where it is not periodic."
                    )
                    raise ConfigError(msg, key="sampler.supercell.repeats")

    def draw(self, structure: Atoms, rng: np.random.Generator) -> Atoms:
        """Return a repeated copy."""
        return structure.repeat(self.repeats[int(rng.integers(len(self.repeats)))])


class Substitute:
    """Replace atoms by other elements.

    Parameters
    ----------
    elements
        For each element that is replaced, what may stand there: ``{Si: [Ge, C]}``.
    probability
        Of each atom of these elements to be replaced.

    Raises
    ------
    ConfigError
        There is no such element, or the probability is not above 0 and at most 1.
    """

    def __init__(self, elements: Mapping[str, Sequence[str]], probability: float) -> None:
        self.elements = {old: list(new) for old, new in elements.items()}
        foreign = {*self.elements, *chain(*self.elements.values())} - set(atomic_numbers)
        if foreign or not all(self.elements.values()) or not self.elements:
            msg = (
                f"sampler.substitute.elements = {self.elements}: expected elements with what "
                f"may stand for them, as {{Si: [Ge, C]}}."
            )
            raise ConfigError(msg, key="sampler.substitute.elements")
        if not 0 < probability <= 1:
            msg = f"sampler.substitute.probability = {probability}: expected up to 1, not 0."
            raise ConfigError(msg, key="sampler.substitute.probability")
        self.probability = probability

    def check(self, structures: Sequence[Atoms]) -> None:
        """Check that the structures have elements to replace."""
        for atoms in structures:
            if not set(self.elements) & set(atoms.get_chemical_symbols()):
                msg = (
                    f"sampler.substitute.elements replaces {', '.join(self.elements)}, which "
                    f"structure '{atoms.info.get('name')}' ({atoms.symbols}) has not."
                )
                raise ConfigError(msg, key="sampler.substitute.elements")

    def draw(self, structure: Atoms, rng: np.random.Generator) -> Atoms:
        """Return a copy with other elements."""
        atoms = structure.copy()
        symbols = atoms.get_chemical_symbols()
        for n, symbol in enumerate(symbols):
            choices = self.elements.get(symbol)
            if choices and rng.random() < self.probability:
                symbols[n] = choices[int(rng.integers(len(choices)))]
        atoms.symbols = symbols
        return atoms
