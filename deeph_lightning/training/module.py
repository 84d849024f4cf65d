"""The LightningModule: network, loss, metrics, optimiser; nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningModule
from torch import Tensor

from deeph_lightning.config.targets import build
from deeph_lightning.models.base import HamiltonianModel
from deeph_lightning.training.checkpoint import make_record
from deeph_lightning.training.losses import HamiltonianLoss
from deeph_lightning.training.metrics import HamiltonianMetrics
from deeph_lightning.training.optim import build_optimizer, build_scheduler

if TYPE_CHECKING:
    from deeph_lightning.data.graph import Graph


class HamiltonianModule(LightningModule):
    """Train any `HamiltonianModel`; it never knows which model, code or file.

    All arguments are plain containers, so that checkpoints load with ``weights_only=True`` and
    build the same module again.

    Parameters
    ----------
    model
        Node of the network, with ``basis`` and ``r_target`` among its arguments.
    loss
        Node of the loss, without its basis.
    optimizer, scheduler
        Nodes; used in training only.
    about
        Plain entries for the checkpoint's record: data node, fingerprint, seed, electrons.
    """

    def __init__(
        self,
        model: dict[str, Any],
        loss: dict[str, Any],
        optimizer: dict[str, Any] | None = None,  # noqa: ARG002
        scheduler: dict[str, Any] | None = None,  # noqa: ARG002
        about: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)  # all arguments, under self.hparams
        self.model: HamiltonianModel = build(model, key="model")
        self.loss: HamiltonianLoss = build(loss, key="loss", basis=model["basis"])
        self.val_metrics = HamiltonianMetrics()
        self.test_metrics = HamiltonianMetrics()
        self._resumed_steps_per_epoch: float | None = None

    def forward(self, graph: Graph) -> dict[str, Tensor]:
        """Predict the blocks of a graph, flat, eV."""
        prediction: dict[str, Tensor] = self.model(graph)
        return prediction

    def training_step(self, graph: Graph, batch_idx: int) -> Tensor:  # noqa: ARG002
        """Return the loss of one batch, meV."""
        loss, parts = self.loss(self(graph), graph)
        size = graph.n_graph
        self.log("train/loss", loss.detach(), batch_size=size, prog_bar=True)
        self.log_dict({f"train/{name}": v for name, v in parts.items()}, batch_size=size)
        return loss

    def validation_step(self, graph: Graph, batch_idx: int) -> None:  # noqa: ARG002
        """Add one batch to the validation errors."""
        self.val_metrics.update(self(graph), graph)

    def on_validation_epoch_end(self) -> None:
        """Log the validation errors and tell the schedule."""
        values = self._finish(self.val_metrics, "val")
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            observe = getattr(self.lr_schedulers(), "observe", None)
            if observe is not None:
                observe(values["H_mae_meV"])

    def test_step(self, graph: Graph, batch_idx: int) -> None:  # noqa: ARG002
        """Add one batch to the test errors."""
        self.test_metrics.update(self(graph), graph)

    def on_test_epoch_end(self) -> None:
        """Log the test errors."""
        self._finish(self.test_metrics, "test")

    def _finish(self, metrics: HamiltonianMetrics, split: str) -> dict[str, float]:
        """Log the errors of a finished split under ``split/name`` and start anew."""
        # the metric reduces over ranks itself; one more reduction would be wrong for sums
        values = {name: float(value) for name, value in metrics.compute().items()}
        metrics.reset()
        for name, value in values.items():
            is_shown = split == "val" and name == "H_mae_meV"
            self.log(f"{split}/{name}", value, batch_size=1, prog_bar=is_shown)
        return values

    def configure_optimizers(self) -> dict[str, Any]:
        """Build optimiser and schedule; the schedule moves with every optimiser step."""
        optimizer = build_optimizer(self.hparams["optimizer"], self.model)
        scheduler = build_scheduler(
            self.hparams["scheduler"],
            optimizer,
            total_steps=lambda: self.trainer.estimated_stepping_batches,
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def record(self) -> Mapping[str, Any]:
        """Return the ``deeph`` entry of this module's checkpoints."""
        hparams = self.hparams
        return make_record(hparams["model"], loss=hparams["loss"], **(hparams["about"] or {}))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the project's own record, and how many steps an epoch has."""
        checkpoint["deeph"] = dict(self.record()) | {"steps_per_epoch": self._steps_per_epoch()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note the steps of an epoch, for `on_train_start`."""
        self._resumed_steps_per_epoch = checkpoint["deeph"].get("steps_per_epoch")

    def on_train_start(self) -> None:
        """Keep the schedule at its epoch where a resumed run has other steps an epoch.

        So it is with another number of ranks, each of which sees a share of the batches.
        """
        before, now = self._resumed_steps_per_epoch, self._steps_per_epoch()
        scheduler = self.lr_schedulers()
        if before is not None and before != now and scheduler is not None:
            scheduler.last_epoch = round(scheduler.last_epoch * now / before)

    def _steps_per_epoch(self) -> float:
        return self.trainer.num_training_batches / self.trainer.accumulate_grad_batches
