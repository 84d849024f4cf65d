"""Two-centre baseline and target scales: what is fitted once, before the network learns.

Hopping: for each pair of species and each natural component (row shell, column shell, L) a
smooth function of distance times Y_L of the bond, i.e. one number at m = 0 in the edge frame:
the Slater-Koster part of H (Phys. Rev. 94, 1498). Onsite: a mean plus the sum over neighbours
of such functions (crystal-field terms). Both by linear least squares on the training set. The
network's outputs are multiplied by smooth scales fitted to what the baseline leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from deeph_lightning.nn.coupling import BlockCoupling
from deeph_lightning.nn.edge_frame import frame_rotations
from deeph_lightning.nn.radial import RadialBasis, edge_window, polynomial_envelope
from deeph_lightning.nn.wigner import real_harmonics_from_blocks, wigner_blocks

if TYPE_CHECKING:
    from deeph_lightning.data.graph import Graph

#: Weights of the ridge and of the squared second differences of neighbouring coefficients
#: (P-splines: Eilers and Marx, Stat. Sci. 11, 89) over the mean diagonal of the normal matrix.
#: The latter carries the functions smoothly over distances that no pair has.
_RIDGE, _ROUGHNESS = 1e-12, 1e-5
#: First centre of the radial functions, Å.
_R_MIN = 0.7
#: Width of the kernel that smooths the logarithm of the residual over distance, Å.
_SCALE_WIDTH = 0.25
#: Floor of target scales, eV: label noise, below which nothing is worth learning.
_SCALE_FLOOR = 1e-6
#: Neighbours that the crystal field is summed over at once.
_CHUNK = 1 << 14


class PairBaseline(nn.Module):
    """Baseline and scale of the hopping blocks of one pair of species.

    Parameters
    ----------
    coupling
        Components of the block.
    r_cut
        Distance beyond which H vanishes, Å; functions and scales go smoothly to zero there.
    spacing
        Distance between the centres of the radial functions, Å.
    component_power
        Exponent p of the per-component scale: 0 one scale for the block, 1 each component its
        own.
    """

    def __init__(
        self, coupling: BlockCoupling, r_cut: float, spacing: float, component_power: float
    ) -> None:
        super().__init__()
        self.r_cut, self.component_power = r_cut, component_power
        self.n_natural = len(coupling.components["natural"])
        self.basis = RadialBasis.uniform(spacing, _R_MIN, r_cut)
        self.register_buffer(
            "weight", torch.zeros(len(self.basis), self.n_natural, dtype=torch.float64)
        )
        n_bin = max(2, round(r_cut / 0.1))
        self.register_buffer(
            "bin_centre", (torch.arange(n_bin, dtype=torch.float64) + 0.5) * 0.1
        )
        self.register_buffer("bin_count", torch.zeros(n_bin, dtype=torch.float64))
        self.register_buffer("bin_log_scale", torch.zeros(n_bin, dtype=torch.float64))
        n_component = self.n_natural + len(coupling.components["unnatural"])
        self.register_buffer("component_scale", torch.ones(n_component, dtype=torch.float64))
        self.register_buffer("column", coupling.edge_columns(), persistent=False)

    def radial(self, distance: Tensor) -> Tensor:
        """Radial functions ``(P, n_basis)`` in float64, zero at the cut-off."""
        distance = distance.double()
        return self.basis(distance) * edge_window(distance, self.r_cut)[:, None]

    def two_centre(self, distance: Tensor) -> Tensor:
        """Baseline at m = 0 of the natural components, ``(P, n_natural)``, eV."""
        return self.radial(distance) @ self.weight

    def distance_scale(self, distance: Tensor) -> Tensor:
        """Smooth rms of the residual at a distance, ``(P,)``, eV."""
        distance = distance.double()
        offset = (distance[:, None] - self.bin_centre) / _SCALE_WIDTH
        weight = (-0.5 * offset**2).exp() * self.bin_count.sqrt() + 1e-12 * (
            1.0 / (1.0 + offset**2)
        ) * (self.bin_count > 0)
        log_scale = (weight @ self.bin_log_scale) / weight.sum(-1).clamp_min(1e-300)
        return log_scale.exp() * edge_window(distance, self.r_cut)

    def relative_scale(self) -> Tensor:
        """Scale of each coefficient over that of its distance, order of the edge matrix."""
        return (self.component_scale**self.component_power)[self.column]


class OnsiteBaseline(nn.Module):
    """Mean and crystal field of the onsite blocks of one species.

    Parameters
    ----------
    coupling
        Components of the block.
    neighbours
        Species that may surround this one.
    r_cut
        Range of the crystal field, Å.
    spacing
        Distance between the centres of the radial functions, Å.
    """

    def __init__(
        self, coupling: BlockCoupling, n_neighbour: int, r_cut: float, spacing: float
    ) -> None:
        super().__init__()
        self.r_cut = r_cut
        self.sections, self.l_max = coupling.sections, coupling.layout.l_max
        self.basis = RadialBasis.uniform(spacing, _R_MIN, r_cut)
        counts = coupling.layout.natural
        self.register_buffer("mean", torch.zeros(counts[0], dtype=torch.float64))
        for L, count in enumerate(counts):
            shape = (n_neighbour * len(self.basis), count)
            self.register_buffer(f"weight_{L}", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer(
            "scale", torch.ones(len(coupling.node_matrix), dtype=torch.float64)
        )

    def radial(self, distance: Tensor) -> Tensor:
        """Radial functions ``(E, n_basis)`` in float64, zero at the cut-off."""
        distance = distance.double()
        envelope = polynomial_envelope(distance, self.r_cut)
        return self.basis(distance) * envelope[:, None]

    def field(self, vector: Tensor, neighbour: Tensor) -> Tensor:
        """Crystal field ``(E, n)`` of neighbours at ``(E, 3)`` vectors, of ``(E,)`` species."""
        distance = torch.linalg.vector_norm(vector, dim=-1)
        radial = self.radial(distance)
        harmonics = real_harmonics_from_blocks(
            wigner_blocks(frame_rotations(vector), self.l_max)
        )
        out = vector.new_zeros(len(vector), len(self.scale))
        for parity, L, count, offset in self.sections:
            if parity == "unnatural":
                continue
            weight = getattr(self, f"weight_{L}").view(-1, len(self.basis), count)
            strength = vector.new_zeros(len(vector), count)
            for species in range(len(weight)):
                is_one = neighbour == species
                strength[is_one] = radial[is_one] @ weight[species]
            value = harmonics[L][:, :, None] * strength[:, None]
            out[:, offset : offset + (2 * L + 1) * count] = value.flatten(1)
        return out


class TwoCentreBaseline(nn.Module):
    """Baseline and scales of all species; fitted by `fit`, kept as buffers.

    Parameters
    ----------
    pair_couplings
        ``{(a, b): BlockCoupling}`` of species indices a <= b.
    onsite_couplings
        ``{a: BlockCoupling}``.
    r_target
        ``{(a, b): Å}`` range of H.
    r_onsite
        Range of the crystal field, Å.
    spacing
        Distance between the centres of the radial functions, Å.
    component_power
        See `PairBaseline`.
    enabled
        False keeps the mean and the scales only: the network learns all of H.
    """

    def __init__(
        self,
        pair_couplings: dict[tuple[int, int], BlockCoupling],
        onsite_couplings: dict[int, BlockCoupling],
        r_target: dict[tuple[int, int], float],
        *,
        r_onsite: float,
        spacing: float,
        component_power: float,
        enabled: bool = True,
    ) -> None:
        super().__init__()
        self.pair_couplings, self.onsite_couplings = pair_couplings, onsite_couplings
        self.enabled, self.r_onsite = enabled, r_onsite
        self.n_species = len(onsite_couplings)
        self.pairs = nn.ModuleDict(
            {
                f"{a}_{b}": PairBaseline(coupling, r_target[a, b], spacing, component_power)
                for (a, b), coupling in pair_couplings.items()
            }
        )
        self.onsite = nn.ModuleDict(
            {
                str(a): OnsiteBaseline(coupling, self.n_species, r_onsite, spacing)
                for a, coupling in onsite_couplings.items()
            }
        )
        self.register_buffer("is_fitted", torch.zeros((), dtype=torch.bool))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TwoCentreBaseline:
        """Move, but keep float64: 30 eV onsite to 1e-3 meV does not fit into less."""

        def move(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return tensor.to(moved.device) if tensor.dtype == torch.float64 else moved

        return super()._apply(move, recurse)

    def two_centre(self, key: tuple[int, int], distance: Tensor) -> Tensor:
        """Baseline at m = 0 of a species pair, ``(P, n_natural)``, eV; zero if not enabled."""
        fitted = self.pairs[f"{key[0]}_{key[1]}"]
        if self.enabled:
            return fitted.two_centre(distance)
        return distance.new_zeros(len(distance), fitted.n_natural, dtype=torch.float64)

    def crystal_field(self, graph: Graph) -> dict[int, list[Tensor]]:
        """Design of the onsite fit: per species, over L, ``(A_s, 2L+1, n_species*K)``."""
        short = torch.linalg.vector_norm(graph.pair_vector, dim=-1) < self.r_onsite
        vector = graph.pair_vector[short].double()
        pair_i, pair_j = graph.pair_i[short], graph.pair_j[short]
        receiver = torch.cat([pair_i, pair_j])
        neighbour = graph.species[torch.cat([pair_j, pair_i])]
        distance = torch.linalg.vector_norm(vector, dim=-1).repeat(2)
        l_max = max(baseline.l_max for baseline in self.onsite.values())
        harmonics = real_harmonics_from_blocks(wigner_blocks(frame_rotations(vector), l_max))
        designs: dict[int, list[Tensor]] = {}
        n_atom = graph.species.shape[0]
        for a in self.onsite_couplings:
            baseline = self.onsite[str(a)]
            atoms = torch.nonzero(graph.species == a).squeeze(-1)
            keep = torch.nonzero(graph.species[receiver] == a).squeeze(-1)
            radial = baseline.radial(distance[keep])
            n_basis = radial.shape[1]
            column = torch.zeros(keep.shape[0], self.n_species, n_basis).to(radial)
            column[torch.arange(keep.shape[0], device=keep.device), neighbour[keep]] = radial
            column = column.flatten(1)
            designs[a] = []
            for L in range(baseline.l_max + 1):
                sign = torch.ones_like(distance)
                if L % 2:
                    sign[distance.shape[0] // 2 :] = -1.0
                angular = (harmonics[L].repeat(2, 1) * sign[:, None])[keep]
                terms = angular[:, :, None] * column[:, None, :]
                total = terms.new_zeros(n_atom, *terms.shape[1:])
                designs[a].append(total.index_add(0, receiver[keep], terms)[atoms])
        return designs

    def onsite_coefficients(self, graph: Graph) -> dict[int, Tensor]:
        """Baseline of the onsite blocks: per species ``(A_s, n)``, natural parts filled."""
        out = {}
        for a in self.onsite_couplings:
            baseline = self.onsite[str(a)]
            is_own = graph.species == a
            value = baseline.mean.new_zeros(graph.species.shape[0], len(baseline.scale))
            value[:, : len(baseline.mean)] = baseline.mean  # L = 0 comes first
            if self.enabled:
                for vector, receiver, neighbour in self._neighbours(graph, is_own):
                    value.index_add_(0, receiver, baseline.field(vector, neighbour))
            out[a] = value[is_own]
        return out

    def _neighbours(self, graph: Graph, is_own: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Yield vectors to neighbours of some atoms, in chunks, with both ends' indices."""
        distance = torch.linalg.vector_norm(graph.pair_vector, dim=-1)
        for sign, first, second in ((1, "pair_i", "pair_j"), (-1, "pair_j", "pair_i")):
            atom, other = getattr(graph, first), getattr(graph, second)
            found = torch.nonzero((distance < self.r_onsite) & is_own[atom]).squeeze(-1)
            for part in found.split(_CHUNK):
                vector = sign * graph.pair_vector[part].double()
                yield vector, atom[part], graph.species[other[part]]

    @torch.no_grad()
    def fit(
        self,
        graphs: Callable[[], Iterable[Graph]],
        hopping_coefficients: Callable[[Graph], dict[tuple[int, int], tuple[Tensor, Tensor]]],
        onsite_coefficients: Callable[[Graph], dict[int, Tensor]],
    ) -> None:
        """Fit the baseline, then the scales of the residual: two passes over the graphs.

        Parameters
        ----------
        graphs
            Called twice; yields training graphs with labels.
        hopping_coefficients
            Label blocks as edge-frame coefficients: per species pair ``(distance, (P, n))``.
        onsite_coefficients
            Label blocks as crystal-frame components: per species ``(A_s, n)``.
        """
        self._fit_functions(graphs, hopping_coefficients, onsite_coefficients)
        self._fit_scales(graphs, hopping_coefficients, onsite_coefficients)
        self.is_fitted.fill_(True)

    def _fit_functions(self, graphs, hopping_coefficients, onsite_coefficients) -> None:
        pair_sums: dict[tuple[int, int], list[Tensor]] = {}
        onsite_sums: dict[tuple[int, int], list[Tensor]] = {}
        for graph in graphs():
            if self.enabled:
                for key, (distance, value) in hopping_coefficients(graph).items():
                    baseline = self.pairs[f"{key[0]}_{key[1]}"]
                    design = baseline.radial(distance)
                    target = value[:, : baseline.n_natural]
                    _accumulate(pair_sums, key, design.T @ design, design.T @ target)
            designs = self.crystal_field(graph)
            for a, value in onsite_coefficients(graph).items():
                for parity, L, count, offset in self.onsite[str(a)].sections:
                    if parity == "unnatural":
                        continue
                    target = value[:, offset : offset + (2 * L + 1) * count]
                    target = target.reshape(-1, count)
                    design = designs[a][L].flatten(0, 1)
                    if not self.enabled:
                        design = design[:, :0]
                    if L == 0:
                        design = torch.cat([design, design.new_ones(len(design), 1)], 1)
                    _accumulate(onsite_sums, (a, L), design.T @ design, design.T @ target)
        for (a, b), (normal, moment) in pair_sums.items():
            baseline = self.pairs[f"{a}_{b}"]
            baseline.weight.copy_(_solve(normal, moment, len(baseline.basis)))
        for (a, L), (normal, moment) in onsite_sums.items():
            baseline = self.onsite[str(a)]
            solution = _solve(normal, moment, len(baseline.basis))
            if L == 0:
                baseline.mean.copy_(solution[-1])
                solution = solution[:-1]
            if self.enabled:
                getattr(baseline, f"weight_{L}").copy_(solution)

    def _fit_scales(self, graphs, hopping_coefficients, onsite_coefficients) -> None:
        squares: dict[str, Tensor] = {}
        for graph in graphs():
            for (a, b), (distance, value) in hopping_coefficients(graph).items():
                baseline = self.pairs[f"{a}_{b}"]
                value = value.clone()
                value[:, : baseline.n_natural] -= baseline.two_centre(distance)
                index = (distance.double() / 0.1).long().clamp(max=len(baseline.bin_count) - 1)
                square = (value**2).mean(-1)
                name = f"{a}_{b}"
                zeros = torch.zeros_like(baseline.bin_count)
                _add(
                    squares, f"count {name}", zeros.index_add(0, index, torch.ones_like(square))
                )
                _add(squares, f"square {name}", zeros.index_add(0, index, square))
            reference = self.onsite_coefficients(graph)
            for a, value in onsite_coefficients(graph).items():
                square = ((value - reference[a]) ** 2).sum(0)
                _add(squares, f"onsite {a}", square)
                _add(squares, f"atoms {a}", square.new_tensor(float(len(value))))
        for name, baseline in self.pairs.items():
            if f"count {name}" not in squares:
                continue
            count, square = squares[f"count {name}"], squares[f"square {name}"]
            baseline.bin_count.copy_(count)
            rms = (square / count.clamp_min(1.0)).sqrt().clamp_min(_SCALE_FLOOR)
            baseline.bin_log_scale.copy_(torch.where(count > 0, rms.log(), 0.0))
        for a, baseline in self.onsite.items():
            if f"onsite {a}" in squares:
                mean = squares[f"onsite {a}"] / squares[f"atoms {a}"]
                baseline.scale.copy_(_component_rms(mean, baseline.sections))
        self._fit_component_scales(graphs, hopping_coefficients)

    def _fit_component_scales(self, graphs, hopping_coefficients) -> None:
        sums: dict[str, Tensor] = {}
        for graph in graphs():
            for (a, b), (distance, value) in hopping_coefficients(graph).items():
                baseline = self.pairs[f"{a}_{b}"]
                value = value.clone()
                value[:, : baseline.n_natural] -= baseline.two_centre(distance)
                scale = baseline.distance_scale(distance).clamp_min(_SCALE_FLOOR)
                square = ((value / scale[:, None]) ** 2).sum(0)
                total = torch.zeros_like(baseline.component_scale)
                count = total.index_add(0, baseline.column, torch.full_like(square, len(value)))
                _add(sums, f"square {a}_{b}", total.index_add(0, baseline.column, square))
                _add(sums, f"count {a}_{b}", count)
        for name, baseline in self.pairs.items():
            if f"count {name}" in sums:
                mean = sums[f"square {name}"] / sums[f"count {name}"].clamp_min(1.0)
                baseline.component_scale.copy_(mean.sqrt().clamp_min(1e-3))


def _accumulate(sums: dict, key: tuple[int, int], normal: Tensor, moment: Tensor) -> None:
    if key in sums:
        sums[key][0] += normal
        sums[key][1] += moment
    else:
        sums[key] = [normal, moment]


def _add(sums: dict[str, Tensor], key: str, value: Tensor) -> None:
    sums[key] = sums[key] + value if key in sums else value


def _solve(normal: Tensor, moment: Tensor, n_basis: int) -> Tensor:
    """Solve the penalised least squares; functions come in groups of `n_basis`."""
    size = len(normal)
    penalty = _RIDGE * torch.eye(size, dtype=normal.dtype, device=normal.device)
    second = torch.eye(n_basis, dtype=normal.dtype, device=normal.device).diff(n=2, dim=0)
    for start in range(0, size - n_basis + 1, n_basis):
        group = slice(start, start + n_basis)
        penalty[group, group] += _ROUGHNESS * second.T @ second
    weight = normal.diagonal().mean().clamp_min(1e-30)
    return torch.linalg.solve(normal + weight * penalty, moment)


def _component_rms(mean_square: Tensor, sections: list[tuple[str, int, int, int]]) -> Tensor:
    """One rms per component, repeated over its orders m, floored."""
    out = torch.empty_like(mean_square)
    for _, L, count, offset in sections:
        part = mean_square[offset : offset + (2 * L + 1) * count].view(2 * L + 1, count)
        rms = part.mean(0).sqrt().clamp_min(_SCALE_FLOOR)
        out[offset : offset + (2 * L + 1) * count] = rms.repeat(2 * L + 1)
    return out
