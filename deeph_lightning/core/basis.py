"""Atomic-orbital bases: the shells of every species.

A species label is an element's symbol or, where two species of one element carry different
orbitals, any other name in ``atoms.arrays["species"]``. Bases are spinless; spin belongs to the
operator.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np

from deeph_lightning.core.conventions import SHELL_LETTERS, shell_permutation
from deeph_lightning.errors import BasisMismatchError, DataError

if TYPE_CHECKING:
    from ase import Atoms
    from numpy.typing import NDArray


#: Degrees beyond this are a mistake.
MAX_DEGREE = 20


def species_labels(atoms: Atoms) -> NDArray[np.str_]:
    """Return the species label of every atom, ``(A,)``: "species" array or symbol."""
    if "species" in atoms.arrays:
        return np.asarray(atoms.arrays["species"], dtype=np.str_)
    return np.asarray(atoms.get_chemical_symbols(), dtype=np.str_)


def structure_name(atoms: Atoms) -> str:
    """Return the name used in messages: ``atoms.info["name"]`` or the formula."""
    return str(atoms.info.get("name", atoms.get_chemical_formula()))


@dataclass(frozen=True, eq=False)
class OrbitalBasis:
    """Shells of every species.

    Parameters
    ----------
    shells
        ``{label: (l, l, ...)}``: degree of each shell, in the order of the orbitals.

    Raises
    ------
    DataError
        A species has no shell, or a degree is not an integer from 0 to `MAX_DEGREE`.
    """

    shells: Mapping[str, tuple[int, ...]]

    def __post_init__(self) -> None:
        clean: dict[str, tuple[int, ...]] = {}
        for label, degrees in self.shells.items():
            values = list(degrees) if isinstance(degrees, Iterable) else []
            if not values or any(
                not isinstance(l, Integral) or not 0 <= l <= MAX_DEGREE for l in values
            ):
                msg = (
                    f"orbital map, species '{label}': shells are {degrees}, expected the "
                    f"degree 0 <= l <= {MAX_DEGREE} of at least one shell. Fix the map, for "
                    f"example [0, 0, 1]."
                )
                raise DataError(msg)
            clean[str(label)] = tuple(int(l) for l in values)
        object.__setattr__(self, "shells", clean)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OrbitalBasis) and self.shells == other.shells

    def __hash__(self) -> int:
        return hash(tuple(sorted(self.shells.items())))

    @property
    def labels(self) -> tuple[str, ...]:
        """Species labels, sorted."""
        return tuple(sorted(self.shells))

    def _shells_of(self, label: str) -> tuple[int, ...]:
        if label not in self.shells:
            msg = (
                f"species '{label}' is not in the orbital basis, which has "
                f"{', '.join(self.labels)}. Use structures of these species only, or a basis "
                f"that has it."
            )
            raise BasisMismatchError(msg)
        return self.shells[label]

    def n_orb(self, label: str) -> int:
        """Return the number of orbitals of a species, without spin."""
        return sum(2 * l + 1 for l in self._shells_of(label))

    def shell_slices(self, label: str) -> tuple[slice, ...]:
        """Return where each shell lies among the orbitals of its atom."""
        ends = np.cumsum([2 * l + 1 for l in self._shells_of(label)]).tolist()
        return tuple(slice(a, b) for a, b in zip([0, *ends[:-1]], ends, strict=True))

    def orbital_l(self, label: str) -> NDArray[np.int64]:
        """Return the degree l of each orbital, ``(n_orb,)``."""
        shells = np.array(self._shells_of(label), dtype=np.int64)
        return np.repeat(shells, 2 * shells + 1)

    def orbital_m(self, label: str) -> NDArray[np.int64]:
        """Return the order m of each orbital, ``(n_orb,)``."""
        parts = [np.arange(-l, l + 1, dtype=np.int64) for l in self._shells_of(label)]
        return np.concatenate(parts)

    def orbital_counts(self, labels: Sequence[str] | NDArray[np.str_]) -> NDArray[np.int64]:
        """Return the number of orbitals of every atom, ``(A,)``, without spin.

        Parameters
        ----------
        labels
            ``(A,)``, species label of each atom.

        Raises
        ------
        BasisMismatchError
            The basis lacks a species.
        """
        names, inverse = np.unique(np.asarray(labels, dtype=np.str_), return_inverse=True)
        counts = np.array([self.n_orb(str(name)) for name in names], dtype=np.int64)
        return counts[inverse] if len(names) else np.zeros(0, dtype=np.int64)

    def permutation(
        self, label: str, order_name: str
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return ``take, sign`` of a whole atom: ``common = sign * code[take]``.

        Parameters
        ----------
        label
            Species.
        order_name
            A key of `conventions.ORBITAL_ORDERS`.
        """
        takes, signs = [], []
        for l, where in zip(self._shells_of(label), self.shell_slices(label), strict=True):
            take, sign = shell_permutation(order_name, l)
            takes.append(take + where.start)
            signs.append(sign)
        return np.concatenate(takes), np.concatenate(signs)

    def union(self, other: OrbitalBasis) -> OrbitalBasis:
        """Return the basis of both.

        Raises
        ------
        BasisMismatchError
            A species has other shells there.
        """
        for label in set(self.shells) & set(other.shells):
            if self.shells[label] != other.shells[label]:
                msg = (
                    f"species '{label}' has shells {shell_text(self.shells[label])} in one set "
                    f"and {shell_text(other.shells[label])} in another. Give the two species "
                    f"different labels, or use data of one basis."
                )
                raise BasisMismatchError(msg)
        return OrbitalBasis({**self.shells, **other.shells})

    def common_shells(self) -> tuple[int, ...]:
        """Return the smallest list of shells that holds those of every species, by l."""
        l_max = max(max(shells) for shells in self.shells.values())
        return tuple(
            l
            for l in range(l_max + 1)
            for _ in range(max(shells.count(l) for shells in self.shells.values()))
        )

    def embedding(self, label: str, shells: Sequence[int] | None = None) -> NDArray[np.int64]:
        """Return where the orbitals of a species lie in a common, padded list of shells.

        The n-th shell of degree l goes to the n-th of that degree.

        Parameters
        ----------
        label
            Species.
        shells
            The common list; without it `common_shells`.

        Returns
        -------
        ``(n_orb,)`` positions in ``0 .. sum(2l+1) - 1``.

        Raises
        ------
        BasisMismatchError
            The common list has too few shells of some degree.
        """
        common = self.common_shells() if shells is None else tuple(shells)
        starts = np.cumsum([0, *(2 * l + 1 for l in common)])
        free = {l: [n for n, m in enumerate(common) if m == l] for l in set(common)}
        positions = []
        for l in self._shells_of(label):
            if not free.get(l):
                msg = (
                    f"species '{label}' has shells {shell_text(self.shells[label])}, which do "
                    f"not fit into {shell_text(common)}. Use a larger common list."
                )
                raise BasisMismatchError(msg)
            positions.append(starts[free[l].pop(0)] + np.arange(2 * l + 1))
        return np.concatenate(positions).astype(np.int64)

    def orbital_mask(
        self, label: str, shells: Sequence[int] | None = None
    ) -> NDArray[np.bool_]:
        """Return which orbitals of the common, padded list a species has (see `embedding`)."""
        common = self.common_shells() if shells is None else tuple(shells)
        mask = np.zeros(sum(2 * l + 1 for l in common), dtype=np.bool_)
        mask[self.embedding(label, common)] = True
        return mask

    def fingerprint(self) -> str:
        """Return a short hash of labels and shells, the same in every process."""
        text = json.dumps(sorted((k, list(v)) for k, v in self.shells.items()))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, list[int]]:
        """Return plain ``{label: [l, l, ...]}``."""
        return {label: list(shells) for label, shells in self.shells.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Sequence[int]]) -> OrbitalBasis:
        """Build from ``{label: [l, l, ...]}``."""
        return cls({label: tuple(shells) for label, shells in data.items()})


def shell_text(shells: Sequence[int]) -> str:
    """Write shells as letters and counts: (0, 0, 1, 1, 2) is "2s2p1d"."""
    letters = dict(enumerate(SHELL_LETTERS))
    return "".join(
        f"{list(shells).count(l)}{letters.get(l, f'(l={l})')}" for l in sorted(set(shells))
    )
