"""Two epochs on two processes; each writes down which structures it has seen."""

import json
import sys
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer

from deeph_lightning.data.datamodule import HamiltonianDataModule
from deeph_lightning.data.graph import Graph


class Recorder(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: dict[str, list[list[str]]] = {"train": [], "val": []}

    def training_step(self, graph: Graph, batch_idx: int) -> torch.Tensor:
        self.seen["train"].append(graph.name)
        return (self.weight - 1.0) ** 2

    def validation_step(self, graph: Graph, batch_idx: int) -> None:
        self.seen["val"].append(graph.name)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


if __name__ == "__main__":
    root, folder = Path(sys.argv[1]), Path(sys.argv[2])
    data = HamiltonianDataModule(root, 4.0, cache_dir=folder, max_pairs=250, progress=False)
    data.prepare_data()
    data.setup()
    recorder = Recorder()
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    trainer.fit(recorder, datamodule=data)
    (folder / f"rank_{trainer.global_rank}.json").write_text(json.dumps(recorder.seen))
