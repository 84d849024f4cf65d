"""Layers on atoms against the same maps written degree by degree."""

from __future__ import annotations

import pytest
import torch

from deeph_lightning.nn.coupling import BlockCoupling
from deeph_lightning.nn.heads import ComponentReadout
from deeph_lightning.nn.layout import Layout
from deeph_lightning.nn.node import NodeFeedForward, NodeLinear, degree_view
from tests.tolerances import FLOAT64

LAYOUTS = [
    Layout.of([4, 4, 4], [0, 2, 2]),
    Layout.of([5, 3, 3, 1], [1, 3, 0, 1]),
    Layout.of([3, 5, 2], [0, 1, 2]),  # not monotonous: several towers
    Layout.of([5, 3, 3, 2, 2]),  # degrees of several pieces side by side
    Layout.of([3]),
]


@pytest.mark.parametrize("layout_in", LAYOUTS)
@pytest.mark.parametrize("layout_out", LAYOUTS)
def test_linear_map_is_one_product_for_each_degree(
    layout_in: Layout, layout_out: Layout
) -> None:
    torch.manual_seed(7)
    layer = NodeLinear(layout_in, layout_out).double()
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(6, layout_in.node_size, dtype=torch.float64)
    out = layer(x)
    assert out.shape == (6, layout_out.node_size)
    for parity, l in layout_out.degrees:
        found = degree_view(out, layout_out, parity, l)
        if (parity, l) not in layout_in.degrees:
            assert not found.any()
            continue
        part = degree_view(x, layout_in, parity, l)
        expected = part @ layer.weights[f"{parity}_{l}"]
        if (parity, l) == ("natural", 0):
            expected = expected + layer.bias
        assert torch.allclose(found, expected, atol=FLOAT64)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_hidden_channel_has_its_gate(layout: Layout) -> None:
    torch.manual_seed(10)
    layer = NodeFeedForward(layout, 2).double()
    x = torch.randn(6, layout.node_size, dtype=torch.float64)
    out = layer(x)
    gates = torch.sigmoid(layer.gate(degree_view(x, layout, "natural", 0).flatten(1)))
    for parity, l in layout.degrees:
        hidden = degree_view(x, layout, parity, l) @ layer.first.weights[f"{parity}_{l}"]
        gate, gates = gates.tensor_split([hidden.shape[-1]], -1)
        expected = (hidden * gate[:, None]) @ layer.second.weights[f"{parity}_{l}"]
        assert torch.allclose(degree_view(out, layout, parity, l), expected, atol=FLOAT64)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_of_the_feed_forward(layout: Layout) -> None:
    """Hand-written backward pass of the maps against finite differences."""
    torch.manual_seed(8)
    layer = NodeFeedForward(layout, 2).double()
    x = torch.randn(2, layout.node_size, dtype=torch.float64, requires_grad=True)
    inputs = (x, *layer.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: layer(x), inputs, fast_mode=True)


@pytest.mark.parametrize("layout", [*LAYOUTS, Layout.of([0, 2])])
def test_components_are_read_from_features_of_their_degree(layout: Layout) -> None:
    torch.manual_seed(9)
    coupling = BlockCoupling((0, 0, 1), (0, 0, 1), onsite=True)
    readout = ComponentReadout(layout, coupling).double()
    x = torch.randn(6, layout.node_size, dtype=torch.float64)
    out = readout(x)
    for parity, L, count, start in coupling.sections:
        found = out[:, start : start + (2 * L + 1) * count].unflatten(1, (2 * L + 1, count))
        if (parity, L) not in layout.degrees:
            assert not found.any()
            continue
        expected = degree_view(x, layout, parity, L) @ readout.weights[f"{parity}_{L}"]
        assert torch.allclose(found, expected, atol=FLOAT64)


def test_no_component_has_its_degree() -> None:
    readout = ComponentReadout(Layout.of([0, 2]), BlockCoupling((0,), (0,), onsite=True))
    assert torch.equal(readout(torch.randn(3, 6)), torch.zeros(3, 1))
