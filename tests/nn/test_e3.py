"""Layers of DeepH-E3: equivariance in every precision, order of columns, normalisation."""

from __future__ import annotations

import copy

import pytest
import torch
from e3nn.o3 import Irreps, rand_matrix
from torch import Tensor

from deeph_lightning.nn.e3 import (
    EquiConv,
    EquivariantNorm,
    TensorProduct,
    e3nn_columns,
    irreps_of,
    layout_of,
)
from deeph_lightning.nn.layout import Layout
from deeph_lightning.nn.node import degree_view
from deeph_lightning.nn.scatter import Segments
from deeph_lightning.nn.wigner import wigner_blocks
from tests.tolerances import MODEL_FLOAT64

LAYOUT = Layout.of([6, 4, 4, 1], [0, 2, 3])
IRREPS = irreps_of(LAYOUT)
HARMONICS = Irreps.spherical_harmonics(2)


@pytest.mark.parametrize("o3", [True, False])
def test_irreps_and_layouts_are_the_same_thing(*, o3: bool) -> None:
    layout = LAYOUT if o3 else Layout.of(LAYOUT.natural)
    irreps = irreps_of(layout, o3=o3)
    assert layout_of(irreps, o3=o3) == layout
    assert irreps.dim == layout.node_size


def test_columns_of_node_tensors() -> None:
    x = torch.randn(3, IRREPS.dim)
    node = x[:, e3nn_columns(LAYOUT)]
    for (mul, ir), columns in zip(IRREPS, IRREPS.slices(), strict=True):
        parity = "natural" if ir.p == (-1) ** ir.l else "unnatural"
        expected = x[:, columns].view(3, mul, ir.dim).mT
        assert torch.equal(degree_view(node, LAYOUT, parity, ir.l), expected)


def make_conv() -> EquiConv:
    torch.manual_seed(0)
    return EquiConv([IRREPS, Irreps("3x0e + 2x1o")], HARMONICS, IRREPS, n_radial=5)


def turned(x: Tensor, irreps: Irreps, Q: Tensor, sign: int) -> Tensor:
    """Rotate, and invert for sign = -1; e3nn's own matrices are exact to 1e-7 only."""
    blocks = wigner_blocks(Q[None], irreps.lmax)
    parts = [
        sign ** (ir.p == -1)
        * x[:, columns].unflatten(-1, (mul, ir.dim))
        @ blocks[ir.l][0].to(x).T
        for (mul, ir), columns in zip(irreps, irreps.slices(), strict=True)
    ]
    return torch.cat([part.flatten(1) for part in parts], -1)


@torch.no_grad()
def equivariance_error(conv: EquiConv) -> float:
    dtype = conv.radial[0].weight.dtype
    ins = [IRREPS, Irreps("3x0e + 2x1o"), HARMONICS]
    x = [torch.randn(7, irreps.dim, dtype=dtype) for irreps in ins]
    radial = torch.randn(7, 5, dtype=dtype)
    before = conv(x[:2], x[2], radial)
    worst = 0.0
    for sign in (1, -1):
        Q = rand_matrix(dtype=torch.float64)
        y = [turned(one, irreps, Q, sign) for one, irreps in zip(x, ins, strict=True)]
        expected = turned(before, conv.irreps_out, Q, sign)
        error = (conv(y[:2], y[2], radial) - expected).abs().max() / expected.abs().max()
        worst = max(worst, float(error))
    return worst


def test_convolution_is_equivariant_after_a_change_of_precision() -> None:
    single = make_conv()
    assert equivariance_error(copy.deepcopy(single).double()) < MODEL_FLOAT64
    double = make_conv().double()
    double.load_state_dict(single.state_dict())  # rounded to float32
    assert equivariance_error(double) < MODEL_FLOAT64


def test_what_no_product_reaches_is_left_out() -> None:
    conv = EquiConv([Irreps("4x0e")], HARMONICS, IRREPS, n_radial=5)
    assert conv.irreps_out == Irreps("6x0e + 4x1o + 4x2e")


def test_a_copy_has_the_same_buffers() -> None:
    """Averages of weights are swapped with the weights one by one."""
    # here e3nn's own copies have three buffers more
    irreps = Irreps("18x1o + 18x2e")
    wanted = Irreps("4x1o + 2x1e + 2x2o + 4x2e + 2x3o + 1x3e + 1x4e")
    product = TensorProduct(irreps, HARMONICS, wanted)
    other = copy.deepcopy(product)
    assert [n for n, _ in other.named_buffers()] == [n for n, _ in product.named_buffers()]
    x, y = torch.randn(4, irreps.dim), torch.randn(4, HARMONICS.dim)
    assert torch.equal(other(x, y), product(x, y))
    other.double()
    assert torch.equal(product.double()(x.double(), y.double()), other(x.double(), y.double()))


def test_row_wise_norm_knows_one_row() -> None:
    norm = EquivariantNorm(IRREPS)
    x = torch.randn(5, IRREPS.dim)
    out = norm(x, None)
    assert torch.equal(norm(x[2:3], None)[0], out[2])
    scalars = out[:, : IRREPS.count("0e")]
    assert torch.allclose(scalars.mean(-1), torch.zeros(5), atol=1e-6)
    assert torch.allclose(scalars.square().mean(-1), torch.ones(5), rtol=1e-3)
    assert torch.allclose(
        out[:, scalars.shape[1] :].square().mean(-1), torch.ones(5), rtol=1e-3
    )


def test_graph_wide_norm_is_the_published_one() -> None:
    norm = EquivariantNorm(IRREPS)
    batch = torch.tensor([0, 0, 1, 0, 1])
    x = torch.randn(5, IRREPS.dim)
    out = norm(x, Segments(batch, 2))
    for graph in (0, 1):
        for (mul, ir), columns in zip(IRREPS, IRREPS.slices(), strict=True):
            field = x[batch == graph][:, columns].view(-1, mul, ir.dim)
            field = field - field.mean((0, 1))
            if ir.l == 0:
                field = field / (field.square().mean().sqrt() + norm.eps)
            found = out[batch == graph][:, columns]
            assert torch.allclose(found, field.flatten(1), atol=1e-6)
