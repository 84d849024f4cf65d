r"""Learned overlaps: two-centre tables fitted to the overlaps of the training set.

An overlap of two orbitals is a two-centre integral (Slater and Koster, Phys. Rev. 94, 1498): in
the frame of the bond its coupled component of degree L has the order m = 0 alone, and over
distance it is a spherical Bessel transform (O. F. Sankey and D. J. Niklewski, Phys. Rev. B 40,
3979, use the same tables):

.. math:: S_L(r) = q_L \int g(k)\, j_L(kr)\, dk,
          \qquad q_L = (-1)^{(L - L_{min}) / 2}\, Q^L_{00,0}.

One function g, the product of the radial parts of both shells, gives every L of a pair of
shells. It is fitted on a grid of k that resolves the range of the overlaps and ends where plane
waves do, so that the tables are right also at distances between those of the training set.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.special import spherical_jn
from torch import Tensor

from deeph_lightning.nn.coupling import BlockCoupling
from deeph_lightning.nn.fitted import Fitted

if TYPE_CHECKING:
    from deeph_lightning.data.graph import Graph

#: Distance between the nodes of a table, Å; cubic interpolation is exact to 1e-8 on it.
_STEP = 0.01
#: Largest wave number, 1/Å: a plane-wave cut-off of 110 Ry.
_K_MAX = 20.0
#: Range of the transform over that of the overlaps.
_RANGE = 1.1
#: Penalty of g squared, ``ridge (1 + (k / k_soft)^2)^power``: radial functions of atoms have no
#: large wave numbers, and distances that no pair has leave those free.
_RIDGE, _K_SOFT, _POWER = 1e-11, 5.0, 10


class TwoCentreOverlap(Fitted):
    """Overlaps of all pairs of species; fitted by `fit`, kept as float64 buffers.

    Parameters
    ----------
    pair_couplings
        ``{(a, b): BlockCoupling}`` of species indices a <= b.
    r_range
        ``{(a, b): Å}``, distance beyond which overlaps vanish.
    n_orb
        Orbitals of each species.

    Attributes
    ----------
    is_fitted
        Whether there are overlaps: the training set had some.
    residual
        Root of the mean square of what the tables leave of the overlaps fitted to, over all
        m = 0 coefficients; and the largest deviation of an onsite block from the mean of its
        species, whichever is larger.
    """

    def __init__(
        self,
        pair_couplings: dict[tuple[int, int], BlockCoupling],
        r_range: dict[tuple[int, int], float],
        n_orb: list[int],
    ) -> None:
        super().__init__()
        self.residual: Tensor
        self.pair_couplings, self.r_range, self.n_orb = pair_couplings, r_range, n_orb
        for (a, b), coupling in pair_couplings.items():
            n_node = math.ceil(r_range[a, b] / _STEP) + 4
            shape = (n_node, len(coupling.components["natural"]))
            self.register_buffer(f"table_{a}_{b}", torch.zeros(shape, dtype=torch.float64))
        for a, size in enumerate(n_orb):
            block = torch.zeros(size * size, dtype=torch.float64)
            self.register_buffer(f"onsite_{a}", block)
        self.register_buffer("residual", torch.zeros((), dtype=torch.float64))

    def two_centre(self, key: tuple[int, int], distance: Tensor) -> Tensor:
        """Overlaps at m = 0 of the natural components, ``(P, n_natural)``; float64."""
        table = getattr(self, f"table_{key[0]}_{key[1]}")
        first, weight = _interpolation(distance.double(), len(table))
        value = sum(weight[:, n, None] * table[first + n] for n in range(4))
        return value * (distance <= self.r_range[key])[:, None]

    def onsite(self, graph: Graph) -> Tensor:
        """Onsite blocks, flat, atom order, float64."""
        out = self.residual.new_zeros(int(graph.onsite_offsets[-1]))
        for a, size in enumerate(self.n_orb):
            places = _places(graph, a, size)
            out[places] = getattr(self, f"onsite_{a}").expand(len(places), -1)
        return out

    @torch.no_grad()
    def fit(
        self,
        graphs: Callable[[], Iterable[Graph]],
        coefficients: Callable[[Graph], dict[tuple[int, int], tuple[Tensor, Tensor]]],
    ) -> None:
        """Fit the tables to the graphs that have overlaps; without any, nothing is fitted.

        Parameters
        ----------
        graphs
            Yields training graphs.
        coefficients
            Overlaps as edge-frame coefficients: per species pair ``(distance, (P, n))``.
        """
        sums: dict[tuple[int, int], _Moments] = {}
        blocks: dict[int, list[Tensor]] = {}
        for graph in graphs():
            if graph.S_hopping is None:
                continue
            for key, (distance, value) in coefficients(graph).items():
                table = getattr(self, f"table_{key[0]}_{key[1]}")
                sums.setdefault(key, _Moments(table)).add(distance, value[:, : table.shape[1]])
            for a, size in enumerate(self.n_orb):
                blocks.setdefault(a, []).append(
                    graph.S_onsite[_places(graph, a, size)].double()
                )
        if not blocks:
            return
        residual = 0.0
        for (a, b), moments in sums.items():
            table, rms = moments.solve(self.pair_couplings[a, b], self.r_range[a, b])
            getattr(self, f"table_{a}_{b}").copy_(table)
            residual = max(residual, rms)
        for a, parts in blocks.items():
            found = torch.cat(parts)
            if len(found):
                mean = found.mean(0)
                getattr(self, f"onsite_{a}").copy_(mean)
                residual = max(residual, float((found - mean).abs().max()))
        self.residual.fill_(residual)
        self.is_fitted.fill_(True)


class _Moments:
    """Normal equations of a table's nodes: all that a fit needs of any number of pairs."""

    def __init__(self, table: Tensor) -> None:
        self.n_node = len(table)
        self.normal = table.new_zeros(self.n_node * self.n_node)
        self.moment = torch.zeros_like(table)
        self.square, self.count = 0.0, 0

    def add(self, distance: Tensor, value: Tensor) -> None:
        """Add pairs: distances ``(P,)`` Å and coefficients ``(P, n_natural)``."""
        first, weight = _interpolation(distance.double(), self.n_node)
        for n in range(4):
            self.moment.index_add_(0, first + n, weight[:, n, None] * value)
            for m in range(4):
                place = (first + n) * self.n_node + first + m
                self.normal.index_add_(0, place, weight[:, n] * weight[:, m])
        self.square += float(value.square().sum())
        self.count += value.numel()

    def solve(self, coupling: BlockCoupling, r_range: float) -> tuple[Tensor, float]:
        """Return the table ``(n_node, n_natural)`` and the rms of what it leaves."""
        normal = self.normal.view(self.n_node, self.n_node).cpu().numpy()
        moment = self.moment.cpu().numpy()
        k = np.arange(1, int(_K_MAX * _RANGE * r_range / np.pi)) * np.pi / (_RANGE * r_range)
        kr = np.outer(np.arange(self.n_node) * _STEP, k)
        components = coupling.components["natural"]
        waves = {L: k * spherical_jn(L, kr) for L in {part.L for part in components}}
        normals = {L: wave.T @ normal @ wave for L, wave in waves.items()}
        factors = [_angular_factor(coupling, n) for n in range(len(components))]
        prior = _RIDGE * np.diag((1.0 + (k / _K_SOFT) ** 2) ** _POWER)
        table = np.zeros_like(moment)
        for shells in {(part.row, part.column) for part in components}:
            own = [n for n, part in enumerate(components) if (part.row, part.column) == shells]
            matrix, vector = prior.copy(), np.zeros(len(k))
            for n in own:
                L = components[n].L
                matrix += factors[n] ** 2 * normals[L]
                vector += factors[n] * (waves[L].T @ moment[:, n])
            g = np.linalg.solve(matrix, vector)
            for n in own:
                table[:, n] = factors[n] * (waves[components[n].L] @ g)
        left = self.square - 2.0 * (table * moment).sum() + (table * (normal @ table)).sum()
        rms = math.sqrt(max(float(left), 0.0) / self.count)
        return torch.from_numpy(table).to(self.moment), rms


def _angular_factor(coupling: BlockCoupling, n: int) -> float:
    """Return q_L of a component: what its degree, among those of its shells, takes of g."""
    row, column, L = coupling.components["natural"][n]
    l1, l2 = coupling.shells_row[row], coupling.shells_column[column]
    if (l1 + l2 + L) % 2:  # without inversion symmetry these count as natural, too
        return 0.0
    before = [sum(2 * l + 1 for l in shells[:shell]) for shells, shell in
              ((coupling.shells_row, row), (coupling.shells_column, column))]  # fmt: skip
    width = sum(2 * l + 1 for l in coupling.shells_column)
    element = (before[0] + l1) * width + before[1] + l2
    return (-1) ** ((L - abs(l1 - l2)) // 2) * float(coupling.edge_matrix[n, element])


def _interpolation(distance: Tensor, n_node: int) -> tuple[Tensor, Tensor]:
    """First of four nodes ``(P,)`` and cubic Lagrange weights ``(P, 4)``."""
    position = distance / _STEP
    first = (position.long() - 1).clamp(0, n_node - 4)
    t = position - first
    return first, torch.stack(
        [
            -(t - 1) * (t - 2) * (t - 3) / 6,
            t * (t - 2) * (t - 3) / 2,
            -t * (t - 1) * (t - 3) / 2,
            t * (t - 1) * (t - 2) / 6,
        ],
        -1,
    )


def _places(graph: Graph, species: int, n_orb: int) -> Tensor:
    """Positions ``(A_s, n_orb^2)`` of a species' onsite blocks in the flat array."""
    starts = graph.onsite_offsets[:-1][graph.species == species]
    return starts[:, None] + torch.arange(n_orb * n_orb, device=starts.device)
