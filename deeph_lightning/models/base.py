"""The model contract: what every network shares.

A model maps a graph to flat block tensors on its onsite and target pairs. Trunks differ; heads,
two-centre baseline, scales and frames live here and in `nn`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from deeph_lightning.core.basis import OrbitalBasis
from deeph_lightning.errors import ConfigError
from deeph_lightning.nn.baseline import TwoCentreBaseline
from deeph_lightning.nn.coupling import BlockCoupling
from deeph_lightning.nn.domain import TrainingDomain
from deeph_lightning.nn.edge_frame import EdgeFrames
from deeph_lightning.nn.heads import HoppingHead, OnsiteHead
from deeph_lightning.nn.layout import EdgeTensor, Layout
from deeph_lightning.nn.overlap import TwoCentreOverlap
from deeph_lightning.nn.precision import full_precision

if TYPE_CHECKING:
    from deeph_lightning.data.graph import Graph


class HamiltonianModel(nn.Module):
    """Base of all networks: ``forward(graph) -> {"H_onsite": flat, "H_hopping": flat}`` in eV.

    A network implements `stream`.

    Parameters
    ----------
    basis
        ``{species label: [l, l, ...]}``.
    r_target
        ``{"A-B": Å}``, labels in sorted order: range of H.
    r_message
        Cut-off of message edges, Å.
    l_max
        Largest degree of the features.
    n_hops
        Message steps: a block depends on atoms within that many message cut-offs of its own.
    o3
        Exact inversion symmetry.
    baseline, r_onsite, baseline_spacing, component_power
        See `TwoCentreBaseline`.
    """

    def __init__(
        self,
        basis: Mapping[str, Sequence[int]],
        r_target: Mapping[str, float],
        r_message: float,
        *,
        l_max: int,
        n_hops: int,
        o3: bool,
        baseline: bool,
        r_onsite: float,
        baseline_spacing: float,
        component_power: float,
    ) -> None:
        super().__init__()
        self.basis = OrbitalBasis({label: tuple(shells) for label, shells in basis.items()})
        self.r_message, self.l_max, self.o3 = float(r_message), l_max, o3
        self.n_hops = n_hops
        labels = self.basis.labels
        self.r_target = {key: float(value) for key, value in r_target.items()}
        shells = [self.basis.shells[label] for label in labels]
        index = range(len(labels))
        self.onsite_couplings = {
            a: BlockCoupling(shells[a], shells[a], o3=o3, onsite=True) for a in index
        }
        self.pair_couplings, cutoffs = {}, {}
        for a in index:
            for b in range(a, len(labels)):
                self.pair_couplings[a, b] = BlockCoupling(shells[a], shells[b], o3=o3)
                cutoffs[a, b] = self.r_target.get(f"{labels[a]}-{labels[b]}", self.r_message)
        self.baseline = TwoCentreBaseline(
            self.pair_couplings,
            self.onsite_couplings,
            cutoffs,
            r_onsite=r_onsite,
            spacing=baseline_spacing,
            component_power=component_power,
            enabled=baseline,
        )
        n_orb = [self.basis.n_orb(label) for label in labels]
        self.overlap = TwoCentreOverlap(self.pair_couplings, cutoffs, n_orb)
        r_max = max(self.r_target.values(), default=self.r_message)
        self.domain = TrainingDomain(labels, r_max, self.r_message)
        highest = max(c.layout.l_max for c in self.pair_couplings.values())
        self.l_frame = max(l_max, highest)

    @property
    def bytes_per_edge(self) -> int:
        """Memory that features of one message edge take while a structure is predicted."""
        return 0

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the weights."""
        return next(self.parameters()).dtype

    def make_layout(self, key: str, natural: Sequence[int], unnatural: Sequence[int]) -> Layout:
        """Channels up to l_max; without inversion all channels are of one kind.

        Raises
        ------
        ConfigError
            Fewer entries than l_max + 1.
        """
        size = self.l_max + 1
        for name, counts in ((key, natural), (f"unnatural_{key}", unnatural)):
            if len(counts) < size:
                raise ConfigError(
                    f"model.{name} has {len(counts)} entries, l_max={self.l_max} needs {size} "
                    f"(degrees 0..{self.l_max}). Give one number of channels for each degree.",
                    key=f"model.{name}",
                )
        if self.o3:
            return Layout.of(natural[:size], unnatural[:size])
        return Layout.of([n + u for n, u in zip(natural[:size], unnatural[:size], strict=True)])

    def build_heads(self, layout: Layout, pair_layout: Layout, onsite_layout: Layout) -> None:
        """Create the shared read-outs for node and edge features of the given layouts."""
        self.onsite_head = OnsiteHead((layout, onsite_layout), self.onsite_couplings)
        self.hopping_head = HoppingHead(pair_layout, self.pair_couplings, o3=self.o3)

    def stream(self, graph: Graph, chunk: int | None = None) -> Iterator[Tensor]:
        """Yield the blocks, flat, eV: of target pairs in their order, onsite ones at last.

        With `chunk` hopping blocks come in pieces, one for each of `parts`: the same result in
        less memory.
        """
        raise NotImplementedError

    @staticmethod
    def parts(graph: Graph, chunk: int | None) -> list[Graph]:
        """Cut a graph into parts of at most `chunk` pairs, in their order."""
        n = graph.n_pair
        if chunk is None or n <= chunk:
            return [graph]
        return [graph.part(start, min(start + chunk, n)) for start in range(0, n, chunk)]

    def forward(self, graph: Graph) -> dict[str, Tensor]:
        """Predict the blocks of all onsite and target pairs, flat, eV."""
        hopping, onsite = self.stream(graph)
        return {"H_onsite": onsite, "H_hopping": hopping}

    @torch.no_grad()
    def prepare(self, graph: Graph) -> Graph:
        """Work out what depends on the positions alone: frames, two-centre baseline, scales.

        A prepared graph costs less in every step; prediction is the same without. The graph may
        lie on another device than the model and stays there.
        """
        home, graph = graph.pair_vector.device, graph.to(next(self.parameters()).device)
        n = graph.n_target
        frames, distance = self.geometry(graph)
        hopping = self.hopping_head.two_centre(
            graph, frames.blocks, distance[:n], self.baseline
        )
        onsite = self.onsite_head.two_centre(graph, self.baseline)
        scale = self.hopping_head.distance_scale(graph, distance[:n], self.baseline)
        return replace(
            graph,
            wigner=frames.flat(),
            hopping_scale=scale.to(self.dtype),
            baseline_hopping=hopping.to(self.dtype),
            baseline_onsite=onsite.to(self.dtype),
        ).to(home)

    def geometry(self, graph: Graph) -> tuple[EdgeFrames, Tensor]:
        """Frames of all pairs and their distances ``(P,)``, Å, float64."""
        distance = torch.linalg.vector_norm(graph.pair_vector.double(), dim=-1)
        if graph.wigner is not None:
            return EdgeFrames.from_flat(graph.wigner.to(self.dtype), self.l_frame), distance
        frames = EdgeFrames.from_vectors(graph.pair_vector, self.l_frame, dtype=self.dtype)
        return frames, distance

    @staticmethod
    def from_scalars(scalars: Tensor, layout: Layout) -> Tensor:
        """Node tensor ``(A, F)`` that holds ``(A, C)`` scalars, zero otherwise."""
        x = scalars.new_zeros(len(scalars), layout.node_size)
        start = 0
        for first, channels in layout.degree_columns("natural", 0):
            x[:, first : first + channels] = scalars[:, start : start + channels]
            start += channels
        return x

    def species_pair(self, graph: Graph) -> Tensor:
        """Return the number of the unordered species pair of every pair, ``(P,)``."""
        first, second = graph.species[graph.pair_i], graph.species[graph.pair_j]
        low, high = torch.minimum(first, second), torch.maximum(first, second)
        return high * (high + 1) // 2 + low

    def read_onsite(self, graph: Graph, x: Tensor, summed: Tensor) -> Tensor:
        """Onsite blocks, flat, eV, from node features and neighbour sums."""
        with full_precision(x):
            x, summed = x.to(self.dtype), summed.to(self.dtype)
            return self.onsite_head(x, summed, graph, self.baseline)

    def read_hopping(
        self, graph: Graph, hidden: EdgeTensor, frames: EdgeFrames, distance: Tensor
    ) -> Tensor:
        """Hopping blocks, flat, eV, from pair features; frames and distances likewise."""
        with full_precision(hidden.zero):
            hidden = EdgeTensor(hidden.zero.to(self.dtype), hidden.rest.to(self.dtype))
            return self.hopping_head(hidden, frames.blocks, distance, graph, self.baseline)

    def fit_statistics(
        self,
        graphs: Callable[[], Iterable[Graph]],
        overlap_graphs: Callable[[], Iterable[Graph]] | None = None,
    ) -> None:
        """Fit baseline, target scales and overlaps to labelled graphs, once before training.

        Overlaps to `overlap_graphs`, if these are others.
        """

        def hopping(graph: Graph, labels: Tensor) -> dict:
            return self.hopping_head.coefficients(graph, self._shell_frames(graph), labels)

        self.baseline.fit(
            graphs, lambda graph: hopping(graph, graph.H_hopping), self.onsite_head.coefficients
        )
        self.overlap.fit(
            overlap_graphs or graphs, lambda graph: hopping(graph, graph.S_hopping)
        )
        self.domain.fit(graphs)

    def overlap_hopping(self, graph: Graph) -> Tensor:
        """Learned overlaps of the target pairs, flat, float64."""
        distance = torch.linalg.vector_norm(graph.pair_vector[: graph.n_target], dim=-1)
        frames = self._shell_frames(graph)
        return self.hopping_head.two_centre(graph, frames, distance, self.overlap)

    def _shell_frames(self, graph: Graph) -> list[Tensor]:
        """Wigner matrices of the target pairs for the degrees of the basis, float64."""
        highest = max(max(shells) for shells in self.basis.shells.values())
        vector = graph.pair_vector[: graph.n_target]
        return EdgeFrames.from_vectors(vector, highest, dtype=torch.float64).blocks
