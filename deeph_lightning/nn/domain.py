"""What a network was trained on: distances of neighbours, and how many an atom has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from deeph_lightning.nn.fitted import Fitted

if TYPE_CHECKING:
    from deeph_lightning.data.graph import Graph

#: Width of the bins of distance, Å; one is seen if it or a bin beside it holds a pair.
_BIN = 0.1


class Departure(NamedTuple):
    """Atoms of a structure that leave the training set in one respect.

    ``what`` names it with the numbers found and seen, ``atoms`` is ``(k,)``, increasing.
    """

    what: str
    atoms: Tensor


class TrainingDomain(Fitted):
    """Distances per pair of species, and numbers of neighbours, of the training set.

    Parameters
    ----------
    labels
        Species labels.
    r_max
        Longest target pair, Å.
    r_message
        Cut-off within which neighbours are counted, Å.
    """

    def __init__(self, labels: list[str], r_max: float, r_message: float) -> None:
        super().__init__()
        self.labels, self.r_message = labels, r_message
        n, n_bin = len(labels), int(r_max / _BIN) + 2
        self.register_buffer("n_pair", torch.zeros(n, n, n_bin, dtype=torch.int64))
        #: fewest and most neighbours of species b that an atom of species a has: ``(a, b, 2)``
        self.register_buffer("neighbours", torch.zeros(n, n, 2, dtype=torch.int64))

    @torch.no_grad()
    def fit(self, graphs: Callable[[], Iterable[Graph]]) -> None:
        """Note what the graphs hold."""
        self.n_pair.zero_()
        self.neighbours[..., 0], self.neighbours[..., 1] = torch.iinfo(torch.int64).max, -1
        for graph in graphs():
            distance, low, high = self._pairs(graph)
            place = torch.stack([low, high, self._bins(distance)])
            self.n_pair.index_put_(tuple(place), torch.ones_like(low), accumulate=True)
            count = self._count(graph)
            for a in range(len(self.labels)):
                own = count[graph.species == a]
                if len(own):
                    fewest, most = self.neighbours[a].T
                    self.neighbours[a, :, 0] = torch.minimum(fewest, own.amin(0))
                    self.neighbours[a, :, 1] = torch.maximum(most, own.amax(0))
        self.is_fitted.fill_(True)

    @torch.no_grad()
    def departures(self, graph: Graph) -> list[Departure]:
        """Return in which respects a structure leaves the training set, with the atoms."""
        return [*self._distances(graph), *self._coordinations(graph)]

    def _distances(self, graph: Graph) -> Iterator[Departure]:
        near = torch.nn.functional.max_pool1d(self.n_pair.double(), 3, stride=1, padding=1)
        distance, low, high = self._pairs(graph)
        is_new = near[low, high, self._bins(distance)] == 0
        for a in range(len(self.labels)):
            for b in range(a, len(self.labels)):
                which = torch.nonzero(is_new & (low == a) & (high == b)).squeeze(-1)
                if len(which):
                    found = distance[which]
                    yield Departure(
                        f"{self.labels[a]}-{self.labels[b]} distances between "
                        f"{found.min():.2f} and {found.max():.2f} Å are not in it",
                        torch.cat([graph.pair_i[which], graph.pair_j[which]]).unique(),
                    )

    def _coordinations(self, graph: Graph) -> Iterator[Departure]:
        count = self._count(graph)
        for a, label in enumerate(self.labels):
            for b, other in enumerate(self.labels):
                fewest, most = self.neighbours[a, b].tolist()
                own, number = graph.species == a, count[:, b]
                which = torch.nonzero(own & ((number < fewest) | (number > most))).squeeze(-1)
                if len(which):
                    found = number[which]
                    seen = f"{fewest} to {most}" if most >= 0 else f"no {label}"
                    yield Departure(
                        f"{label} has {found.min()} to {found.max()} {other} within "
                        f"{self.r_message:g} Å, in it {seen}",
                        which,
                    )

    def _pairs(self, graph: Graph) -> tuple[Tensor, Tensor, Tensor]:
        """Distances of target pairs, and the species of both, the lower first."""
        n = graph.n_target
        distance = torch.linalg.vector_norm(graph.pair_vector[:n], dim=-1)
        first, second = graph.species[graph.pair_i[:n]], graph.species[graph.pair_j[:n]]
        return distance, torch.minimum(first, second), torch.maximum(first, second)

    def _bins(self, distance: Tensor) -> Tensor:
        return (distance / _BIN).long().clamp(max=self.n_pair.shape[-1] - 1)

    def _count(self, graph: Graph) -> Tensor:
        """Neighbours of every species that every atom has, ``(A, n_species)``."""
        edges = graph.edge_pair
        first, second = graph.pair_i[edges], graph.pair_j[edges]
        atom, other = torch.cat([first, second]), torch.cat([second, first])
        count = self.neighbours.new_zeros(graph.species.shape[0], len(self.labels))
        place = (atom, graph.species[other])
        return count.index_put_(place, torch.ones_like(atom), accumulate=True)
