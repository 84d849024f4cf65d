"""Spatial parts of a structure: atoms of their own, and a halo as far as a network sees."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from ase import Atoms
    from numpy.typing import NDArray

    from deeph_lightning.data.graph import Graph


class Part(NamedTuple):
    """A part of a structure.

    Attributes
    ----------
    graph
        Graph of the part's own atoms and their halo. Its target pairs are those of the whole
        whose first atom is one of its own, in the same order.
    atoms
        ``(n,)``, number of each atom in the whole structure.
    is_own
        ``(n,)`` bool, atoms that are not of the halo.
    """

    graph: Graph
    atoms: Tensor
    is_own: Tensor


def divide_atoms(atoms: Atoms, n_part: int) -> NDArray[np.int64]:
    """Share atoms among parts of about equal size, by halving along the longest extent.

    Returns
    -------
    ``(A,)``, part of each atom, from 0.
    """
    cell = atoms.cell.complete()
    place = cell.scaled_positions(atoms.get_positions())
    place = np.where(atoms.pbc, place % 1.0, place) * cell.lengths()
    part = np.zeros(len(atoms), dtype=np.int64)
    work = [(np.arange(len(atoms)), 0, n_part)]
    while work:
        index, first, n = work.pop()
        part[index] = first
        if n > 1:
            axis = int(np.argmax(np.ptp(place[index], axis=0))) if len(index) else 0
            index = index[np.argsort(place[index, axis], kind="stable")]
            cut = len(index) * (n // 2) // n
            work.append((index[:cut], first, n // 2))
            work.append((index[cut:], first + n // 2, n - n // 2))
    return part


def cut_out(graph: Graph, is_own: Tensor, n_hops: int, r_near: float) -> Part:
    """Return the part of a graph that determines all blocks of some atoms.

    Parameters
    ----------
    graph
        Graph of one whole structure, without labels.
    is_own
        ``(A,)`` bool.
    n_hops
        Message steps of the network.
    r_near
        Largest distance of pairs that a network sees beside its targets, Å.
    """
    i, j = graph.pair_i, graph.pair_j
    is_target = torch.arange(graph.n_pair) < graph.n_target
    is_near = torch.linalg.vector_norm(graph.pair_vector, dim=-1) < r_near
    is_kept = is_target & is_own[i]
    is_seen = is_own.clone()
    is_seen[j[is_kept]] = True
    first, second = i[graph.edge_pair], j[graph.edge_pair]
    for _ in range(n_hops):
        reached = is_seen[first] | is_seen[second]
        is_seen[first[reached]] = is_seen[second[reached]] = True
    touches = is_near & (is_own[i] | is_own[j])  # what onsite blocks see, message or not
    is_seen[i[touches]] = is_seen[j[touches]] = True
    extra = is_near & is_seen[i] & is_seen[j] & ~is_kept
    pairs = torch.cat([torch.nonzero(which).squeeze(-1) for which in (is_kept, extra)])
    n_target = int(is_kept.sum())
    number = torch.cumsum(is_seen, 0) - 1
    kind = graph.pair_type[pairs]
    kind[n_target:] = -1
    n_type = len(graph.type_ptr) - 1
    starts = torch.searchsorted(kind[:n_target].contiguous(), torch.arange(n_type + 1))
    is_edge = torch.zeros(graph.n_pair, dtype=torch.bool)
    is_edge[graph.edge_pair] = True
    atoms = torch.nonzero(is_seen).squeeze(-1)
    part = replace(
        graph,
        species=graph.species[atoms],
        position=graph.position[atoms],
        batch=graph.batch[atoms],
        pair_i=number[i[pairs]],
        pair_j=number[j[pairs]],
        pair_R=graph.pair_R[pairs],
        pair_vector=graph.pair_vector[pairs],
        pair_type=kind,
        type_ptr=starts.tolist(),
        n_target=n_target,
        edge_pair=torch.nonzero(is_edge[pairs]).squeeze(-1),
    )
    return Part(part, atoms, is_own[atoms])
