"""Batches of a bounded number of pairs, in an order that depends on seed and epoch only."""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import TYPE_CHECKING

import numpy as np
from torch.utils.data import BatchSampler

from deeph_lightning.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

#: Scatter of sizes when structures are packed, from free to strictly by size.
_SCATTER = (1.0, 0.5, 0.2, 0.05)


class EdgeBudgetSampler(BatchSampler):
    """Batches whose structures have at most `max_pairs` pairs together.

    A structure above the budget is a batch of its own. The number of batches is the same in
    every epoch and on every rank, as schedules and collective operations need, and in each step
    the batches of all ranks are of about the same size. Within an epoch a structure comes as
    often as `repeat` says, more often only where there are too few structures for all ranks.

    Lightning calls `set_epoch` at the start of each epoch, on the attribute ``sampler`` of a
    batch sampler: here that is the batch sampler itself.

    Parameters
    ----------
    sizes
        Pairs of every structure.
    repeat
        How often each structure comes in an epoch; None takes all once.
    max_pairs
        Budget of a batch.
    seed
        Together with the epoch it fixes the order.
    shuffle
        Without it, structures keep their order and batches are the same in every epoch.
    rank, world_size
        This process and the number of processes.
    is_even
        Without it, the last ranks may have one batch less, or none, and nothing is ever
        repeated: right for validation.

    Raises
    ------
    ConfigError
        The budget is not positive.
    """

    def __init__(
        self,
        sizes: Sequence[int] | NDArray[np.int64],
        max_pairs: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
        is_even: bool = True,
        repeat: Sequence[int] | None = None,
    ) -> None:
        if max_pairs < 1:
            raise ConfigError(
                f"data.max_pairs is {max_pairs}, expected the number of pairs of a batch, at "
                f"least 1.",
                key="data.max_pairs",
            )
        self.structure = np.repeat(np.arange(len(sizes)), 1 if repeat is None else repeat)
        self.sizes = np.asarray(sizes, dtype=np.int64)[self.structure]
        self.max_pairs, self.seed, self.shuffle = int(max_pairs), int(seed), shuffle
        self.rank, self.world_size, self.is_even = rank, world_size, is_even
        self.sampler = self  # type: ignore[assignment]  # not of single indices
        self.epoch, self.n_skip = 0, 0
        pack = _pack if shuffle else _in_order
        n_needed = len(pack(self.sizes, self.max_pairs))
        self._n_batch = -(-n_needed // world_size) * world_size
        self._plan: tuple[int, list[list[int]]] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Choose the order."""
        if epoch != self.epoch:
            self.epoch, self.n_skip = epoch, 0

    def skip(self, epoch: int, n_batch: int) -> None:
        """Leave out the first batches of an epoch when it is iterated next."""
        self.epoch, self.n_skip = epoch, n_batch

    def __len__(self) -> int:
        return len(self._batches())

    def __iter__(self) -> Iterator[list[int]]:
        # a generator: the data loader calls this twice, and uses the second
        start, self.n_skip = self.n_skip, 0
        for batch in self._batches()[start:]:
            yield self.structure[batch].tolist()

    def _batches(self) -> list[list[int]]:
        """Return this rank's batches of the epoch."""
        if self._plan is None or (self.shuffle and self._plan[0] != self.epoch):
            rng = np.random.default_rng((self.seed, self.epoch))
            if self.shuffle:
                batches = self._packed(rng)
            else:
                batches = _in_order(self.sizes, self.max_pairs)
            if self.is_even:
                _fill(batches, self._n_batch)
            if self.shuffle:
                batches = self._arranged(batches, rng)
            self._plan = (self.epoch, batches[self.rank :: self.world_size])
        return self._plan[1]

    def _packed(self, rng: np.random.Generator) -> list[list[int]]:
        """Pack shuffled structures into no more than the fixed number of batches.

        Packing by decreasing size needs that number, whatever the order of equal sizes.
        Scattered sizes mix structures more freely but may need more: they are tried first.
        """
        order = rng.permutation(len(self.sizes))
        for scatter in _SCATTER:
            noise = 1.0 + scatter * rng.uniform(-0.5, 0.5, len(order))
            batches = _pack(self.sizes, self.max_pairs, order, self.sizes * noise)
            if len(batches) <= self._n_batch:
                return batches
        return _pack(self.sizes, self.max_pairs, order)

    def _arranged(self, batches: list[list[int]], rng: np.random.Generator) -> list[list[int]]:
        """Shuffle batches so that each step has batches of about one size on all ranks."""
        batches = [batches[n] for n in rng.permutation(len(batches)).tolist()]
        if self.world_size == 1 or not self.is_even:
            return batches
        load = [-int(self.sizes[batch].sum()) for batch in batches]
        steps = np.argsort(load, kind="stable").reshape(-1, self.world_size)
        return [batches[n] for n in rng.permutation(steps, axis=0).ravel().tolist()]


def _pack(
    sizes: NDArray[np.int64],
    budget: int,
    order: NDArray[np.int64] | None = None,
    priority: NDArray[np.float64] | None = None,
) -> list[list[int]]:
    """Put structures, by decreasing priority or size, into the fullest batch that has room."""
    order = np.arange(len(sizes)) if order is None else order
    key = sizes if priority is None else priority
    order = order[np.argsort(-key[order], kind="stable")]
    batches: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (room left, batch), sorted
    for n, size in zip(order.tolist(), sizes[order].tolist(), strict=True):
        place = bisect_left(room, (size, -1))
        if place < len(room):
            left, batch = room.pop(place)
            batches[batch].append(n)
        else:
            left, batch = budget, len(batches)
            batches.append([n])
        if left > size:
            insort(room, (left - size, batch))
    return batches


def _fill(batches: list[list[int]], n_batch: int) -> None:
    """Halve the longest batches until there are enough; repeat some if all are single."""
    n_first = len(batches)
    while len(batches) < n_batch:
        longest = max(batches, key=len)
        half = len(longest) // 2
        if half:
            batches.append(longest[half:])
            del longest[half:]
        else:
            batches.append(list(batches[(len(batches) - n_first) % n_first]))


def _in_order(sizes: NDArray[np.int64], budget: int) -> list[list[int]]:
    """Cut the structures, in their order, into batches within the budget."""
    batches: list[list[int]] = []
    left = 0
    for n, size in enumerate(sizes.tolist()):
        if not batches or size > left:
            batches.append([])
            left = budget
        batches[-1].append(n)
        left -= size
    return batches
