"""Records: a system as the graph store keeps it, in arrays; no torch.

A record holds every pair that H or S has: one of each Hermitian couple, oriented and sorted as
`graph` says, with species numbered by the sorted labels of the structure. That order is the
same under the labels of any larger basis.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from deeph_lightning.core.basis import species_labels
from deeph_lightning.core.pairs import PairTable, neighbour_pairs
from deeph_lightning.core.ragged import reorder
from deeph_lightning.errors import DataError

if TYPE_CHECKING:
    from deeph_lightning.core.operator import Operator
    from deeph_lightning.io.system import SystemData

IntArray = NDArray[np.int64]
MEV_PER_EV = 1e3


#: By how much the range of H exceeds the longest pair of a molecule, Å: networks take H to zero
#: within the last 0.6 Å of its range, and bonds of other structures may be longer.
MOLECULE_MARGIN = 2.0


@dataclass(eq=False)
class PairSummary:
    """What one structure adds to the report of a set.

    Attributes
    ----------
    n_pair
        Target pairs, one of each couple.
    n_H_only, H_only_max_meV
        Pairs of H without an overlap, and the largest element of H there.
    n_S_only
        Pairs of S without H.
    n_dropped, dropped_max_meV
        Pairs beyond the cap, and the largest element of H there.
    r_target
        ``{"A-B": Å}``, range of H: the longest target pair of every type; of molecules, whose
        H has all pairs and ends nowhere, `MOLECULE_MARGIN` more.
    """

    n_pair: int = 0
    n_H_only: int = 0
    H_only_max_meV: float = 0.0
    n_S_only: int = 0
    n_dropped: int = 0
    dropped_max_meV: float = 0.0
    r_target: dict[str, float] = field(default_factory=dict)


@dataclass(eq=False)
class GraphRecord:
    """One structure with its labels; shapes and order as in `graph.Graph`.

    Attributes
    ----------
    shells
        ``{label: (l, l, ...)}`` of the species that occur.
    species
        ``(A,)``, position among the sorted labels of `shells`.
    number
        ``(A,)``, atomic numbers.
    position, cell, pbc
        ``(A, 3)`` Å, ``(3, 3)`` Å, ``(3,)`` bool.
    r_complete
        All pairs closer than this are targets, Å: message edges up to there need no search.
    has_H, has_S
        ``(n_target,)`` bool, which operators hold the pair.
    H_hopping, H_onsite
        Flat, eV; complex128 and four times as long if spinful.
    S_hopping, S_onsite
        Flat, without spin; None without overlaps.
    fermi_energy
        eV, None if unknown.
    n_electrons
        None if unknown.
    """

    name: str
    shells: dict[str, tuple[int, ...]]
    species: IntArray
    number: IntArray
    position: NDArray[np.float64]
    cell: NDArray[np.float64]
    pbc: NDArray[np.bool_]
    pair_i: IntArray
    pair_j: IntArray
    pair_R: IntArray
    r_complete: float
    has_H: NDArray[np.bool_]
    has_S: NDArray[np.bool_]
    H_hopping: NDArray[Any]
    H_onsite: NDArray[Any]
    S_hopping: NDArray[np.float64] | None
    S_onsite: NDArray[np.float64] | None
    is_spinful: bool
    fermi_energy: float | None
    n_electrons: float | None

    @property
    def labels(self) -> list[str]:
        """Sorted labels of the species that occur."""
        return sorted(self.shells)

    def atoms(self) -> Atoms:
        """Return the structure, with its name and species labels."""
        atoms = Atoms(self.number, positions=self.position, cell=self.cell, pbc=self.pbc)
        labels = np.array(self.labels)[self.species]
        if np.any(labels != np.array(atoms.get_chemical_symbols())):
            atoms.set_array("species", labels)
        atoms.info["name"] = self.name
        return atoms

    def digest(self) -> str:
        """Return a hash of structure and labels, the same wherever the data lie."""
        state = hashlib.blake2b(digest_size=12)
        state.update(repr((sorted(self.shells.items()), self.is_spinful)).encode())
        arrays = (self.species, self.number, self.position, self.cell)
        pairs = (self.pair_i, self.pair_j, self.pair_R, self.has_H)
        labels = (self.H_hopping, self.H_onsite, self.S_hopping, self.S_onsite)
        for array in (*arrays, *pairs, *labels):
            state.update(b"-" if array is None else np.ascontiguousarray(array).data)
        return state.hexdigest()


def record_from_system(
    system: SystemData, *, r_target_max: float | None = None
) -> tuple[GraphRecord, PairSummary]:
    """Bring a system into the order of graphs.

    Parameters
    ----------
    system
        Structure with H in eV and, if there, S; halves or both pairs of each couple.
    r_target_max
        Longest pair to keep, Å; None keeps all.

    Raises
    ------
    DataError
        There is no H, or an atom has no onsite block.
    """
    if system.H is None:
        msg = (
            f"structure '{system.name}' has no Hamiltonian, so it cannot be learnt from. Leave "
            f"it out, or add its hamiltonian.h5."
        )
        raise DataError(msg, structure=system.name)
    atoms, H = system.atoms, system.H.complete()
    S = None if system.S is None else system.S.complete()
    labels, species = np.unique(species_labels(atoms), return_inverse=True)
    pairs = half_pairs(H.pairs, species)
    if S is not None:
        pairs = pairs.union(half_pairs(S.pairs, species))
    distance = pairs.distances(atoms)
    summary = PairSummary()
    if r_target_max is not None:
        is_far = distance > r_target_max
        dropped = pairs.select(is_far)
        summary.n_dropped, summary.dropped_max_meV = len(dropped), _largest_meV(H, dropped)
        pairs, distance = pairs.select(~is_far), distance[~is_far]
    code = species[pairs.i] * len(labels) + species[pairs.j]
    order = np.argsort(code, kind="stable")
    has_H, H_hopping = _hopping(H, pairs, order)
    has_S, S_hopping = np.zeros_like(has_H), None
    if S is not None:
        has_S, S_hopping = _hopping(S, pairs, order)
        extra = pairs.select(np.sort(order[has_H & ~has_S]))
        summary.n_H_only, summary.H_only_max_meV = len(extra), _largest_meV(H, extra)
        summary.n_S_only = int((has_S & ~has_H).sum())
    summary.n_pair = len(pairs)
    is_molecule = not pairs.R.any() and 2 * len(pairs) == len(atoms) * (len(atoms) - 1)
    margin = MOLECULE_MARGIN if is_molecule else 0.0
    for value in np.unique(code).tolist():
        key = f"{labels[value // len(labels)]}-{labels[value % len(labels)]}"
        summary.r_target[key] = float(distance[code == value].max()) + margin
    kind = np.complex128 if system.is_spinful else np.float64
    record = GraphRecord(
        name=system.name,
        shells={str(label): system.basis.shells[str(label)] for label in labels},
        species=species.astype(np.int64),
        number=atoms.get_atomic_numbers().astype(np.int64),
        position=atoms.get_positions(),
        cell=np.array(atoms.cell.array, dtype=np.float64),
        pbc=np.array(atoms.pbc, dtype=np.bool_),
        pair_i=pairs.i[order],
        pair_j=pairs.j[order],
        pair_R=pairs.R[order],
        r_complete=_r_complete(atoms, pairs, species),
        has_H=has_H,
        has_S=has_S,
        H_hopping=H_hopping.astype(kind, copy=False),
        H_onsite=_onsite(H, system.name).astype(kind, copy=False),
        S_hopping=S_hopping,
        S_onsite=None if S is None else S.on_pairs(_onsite_pairs(len(atoms))).values,
        is_spinful=system.is_spinful,
        fermi_energy=system.fermi_energy,
        n_electrons=system.n_electrons,
    )
    return record, summary


def half_pairs(pairs: PairTable, species: IntArray) -> PairTable:
    """Keep of a table with both pairs of every couple those that graphs have.

    Parameters
    ----------
    pairs
        Pairs; onsite ones are left out.
    species
        ``(A,)``, species of each atom in the order of sorted labels.
    """
    first, second = species[pairs.i], species[pairs.j]
    is_kept = (first < second) | ((first == second) & pairs.is_canonical)
    return pairs.select(is_kept & ~pairs.is_onsite)


def _r_complete(atoms: Atoms, pairs: PairTable, species: IntArray) -> float:
    """Return the length of the shortest pair that is no target, at most that of the longest."""
    longest = float(pairs.distances(atoms).max(initial=0.0))
    if not longest:
        return 0.0
    near = half_pairs(neighbour_pairs(atoms, longest), species)
    missing = near.select(pairs.locate(near) < 0)
    return float(missing.distances(atoms).min(initial=longest))


def _largest_meV(H: Operator, pairs: PairTable) -> float:
    return MEV_PER_EV * float(np.abs(H.on_pairs(pairs).values).max(initial=0.0))


def _hopping(
    op: Operator, pairs: PairTable, order: IntArray
) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    """Return which pairs the operator has and all their blocks, flat, in the given order."""
    has = op.pairs.locate(pairs) >= 0
    found = op.on_pairs(pairs)
    return has[order], reorder(found.values, found.offsets, order)


def _onsite(op: Operator, name: str) -> NDArray[Any]:
    pairs = _onsite_pairs(len(op.atoms))
    missing = np.flatnonzero(op.pairs.locate(pairs) < 0)
    if len(missing):
        msg = (
            f"structure '{name}': H has no onsite block of atom {missing[0]} "
            f"({len(missing)} atoms lack one). The file is incomplete; write it again."
        )
        raise DataError(msg, structure=name)
    return op.on_pairs(pairs).values


def _onsite_pairs(n_atom: int) -> PairTable:
    atom = np.arange(n_atom)
    return PairTable(np.zeros((n_atom, 3)), atom, atom)
