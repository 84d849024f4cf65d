"""ELCT: the equivariant local-coordinate transformer (DeepH-2, arXiv:2401.17015).

Every edge operation happens in the frame of its bond, where an equivariant map is one small
matrix per order m. Each stored pair stands for both its directions, pair features never leave
their frame, messages travel along short edges only and the many long target pairs see one cheap
head. With ``o3`` (default) inversion is exact: natural and unnatural channels are stacked by
mirror parity.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from deeph_lightning.models.base import HamiltonianModel
from deeph_lightning.nn.attention import SmoothAttention
from deeph_lightning.nn.edge_frame import EdgeFrames
from deeph_lightning.nn.layout import EdgeTensor, Layout
from deeph_lightning.nn.node import NodeFeedForward, NodeLinear, NodeNorm
from deeph_lightning.nn.precision import full_precision
from deeph_lightning.nn.radial import RadialBasis, polynomial_envelope
from deeph_lightning.nn.rotation import rotate_to_edges, rotate_to_nodes
from deeph_lightning.nn.scatter import Segments
from deeph_lightning.nn.so2 import EdgeActivation, SO2Linear

if TYPE_CHECKING:
    from deeph_lightning.data.graph import Graph


class MessageEdges(NamedTuple):
    """Message edges of a graph, or of a part of its pairs.

    ``radial`` is ``(E, n_radial)``, ``envelope`` ``(E,)``; segments group both directions.
    """

    frames: EdgeFrames
    radial: Tensor
    envelope: Tensor
    segments: Segments


class NeighbourEmbedding(nn.Module):
    """First node features: species, and the sum over neighbours of ``w_l(species, r) Y_l``.

    Parameters
    ----------
    layout
        Channels of the node features; the unnatural ones start at zero.
    n_radial
        Size of the radial embedding.
    """

    def __init__(self, layout: Layout, n_radial: int) -> None:
        super().__init__()
        self.layout = layout
        n_scalar = layout.natural[0]
        self.towers = [tower for tower in layout.towers if tower.parity == "natural"]
        n_out = sum((t.l_last - t.l_first + 1) * t.channels for t in self.towers)
        self.weights = nn.Sequential(
            nn.Linear(2 * n_scalar + n_radial, n_scalar),
            nn.SiLU(),
            nn.Linear(n_scalar, n_out),
        )

    def forward(
        self, scalars: Tensor, edges: MessageEdges, into: Tensor | None = None
    ) -> Tensor:
        """Sum over neighbours, natural part of ``(A, F)``, from species scalars ``(A, C)``."""
        own = scalars.index_select(0, edges.segments.receiver)
        other = torch.cat(own.chunk(2)[::-1])
        weights = self.weights(torch.cat([own, other, edges.radial.repeat(2, 1)], -1))
        weights = weights * edges.envelope.repeat(2)[:, None]
        parts, start = [], 0
        for _, l_first, l_last, channels in self.towers:
            for l in range(l_first, l_last + 1):
                harmonics = edges.frames.blocks[l][:, l]
                directed = torch.cat([harmonics, (-1) ** l * harmonics])
                weight = weights[:, start : start + channels]
                parts.append((directed[:, :, None] * weight[:, None]).flatten(1))
                start += channels
        return edges.segments.sum(torch.cat(parts, -1), into)


class ELCTBlock(nn.Module):
    """One transformer block: edge convolution, attention over neighbours, feed-forward.

    Parameters
    ----------
    layout, pair_layout
        Channels of node and pair features.
    n_radial
        Size of the radial embedding.
    n_heads
        Attention heads; 0 sums neighbours with the cut-off envelope alone.
    feed_factor
        Hidden channels of the feed-forward over those of the nodes.
    o3
        Exact inversion symmetry.
    number
        The first block (0) receives no pair features and neither unnatural node features nor
        mirror-odd invariants, which only arise in it.
    """

    def __init__(
        self,
        layout: Layout,
        pair_layout: Layout,
        *,
        n_radial: int,
        n_heads: int,
        feed_factor: int,
        o3: bool,
        number: int,
    ) -> None:
        super().__init__()
        self.layout = layout if number else Layout.of(layout.natural)
        self.full_layout = layout
        self.norm = NodeNorm(self.layout)
        self.activation = EdgeActivation(pair_layout, n_radial, n_heads)
        inputs = [layout, pair_layout] if number else [self.layout]
        self.mix = SO2Linear(
            inputs,
            pair_layout,
            extra=self.activation.extra,
            o3=o3,
            odd_inputs=[True, number > 1] if number else None,
        )
        odd = [number > 0]
        self.message = SO2Linear([pair_layout], layout, o3=o3, odd_inputs=odd)
        self.attention = SmoothAttention(layout, n_heads)
        self.node_out = NodeLinear(layout, layout, gain=0.5)
        self.feed_norm = NodeNorm(layout)
        self.feed = NodeFeedForward(layout, feed_factor)

    def convolve(
        self,
        x: Tensor,
        pair: EdgeTensor | None,
        edges: MessageEdges,
        sums: list[Tensor] | None,
    ) -> tuple[EdgeTensor, list[Tensor]]:
        """Update pair features and sum messages, from normalised wide features ``(A, W)``."""
        ends = x.index_select(0, edges.segments.receiver).chunk(2)
        inputs = [rotate_to_edges(*ends, edges.frames, self.layout)]
        if pair is not None:
            inputs.append(pair)
        hidden, logit = self.activation(*self.mix(*inputs), edges.radial)
        update = hidden
        if pair is not None:
            update = EdgeTensor(pair.zero + hidden.zero, pair.rest + hidden.rest)
        message, _ = self.message(hidden)
        message = rotate_to_nodes(message, edges.frames, self.full_layout)
        sums = self.attention.gather(message, logit, edges.envelope, edges.segments, sums)
        return update, sums

    def forward(
        self, x: Tensor, pairs: list[EdgeTensor | None], edges: Iterable[MessageEdges]
    ) -> tuple[Tensor, list[EdgeTensor | None]]:
        """Update node features ``(A, F)`` and pair features, part by part of the edges."""
        known = self.norm(x[:, : self.layout.node_size])  # natural channels come first
        known = self.layout.widen(known)
        updated: list[EdgeTensor | None] = []
        sums: list[Tensor] | None = None
        for pair, part in zip(pairs, edges, strict=True):
            update, sums = self.convolve(known, pair, part, sums)
            updated.append(update)
        heard = self.full_layout.narrow(self.attention.finish(sums))
        x = x + self.node_out(heard)
        return x + self.feed(self.feed_norm(x)), updated


class ELCT(HamiltonianModel):
    """Equivariant local-coordinate transformer.

    Parameters
    ----------
    basis
        ``{species label: [l, l, ...]}``.
    r_target
        ``{"A-B": Å}`` range of H per pair of species labels.
    r_message
        Cut-off of the message edges, Å.
    l_max
        Largest degree of the features. H needs 2 l of the basis; less loses accuracy.
    channels, unnatural_channels
        Node channels of degree 0, 1, ...; the first l_max + 1 are used.
    pair_channels, unnatural_pair_channels
        The same for pair features.
    head_channels, unnatural_head_channels
        The same for the features, rotated and hidden, that every target pair has in the head.
    n_blocks, n_heads
        Depth behind the neighbour embedding; attention heads (0: no attention,
        envelope-weighted sum).
    feed_factor
        Hidden channels of the feed-forward on atoms over those of the nodes.
    n_radial
        Gaussians of the radial basis, and size of its embedding.
    o3
        Exact inversion symmetry.
    baseline
        Use the two-centre baseline; without it the network learns all of H.
    r_onsite
        Range of the crystal-field functions of the onsite baseline, Å.
    baseline_spacing
        Distance between the centres of the baseline's radial functions, Å.
    component_power
        Exponent of the per-component target scale, see `PairBaseline`.
    """

    def __init__(
        self,
        basis: Mapping[str, Sequence[int]],
        r_target: Mapping[str, float],
        r_message: float,
        l_max: int,
        channels: Sequence[int],
        unnatural_channels: Sequence[int],
        pair_channels: Sequence[int],
        unnatural_pair_channels: Sequence[int],
        head_channels: Sequence[int],
        unnatural_head_channels: Sequence[int],
        n_blocks: int,
        n_heads: int,
        feed_factor: int,
        n_radial: int,
        o3: bool,
        baseline: bool,
        r_onsite: float,
        baseline_spacing: float,
        component_power: float,
    ) -> None:
        super().__init__(
            basis,
            r_target,
            r_message,
            o3=o3,
            baseline=baseline,
            r_onsite=r_onsite,
            baseline_spacing=baseline_spacing,
            component_power=component_power,
            l_max=l_max,
            n_hops=n_blocks + 1,
        )
        layout = self.make_layout("channels", channels, unnatural_channels)
        pair_layout = self.make_layout("pair_channels", pair_channels, unnatural_pair_channels)
        head_layout = self.make_layout("head_channels", head_channels, unnatural_head_channels)
        self.layout, self.head_layout, self.pair_layout = layout, head_layout, pair_layout
        n_species = len(self.basis.labels)
        self.embedding = nn.Embedding(n_species, layout.natural[0])
        self.pair_embedding = nn.Embedding(n_species * (n_species + 1) // 2, n_radial)
        self.radial_basis = RadialBasis.geometric(n_radial, 0.8, max(self.r_target.values()))
        self.radial = nn.Sequential(nn.Linear(n_radial, n_radial), nn.SiLU())
        self.neighbours = NeighbourEmbedding(layout, n_radial)
        self.blocks = nn.ModuleList(
            ELCTBlock(
                layout,
                pair_layout,
                n_radial=n_radial,
                n_heads=n_heads,
                feed_factor=feed_factor,
                o3=o3,
                number=n,
            )
            for n in range(n_blocks)
        )
        self.norm = NodeNorm(layout)
        odd = [n_blocks > 1]
        self.onsite_edge = SO2Linear([pair_layout], head_layout, o3=o3, odd_inputs=odd)
        self.head_node = NodeLinear(layout, head_layout)
        self.head_radial = nn.Sequential(nn.Linear(n_radial, n_radial), nn.SiLU())
        self.head_activation = EdgeActivation(head_layout, n_radial)
        extra = self.head_activation.extra
        self.head_mix = SO2Linear([head_layout], head_layout, extra=extra, o3=o3)
        self.head_pair = SO2Linear(
            [pair_layout], head_layout, extra=extra, o3=o3, odd_inputs=odd
        )
        self.build_heads(layout, head_layout, head_layout)

    @property
    def bytes_per_edge(self) -> int:
        """Memory of the pair features of a message edge, both directions."""
        n_copy = 1 if len(self.blocks) == 1 else 2  # of the block before and of this one
        return 2 * n_copy * self.pair_layout.node_size * self.dtype.itemsize

    def stream(self, graph: Graph, chunk: int | None = None) -> Iterator[Tensor]:
        """Yield the blocks, flat, eV: of target pairs in their order, onsite ones at last.

        With `chunk` that many pairs are worked on at a time: what grows with the structure are
        the features of nodes and of message edges.
        """
        parts = self.parts(graph, chunk)
        kept = [self.message_edges(graph)] if len(parts) == 1 else None

        def edges() -> Iterable[MessageEdges]:  # frames of many parts are not kept
            return kept or map(self.message_edges, parts)

        scalars = self.embedding(graph.species)
        embedded: Tensor | None = None
        for part in edges():
            embedded = self.neighbours(scalars, part, embedded)
        missing = self.layout.node_size - embedded.shape[1]
        x = nn.functional.pad(embedded, (0, missing)) + self.from_scalars(scalars, self.layout)
        pairs: list[EdgeTensor | None] = [None] * len(parts)
        for block in self.blocks:
            x, pairs = block(x, pairs, edges())
        x = self.norm(x)
        nodes = self.head_layout.widen(self.head_node(x))
        summed: Tensor | None = None
        for part, pair, part_edges in zip(parts, pairs, edges(), strict=True):
            envelope = part_edges.envelope[:, None]
            near = EdgeTensor(pair.zero * envelope, pair.rest * envelope[..., None])
            local, _ = self.onsite_edge(near)
            message = rotate_to_nodes(local, part_edges.frames, self.head_layout)
            summed = part_edges.segments.sum(message, summed)
            yield self.hopping(part, nodes, near)
        yield self.read_onsite(graph, x, self.head_layout.narrow(summed))

    def message_edges(self, graph: Graph) -> MessageEdges:
        """Work out what all blocks need of the message edges of a graph."""
        edges = graph.edge_pair
        with full_precision(graph.pair_vector):
            vector = graph.pair_vector[edges]
            distance = torch.linalg.vector_norm(vector.double(), dim=-1)
            if graph.wigner is None:
                frames = EdgeFrames.from_vectors(vector, self.l_frame, dtype=self.dtype)
            else:
                flat = graph.wigner.index_select(0, edges).to(self.dtype)
                frames = EdgeFrames.from_flat(flat, self.l_frame)
        receiver = torch.cat([graph.pair_i[edges], graph.pair_j[edges]])
        embedding = self.pair_embedding(self.species_pair(graph)[edges])
        return MessageEdges(
            frames=frames,
            radial=self.radial(self.radial_basis(distance).to(self.dtype) + embedding),
            envelope=polynomial_envelope(distance, self.r_message).to(self.dtype),
            segments=Segments(receiver, graph.species.shape[0]),
        )

    def hopping(self, graph: Graph, nodes: Tensor, near: EdgeTensor) -> Tensor:
        """Hopping blocks of the target pairs of a graph, flat, eV.

        Parameters
        ----------
        graph
            All pairs, or a part of them.
        nodes
            ``(A, W)`` wide node features in the layout of the head.
        near
            Features of the message edges among the pairs, damped by the envelope.
        """
        n = graph.n_target
        with full_precision(graph.pair_vector):
            frames, distance = self.geometry(graph)
        frames, distance = frames.part(0, n), distance[:n]
        embedding = self.pair_embedding(self.species_pair(graph)[:n])
        gaussians = self.radial_basis(distance).to(self.dtype) + embedding
        ends = torch.cat([graph.pair_i[:n], graph.pair_j[:n]])
        own = nodes.index_select(0, ends).chunk(2)
        own = rotate_to_edges(*own, frames, self.head_layout)
        short = graph.edge_pair
        if n < graph.n_pair:  # some message edges are longer than the targets of their species
            known = torch.nonzero(short < n).squeeze(-1)
            short = short.index_select(0, known)
            near = EdgeTensor(*(x.index_select(1, known) for x in near))
        mixed, extra = self.head_mix(own)
        mixed_near, extra_near = self.head_pair(near)
        for far, close in zip((*mixed, extra), (*mixed_near, extra_near), strict=True):
            far.index_add_(1, short, close.to(far))
        hidden, _ = self.head_activation(mixed, extra, self.head_radial(gaussians))
        return self.read_hopping(graph, hidden, frames, distance)
