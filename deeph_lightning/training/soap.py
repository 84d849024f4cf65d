"""SOAP: Adam in the slowly turning eigenbasis of Shampoo's preconditioner.

N. Vyas et al., SOAP: Improving and Stabilizing Shampoo using Adam, arXiv:2409.11321. Labels of
DFT have almost no noise, so what limits training is the curvature of the loss; a
preconditioner for each matrix takes a third of AdamW's steps (docs/accuracy.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer


class SOAP(Optimizer):
    """Adam in the eigenbasis of the averaged ``G G^T`` and ``G^T G`` of every matrix.

    The last two axes of a parameter are the matrix, axes before them count independent
    matrices. Vectors, and sides longer than `max_size`, keep their own basis: Adam.

    Parameters
    ----------
    params
        Parameters or groups of them.
    lr
        Learning rate.
    betas
        Decay of the momentum; decay of the squares and of the preconditioner.
    eps
        Added to the root of the squares.
    weight_decay
        Decoupled weight decay.
    every
        Steps between two refreshes of the eigenbases: one power iteration and QR.
    max_size
        Longest side that gets a preconditioner.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 1e-4,
        every: int = 10,
        max_size: int = 1024,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "every": every,
            "max_size": max_size,
        }
        super().__init__(params, defaults)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Move every parameter; one without gradient counts as flat there."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameters in _by_shape(group["params"]):
                self._move(parameters, group)
        return loss

    def _move(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Move parameters of one shape; their state is stacked and kept with the first."""
        grad = torch.stack(
            [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        )
        state = self.state[parameters[0]]
        if not state:
            _start(state, grad, group["max_size"])
        state["step"] += 1
        decay_first, decay_second = group["betas"]
        rotated = _rotate(grad, state)
        momentum, square = state["momentum"], state["square"]
        momentum.lerp_(rotated, 1.0 - decay_first)
        square.mul_(decay_second).addcmul_(rotated, rotated, value=1.0 - decay_second)
        first = 1.0 - decay_first ** state["step"]
        second = 1.0 - decay_second ** state["step"]
        scale = (square.sqrt() / math.sqrt(second)).add_(group["eps"])
        update = _rotate(momentum / scale, state, back=True).unbind()
        for parameter, change in zip(parameters, update, strict=True):
            parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
            parameter.add_(change, alpha=-group["lr"] / first)
        for side in ("row", "column"):
            if side in state:
                state[side].lerp_(_outer(grad, side), 1.0 - decay_second)
        if state["step"] == 1 or state["step"] % group["every"] == 0:
            _refresh(state)


def _by_shape(parameters: list[Tensor]) -> list[list[Tensor]]:
    """Group what one batch of products can move, order kept."""
    groups: dict[torch.Size, list[Tensor]] = {}
    for parameter in parameters:
        groups.setdefault(parameter.shape, []).append(parameter)
    return list(groups.values())


def _start(state: dict[str, Any], grad: Tensor, max_size: int) -> None:
    """Zero moments, kept in the eigenbases, and the eigenbases of the first gradient."""
    state["step"] = 0
    state["momentum"], state["square"] = torch.zeros_like(grad), torch.zeros_like(grad)
    if grad.ndim < 3:  # vectors; the first axis counts parameters
        return
    for side, size in (("row", grad.shape[-2]), ("column", grad.shape[-1])):
        if 1 < size <= max_size:
            state[side] = _outer(grad, side)
            state[f"{side}_basis"] = torch.linalg.eigh(state[side]).eigenvectors.flip(-1)


def _outer(grad: Tensor, side: str) -> Tensor:
    return grad @ grad.mT if side == "row" else grad.mT @ grad


def _rotate(x: Tensor, state: dict[str, Any], *, back: bool = False) -> Tensor:
    """Go into the eigenbases, or back."""
    if "row" in state:
        basis = state["row_basis"]
        x = (basis if back else basis.mT) @ x
    if "column" in state:
        basis = state["column_basis"]
        x = x @ (basis.mT if back else basis)
    return x


def _refresh(state: dict[str, Any]) -> None:
    """Turn the eigenbases by one orthogonal iteration, sorted by eigenvalue."""
    momentum = _rotate(state["momentum"], state, back=True)
    for side, axis in (("row", -2), ("column", -1)):
        if side in state:
            basis = state[f"{side}_basis"]
            image = state[side] @ basis
            order = (basis * image).sum(-2).argsort(-1, descending=True)
            image = image.take_along_dim(order.unsqueeze(-2), -1)
            index = order.unsqueeze(-1 if axis == -2 else -2)
            state["square"] = state["square"].take_along_dim(index, axis)
            state[f"{side}_basis"] = torch.linalg.qr(image).Q
    state["momentum"] = _rotate(momentum, state)
