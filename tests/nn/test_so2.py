"""SO(2) layers: what commutes with rotation about the bond, reflection, and exchange."""

from __future__ import annotations

import pytest
import torch

from deeph_lightning.nn.edge_frame import EdgeFrames
from deeph_lightning.nn.layout import EdgeTensor, Layout
from deeph_lightning.nn.rotation import rotate_to_edges, rotate_to_nodes
from deeph_lightning.nn.so2 import EdgeActivation, SO2Linear
from deeph_lightning.nn.wigner import wigner_blocks
from tests.tolerances import FLOAT64

IN, HIDDEN, OUT = (
    Layout.of([4, 4, 3], [0, 2, 1]),
    Layout.of([5, 3, 3], [0, 2, 2]),
    Layout.of([2, 2, 2, 1], [0, 1, 1, 0]),
)
PLAIN = [Layout.of([6, 5, 3]), Layout.of([4, 4, 2]), Layout.of([3, 2, 2])]


class Convolution(torch.nn.Module):
    """Rotate, map, activate, map, rotate back."""

    def __init__(self, layouts: list[Layout], *, o3: bool) -> None:
        super().__init__()
        self.layouts = layouts
        self.activation = EdgeActivation(layouts[1], 3)
        self.first = SO2Linear(layouts[:1], layouts[1], extra=self.activation.extra, o3=o3)
        self.second = SO2Linear([layouts[1]], layouts[2], o3=o3)

    def forward(
        self, first: torch.Tensor, second: torch.Tensor, vector: torch.Tensor
    ) -> torch.Tensor:
        frames = EdgeFrames.from_vectors(vector, 3, dtype=torch.float64)
        ends = [self.layouts[0].widen(x) for x in (first, second)]
        edge = rotate_to_edges(*ends, frames, self.layouts[0])
        radial = vector.norm(dim=-1, keepdim=True) ** torch.arange(3)
        hidden, _ = self.activation(*self.first(edge), radial)
        out, _ = self.second(hidden)
        return self.layouts[2].narrow(rotate_to_nodes(out, frames, self.layouts[2]))


def turn(x: torch.Tensor, layout: Layout, Q: torch.Tensor, det: float) -> torch.Tensor:
    """Apply a rotation times `det` to a node tensor, tower by tower."""
    D = [block[0] for block in wigner_blocks(Q[None], layout.l_max)]
    parts = []
    for tower, offset in zip(layout.towers, layout.offsets, strict=False):
        part = x[:, offset : offset + tower.rows * tower.channels]
        part = part.view(len(x), tower.rows, tower.channels)
        blocks = [
            D[l] * (det**l if tower.parity == "natural" else det ** (l + 1))
            for l in range(tower.l_first, tower.l_last + 1)
        ]
        parts.append((torch.block_diag(*blocks) @ part).flatten(1))
    return torch.cat(parts, -1)


@pytest.mark.parametrize("o3", [True, False])
@pytest.mark.parametrize("det", [1.0, -1.0])
def test_equivariance_of_a_convolution(*, o3: bool, det: float) -> None:
    from e3nn import o3 as e3

    if det < 0 and not o3:
        pytest.skip("without o3 there is no inversion symmetry to test")
    torch.manual_seed(4)
    layouts = [IN, HIDDEN, OUT] if o3 else PLAIN
    layer = Convolution(layouts, o3=o3).double()
    first, second = torch.randn(2, 9, layouts[0].node_size, dtype=torch.float64)
    vector = torch.randn(9, 3, dtype=torch.float64)
    vector[0], vector[1] = torch.tensor([0.0, 0.0, 1.2]), torch.tensor([-1.0, 0.0, 0.0])
    Q = e3.rand_matrix(dtype=torch.float64)
    before = turn(layer(first, second, vector), layouts[2], Q, det)
    ends = [turn(x, layouts[0], Q, det) for x in (first, second)]
    after = layer(*ends, det * vector @ Q.T)
    assert torch.allclose(before, after, atol=FLOAT64 * 10)
    # exchanging the two atoms exchanges what they receive
    swapped = layer(second, first, -vector)
    expected = torch.cat(layer(first, second, vector).chunk(2)[::-1])
    assert torch.allclose(swapped, expected, atol=FLOAT64 * 10)


def test_without_o3_the_layer_really_breaks_inversion() -> None:
    torch.manual_seed(5)
    layer = Convolution(PLAIN, o3=False).double()
    first, second = torch.randn(2, 9, PLAIN[0].node_size, dtype=torch.float64)
    vector = torch.randn(9, 3, dtype=torch.float64)
    eye = torch.eye(3, dtype=torch.float64)
    before = turn(layer(first, second, vector), PLAIN[2], eye, -1.0)
    after = layer(*[turn(x, PLAIN[0], eye, -1.0) for x in (first, second)], -vector)
    assert (before - after).abs().max() > 1e-3


def test_orders_that_the_input_lacks_are_zero() -> None:
    layer = SO2Linear([Layout.of([3, 2])], Layout.of([2, 2, 2]))
    edge = EdgeTensor(torch.randn(2, 4, 5), torch.randn(2, 4, 2, 2))
    (_, rest), _ = layer(edge)
    assert rest.shape == (2, 4, 2, 6)
    assert not rest[..., 4:].any()
    assert rest[..., :4].all()


@pytest.mark.parametrize("o3", [True, False])
def test_no_pairs(*, o3: bool) -> None:
    layouts = [IN, HIDDEN, OUT] if o3 else PLAIN
    layer = Convolution(layouts, o3=o3).double()
    none = torch.zeros(0, layouts[0].node_size, dtype=torch.float64)
    out = layer(none, none, torch.zeros(0, 3, dtype=torch.float64))
    assert out.shape == (0, layouts[2].node_size)


@pytest.mark.parametrize("o3", [True, False])
def test_gradients_of_map_and_activation(*, o3: bool) -> None:
    """Hand-written backward passes against finite differences, gaps and pseudoscalars too."""
    torch.manual_seed(6)
    kinds = [([2, 2, 1], [1, 1, 0]), ([1, 2], [0, 1]), ([2, 1, 1], [1, 1, 1])]
    first, second, hidden = (
        Layout.of(n, u) if o3 else Layout.of([a + b for a, b in zip(n, u, strict=True)])
        for n, u in kinds
    )
    activation = EdgeActivation(hidden, 3, n_logit=1).double()
    layer = SO2Linear(
        [first, second], hidden, extra=activation.extra, o3=o3, odd_inputs=[True, False]
    ).double()
    edges = [
        torch.randn(*shape, sum(sizes), dtype=torch.float64, requires_grad=True)
        for layout in (first, second)
        for shape, sizes in (((2, 3), layout.zero_sizes), ((2, 3, 2), layout.rest_sizes))
    ]
    radial = torch.randn(3, 3, dtype=torch.float64)

    def outputs(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        images = layer(EdgeTensor(*tensors[:2]), EdgeTensor(*tensors[2:4]))
        edge, logit = activation(*images, radial)
        return *edge, logit

    assert torch.autograd.gradcheck(outputs, (*edges, *layer.parameters()))
