"""Progress bar, and one line for every validation."""

from __future__ import annotations

import time

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from rich.console import Console


class Progress(RichProgressBar):
    """Rich progress bar that also prints a line with units and time left after a validation.

    Where the output is not a terminal no bar is drawn, and the lines remain.

    Parameters
    ----------
    refresh_rate
        Batches between redraws.
    """

    def __init__(self, refresh_rate: int = 1) -> None:
        super().__init__(refresh_rate=refresh_rate if Console().is_terminal else 0)
        self._start: tuple[float, int] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        super().on_train_start(trainer, pl_module)
        self._start = (time.perf_counter(), trainer.global_step)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line of this validation."""
        super().on_validation_end(trainer, pl_module)
        if trainer.sanity_checking or not trainer.is_global_zero or trainer.state.fn != "fit":
            return
        values = trainer.callback_metrics
        names = ("H_mae_meV", "H_onsite_mae_meV", "H_hopping_mae_meV")
        if not all(f"val/{name}" in values for name in names):
            return
        total, onsite, hopping = (float(values[f"val/{name}"]) for name in names)
        epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        console = self.progress.console if self.progress is not None else Console()
        console.print(
            f"{epoch}  val H MAE {total:.4f} meV (onsite {onsite:.4f}, hopping {hopping:.4f})"
            f"{self._time_left(trainer)}",
            highlight=False,
            soft_wrap=True,
        )

    def _time_left(self, trainer: Trainer) -> str:
        if self._start is None or trainer.max_epochs is None or trainer.max_epochs < 1:
            return ""
        began, first = self._start
        done = trainer.global_step - first
        left = trainer.estimated_stepping_batches - trainer.global_step
        if done < 1 or left < 0:
            return ""
        seconds = (time.perf_counter() - began) / done * left
        return f"  {seconds / 60:.1f} min left" if seconds >= 1 else ""
