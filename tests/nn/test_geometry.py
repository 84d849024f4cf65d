"""Wigner matrices, edge frames, and the rotation of features into them."""

from __future__ import annotations

import pytest
import torch
from e3nn import o3

from deeph_lightning.core import rotation
from deeph_lightning.nn.edge_frame import EdgeFrames, frame_rotations
from deeph_lightning.nn.layout import Layout
from deeph_lightning.nn.rotation import rotate_to_edges, rotate_to_nodes
from deeph_lightning.nn.wigner import wigner_blocks
from tests.tolerances import DERIVATIVE, FLOAT64, WIGNER

AXES = torch.cat([torch.eye(3), -torch.eye(3)]).double()


@pytest.fixture
def vectors() -> torch.Tensor:
    """Random bond vectors, and bonds exactly along +-x, +-y, +-z."""
    torch.manual_seed(1)
    return torch.cat([AXES * 1.3, torch.randn(20, 3, dtype=torch.float64)])


def test_wigner_equals_the_core() -> None:
    torch.manual_seed(0)
    rotations = o3.rand_matrix(5, dtype=torch.float64)
    for l, block in enumerate(wigner_blocks(rotations, 6)):
        for Q, D in zip(rotations, block, strict=True):
            core = torch.from_numpy(rotation.wigner_d(l, Q.numpy()))
            assert torch.allclose(D, core, atol=WIGNER, rtol=0)


def test_frames_put_the_bond_on_the_polar_axis(vectors: torch.Tensor) -> None:
    Q = frame_rotations(vectors)
    length = vectors.norm(dim=-1)
    polar = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    assert torch.allclose(torch.einsum("pab,pb->pa", Q, vectors), length[:, None] * polar)
    assert torch.allclose(torch.linalg.det(Q), torch.ones_like(length))
    # row m = 0 is Y_l of the bond
    for l, D in enumerate(wigner_blocks(Q, 4)):
        Y = o3.spherical_harmonics(
            l, vectors[:, [1, 2, 0]], normalize=True, normalization="norm"
        )
        assert torch.allclose(D[:, l], Y, atol=WIGNER)


def test_gradients_through_frames_are_finite_along_every_axis() -> None:
    vector = (AXES * 1.1).requires_grad_()
    frames = EdgeFrames.from_vectors(vector, 4, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(sum((b**3).sum() for b in frames.blocks), vector)
    assert torch.isfinite(gradient).all()


def test_derivatives_after_a_prediction_in_inference_mode() -> None:
    layout = Layout.of([2, 2, 2, 2, 2, 2, 2])  # a degree that no other test has cached
    vector = torch.randn(3, 3, dtype=torch.float64)
    nodes = torch.randn(2, 3, layout.wide_size, dtype=torch.float64)
    with torch.inference_mode():
        frames = EdgeFrames.from_vectors(vector, 6, dtype=torch.float64)
        rotate_to_edges(*nodes, frames, layout)
    leaf = vector.clone().requires_grad_()
    frames = EdgeFrames.from_vectors(leaf, 6, dtype=torch.float64)
    edge = rotate_to_edges(*nodes, frames, layout)
    (edge.zero**2).sum().backward()
    assert torch.isfinite(leaf.grad).all()


LAYOUTS = [
    Layout.of([5, 5, 5], [0, 2, 2]),
    Layout.of([6, 4, 4, 1], [0, 3, 1, 1]),
    Layout.of([3, 5, 2], [0, 1, 2]),  # not monotonous: several towers
    Layout.of([4]),
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rotation_to_edges_and_back_are_adjoint(layout: Layout, vectors: torch.Tensor) -> None:
    torch.manual_seed(2)
    n_pair = len(vectors)
    frames = EdgeFrames.from_vectors(vectors, layout.l_max, dtype=torch.float64)
    first, second = (
        layout.widen(torch.randn(n_pair, layout.node_size, dtype=torch.float64))
        for _ in range(2)
    )
    edge = rotate_to_edges(first, second, frames, layout)
    back = rotate_to_nodes(edge, frames, layout)
    # the exchange basis is twice an isometry
    assert torch.allclose(back, 2 * torch.cat([first, second]), atol=FLOAT64 * 10)
    norm = (edge.zero**2).sum() + (edge.rest**2).sum()
    assert torch.allclose(norm, 2 * ((first**2).sum() + (second**2).sum()))


@pytest.mark.parametrize("layout", LAYOUTS[:3])
def test_derivatives_of_the_rotations(layout: Layout) -> None:
    torch.manual_seed(3)
    vector = torch.cat([AXES[:2], torch.randn(2, 3, dtype=torch.float64)]).requires_grad_()
    first, second = (
        layout.widen(torch.randn(4, layout.node_size, dtype=torch.float64)) for _ in range(2)
    )
    weight = torch.randn(8, layout.wide_size, dtype=torch.float64)

    def energy(vector: torch.Tensor) -> torch.Tensor:
        frames = EdgeFrames.from_vectors(vector, layout.l_max, dtype=torch.float64)
        edge = rotate_to_edges(first, second, frames, layout)
        # m = 0 alone does not depend on the azimuth of the frame
        cut = edge._replace(zero=edge.zero**2, rest=edge.rest * 0.0)
        return (rotate_to_nodes(cut, frames, layout) * weight).sum()

    (gradient,) = torch.autograd.grad(energy(vector), vector)
    step, direction = 1e-6, torch.randn_like(vector)
    with torch.no_grad():
        difference = energy(vector + step * direction) - energy(vector - step * direction)
    numeric = difference / (2 * step)
    assert abs((gradient * direction).sum() - numeric) < DERIVATIVE * abs(numeric).clamp_min(1)
