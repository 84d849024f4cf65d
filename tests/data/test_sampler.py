"""Batches: within the budget, complete, reproducible, and as many on every rank."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from deeph_lightning.data.sampler import EdgeBudgetSampler
from deeph_lightning.errors import ConfigError

sizes_of_sets = st.lists(st.integers(0, 2000), min_size=1, max_size=60)
budgets = st.integers(1, 5000)
ranks = st.integers(1, 4)


def all_ranks(
    sizes: list[int], budget: int, world_size: int, epoch: int = 0, **options: object
) -> list[list[list[int]]]:
    """Batches of every rank."""
    out = []
    for rank in range(world_size):
        sampler = EdgeBudgetSampler(sizes, budget, rank=rank, world_size=world_size, **options)  # type: ignore[arg-type]
        sampler.set_epoch(epoch)
        out.append(list(sampler))
        assert len(out[-1]) == len(sampler)
    return out


@given(sizes_of_sets, budgets, ranks, st.integers(0, 5), st.booleans())
def test_budget_and_completeness(
    sizes: list[int], budget: int, world_size: int, epoch: int, shuffle: bool
) -> None:
    batches = all_ranks(sizes, budget, world_size, epoch, seed=3, shuffle=shuffle)
    assert len({len(own) for own in batches}) == 1
    taken = [n for own in batches for batch in own for n in batch]
    assert set(taken) == set(range(len(sizes)))
    for own in batches:
        for batch in own:
            assert batch
            assert len(batch) == 1 or sum(sizes[n] for n in batch) <= budget
    if len(sizes) >= world_size * len(batches[0]):
        assert len(taken) == len(sizes)


@given(sizes_of_sets, budgets, ranks)
def test_number_of_batches_is_that_of_every_epoch(
    sizes: list[int], budget: int, world_size: int
) -> None:
    lengths = {
        len(all_ranks(sizes, budget, world_size, epoch, seed=1)[0]) for epoch in range(6)
    }
    assert len(lengths) == 1


@given(sizes_of_sets, budgets, ranks, st.integers(0, 9))
def test_order_depends_on_seed_and_epoch_only(
    sizes: list[int], budget: int, world_size: int, epoch: int
) -> None:
    first = all_ranks(sizes, budget, world_size, epoch, seed=7)
    sampler = EdgeBudgetSampler(sizes, budget, seed=7, world_size=world_size)
    for other in (epoch + 3, epoch):
        sampler.set_epoch(other)
        list(sampler)
    assert list(sampler) == first[0]


def test_epochs_and_seeds_differ() -> None:
    sizes = [700] * 20 + [1300] * 5
    orders = [
        str(all_ranks(sizes, 2000, 1, epoch, seed=seed))
        for epoch in range(3)
        for seed in (0, 1)
    ]
    assert len(set(orders)) == len(orders)


def test_batches_mix_structures_anew() -> None:
    sizes = list(range(300, 340))
    batches = [
        {frozenset(batch) for batch in all_ranks(sizes, 1000, 1, epoch)[0]}
        for epoch in range(4)
    ]
    assert len(batches[0] & batches[1] & batches[2] & batches[3]) < len(batches[0]) // 4


@given(sizes_of_sets, budgets, ranks)
def test_ranks_share_without_overlap_for_validation(
    sizes: list[int], budget: int, world_size: int
) -> None:
    batches = all_ranks(sizes, budget, world_size, shuffle=False, is_even=False)
    taken = [n for own in batches for batch in own for n in batch]
    assert sorted(taken) == list(range(len(sizes)))
    assert max(map(len, batches)) - min(map(len, batches)) <= 1
    if world_size == 1:
        assert taken == sorted(taken)


def test_steps_are_of_one_size_on_all_ranks() -> None:
    sizes = [100] * 8 + [900] * 8
    batches = all_ranks(sizes, 900, 2, seed=5)
    for own in zip(*batches, strict=True):
        loads = [sum(sizes[n] for n in batch) for batch in own]
        assert max(loads) - min(loads) <= 800
    equal = [
        sum(sizes[n] for n in a) == sum(sizes[n] for n in b)
        for a, b in zip(*batches, strict=True)
    ]
    assert sum(equal) >= len(equal) - 1


def test_too_few_structures_are_repeated() -> None:
    batches = all_ranks([10, 10, 10], 10, 2)
    assert [len(own) for own in batches] == [2, 2]
    taken = sorted(n for own in batches for batch in own for n in batch)
    assert set(taken) == {0, 1, 2}
    assert len(taken) == 4


def test_structures_come_as_often_as_asked() -> None:
    sampler = EdgeBudgetSampler([5, 7, 9], 10, repeat=[1, 3, 2])
    for epoch in range(3):
        sampler.set_epoch(epoch)
        seen = [n for batch in sampler for n in batch]
        assert sorted(seen) == [0, 1, 1, 1, 2, 2]


@given(sizes_of_sets, budgets, st.integers(0, 10))
def test_skipping_leaves_the_rest_of_the_epoch(
    sizes: list[int], budget: int, n_skip: int
) -> None:
    sampler = EdgeBudgetSampler(sizes, budget, seed=2)
    sampler.set_epoch(4)
    batches = list(sampler)
    assume(n_skip < len(batches))
    sampler.skip(4, n_skip)
    assert list(sampler) == batches[n_skip:]
    assert list(sampler) == batches
    sampler.skip(4, n_skip)
    sampler.set_epoch(5)
    assert len(list(sampler)) == len(batches)


def test_large_set_is_packed_quickly() -> None:
    sizes = [500 + (7 * n) % 1501 for n in range(30_000)]
    sampler = EdgeBudgetSampler(sizes, 6000)
    assert sum(map(len, sampler)) == len(sizes)


def test_lightning_finds_the_epoch_setter() -> None:
    from lightning.fabric.utilities.data import _set_sampler_epoch
    from torch.utils.data import DataLoader

    sampler = EdgeBudgetSampler([1, 2, 3], 3)
    _set_sampler_epoch(DataLoader([0, 1, 2], batch_sampler=sampler), 5)  # type: ignore[arg-type]
    assert sampler.epoch == 5


def test_budget_must_be_positive() -> None:
    with pytest.raises(ConfigError, match=r"data.max_pairs is 0"):
        EdgeBudgetSampler([1], 0)
