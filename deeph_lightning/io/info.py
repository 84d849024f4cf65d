"""The facts beside a structure, as ``info.json`` of DeepH 1.x states them.

``elements_orbital_map`` may hold labels other than elements (two species of one element with
different orbitals); the key ``species`` then gives the label of every atom.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import atomic_numbers

from deeph_lightning.core.basis import OrbitalBasis, species_labels
from deeph_lightning.errors import DataError, FormatError
from deeph_lightning.io.files import in_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ase import Atoms

    from deeph_lightning.io.system import SystemData

#: Keys that have a place of their own in `SystemData`; others are kept in its ``info``.
OWN_KEYS = frozenset(
    ("atoms_quantity", "orbits_quantity", "spinful", "fermi_energy_eV", "occupation",
     "elements_orbital_map", "species")
)  # fmt: skip


@dataclass(frozen=True)
class Info:
    """Content of ``info.json``; see `SystemData` for the fields.

    Attributes
    ----------
    n_atom, n_orb
        Numbers of atoms and of orbitals (without spin) that the file states, or None.
    species
        Label of every atom, or None where labels are the elements.
    """

    basis: OrbitalBasis
    is_spinful: bool
    fermi_energy: float | None
    n_electrons: float | None
    n_atom: int | None
    n_orb: int | None
    species: list[str] | None
    extra: dict[str, Any]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], path: Path, structure: str) -> Info:
        """Check and take over the content of a file.

        Raises
        ------
        FormatError
            A key is missing, or its value is of another kind.
        """
        reader = _Reader(data, path, structure)
        species = data.get("species")
        if species is not None:
            is_list = isinstance(species, list) and all(isinstance(s, str) for s in species)
            if not is_list:
                raise reader.wrong("species", "the label of every atom")
        return cls(
            basis=reader.basis(has_labels=species is not None),
            is_spinful=reader.boolean("spinful"),
            fermi_energy=reader.number("fermi_energy_eV"),
            n_electrons=reader.number("occupation"),
            n_atom=reader.count("atoms_quantity"),
            n_orb=reader.count("orbits_quantity"),
            species=species,
            extra={key: value for key, value in data.items() if key not in OWN_KEYS},
        )

    def label(self, atoms: Atoms, path: Path, structure: str) -> None:
        """Give atoms their labels and compare their number with what the file states.

        Raises
        ------
        DataError
            Structure and file do not belong together.
        """
        for key, number in (
            ("atoms_quantity", self.n_atom),
            ("species", None if self.species is None else len(self.species)),
        ):
            if number is not None and number != len(atoms):
                msg = (
                    f"{path}: structure '{structure}', key '{key}' says {number} atoms, the "
                    f"structure has {len(atoms)}. Files of two calculations are mixed here."
                )
                raise DataError(msg, path=path, structure=structure)
        if self.species is not None:
            atoms.arrays["species"] = np.array(self.species)

    def check_orbitals(self, atoms: Atoms, path: Path, structure: str) -> None:
        """Compare the number of orbitals with what the file states.

        Raises
        ------
        DataError
            They differ.
        """
        found = int(self.basis.orbital_counts(species_labels(atoms)).sum())
        if self.n_orb is not None and self.n_orb != found:
            msg = (
                f"{path}: structure '{structure}', key 'orbits_quantity' is {self.n_orb}, but "
                f"elements_orbital_map gives {found} orbitals. Correct one of them."
            )
            raise DataError(msg, path=path, structure=structure)


def info_of(system: SystemData) -> dict[str, Any]:
    """Return the content of ``info.json`` of a structure."""
    labels = species_labels(system.atoms)
    n_electrons = system.n_electrons
    if n_electrons is not None and float(n_electrons).is_integer():
        n_electrons = int(n_electrons)
    extra = {key: value for key, value in system.info.items() if key not in OWN_KEYS}
    data: dict[str, Any] = {
        "atoms_quantity": len(system.atoms),
        "orbits_quantity": int(system.basis.orbital_counts(labels).sum()),
        "orthogonal_basis": bool(extra.pop("orthogonal_basis", False)),
        "spinful": system.is_spinful,
        "fermi_energy_eV": system.fermi_energy,
        "elements_orbital_map": system.basis.to_dict(),
    }
    if n_electrons is not None:
        data["occupation"] = n_electrons
    if labels.tolist() != system.atoms.get_chemical_symbols():
        data["species"] = labels.tolist()
    return data | extra


@dataclass(frozen=True)
class _Reader:
    """Takes values out of a dictionary, with errors that say where."""

    data: Mapping[str, Any]
    path: Path
    structure: str

    def wrong(self, key: str, expected: str) -> FormatError:
        """Return the error of a value of another kind."""
        found = repr(self.data[key]) if key in self.data else "no such key"
        found = found if len(found) < 80 else found[:77] + "..."
        msg = (
            f"{self.path}: structure '{self.structure}', key '{key}': found {found}, expected "
            f"{expected}. Correct the file."
        )
        return FormatError(msg, path=self.path, structure=self.structure)

    def boolean(self, key: str) -> bool:
        """Return true or false."""
        if not isinstance(self.data.get(key), bool):
            raise self.wrong(key, "true or false")
        return bool(self.data[key])

    def number(self, key: str) -> float | None:
        """Return a finite number, or None."""
        value = self.data.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(key, "a number or null")
        if not math.isfinite(value):
            raise self.wrong(key, "a finite number or null")
        return float(value)

    def count(self, key: str) -> int | None:
        """Return a natural number, or None."""
        value = self.number(key)
        if value is None:
            return None
        if value < 0 or not value.is_integer():
            raise self.wrong(key, "a number of things")
        return int(value)

    def basis(self, *, has_labels: bool) -> OrbitalBasis:
        """Return the orbital map; without labels its species must be elements."""
        key = "elements_orbital_map"
        shells = self.data.get(key)
        is_map = isinstance(shells, dict) and bool(shells)
        if not is_map or not all(
            isinstance(ls, list) and ls and all(type(l) is int and l >= 0 for l in ls)
            for ls in shells.values()  # type: ignore[union-attr]
        ):
            raise self.wrong(key, 'shells of every species, as {"C": [0, 0, 1]}')
        assert isinstance(shells, dict)
        foreign = [label for label in shells if label not in atomic_numbers]
        if foreign and not has_labels:
            msg = (
                f"{self.path}: structure '{self.structure}', key '{key}' has the species "
                f"{', '.join(foreign)}, which is no element. Use symbols of elements, or give "
                f"the label of every atom in the key 'species'."
            )
            raise FormatError(msg, path=self.path, structure=self.structure)
        with in_file(self.path, self.structure):
            return OrbitalBasis.from_dict(shells)
