"""Blocks <-> irreps: the Wigner-Eckart map between an orbital block and its coupled degrees L.

A block of shells (l1, l2) is the sum over L = |l1-l2|..l1+l2 of ``Q^L h^L`` with the orthogonal
matrices ``Q^L = sqrt(2L+1) w3j(l1, l2, L)`` (arXiv:2210.13955), so that ``||H|| = ||h||``. A
component is natural where l1 + l2 + L is even. The same map serves node features (crystal
frame) and the edge frame, where only the order of the coefficients differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from e3nn import o3
from torch import Tensor

from deeph_lightning.nn.layout import Layout


class Component(NamedTuple):
    """One coupled component of a block: shell of the row atom, of the column atom, degree L."""

    row: int
    column: int
    L: int


class BlockCoupling:
    """Orthogonal map between coupled components and the blocks of one pair of species.

    Parameters
    ----------
    shells_row, shells_column
        Degrees l of the shells of the row and of the column atom, in basis order.
    o3
        Label components natural or unnatural; without inversion all count as natural.
    onsite
        Symmetric blocks of one atom: only their independent components.

    Attributes
    ----------
    components
        ``{"natural": [...], "unnatural": [...]}``, each sorted by L: the channels of `layout`.
    sections
        ``(parity, L, components, offset)``: order of the crystal-frame coefficients, each
        section stored as ``(2L+1, components)``.
    node_matrix
        ``(n, n_row * n_column)``, rows in the order of `sections`; n is the number of
        independent elements.
    edge_matrix
        The same, rows in the order (zero, rest even, rest odd) of an edge tensor of `layout`.
    """

    def __init__(
        self,
        shells_row: Sequence[int],
        shells_column: Sequence[int],
        *,
        o3: bool = True,
        onsite: bool = False,
    ) -> None:
        self.o3, self.onsite = o3, onsite
        self.components: dict[str, list[Component]] = {"natural": [], "unnatural": []}
        for row, l1 in enumerate(shells_row):
            for column, l2 in enumerate(shells_column):
                for L in range(abs(l1 - l2), l1 + l2 + 1):
                    if onsite and (column < row or (column == row and L % 2)):
                        continue  # fixed by symmetry, or zero
                    natural = not o3 or (l1 + l2 + L) % 2 == 0
                    key = "natural" if natural else "unnatural"
                    self.components[key].append(Component(row, column, L))
        for parts in self.components.values():
            parts.sort(key=lambda part: part.L)
        l_max = max(shells_row) + max(shells_column)
        counts = {
            key: [sum(part.L == L for part in parts) for L in range(l_max + 1)]
            for key, parts in self.components.items()
        }
        self.layout = Layout.of(counts["natural"], counts["unnatural"])
        self.sections = _sections(counts)
        self.shells_row, self.shells_column = tuple(shells_row), tuple(shells_column)
        vectors = {
            (key, index): self._embed(part)
            for key, parts in self.components.items()
            for index, part in enumerate(parts)
        }
        self.node_matrix = self._node_rows(vectors)
        self.edge_matrix = self._edge_rows(vectors)

    @property
    def size(self) -> int:
        """Number of elements of a block."""
        return self.node_matrix.shape[1]

    def reversal(self) -> Tensor:
        """Signs ``(n,)`` of the edge coefficients of the reversed direction.

        With inversion all +1: parity is in the frames. Without it components with l1 + l2 + L
        odd change sign, because the reversed frame is improper.
        """
        parts = self.components["natural"] + self.components["unnatural"]
        sign = torch.ones(len(parts))
        if not self.o3:
            odd = [self.shells_row[p.row] + self.shells_column[p.column] + p.L for p in parts]
            sign = 1.0 - 2.0 * (torch.tensor(odd) % 2)
        return sign[self.edge_columns()]

    def _embed(self, part: Component) -> Tensor:
        """Matrix ``(2L+1, n_row, n_column)`` of one component inside the whole block."""
        l1, l2 = self.shells_row[part.row], self.shells_column[part.column]
        n_row = sum(2 * l + 1 for l in self.shells_row)
        n_column = sum(2 * l + 1 for l in self.shells_column)
        start_row = sum(2 * l + 1 for l in self.shells_row[: part.row])
        start_column = sum(2 * l + 1 for l in self.shells_column[: part.column])
        block = torch.zeros(2 * part.L + 1, n_row, n_column, dtype=torch.float64)
        w3j = o3.wigner_3j(l1, l2, part.L, dtype=torch.float64) * (2 * part.L + 1) ** 0.5
        block[
            :, start_row : start_row + 2 * l1 + 1, start_column : start_column + 2 * l2 + 1
        ] = w3j.permute(2, 0, 1)
        if self.onsite and part.row != part.column:
            block = (block + block.mT) * 0.5**0.5
        return block

    def _node_rows(self, vectors: dict[tuple[str, int], Tensor]) -> Tensor:
        rows = []
        for key, L, _, _ in self.sections:
            channels = [i for i, part in enumerate(self.components[key]) if part.L == L]
            rows += [vectors[key, i][m] for m in range(2 * L + 1) for i in channels]
        return torch.stack(rows).flatten(1)

    def _edge_rows(self, vectors: dict[tuple[str, int], Tensor]) -> Tensor:
        zero, even, odd = [], [], []
        for key, parts in self.components.items():
            zero += [vectors[key, i][part.L] for i, part in enumerate(parts)]
        for m in range(1, self.layout.l_max + 1):
            for key, parts in self.components.items():
                for i, part in enumerate(parts):
                    if m > part.L:
                        continue
                    plus, minus = vectors[key, i][part.L + m], vectors[key, i][part.L - m]
                    even.append(plus if key == "natural" else -minus)
                    odd.append(minus if key == "natural" else plus)
        return torch.stack(zero + even + odd).flatten(1)

    def edge_columns(self) -> Tensor:
        """Component number (natural first) of every row of `edge_matrix`."""
        parts = self.components["natural"] + self.components["unnatural"]
        rest = [
            i for m in range(1, self.layout.l_max + 1) for i, p in enumerate(parts) if m <= p.L
        ]
        return torch.tensor([*range(len(parts)), *rest, *rest])


def _sections(counts: dict[str, list[int]]) -> list[tuple[str, int, int, int]]:
    sections, offset = [], 0
    for parity, per_degree in counts.items():
        for L, count in enumerate(per_degree):
            if count:
                sections.append((parity, L, count, offset))
                offset += (2 * L + 1) * count
    return sections
