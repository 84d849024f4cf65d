"""SOAP: what defines it, and what a resumed run needs."""

from __future__ import annotations

import io

import torch

from deeph_lightning.training.soap import SOAP
from tests.tolerances import FLOAT64


def minimise(
    weight: torch.Tensor, loss, optimizer: type[torch.optim.Optimizer], n_step: int, **options
) -> torch.Tensor:
    weight = weight.clone().requires_grad_()
    steps = optimizer([weight], weight_decay=0.0, **options)
    for _ in range(n_step):
        steps.zero_grad()
        loss(weight).backward()
        steps.step()
    return weight.detach()


def orthogonal(n: int) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(2, n, n, dtype=torch.float64)).Q


def test_steps_do_not_depend_on_the_basis_of_rows_and_columns() -> None:
    """Rotated problem, rotated path: true of SOAP, not of Adam."""
    torch.manual_seed(1)
    weight = torch.randn(2, 5, 4, dtype=torch.float64)
    inputs = torch.randn(2, 30, 5, dtype=torch.float64)
    target = torch.randn(2, 30, 4, dtype=torch.float64)
    A, B = orthogonal(5), orthogonal(4)

    def loss(w: torch.Tensor) -> torch.Tensor:
        return ((inputs @ w - target) ** 2).mean()

    def turned(w: torch.Tensor) -> torch.Tensor:
        return loss(A.mT @ w @ B)

    for optimizer, is_invariant in ((SOAP, True), (torch.optim.Adam, False)):
        plain = minimise(weight, loss, optimizer, 25, lr=1e-2)
        other = minimise(A @ weight @ B.mT, turned, optimizer, 25, lr=1e-2)
        error = (A @ plain @ B.mT - other).abs().max()
        assert (error < 1e4 * FLOAT64) == is_invariant


def test_vectors_take_the_steps_of_adam() -> None:
    torch.manual_seed(2)
    start, target = torch.randn(2, 7, dtype=torch.float64)
    options = {"n_step": 20, "lr": 1e-2, "betas": (0.9, 0.95)}

    def loss(w: torch.Tensor) -> torch.Tensor:
        return ((w - target) ** 4).sum()

    ours = minimise(start, loss, SOAP, **options)
    assert torch.allclose(
        ours, minimise(start, loss, torch.optim.Adam, **options), rtol=0, atol=FLOAT64
    )


def test_ill_conditioned_problem() -> None:
    """Where curvature differs by 10^4 in a basis that Adam does not see."""
    torch.manual_seed(3)
    A, B = orthogonal(8)[0], orthogonal(8)[0]
    curvature = torch.logspace(0, -4, 8, dtype=torch.float64)
    start = torch.randn(8, 8, dtype=torch.float64)

    def loss(w: torch.Tensor) -> torch.Tensor:
        return (curvature[:, None] * (A @ w @ B) ** 2).sum()

    left = {
        optimizer: loss(minimise(start, loss, optimizer, 300, lr=2e-2))
        for optimizer in (SOAP, torch.optim.Adam)
    }
    assert left[SOAP] < 0.1 * left[torch.optim.Adam]


def test_goes_on_from_its_state() -> None:
    torch.manual_seed(4)
    layers = torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.Tanh(), torch.nn.Linear(9, 3))
    inputs, target = torch.randn(40, 6), torch.randn(40, 3)

    def run(optimizer: SOAP, model: torch.nn.Module, n_step: int) -> None:
        for _ in range(n_step):
            optimizer.zero_grad()
            ((model(inputs) - target) ** 2).mean().backward()
            optimizer.step()

    optimizer = SOAP(layers.parameters(), every=4)
    run(optimizer, layers, 11)
    state = {key: value.clone() for key, value in layers.state_dict().items()}
    memory = torch.load(_saved(optimizer.state_dict()), weights_only=True)
    run(optimizer, layers, 11)
    expected = torch.cat([p.detach().flatten() for p in layers.parameters()])
    layers.load_state_dict(state)
    resumed = SOAP(layers.parameters(), every=4)
    resumed.load_state_dict(memory)
    run(resumed, layers, 11)
    assert torch.equal(expected, torch.cat([p.detach().flatten() for p in layers.parameters()]))


def _saved(state: dict) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return file
