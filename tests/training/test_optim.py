"""Schedules and parameter groups."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from deeph_lightning.errors import ConfigError
from deeph_lightning.training.optim import (
    WarmupCosine,
    WarmupPlateau,
    build_optimizer,
    build_scheduler,
)

ADAMW = {"_target_": "torch.optim.AdamW", "lr": 1.0, "weight_decay": 0.1}


def test_weight_decay_acts_on_matrices_only():
    module = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    optimizer = build_optimizer(ADAMW, module)
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert {n: decay[id(p)] for n, p in module.named_parameters()} == {
        "0.weight": 0.1, "0.bias": 0.0, "1.weight": 0.0, "1.bias": 0.0,
    }  # fmt: skip


def test_cosine_warms_up_and_ends_at_the_end():
    optimizer = build_optimizer(ADAMW, nn.Linear(2, 2))
    node = {
        "_target_": "deeph_lightning.training.optim.WarmupCosine",
        "warmup_steps": 9,
        "final_ratio": 0.01,
    }
    scheduler = build_scheduler(node, optimizer, total_steps=lambda: 100)
    rates = []
    for _ in range(101):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == pytest.approx(1.0) == max(rates)
    assert all(b <= a for a, b in pairwise(rates[9:]))
    assert rates[100] == pytest.approx(0.01)


def test_cosine_needs_an_end():
    node = {"_target_": "deeph_lightning.training.optim.WarmupCosine"}
    with pytest.raises(ConfigError, match=r"trainer\.max_epochs"):
        build_scheduler(node, build_optimizer(ADAMW, nn.Linear(2, 2)), lambda: float("inf"))


def test_cosine_of_a_longer_run_stretches_on_resume():
    optimizer = build_optimizer(ADAMW, nn.Linear(2, 2))
    short = WarmupCosine(optimizer, total_steps=10, warmup_steps=0)
    for _ in range(10):
        optimizer.step()
        short.step()
    longer = WarmupCosine(build_optimizer(ADAMW, nn.Linear(2, 2)), 20, 0)
    longer.load_state_dict(short.state_dict())
    assert longer.get_lr()[0] == pytest.approx(longer.ratio(10))
    assert longer.get_lr()[0] > 0.4


def test_plateau_reduces_after_patience():
    optimizer = build_optimizer(ADAMW, nn.Linear(2, 2))
    scheduler = WarmupPlateau(optimizer, warmup_steps=0, factor=0.5, patience=1, threshold=0.1)
    seen = []
    for value in (10.0, 5.0, 4.9, 4.8, 4.7, 4.6):  # the first two improve by more than a tenth
        scheduler.observe(value)
        optimizer.step()
        scheduler.step()
        seen.append(optimizer.param_groups[0]["lr"])
    assert seen == [1.0, 1.0, 1.0, 0.5, 0.5, 0.25]
    assert torch.tensor(seen).isfinite().all()


@pytest.mark.parametrize("options", [{"factor": 1.5}, {"final_ratio": -1.0}])
def test_schedules_check_their_ranges(options):
    with pytest.raises(ConfigError):
        WarmupPlateau(build_optimizer(ADAMW, nn.Linear(2, 2)), **options)
