"""Graph: what a network sees of one structure or of a batch, and `collate`.

Species are numbered by the sorted labels of the basis, pair types by the lexicographic order of
``(a, b)``, a <= b: with two species (0,0), (0,1), (1,1). Of every Hermitian couple of pairs the
graph has one, the one with species[i] <= species[j]; for equal species the canonical one of
`PairTable`. A pair is message-only if it is short but has no block.

Order: target pairs sorted by type, then message-only pairs; both stable. Flat labels follow the
target pairs and the atoms; blocks are stored row by row.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(eq=False)
class Graph:
    """One structure, or a batch of structures without connections.

    Dimensions: A atoms, B structures, P pairs, E message edges.

    Attributes
    ----------
    species
        ``(A,)`` int64, position of the species among the sorted labels of the basis.
    position
        ``(A, 3)`` float64, Å.
    cell
        ``(B, 3, 3)`` float64, lattice vectors as rows, Å.
    batch
        ``(A,)`` int64, structure of each atom.
    n_graph
        Number of structures, B.
    pair_i, pair_j
        ``(P,)`` int64, atoms of each pair.
    pair_R
        ``(P, 3)`` int64, cell of atom j relative to that of atom i.
    pair_vector
        ``(P, 3)`` float64, ``tau_j + R @ cell - tau_i``, Å.
    pair_type
        ``(P,)`` int64, unordered species pair; -1 for message-only pairs.
    type_ptr
        First target pair of every type, and their number last.
    n_target
        Number of pairs with a block; they come first.
    edge_pair
        ``(E,)`` int64, increasing: pairs that carry messages, each in both directions.
    n_orb
        Orbitals of every species of the basis.
    name
        Name of each structure.
    wigner
        ``(P, n)``, Wigner matrices of the pairs' frames; like the next three, constants of the
        positions that a model has worked out (`HamiltonianModel.prepare`), else None.
    hopping_scale
        ``(n_target,)``, eV, scale of what a network says of blocks of pairs of that distance.
    baseline_hopping, baseline_onsite
        Two-centre baseline, flat, eV, in the layout of the labels.
    H_hopping, H_onsite
        Labels, flat, eV, in the order of target pairs and of atoms; None for prediction.
    H_hopping_mask
        ``(n_target,)`` bool, whether the DFT file holds a block of H. Where only S has one,
        H is zero.
    S_hopping, S_onsite
        Overlaps in the layout of H, without unit; zero where S has no block; None if unknown.
    """

    species: Tensor
    position: Tensor
    cell: Tensor
    batch: Tensor
    n_graph: int
    pair_i: Tensor
    pair_j: Tensor
    pair_R: Tensor
    pair_vector: Tensor
    pair_type: Tensor
    type_ptr: list[int]
    n_target: int
    edge_pair: Tensor
    n_orb: list[int]
    name: list[str]
    wigner: Tensor | None = None
    hopping_scale: Tensor | None = None
    baseline_hopping: Tensor | None = None
    baseline_onsite: Tensor | None = None
    H_hopping: Tensor | None = None
    H_onsite: Tensor | None = None
    H_hopping_mask: Tensor | None = None
    S_hopping: Tensor | None = None
    S_onsite: Tensor | None = None

    @property
    def n_atom(self) -> int:
        """Number of atoms."""
        return self.species.shape[0]

    @property
    def n_pair(self) -> int:
        """Number of pairs, message-only ones included."""
        return self.pair_i.shape[0]

    @property
    def hopping_ptr(self) -> list[int]:
        """First entry of every type in the flat hopping labels, and their number last."""
        counts = [stop - start for start, stop in pairwise(self.type_ptr)]
        sizes = [n * size for n, size in zip(counts, block_sizes(self.n_orb), strict=True)]
        return list(accumulate(sizes, initial=0))

    @property
    def hopping_offsets(self) -> Tensor:
        """First entry of every target pair's block, and the number of entries; int64."""
        n_orb = self._n_orb_of_atom()
        n = self.n_target
        return _offsets(n_orb[self.pair_i[:n]] * n_orb[self.pair_j[:n]])

    @property
    def onsite_offsets(self) -> Tensor:
        """First entry of every atom's onsite block, and the number of entries; int64."""
        return _offsets(self._n_orb_of_atom().square())

    def part(self, start: int, stop: int) -> Graph:
        """Return the graph of the pairs from `start` to `stop`: all atoms, no labels."""
        n_target = min(stop, self.n_target) - min(start, self.n_target)
        bounds = torch.tensor([start, stop], device=self.edge_pair.device)
        first, last = torch.searchsorted(self.edge_pair, bounds).tolist()
        pairs = {key: getattr(self, key)[start:stop] for key in _OF_PAIRS}
        prepared: dict[str, Any] = {
            key: None if value is None else value[start:stop]
            for key, value in (("wigner", self.wigner), ("hopping_scale", self.hopping_scale))
        }
        baseline = self.baseline_hopping
        if baseline is not None:
            offsets = self.hopping_offsets
            low, high = (offsets[min(place, self.n_target)] for place in (start, stop))
            baseline = baseline[low:high]
        unlabelled: dict[str, Any] = dict.fromkeys(_LABELS)
        return replace(
            self,
            **pairs,
            type_ptr=[min(max(place - start, 0), n_target) for place in self.type_ptr],
            n_target=n_target,
            edge_pair=self.edge_pair[first:last] - start,
            **prepared,
            baseline_hopping=baseline,
            **unlabelled,
        )

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Graph:
        """Return the graph on a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Graph:
        """Return the graph in page-locked memory, from where copies to a GPU are fast."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function: Callable[[Tensor], Tensor]) -> Graph:
        values = ((f.name, getattr(self, f.name)) for f in fields(self))
        moved: dict[str, Any] = {k: function(v) for k, v in values if isinstance(v, Tensor)}
        return replace(self, **moved)

    def _n_orb_of_atom(self) -> Tensor:
        return torch.tensor(self.n_orb, device=self.species.device)[self.species]


_OF_PAIRS = ("pair_i", "pair_j", "pair_R", "pair_vector", "pair_type")
_LABELS = ("H_hopping", "H_onsite", "H_hopping_mask", "S_hopping", "S_onsite")


def block_sizes(n_orb: Sequence[int]) -> list[int]:
    """Return the entries of a block of every pair type, types in lexicographic order."""
    n = len(n_orb)
    return [n_orb[a] * n_orb[b] for a in range(n) for b in range(a, n)]


def collate(graphs: Sequence[Graph]) -> Graph:
    """Join graphs of one basis to a batch; see the module for the order of its pairs.

    What one of the graphs lacks is None in the batch.
    """
    if len(graphs) == 1:
        return graphs[0]
    atom_start = list(accumulate((g.n_atom for g in graphs), initial=0))
    graph_start = list(accumulate((g.n_graph for g in graphs), initial=0))
    n_target = sum(g.n_target for g in graphs)

    def join(key: str, starts: list[int] | None = None) -> Tensor:
        parts = [getattr(g, key) for g in graphs]
        if starts is not None:
            parts = [part + start for part, start in zip(parts, starts, strict=False)]
        return torch.cat(parts)

    order, edge_pair = _pair_order(graphs)
    pairs = {
        "pair_i": join("pair_i", atom_start),
        "pair_j": join("pair_j", atom_start),
        **{key: join(key) for key in ("pair_R", "pair_vector", "pair_type")},
    }
    labels: dict[str, Any] = dict.fromkeys(
        (
            *("H_onsite", "S_onsite", "H_hopping", "S_hopping", "H_hopping_mask"),
            *("wigner", "hopping_scale", "baseline_onsite", "baseline_hopping"),
        )
    )
    for key in labels:
        if any(getattr(g, key) is None for g in graphs):
            continue
        if key == "wigner":
            labels[key] = join(key)[order]
        elif key.endswith("_onsite"):
            labels[key] = join(key)
        else:
            of_pairs = key in ("H_hopping_mask", "hopping_scale")
            labels[key] = _join_by_type(
                [getattr(g, key) for g in graphs],
                [g.type_ptr if of_pairs else g.hopping_ptr for g in graphs],
            )
    return Graph(
        species=join("species"),
        position=join("position"),
        cell=join("cell"),
        batch=join("batch", graph_start),
        n_graph=graph_start[-1],
        **{key: value[order] for key, value in pairs.items()},
        type_ptr=[sum(starts) for starts in zip(*(g.type_ptr for g in graphs), strict=True)],
        n_target=n_target,
        edge_pair=edge_pair,
        n_orb=graphs[0].n_orb,
        name=[name for g in graphs for name in g.name],
        **labels,
    )


def _pair_order(graphs: Sequence[Graph]) -> tuple[Tensor, Tensor]:
    """Return the order of the batch's pairs, and its message edges in that order."""
    n_type = len(graphs[0].type_ptr) - 1
    starts = list(accumulate((g.n_pair for g in graphs), initial=0))
    kind = torch.cat([g.pair_type for g in graphs])
    order = torch.argsort(torch.where(kind < 0, n_type, kind), stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(starts[-1], device=order.device)
    edges = [g.edge_pair + start for g, start in zip(graphs, starts, strict=False)]
    return order, place[torch.cat(edges)].sort().values


def _join_by_type(parts: list[Tensor], pointers: list[list[int]]) -> Tensor:
    """Join flat arrays that are sorted by type so that the result is, too."""
    n_type = len(pointers[0]) - 1
    return torch.cat(
        [
            part[pointer[t] : pointer[t + 1]]
            for t in range(n_type)
            for part, pointer in zip(parts, pointers, strict=True)
        ]
    )


def _offsets(sizes: Tensor) -> Tensor:
    return torch.nn.functional.pad(torch.cumsum(sizes, 0), (1, 0))
