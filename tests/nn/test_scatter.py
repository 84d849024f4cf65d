"""Sums over neighbours, with native torch and with torch-scatter."""

from __future__ import annotations

import pytest
import torch

from deeph_lightning.errors import MissingDependencyError
from deeph_lightning.nn import scatter
from deeph_lightning.nn.scatter import Segments


@pytest.mark.parametrize("backend", ["torch", "torch_scatter"])
def test_sums_over_neighbours(backend: str) -> None:
    if backend == "torch_scatter" and scatter.segment_csr is None:
        pytest.skip("torch-scatter is not installed (extra `scatter`)")
    torch.manual_seed(7)
    receiver = torch.tensor([3, 0, 3, 1, 0, 3])  # node 2 receives nothing
    values = torch.randn(6, 2, 3, dtype=torch.float64, requires_grad=True)
    total = Segments(receiver, 5, backend).sum(values)
    expected = torch.zeros(5, 2, 3, dtype=torch.float64)
    for edge, node in enumerate(receiver.tolist()):
        expected[node] += values[edge].detach()
    assert torch.allclose(total, expected)
    (gradient,) = torch.autograd.grad((total * total.detach()).sum(), values)
    assert torch.allclose(gradient, expected[receiver])


def test_two_backends_are_chosen_by_name() -> None:
    default = Segments(torch.tensor([0]), 1).backend
    assert default == ("torch" if scatter.segment_csr is None else "torch_scatter")


def test_missing_backend_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scatter, "segment_csr", None)
    with pytest.raises(MissingDependencyError, match="torch-scatter is not installed"):
        Segments(torch.tensor([0]), 1, "torch_scatter")
