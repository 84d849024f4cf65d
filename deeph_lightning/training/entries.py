"""Which atom, pair and structure every entry of the flat block tensors belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from deeph_lightning.data.graph import Graph

MEV_PER_EV = 1.0e3


@dataclass(frozen=True)
class EntryIndex:
    """Sizes of the blocks of a graph, and sums over their entries.

    Attributes
    ----------
    onsite_sizes, hopping_sizes
        Entries of each onsite block ``(A,)`` and of each target pair's block ``(n_target,)``.
    onsite_graph, hopping_graph
        Structure of each block, same shapes.
    """

    onsite_sizes: Tensor
    hopping_sizes: Tensor
    onsite_graph: Tensor
    hopping_graph: Tensor

    @classmethod
    def of(cls, graph: Graph) -> EntryIndex:
        """Index the blocks of a graph."""
        per_atom = torch.tensor(graph.n_orb, device=graph.species.device)[graph.species]
        first, second = graph.pair_i[: graph.n_target], graph.pair_j[: graph.n_target]
        return cls(
            onsite_sizes=per_atom * per_atom,
            hopping_sizes=per_atom[first] * per_atom[second],
            onsite_graph=graph.batch,
            hopping_graph=graph.batch[first],
        )

    def spread_onsite(self, per_block: Tensor, n_entry: int) -> Tensor:
        """Repeat one value an onsite block to its entries."""
        return torch.repeat_interleave(per_block, self.onsite_sizes, output_size=n_entry)

    def spread_hopping(self, per_block: Tensor, n_entry: int) -> Tensor:
        """Repeat one value a hopping block to its entries."""
        return torch.repeat_interleave(per_block, self.hopping_sizes, output_size=n_entry)


def fit_gauge(
    onsite: Tensor,
    hopping: Tensor,
    overlap_onsite: Tensor,
    overlap_hopping: Tensor,
    index: EntryIndex,
    n_graph: int,
) -> tuple[Tensor, Tensor]:
    r"""Remove from a difference of Hamiltonians its part along the overlap.

    H and H + mu S describe the same physics. For each structure mu minimises the sum of squares
    over both Hermitian halves, so hopping entries count twice:

    .. math:: \mu = \langle S, \Delta H\rangle / \langle S, S\rangle .

    Parameters
    ----------
    onsite, hopping
        Differences, flat, eV.
    overlap_onsite, overlap_hopping
        Overlaps in the same layout; zero where an entry does not count.
    index
        Blocks of the graph.
    n_graph
        Number of structures.

    Returns
    -------
    onsite, hopping
        The differences less mu S. Gradients flow through mu and have no part along S.
    """
    overlap_onsite = overlap_onsite.to(onsite.dtype)
    overlap_hopping = overlap_hopping.to(hopping.dtype)
    onsite_graph = index.spread_onsite(index.onsite_graph, onsite.shape[0])
    hopping_graph = index.spread_hopping(index.hopping_graph, hopping.shape[0])

    def inner(a: Tensor, b: Tensor) -> Tensor:
        total = onsite.new_zeros(n_graph, dtype=torch.float64)
        total = total.index_add(0, onsite_graph, (overlap_onsite * a).double())
        return total.index_add(0, hopping_graph, 2.0 * (overlap_hopping * b).double())

    norm = inner(overlap_onsite, overlap_hopping).clamp_min(torch.finfo(torch.float64).tiny)
    mu = (inner(onsite, hopping) / norm).to(onsite.dtype)
    return (
        onsite - mu[onsite_graph] * overlap_onsite,
        hopping - mu[hopping_graph] * overlap_hopping,
    )
