"""Coupling of blocks, radial functions, baseline."""

from __future__ import annotations

import pytest
import torch
from e3nn import o3

from deeph_lightning.nn.baseline import PairBaseline
from deeph_lightning.nn.coupling import BlockCoupling
from deeph_lightning.nn.radial import RadialBasis, edge_window, polynomial_envelope
from deeph_lightning.nn.wigner import wigner_blocks
from tests.tolerances import FLOAT64

SHELLS = [((0, 0, 1, 1, 2), (0, 0, 1, 1, 2)), ((0, 1, 0), (2, 0, 3)), ((1,), (1,))]


@pytest.mark.parametrize(("row", "column"), SHELLS)
@pytest.mark.parametrize("symmetric", [True, False])
def test_coupling_is_orthogonal(
    row: tuple[int, ...], column: tuple[int, ...], *, symmetric: bool
) -> None:
    coupling = BlockCoupling(row, column, o3=symmetric)
    eye = torch.eye(coupling.size, dtype=torch.float64)
    for matrix in (coupling.node_matrix, coupling.edge_matrix):
        assert torch.allclose(matrix @ matrix.T, eye, atol=FLOAT64)
    assert len(coupling.edge_columns()) == coupling.size


@pytest.mark.parametrize(("row", "column"), SHELLS)
def test_components_transform_as_their_degree(
    row: tuple[int, ...], column: tuple[int, ...]
) -> None:
    torch.manual_seed(6)
    coupling = BlockCoupling(row, column)
    Q = o3.rand_matrix(dtype=torch.float64)
    D = [block[0] for block in wigner_blocks(Q[None], 6)]
    left = torch.block_diag(*[D[l] for l in row])
    right = torch.block_diag(*[D[l] for l in column])
    block = torch.randn(len(left), len(right), dtype=torch.float64)
    before = coupling.node_matrix @ block.flatten()
    after = coupling.node_matrix @ (left @ block @ right.T).flatten()
    for _, L, count, start in coupling.sections:
        part = slice(start, start + (2 * L + 1) * count)
        expected = D[L] @ before[part].view(2 * L + 1, count)
        assert torch.allclose(after[part].view(2 * L + 1, count), expected, atol=FLOAT64 * 10)


def test_onsite_components_span_the_symmetric_blocks() -> None:
    coupling = BlockCoupling((0, 0, 1, 1, 2), (0, 0, 1, 1, 2), onsite=True)
    matrix = coupling.node_matrix
    assert matrix.shape == (13 * 14 // 2, 169)
    assert torch.allclose(matrix @ matrix.T, torch.eye(91).double(), atol=FLOAT64)
    block = torch.randn(13, 13, dtype=torch.float64)
    symmetric = (block + block.T) / 2
    projected = (matrix.T @ (matrix @ block.flatten())).view(13, 13)
    assert torch.allclose(projected, symmetric, atol=FLOAT64)


def test_envelopes_vanish_smoothly() -> None:
    below = 5.0 - torch.tensor([1e-2, 1e-3, 1e-4], dtype=torch.float64)
    for envelope in (polynomial_envelope, edge_window):
        values = envelope(below, 5.0)
        # two derivatives vanish: a tenth of the distance is a thousandth of the value
        assert torch.allclose(values[:-1] / values[1:], torch.tensor(1000.0).double(), rtol=0.1)
        assert not envelope(torch.tensor([5.0, 5.1, 80.0]), 5.0).any()
        assert envelope(torch.tensor([0.0]), 5.0) == 1


def test_radial_basis_resolves_bond_lengths() -> None:
    basis = RadialBasis.geometric(24, 0.8, 9.0)
    r = torch.linspace(1.0, 8.0, 400, dtype=torch.float64)
    target = torch.exp(-r) * torch.cos(3 * r)
    solution = torch.linalg.lstsq(basis(r), target).solution
    assert (basis(r) @ solution - target).abs().max() < 1e-3


def test_scales_are_smooth_and_vanish_at_the_cut_off() -> None:
    baseline = PairBaseline(BlockCoupling((0, 1), (0, 1)), 6.0, 12, 0.5)
    centre = baseline.bin_centre
    baseline.bin_count.copy_((centre > 1.4).double() * 100)
    baseline.bin_log_scale.copy_(torch.where(centre > 1.4, -centre, 0.0))
    r = torch.linspace(1.5, 6.0, 2000, dtype=torch.float64)
    scale = baseline.distance_scale(r)
    inner = r < 5.2
    assert torch.allclose(scale[inner].log(), -r[inner], atol=0.15)
    assert scale[-1] == 0
    assert scale.diff().abs().max() < 1e-3
    # far from all data it stays finite
    assert torch.isfinite(baseline.distance_scale(torch.tensor([0.3, 40.0]))).all()
