"""The data loader: batches of graphs, and where in the epoch it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader

from deeph_lightning.data.graph import Graph, collate
from deeph_lightning.data.sampler import EdgeBudgetSampler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deeph_lightning.data.dataset import GraphDataset


class GraphLoader(DataLoader[Graph]):
    """Load batches of graphs; the place in the epoch is part of a checkpoint.

    Lightning keeps what `state_dict` returns and gives it back on resume, so that a run that
    was stopped within an epoch goes on with the batches that it has not seen.

    Parameters
    ----------
    dataset
        Graphs.
    sampler
        Its batches.
    num_workers
        Processes that read; 0 reads in this one.
    pin_memory
        Put batches into page-locked memory.
    """

    def __init__(
        self,
        dataset: GraphDataset,
        sampler: EdgeBudgetSampler,
        *,
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        super().__init__(
            dataset,
            batch_sampler=sampler,
            collate_fn=collate,
            num_workers=num_workers,
            pin_memory=pin_memory,
            persistent_workers=num_workers > 0,
            worker_init_fn=_use_one_thread,
            # a fork would share the HDF5 library's open files with this process
            multiprocessing_context="forkserver" if num_workers else None,
        )
        self._n_done = 0

    @property
    def _budget_sampler(self) -> EdgeBudgetSampler:
        assert isinstance(self.batch_sampler, EdgeBudgetSampler)
        return self.batch_sampler

    def __iter__(self) -> Iterator[Graph]:  # type: ignore[override]
        # a generator: workers fetch nothing before the first batch is asked for, by which time
        # Lightning has set the epoch
        self._n_done = self._budget_sampler.n_skip
        for batch in super().__iter__():
            self._n_done += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return epoch and number of batches, of this rank, that were given out."""
        sampler = self._budget_sampler
        return {"epoch": sampler.epoch, "n_batch": self._n_done, "n_total": len(sampler)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on behind the batches that were given out.

        Another number of ranks deals the batches out anew: an epoch that was left in the middle
        is begun again then.
        """
        epoch, n_batch, n_own = state_dict["epoch"], state_dict["n_batch"], len(self)
        n_total = state_dict.get("n_total", n_own)
        if n_batch >= n_total:
            epoch, n_batch = epoch + 1, 0
        elif n_total != n_own:
            n_batch = 0
        self._budget_sampler.skip(epoch, n_batch)


def _use_one_thread(worker: int) -> None:  # noqa: ARG001
    torch.set_num_threads(1)
