"""Read-outs shared by all models: features -> onsite and hopping blocks of H.

Hopping blocks are read in the edge frame of the pair by one SO(2)-linear map per order,
multiplied by the fitted scales, completed by the two-centre baseline and rotated back once.
Both directions of a pair are read and the block is their Hermitian mean, so nothing depends on
which one is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from deeph_lightning.nn.baseline import TwoCentreBaseline
from deeph_lightning.nn.coupling import BlockCoupling
from deeph_lightning.nn.edge_frame import reversal_signs
from deeph_lightning.nn.layout import EdgeTensor, Layout
from deeph_lightning.nn.overlap import TwoCentreOverlap
from deeph_lightning.nn.so2 import SO2Linear

if TYPE_CHECKING:
    from deeph_lightning.data.graph import Graph


def shell_rotation(frames: list[Tensor], shells: tuple[int, ...]) -> Tensor:
    """Block-diagonal Wigner matrix of an atom's orbitals, ``(P, n_orb, n_orb)``."""
    size = sum(2 * l + 1 for l in shells)
    out = frames[0].new_zeros(frames[0].shape[0], size, size)
    start = 0
    for l in shells:
        stop = start + 2 * l + 1
        out[:, start:stop, start:stop] = frames[l]
        start = stop
    return out


class HoppingHead(nn.Module):
    """Blocks of all target pairs from pair features.

    Parameters
    ----------
    layout
        Channels of the incoming pair features.
    couplings
        ``{(a, b): BlockCoupling}``, species indices a <= b.
    o3
        Exact inversion symmetry.
    """

    def __init__(
        self, layout: Layout, couplings: dict[tuple[int, int], BlockCoupling], *, o3: bool
    ) -> None:
        super().__init__()
        self.couplings = couplings
        self.readouts = nn.ModuleDict()
        for (a, b), coupling in couplings.items():
            self.readouts[f"{a}_{b}"] = SO2Linear([layout], coupling.layout, o3=o3, gain=0.1)
            matrices = torch.stack(_exchange_matrices(coupling, same_species=a == b))
            self.register_buffer(f"matrix_{a}_{b}", matrices, persistent=False)

    def forward(
        self,
        features: EdgeTensor,
        frames: list[Tensor],
        distance: Tensor,
        graph: Graph,
        baseline: TwoCentreBaseline,
    ) -> Tensor:
        """Return the flat hopping blocks in eV (crystal frame), target pairs' order.

        ``frames`` are Wigner matrices per l, ``(P, 2l+1, 2l+1)``, ``distance`` is ``(P,)`` Å,
        both of the P target pairs, like the features.
        """
        blocks = []
        scale = graph.hopping_scale
        if scale is None:
            scale = self.distance_scale(graph, distance, baseline)
        for (a, b), coupling, start, stop in self._types(graph):
            part = features.part(start, stop)
            coefficients, _ = self.readouts[f"{a}_{b}"](part)
            fitted = baseline.pairs[f"{a}_{b}"]
            matrix = getattr(self, f"matrix_{a}_{b}") * fitted.relative_scale()[:, None]
            block = _edge_blocks(coefficients, matrix.to(part.zero))
            block = block * scale[start:stop, None].to(part.zero)
            blocks.append(_to_crystal(block, frames, coupling, start, stop))
        fixed = graph.baseline_hopping
        if fixed is None:
            fixed = self.two_centre(graph, frames, distance, baseline)
        learnt = torch.cat(blocks) if blocks else fixed
        return learnt + fixed.to(learnt)

    def distance_scale(
        self, graph: Graph, distance: Tensor, baseline: TwoCentreBaseline
    ) -> Tensor:
        """Scale of what is learnt of each target pair's block, ``(P,)``, float64."""
        parts = [
            baseline.pairs[f"{a}_{b}"].distance_scale(distance[start:stop])
            for (a, b), _, start, stop in self._types(graph)
        ]
        return torch.cat([distance.new_zeros(0), *parts])

    def two_centre(
        self,
        graph: Graph,
        frames: list[Tensor],
        distance: Tensor,
        functions: TwoCentreBaseline | TwoCentreOverlap,
    ) -> Tensor:
        """Two-centre part of the hopping blocks, flat, float64: baseline in eV, or overlap."""
        blocks = [distance.new_zeros(0)]
        for (a, b), coupling, start, stop in self._types(graph):
            value = functions.two_centre((a, b), distance[start:stop])
            block = value @ getattr(self, f"matrix_{a}_{b}")[0, : value.shape[1]].to(value)
            blocks.append(_to_crystal(block, frames, coupling, start, stop))
        return torch.cat(blocks)

    def coefficients(
        self, graph: Graph, frames: list[Tensor], labels: Tensor
    ) -> dict[tuple[int, int], tuple[Tensor, Tensor]]:
        """Edge-frame coefficients of flat blocks: per type ``(distance, (P, n))``, float64.

        Pairs of one species appear in both directions.
        """
        out, offset = {}, 0
        distance = torch.linalg.vector_norm(graph.pair_vector.double(), dim=-1)
        for (a, b), coupling, start, stop in self._types(graph):
            left, right = _shell_rotations(frames, coupling, start, stop)
            size = (stop - start) * coupling.size
            block = labels[offset : offset + size].double()
            offset += size
            block = left @ block.view(-1, left.shape[-1], right.shape[-1]) @ right.mT
            matrix = coupling.edge_matrix.to(block)
            value, length = block.flatten(1) @ matrix.T, distance[start:stop]
            if a == b:
                partner = (_orbital_signs(coupling).to(block) * block).mT
                value = torch.cat([value, partner.flatten(1) @ matrix.T])
                length = length.repeat(2)
            out[a, b] = (length, value)
        return out

    def _types(self, graph: Graph) -> list[tuple[tuple[int, int], BlockCoupling, int, int]]:
        """Species pairs that occur, with their range of target pairs."""
        pointer = graph.type_ptr
        return [
            (key, coupling, pointer[n], pointer[n + 1])
            for n, (key, coupling) in enumerate(self.couplings.items())
            if pointer[n + 1] > pointer[n]
        ]


def _orbital_signs(coupling: BlockCoupling) -> Tensor:
    """Signs ``(n_row, n_column)`` of block elements under reversal of the pair."""
    row = torch.cat([reversal_signs(l) for l in coupling.shells_row])
    column = torch.cat([reversal_signs(l) for l in coupling.shells_column])
    return row[:, None] * column


def _exchange_matrices(coupling: BlockCoupling, *, same_species: bool) -> tuple[Tensor, Tensor]:
    """Coefficients in the exchange basis to the Hermitian block of the first direction.

    The block is the mean of what both directions say about it: ``B = (Q c1 + P Q c2) / 2`` with
    P the transposition in the reversed frame. Atoms of two species fix the direction by
    themselves.
    """
    direct = coupling.edge_matrix
    if not same_species:
        return direct, direct
    sign = _orbital_signs(coupling).to(direct)
    blocks = direct.view(-1, *sign.shape) * coupling.reversal().to(direct)[:, None, None]
    reversed_ = (sign * blocks).mT.flatten(1)
    return 0.5 * (direct + reversed_), 0.5 * (direct - reversed_)


def _edge_blocks(coefficients: EdgeTensor, matrix: Tensor) -> Tensor:
    """Blocks ``(P, n)`` in the edge frame; `matrix` ``(2, rows, n)`` in the exchange basis."""
    zero, rest = coefficients
    parts = [*zero.unbind(), *rest.flatten(2).unbind()]
    of_zero, of_rest = matrix.split([zero.shape[-1], 2 * rest.shape[-1]], 1)
    rows = [*of_zero.unbind(), *of_rest.unbind()]
    block = parts[0] @ rows[0]
    for part, row in zip(parts[1:], rows[1:], strict=True):
        block = torch.addmm(block, part, row)
    return block


def _to_crystal(
    block: Tensor, frames: list[Tensor], coupling: BlockCoupling, start: int, stop: int
) -> Tensor:
    """Rotate edge-frame blocks ``(P, n)`` back, flat."""
    left, right = _shell_rotations(frames, coupling, start, stop)
    block = block.view(stop - start, left.shape[-1], right.shape[-1])
    return (left.mT.to(block) @ block @ right.to(block)).flatten()


def _shell_rotations(
    frames: list[Tensor], coupling: BlockCoupling, start: int, stop: int
) -> tuple[Tensor, Tensor]:
    local = [block[start:stop] for block in frames]
    left = shell_rotation(local, coupling.shells_row)
    if coupling.shells_row == coupling.shells_column:
        return left, left
    return left, shell_rotation(local, coupling.shells_column)


class OnsiteHead(nn.Module):
    """Onsite blocks from node features and from a sum of pair features over neighbours.

    Parameters
    ----------
    layouts
        Channels of the two inputs.
    couplings
        ``{a: BlockCoupling}`` per species index.
    """

    def __init__(
        self, layouts: tuple[Layout, Layout], couplings: dict[int, BlockCoupling]
    ) -> None:
        super().__init__()
        self.couplings = couplings
        self.node_readouts, self.sum_readouts = nn.ModuleDict(), nn.ModuleDict()
        for a, coupling in couplings.items():
            self.node_readouts[str(a)] = ComponentReadout(layouts[0], coupling)
            self.sum_readouts[str(a)] = ComponentReadout(layouts[1], coupling)
            self.register_buffer(f"matrix_{a}", coupling.node_matrix, persistent=False)

    def forward(
        self, x: Tensor, summed: Tensor, graph: Graph, baseline: TwoCentreBaseline
    ) -> Tensor:
        """Return the flat onsite blocks in eV, atom order; inputs ``(A, F)``, ``(A, F')``."""
        blocks = {}
        for a, _, atoms in self._species(graph):
            raw = self.node_readouts[str(a)](x[atoms]) + self.sum_readouts[str(a)](
                summed[atoms]
            )
            matrix = getattr(self, f"matrix_{a}").to(raw)
            blocks[a] = (raw * baseline.onsite[str(a)].scale.to(raw)) @ matrix
        fixed = graph.baseline_onsite
        if fixed is None:
            fixed = self.two_centre(graph, baseline)
        return self._flat(blocks, graph) + fixed.to(x)

    def two_centre(self, graph: Graph, baseline: TwoCentreBaseline) -> Tensor:
        """Baseline of the onsite blocks, flat, eV, float64."""
        fitted = baseline.onsite_coefficients(graph)
        blocks = {
            a: fitted[a] @ getattr(self, f"matrix_{a}").to(fitted[a])
            for a, _, _ in self._species(graph)
        }
        return self._flat(blocks, graph)

    def _flat(self, blocks: dict[int, Tensor], graph: Graph) -> Tensor:
        """Put blocks of all species into atom order."""
        if len(blocks) == 1:
            return next(iter(blocks.values())).flatten()
        places = [
            self._places(graph, atoms, coupling) for _, coupling, atoms in self._species(graph)
        ]
        values = torch.cat([block.flatten() for block in blocks.values()])
        return values[torch.argsort(torch.cat(places))]

    def coefficients(self, graph: Graph) -> dict[int, Tensor]:
        """Crystal-frame components of the labels, per species ``(A_s, n)``, float64."""
        return {
            a: graph.H_onsite[self._places(graph, atoms, coupling)]
            .double()
            .view(len(atoms), -1)
            @ getattr(self, f"matrix_{a}").double().T
            for a, coupling, atoms in self._species(graph)
        }

    def _species(self, graph: Graph) -> list[tuple[int, BlockCoupling, Tensor]]:
        """Species that occur, with their atoms."""
        found = [
            (a, coupling, torch.nonzero(graph.species == a).squeeze(-1))
            for a, coupling in self.couplings.items()
        ]
        return [item for item in found if len(item[2])]

    def _places(self, graph: Graph, atoms: Tensor, coupling: BlockCoupling) -> Tensor:
        """Positions of the blocks of `atoms` in the flat onsite array."""
        sizes = torch.tensor([c.size for c in self.couplings.values()], device=atoms.device)
        sizes = sizes[graph.species]
        offset = torch.cumsum(sizes, 0) - sizes
        within = torch.arange(coupling.size, device=atoms.device)
        return (offset[atoms][:, None] + within).flatten()


class ComponentReadout(nn.Module):
    """Node features to the coupled components of an onsite block, each from its own degree.

    The components are few, so the maps of all degrees stand in one matrix. Components of
    degrees that the layout lacks are zero.
    """

    def __init__(self, layout: Layout, coupling: BlockCoupling, gain: float = 0.1) -> None:
        super().__init__()
        self.n_in, self.n_out = layout.node_size, coupling.node_matrix.shape[0]
        self.weights = nn.ParameterDict()
        # of the weights, in the matrix and among them
        places, sources, n_weight = [torch.arange(0)], [torch.arange(0)], 0
        for parity, L, count, first in coupling.sections:
            if (parity, L) not in layout.degrees:
                continue
            columns = layout.degree_columns(parity, L)
            n_in = sum(n for _, n in columns)
            bound = gain * (3.0 / n_in) ** 0.5
            matrix = torch.empty(n_in, count).uniform_(-bound, bound)
            self.weights[f"{parity}_{L}"] = nn.Parameter(matrix)
            source = n_weight + torch.arange(n_in * count)
            n_weight += n_in * count
            for row in range(2 * L + 1):
                rows = [torch.arange(n) + start + row * n for start, n in columns]
                column = first + row * count + torch.arange(count)
                places.append((torch.cat(rows)[:, None] * self.n_out + column).flatten())
                sources.append(source)
        self.register_buffer("place", torch.cat(places), persistent=False)
        self.register_buffer("source", torch.cat(sources), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(A, F)`` to ``(A, n)``, the order of the coupling's sections."""
        weights = [weight.flatten() for weight in self.weights.values()]
        weight = torch.cat([x.new_zeros(0), *weights])
        matrix = weight.new_zeros(self.n_in * self.n_out)
        matrix = matrix.index_copy(0, self.place, weight.index_select(0, self.source))
        return x @ matrix.view(self.n_in, self.n_out)
