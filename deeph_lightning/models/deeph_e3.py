"""DeepH-E3: E(3)-equivariant convolutions by tensor products (arXiv:2210.13955).

Node and edge features of natural parity are updated in turn. Each update joins the features of
an edge and of its two atoms, multiplies them by the spherical harmonics of the edge (e3nn's
fully connected tensor product), and adds gate, radial weights, a self-connection that depends
on the species, layer normalisation and a skip. Edges are directed and include one from each
atom to itself. The read-outs, which replace the published linear map and its Wigner-Eckart
coupling, are those of every network here: Hermitian by construction.

The published network normalises over whole structures and cuts neighbours off without an
envelope; here both are options, off by default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from e3nn.o3 import Irreps, Linear
from torch import Tensor, nn

from deeph_lightning.errors import ConfigError
from deeph_lightning.models.base import HamiltonianModel
from deeph_lightning.nn.e3 import (
    EquiConv,
    EquivariantNorm,
    Gaussians,
    TensorProduct,
    e3nn_columns,
    irreps_of,
    layout_of,
)
from deeph_lightning.nn.layout import Layout
from deeph_lightning.nn.precision import full_precision
from deeph_lightning.nn.radial import polynomial_envelope
from deeph_lightning.nn.rotation import rotate_to_edges
from deeph_lightning.nn.scatter import Segments

if TYPE_CHECKING:
    from deeph_lightning.data.graph import Graph
    from deeph_lightning.nn.edge_frame import EdgeFrames


class Edges(NamedTuple):
    """Directed edges: all pairs, all pairs reversed, each atom with itself; E in number."""

    receiver: Tensor  # (E,), atom i
    sender: Tensor  # (E,), atom j
    kind: Tensor  # (E, species^2), one-hot of the ordered species pair
    harmonics: Tensor  # (E, (l_max + 1)^2), component normalisation; l = 0 only for j = i
    radial: Tensor  # (E, n_radial)
    batch: Segments | None  # structure of each edge, for graph-wide normalisation

    def select(self, index: Tensor) -> Edges:
        """Keep some edges."""
        tensors = (part.index_select(0, index) for part in self[:-1])
        return Edges(*tensors, batch=None)


class Update(nn.Module):
    """What the updates of nodes and of edges share: all that follows the convolution.

    Parameters
    ----------
    irreps_in, irreps_out
        Features before and after.
    n_kind
        Number of species, or of ordered species pairs.
    """

    def __init__(self, irreps_in: Irreps, irreps_out: Irreps, n_kind: int) -> None:
        super().__init__()
        self.post = Linear(irreps_out, irreps_out, biases=True)
        self.own = TensorProduct(irreps_in, Irreps([(n_kind, "0e")]), irreps_out)
        self.norm = EquivariantNorm(irreps_out)
        same = irreps_in == irreps_out
        self.skip = nn.Identity() if same else Linear(irreps_in, irreps_out)

    def forward(self, x: Tensor, new: Tensor, kind: Tensor, batch: Segments | None) -> Tensor:
        """Return the features after `x`, ``(N, F_in)``, given the convolution's result."""
        return self.skip(x) + self.norm(self.post(new) + self.own(x, kind), batch)


class Block(nn.Module):
    """Update of the nodes, then of the edges.

    Parameters
    ----------
    node_in, edge_in
        Irreps of the incoming features.
    node_out, edge_out
        Wanted irreps of the outgoing features.
    harmonics
        Irreps of the harmonics.
    n_radial
        Size of the radial basis.
    n_species
        Number of species.
    """

    def __init__(
        self,
        node_in: Irreps,
        edge_in: Irreps,
        node_out: Irreps,
        edge_out: Irreps,
        *,
        harmonics: Irreps,
        n_radial: int,
        n_species: int,
    ) -> None:
        super().__init__()
        inputs = [node_in, node_in, edge_in]
        self.node_pre = Linear(node_in, node_in, biases=True)
        self.node_conv = EquiConv(inputs, harmonics, node_out, n_radial)
        node_out = self.node_conv.irreps_out
        self.node_update = Update(node_in, node_out, n_species)
        inputs = [node_out, node_out, edge_in]
        self.edge_pre = Linear(edge_in, edge_in, biases=True)
        self.edge_conv = EquiConv(inputs, harmonics, edge_out, n_radial)
        edge_out = self.edge_conv.irreps_out
        self.edge_update = Update(edge_in, edge_out, n_species**2)
        self.irreps_out = node_out, edge_out

    def forward(
        self,
        x: Tensor,
        edge: Tensor,
        kind: Tensor,
        edges: Edges,
        near: Edges,
        messages: Messages,
        batch: Segments | None,
    ) -> tuple[Tensor, Tensor]:
        """Update ``(A, F)`` node and ``(E, F')`` edge features; `near` carries the messages."""
        parts = [*_ends(self.node_pre(x), near), edge.index_select(0, messages.index)]
        message = self.node_conv(parts, near.harmonics, near.radial)
        x = self.node_update(x, messages.sum(message), kind, batch)
        parts = [*_ends(x, edges), self.edge_pre(edge)]
        new = self.edge_conv(parts, edges.harmonics, edges.radial)
        return x, self.edge_update(edge, new, edges.kind, edges.batch)


class Messages(NamedTuple):
    """Edges that carry messages, and how their messages are summed."""

    index: Tensor  # (M,), numbers of the edges
    weight: Tensor | None  # (M,), cut-off envelope
    segments: Segments

    def sum(self, values: Tensor) -> Tensor:
        """Sum ``(M, F)`` over the edges of every receiving atom."""
        with full_precision(values):
            if self.weight is not None:
                values = values * self.weight[:, None]
            return self.segments.sum(values)


class DeepHE3(HamiltonianModel):
    """DeepH-E3 trunk with the read-outs, baseline and scales of all networks.

    Parameters
    ----------
    basis
        ``{species label: [l, l, ...]}``.
    r_target
        ``{"A-B": Å}`` range of H per pair of species labels.
    r_message
        Cut-off of the message edges, Å. Edges of all targets have features; only these are
        summed.
    l_max
        Largest degree of features and harmonics.
    channels
        Channels of degree 0, 1, ... of node and edge features; the first l_max + 1 are used.
        The last edge features have one channel for each coupled component of a block instead.
    n_blocks
        Updates of nodes and edges.
    n_radial
        Gaussians of the radial basis.
    envelope
        Let messages vanish smoothly at `r_message`. As published: no, and H jumps where an atom
        enters the cut-off.
    graph_norm
        Normalise over whole structures, as published; then nothing is local.
    onsite_sum
        Read onsite blocks from the sum of the edges around the atom. As published: no, from the
        edge of the atom to itself, which has no unnatural features.
    o3
        Exact inversion symmetry.
    statistics
        Fit means and scales of the targets (and the baseline). As published: no, the network
        gives H in eV.
    baseline
        Use the two-centre baseline; without it the network learns all of H.
    r_onsite
        Range of the crystal-field functions of the onsite baseline, Å.
    baseline_spacing
        Between the centres of the baseline's radial functions, Å.
    component_power
        Exponent of the per-component target scale, see `PairBaseline`.

    Raises
    ------
    ConfigError
        Too few channels, or a baseline without statistics.
    """

    def __init__(
        self,
        basis: Mapping[str, Sequence[int]],
        r_target: Mapping[str, float],
        r_message: float,
        l_max: int,
        channels: Sequence[int],
        n_blocks: int,
        n_radial: int,
        envelope: bool,
        graph_norm: bool,
        onsite_sum: bool,
        o3: bool,
        statistics: bool,
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
        if baseline and not statistics:
            raise ConfigError(
                "model.baseline=true with model.statistics=false: the baseline is fitted.\n"
                "  Set model.baseline=false, or model.statistics=true.",
                key="model.statistics",
            )
        self.envelope, self.graph_norm, self.onsite_sum = envelope, graph_norm, onsite_sum
        self.statistics = statistics
        layout = self.make_layout("channels", channels, [0] * (l_max + 1))
        n_scalar, n_species = layout.natural[0], len(self.basis.labels)
        r_max = max(self.r_message, *self.r_target.values())
        self.radial_basis = Gaussians(n_radial, r_max)
        self.edge_embedding = Gaussians(n_scalar, r_max)
        self.embedding = nn.Embedding(n_species, n_scalar)
        middle = irreps_of(layout, o3=o3)
        last = irreps_of(self._block_layout(), o3=o3)
        node = edge = irreps_of(Layout.of([n_scalar]), o3=o3)
        self.blocks = nn.ModuleList()
        for n in range(n_blocks):
            block = Block(
                node,
                edge,
                middle,
                last if n == n_blocks - 1 else middle,
                harmonics=irreps_of(Layout.of([1] * (l_max + 1)), o3=o3),
                n_radial=n_radial,
                n_species=n_species,
            )
            node, edge = block.irreps_out
            self.blocks.append(block)
        self.layouts = layout_of(node, o3=o3), layout_of(edge, o3=o3)
        for name, one in zip(("node", "edge"), self.layouts, strict=True):
            self.register_buffer(f"{name}_columns", e3nn_columns(one), persistent=False)
        self.build_heads(self.layouts[0], self.layouts[1], self.layouts[1])

    def _block_layout(self) -> Layout:
        """Channels of the last edge features: components of a block, the most of any pair."""
        layouts = [coupling.layout for coupling in self.pair_couplings.values()]

        def most(parity: str) -> list[int]:
            counts = [getattr(one, parity) for one in layouts]
            degrees = range(max(map(len, counts)))
            return [max(c[l] if l < len(c) else 0 for c in counts) for l in degrees]

        return Layout.of(most("natural"), most("unnatural"))

    def fit_statistics(
        self,
        graphs: Callable[[], Iterable[Graph]],
        overlap_graphs: Callable[[], Iterable[Graph]] | None = None,
    ) -> None:
        """Fit baseline and target scales, unless the network gives H itself."""
        if self.statistics:
            super().fit_statistics(graphs, overlap_graphs)

    def stream(self, graph: Graph, chunk: int | None = None) -> Iterator[Tensor]:
        """Yield the blocks, flat, eV: of target pairs in their order, onsite ones at last.

        Every pair has features that all updates need, so that only the read-out can be cut
        into chunks.
        """
        with full_precision(graph.pair_vector):
            frames, distance = self.geometry(graph)
        n_atom, n_pair = graph.n_atom, graph.n_pair
        itself = torch.arange(n_atom, device=graph.species.device)
        length = torch.cat([distance, distance, distance.new_zeros(n_atom)])
        edges = self._edges(graph, frames, length, itself)
        near = torch.cat([graph.edge_pair, graph.edge_pair + n_pair, itself + 2 * n_pair])
        messages = Messages(
            near,
            self._envelope(length[near]) if self.envelope else None,
            Segments(edges.receiver[near], n_atom),
        )
        near = edges.select(near)
        kind = nn.functional.one_hot(graph.species, len(self.basis.labels)).to(self.dtype)
        batch = Segments(graph.batch, graph.n_graph) if self.graph_norm else None

        x = self.embedding(graph.species)
        edge = self.edge_embedding(length).to(self.dtype)
        for block in self.blocks:
            x, edge = block(x, edge, kind, edges, near, messages, batch)

        # the border: e3nn's order ends here
        x = x.index_select(1, self.node_columns)
        edge = edge.index_select(1, self.edge_columns)
        if self.onsite_sum:
            summed = messages.sum(edge.index_select(0, messages.index))
        else:
            summed = edge[2 * n_pair :]
        first = 0
        for part in self.parts(graph, chunk):
            last = first + part.n_target
            ends = (edge[start + first : start + last] for start in (0, n_pair))
            one, two = (self.layouts[1].widen(x) for x in ends)
            local = frames.part(first, last)
            hidden = rotate_to_edges(one, two, local, self.layouts[1])
            yield self.read_hopping(part, hidden, local, distance[first:last])
            first = last
        yield self.read_onsite(graph, x, summed)

    def _envelope(self, length: Tensor) -> Tensor:
        return polynomial_envelope(length, self.r_message).to(self.dtype)

    def _edges(self, graph: Graph, frames: EdgeFrames, length: Tensor, itself: Tensor) -> Edges:
        receiver = torch.cat([graph.pair_i, graph.pair_j, itself])
        sender = torch.cat([graph.pair_j, graph.pair_i, itself])
        n_species = len(self.basis.labels)
        kind = graph.species[receiver] * n_species + graph.species[sender]
        parts = []
        for l, block in enumerate(frames.blocks[: self.l_max + 1]):
            own = block[:, l] * (2 * l + 1) ** 0.5
            alone = own.new_full((graph.n_atom, 2 * l + 1), float(l == 0))
            parts.append(torch.cat([own, (-1) ** l * own, alone]))
        return Edges(
            receiver,
            sender,
            nn.functional.one_hot(kind, n_species**2).to(self.dtype),
            torch.cat(parts, -1),
            self.radial_basis(length).to(self.dtype),
            Segments(graph.batch[receiver], graph.n_graph) if self.graph_norm else None,
        )


def _ends(x: Tensor, edges: Edges) -> tuple[Tensor, Tensor]:
    """Features of the atoms of every edge, receiver first."""
    return x.index_select(0, edges.receiver), x.index_select(0, edges.sender)
