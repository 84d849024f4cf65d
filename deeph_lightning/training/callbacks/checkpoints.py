"""The two checkpoints of a run: best.ckpt and last.ckpt."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only


class BestCheckpoint(ModelCheckpoint):
    """``best.ckpt``: the weights with the smallest validation error.

    A resumed run has a folder of its own. It takes the best checkpoint so far over, so that its
    result is that of the run that was never stopped.

    Parameters
    ----------
    dirpath
        Folder of checkpoints.
    monitor
        The logged value that is to be small.
    """

    def __init__(self, dirpath: str, monitor: str = "val/H_mae_meV") -> None:
        super().__init__(
            dirpath=dirpath,
            filename="best",
            monitor=monitor,
            save_top_k=1,
            save_on_train_epoch_end=False,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Copy the best checkpoint of the resumed run here and go on from its score."""
        theirs = state_dict.get("best_model_path") or ""
        score = state_dict.get("best_model_score")
        if not theirs or score is None or not Path(theirs).is_file():
            return
        ours = Path(str(self.dirpath), Path(theirs).name)
        if rank_zero_only.rank == 0 and ours.resolve() != Path(theirs).resolve():
            ours.parent.mkdir(parents=True, exist_ok=True)
            partial = ours.with_name(f".{ours.name}.copy.partial")
            shutil.copyfile(theirs, partial)
            partial.replace(ours)
        self.best_model_path = self.kth_best_model_path = str(ours)
        self.best_model_score = self.current_score = self.kth_value = score
        self.best_k_models = {str(ours): score}


class LastCheckpoint(ModelCheckpoint):
    """``last.ckpt``: the state at the end of an epoch, from which a run goes on exactly.

    Parameters
    ----------
    dirpath
        Folder of checkpoints.
    every_n_epochs
        Epochs between writes: at most these are lost when a run is killed.
    """

    def __init__(self, dirpath: str, every_n_epochs: int = 1) -> None:
        super().__init__(
            dirpath=dirpath,
            filename="last",
            every_n_epochs=every_n_epochs,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the checkpoint, and the log up to it."""
        super().on_train_epoch_end(trainer, pl_module)
        for logger in trainer.loggers:
            logger.save()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep nothing of the resumed run: its file stays where it is."""
