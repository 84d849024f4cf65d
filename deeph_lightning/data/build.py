"""Graphs from records and from bare structures, and operators from what a model returns."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray
from torch import Tensor

from deeph_lightning.core.basis import OrbitalBasis, species_labels, structure_name
from deeph_lightning.core.checks import check_structure
from deeph_lightning.core.operator import Operator
from deeph_lightning.core.pairs import PairTable, neighbour_pairs
from deeph_lightning.data.graph import Graph
from deeph_lightning.data.records import GraphRecord, half_pairs
from deeph_lightning.errors import BasisMismatchError, DataError, ShapeError
from deeph_lightning.io.system import UNITS

IntArray = NDArray[np.int64]
#: i, j, R of pairs.
Pairs = tuple[IntArray, IntArray, IntArray]
Blocks = Mapping[str, Tensor | NDArray[np.floating]]


def graph_from_record(
    record: GraphRecord,
    basis: OrbitalBasis,
    r_message: float,
    *,
    dtype: torch.dtype = torch.float32,
) -> Graph:
    """Return the graph of a stored structure, with its labels.

    Parameters
    ----------
    record
        Structure with labels.
    basis
        Basis by whose sorted labels species are numbered; it may have more species.
    r_message
        Cut-off of message edges, Å.
    dtype
        Of real labels; positions and vectors are float64 always.

    Raises
    ------
    BasisMismatchError
        The basis lacks a species of the structure.
    """
    atoms = record.atoms()
    species = _number_species(np.array(record.labels)[record.species], basis, record.name)
    target = (record.pair_i, record.pair_j, record.pair_R)
    extra = None
    if r_message > record.r_complete:
        extra = _message_only(atoms, species, target, r_message)
    graph = _make_graph(atoms, species, basis, record.name, target, extra, r_message)
    for key in ("H_hopping", "H_onsite", "S_hopping", "S_onsite"):
        values = getattr(record, key)
        if values is not None:
            tensor = torch.from_numpy(values)
            setattr(graph, key, tensor if tensor.is_complex() else tensor.to(dtype))
    graph.H_hopping_mask = torch.from_numpy(record.has_H)
    return graph


def graph_from_structure(
    atoms: Atoms, basis: OrbitalBasis, r_message: float, r_target: Mapping[str, float]
) -> Graph:
    """Return the graph of a bare structure, without labels.

    Parameters
    ----------
    atoms
        Structure; periodic along the directions of ``atoms.pbc``.
    basis
        Basis of the model.
    r_message
        Cut-off of message edges, Å.
    r_target
        ``{"A-B": Å}``, range of H for every pair of species, labels sorted.

    Raises
    ------
    BasisMismatchError
        The structure holds a species that the basis lacks.
    PhysicsError
        Two atoms are closer than 0.3 Å.
    DataError
        Two species are neighbours for which there is no range.
    """
    name = structure_name(atoms)
    labels = species_labels(atoms)
    species = _number_species(labels, basis, name)
    check_structure(atoms, name)
    present = sorted(set(labels.tolist()))
    couples = [(a, b) for n, a in enumerate(present) for b in present[n:]]
    ranges = {(a, b): r_target.get(f"{a}-{b}", r_message) for a, b in couples}
    pairs = half_pairs(neighbour_pairs(atoms, ranges), species)
    code = species[pairs.i] * len(basis.labels) + species[pairs.j]
    for a, b in couples:
        is_near = code == basis.labels.index(a) * len(basis.labels) + basis.labels.index(b)
        if f"{a}-{b}" not in r_target and is_near.any():
            distance = pairs.distances(atoms)[is_near].min()
            msg = (
                f"structure '{name}': {a} and {b} are {distance:.2f} Å apart, but the model "
                f"has seen no such pair: it has ranges for {', '.join(sorted(r_target))} only. "
                f"Train with structures that hold {a}-{b}."
            )
            raise DataError(msg, structure=name)
    order = np.argsort(code, kind="stable")
    target = (pairs.i[order], pairs.j[order], pairs.R[order])
    extra = _message_only(atoms, species, target, r_message)
    return _make_graph(atoms, species, basis, name, target, extra, r_message)


def operator_from_blocks(
    graph: Graph,
    blocks: Blocks,
    basis: OrbitalBasis,
    atoms: Atoms | None = None,
    *,
    name: str = "H",
    is_half: bool = False,
) -> Operator:
    """Return H, or S, as an operator.

    Parameters
    ----------
    graph
        Graph of one structure.
    blocks
        ``{"H_onsite": flat, "H_hopping": flat}``, eV, in the layout of the graph's labels.
    basis
        Basis of the graph.
    atoms
        The structure; without it, it is made from the graph, elements from the labels.
    name
        "H" or "S": which blocks to take, "S_onsite" and "S_hopping" without unit.
    is_half
        Keep one pair of every Hermitian couple; else both are there.

    Raises
    ------
    ShapeError
        The graph is a batch, or the blocks are not as long as it needs.
    DataError
        `atoms` is not given and a label does not begin with an element's symbol.
    """
    if graph.n_graph != 1:
        raise ShapeError(
            f"the graph holds {graph.n_graph} structures, an operator has one. Predict them "
            f"one by one."
        )
    onsite, hopping = (_array(blocks[f"{name}_{part}"]) for part in ("onsite", "hopping"))
    n, n_atom = graph.n_target, graph.n_atom
    atom = np.arange(n_atom)
    half = Operator.from_flat(
        _atoms_of(graph, basis) if atoms is None else atoms,
        basis,
        np.concatenate((np.zeros((n_atom, 3), dtype=np.int64), _array(graph.pair_R[:n]))),
        np.concatenate((atom, _array(graph.pair_i[:n]))),
        np.concatenate((atom, _array(graph.pair_j[:n]))),
        np.concatenate((onsite, hopping)),
        unit=UNITS[name],
        is_half=True,
    )
    return half if is_half else half.complete()


def _make_graph(
    atoms: Atoms,
    species: IntArray,
    basis: OrbitalBasis,
    name: str,
    target: Pairs,
    extra: Pairs | None,
    r_message: float,
) -> Graph:
    """Make a graph of sorted target pairs and, if any, message-only pairs."""
    position, cell = atoms.get_positions(), np.array(atoms.cell.array, dtype=np.float64)
    i, j, R = target
    n_target, n_species = len(i), len(basis.labels)
    if extra is not None:
        i, j, R = (np.concatenate(parts) for parts in zip(target, extra, strict=True))
    vector = position[j] + R @ cell - position[i]
    a, b = species[i], species[j]
    kind = a * n_species - a * (a - 1) // 2 + b - a
    kind[n_target:] = -1
    n_type = n_species * (n_species + 1) // 2
    starts = np.searchsorted(kind[:n_target], np.arange(n_type + 1))
    edges = np.flatnonzero(np.linalg.norm(vector, axis=1) < r_message)
    return Graph(
        species=torch.from_numpy(species),
        position=torch.from_numpy(position),
        cell=torch.from_numpy(cell)[None],
        batch=torch.zeros(len(species), dtype=torch.int64),
        n_graph=1,
        pair_i=torch.from_numpy(i),
        pair_j=torch.from_numpy(j),
        pair_R=torch.from_numpy(R),
        pair_vector=torch.from_numpy(vector),
        pair_type=torch.from_numpy(kind),
        type_ptr=starts.tolist(),
        n_target=n_target,
        edge_pair=torch.from_numpy(edges),
        n_orb=[basis.n_orb(label) for label in basis.labels],
        name=[name],
    )


def _message_only(atoms: Atoms, species: IntArray, target: Pairs, r_message: float) -> Pairs:
    """Return the pairs within the message range that are no targets."""
    short = half_pairs(neighbour_pairs(atoms, r_message), species)
    table, _ = PairTable.from_arrays(target[2], target[0], target[1])
    extra = short.select(table.locate(short) < 0)
    return extra.i, extra.j, extra.R


def _number_species(labels: NDArray[np.str_], basis: OrbitalBasis, name: str) -> IntArray:
    """Return the position of every atom's label among the sorted labels of the basis."""
    missing = sorted(set(labels.tolist()) - set(basis.labels))
    if missing:
        msg = (
            f"structure '{name}' holds {', '.join(missing)}, but the model knows "
            f"{', '.join(basis.labels)} only. Use structures of these species, or train with "
            f"data that hold {', '.join(missing)}."
        )
        raise BasisMismatchError(msg, structure=name)
    return np.searchsorted(np.array(basis.labels), labels).astype(np.int64)


def _array(values: Tensor | NDArray[np.floating]) -> NDArray[np.generic]:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _atoms_of(graph: Graph, basis: OrbitalBasis) -> Atoms:
    labels = np.array(basis.labels)[_array(graph.species)]
    symbols = [element_of(label) for label in labels.tolist()]
    atoms = Atoms(
        symbols,
        positions=_array(graph.position),
        cell=_array(graph.cell[0]),
        pbc=True,
    )
    if symbols != labels.tolist():
        atoms.set_array("species", labels)
    atoms.info["name"] = graph.name[0]
    return atoms


def element_of(label: str) -> str:
    """Return the element with which a species label begins.

    Raises
    ------
    DataError
        It begins with none.
    """
    match = re.match(r"[A-Z][a-z]?", label)
    start = match.group() if match else ""
    for symbol in (start, start[:1]):
        if symbol in atomic_numbers:
            return symbol
    raise DataError(
        f"species '{label}' does not begin with the symbol of an element. Pass the structure "
        f"itself (atoms=...)."
    )
