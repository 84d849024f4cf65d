"""How fast training is, and how long it has taken."""

from __future__ import annotations

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class Throughput(Callback):
    """Log ``perf/edges_per_s``, ``perf/data_wait_ms`` and ``time/elapsed_s`` of every epoch.

    An edge is a directed message edge: each stored pair within `r_message` carries two.
    Validation and checkpoints do not count, nor does the first batch of an epoch (the start of
    the data loader), nor the first steps of the run, in which memory is allocated and kernels
    are chosen.

    Parameters
    ----------
    warmup_steps
        Steps at the start that do not count.
    """

    def __init__(self, warmup_steps: int = 5) -> None:
        self.warmup_steps = warmup_steps
        self.elapsed_before = 0.0
        self._start: float | None = None
        self._n_step, self._total_edges, self._total_time = 0, 0, 0.0
        self._begin()

    def _begin(self) -> None:
        """Start the count of an epoch."""
        self._mark: float | None = None
        self._ended = 0.0
        self._edges, self._batches, self._wait = 0, 0, 0.0

    @property
    def elapsed_s(self) -> float:
        """Time spent in training and validation, those of the resumed run included, s."""
        running = 0.0 if self._start is None else time.perf_counter() - self._start
        return self.elapsed_before + running

    @property
    def edges_per_s(self) -> float:
        """Mean over the run; 0 if it was too short to tell."""
        return self._total_edges / self._total_time if self._total_time else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Keep the time spent for the run that goes on from the checkpoint."""
        return {"elapsed_s": self.elapsed_s}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the time of the resumed run over."""
        self.elapsed_before = state_dict["elapsed_s"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Start the clock."""
        self._start = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Stop the clock."""
        self.elapsed_before, self._start = self.elapsed_s, None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Start the count of the epoch."""
        self._begin()

    def on_train_batch_start(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Note how long the batch was waited for."""
        if self._mark is not None:
            self._wait += time.perf_counter() - self._ended

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ARG002
        batch: Any,
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Count edges, up to the last batch: what follows it is not training."""
        self._n_step += 1
        if self._mark is not None:
            self._edges += 2 * int(batch.edge_pair.shape[0])
            self._batches += 1
        elif self._n_step >= self.warmup_steps:
            self._mark = _now(pl_module)
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch and self._batches:
            self._close(pl_module)
        self._ended = time.perf_counter()

    def _close(self, pl_module: LightningModule) -> None:
        assert self._mark is not None
        span = _now(pl_module) - self._mark
        self._total_edges += self._edges
        self._total_time += span
        values = {
            "perf/edges_per_s": self._edges / span,
            "perf/data_wait_ms": 1e3 * self._wait / self._batches,
        }
        if pl_module.device.type == "cuda":
            values["perf/gpu_memory_GiB"] = torch.cuda.max_memory_allocated() / 2**30
        pl_module.log_dict(values, batch_size=1, on_step=False, on_epoch=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Log the time spent."""
        pl_module.log("time/elapsed_s", self.elapsed_s, batch_size=1)


def _now(pl_module: LightningModule) -> float:
    """Return the time when the device has done what it was given."""
    if pl_module.device.type == "cuda":
        torch.cuda.synchronize(pl_module.device)
    return time.perf_counter()
