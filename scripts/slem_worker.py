"""Train SLEM of DeePTB for a time and predict with it, by a Python that has `dptb`.

    PYTHON scripts/slem_worker.py PLAN.json

`bench_slem.py` writes the plan and starts this. It makes the calls of `dptb train`, which
itself ends after a number of epochs and not after a time.
"""

from __future__ import annotations

import contextlib
import copy
import heapq
import json
import math
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from dptb.data.build import build_dataset
from dptb.nn.build import build_model
from dptb.nnops.trainer import Trainer
from dptb.plugins.base_plugin import Plugin
from dptb.plugins.monitor import TrainLossMonitor
from dptb.postprocess.write_block import write_block
from dptb.utils.argcheck import collect_cutoffs, normalize
from dptb.utils.tools import setup_seed

TIMED_STEPS = 7


class BudgetSpent(Exception):
    """The time for training is over."""


class Budget(Plugin):
    """Keep weights at equal intervals, let the learning rate fall, and end the training.

    The time is that of the CPU, divided by the number of threads: what else the machine does
    is not counted.
    """

    def __init__(self, seconds: float, n_snapshot: int, *, is_cosine: bool) -> None:
        super().__init__([(1, "iteration")])
        self.seconds, self.n_snapshot, self.is_cosine = seconds, n_snapshot, is_cosine
        self.snapshots: list[dict] = []

    def register(self, trainer: Trainer) -> None:
        """Start the clocks."""
        self.trainer = trainer
        self.peak = trainer.optimizer.param_groups[0]["lr"]
        self.begin, self.wall = time.process_time(), time.perf_counter()

    def iteration(self, **stats) -> None:
        """Look at the clocks behind a step."""
        spent = (time.process_time() - self.begin) / torch.get_num_threads()
        part = min(spent / self.seconds, 1.0)
        if self.is_cosine:
            for group in self.trainer.optimizer.param_groups:
                group["lr"] = self.peak * (
                    1e-3 + (1 - 1e-3) * (1 + math.cos(math.pi * part)) / 2
                )
        if part * self.n_snapshot >= len(self.snapshots) + 1:
            about = {
                "cpu_s": spent,
                "wall_s": time.perf_counter() - self.wall,
                "steps": stats["time"],
                "loss_eV": float(self.trainer.stats["train_loss"]["running_avg"]),
                "learning_rate": stats["lr"],
            }
            weights = copy.deepcopy(self.trainer.model.state_dict())
            self.snapshots.append({"about": about, "weights": weights})
            print(json.dumps(about), flush=True)
        if part == 1.0:
            raise BudgetSpent


def main() -> None:
    """Train, predict with every snapshot, time a step; write what `bench_slem.py` reads."""
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(plan["threads"])
    settings = normalize(plan["input"])
    common = settings["common_options"]
    torch.set_default_dtype(getattr(torch, common["dtype"]))
    setup_seed(common["seed"])
    data = build_dataset(
        **collect_cutoffs(settings), **settings["data_options"]["train"], **common
    )
    model = build_model(model_options=settings["model_options"], common_options=common)
    data.E3statistics(model=model)
    trainer = Trainer(settings["train_options"], common, model, data)
    trainer.register_plugin(TrainLossMonitor())
    budget = Budget(plan["seconds"], plan["snapshots"], is_cosine=plan["is_cosine"])
    trainer.register_plugin(budget)
    heapq.heapify(trainer.plugin_queues["iteration"])
    with contextlib.suppress(BudgetSpent):
        trainer.run(settings["train_options"]["num_epoch"])

    output = Path(plan["output"])
    r_max = settings["model_options"]["embedding"]["r_max"]
    for n, snapshot in enumerate(budget.snapshots):
        model.load_state_dict(snapshot["weights"])
        predictions = {
            name: predict(Path(folder), model, r_max)
            for name, folder in plan["predict"].items()
        }
        np.savez(output / f"{n}.npz", **flat(predictions))
    result = {
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "edges": int(data[0].edge_index.shape[1]),
        "step_s": step_time(trainer),
        "torch": torch.__version__,
        "snapshots": [snapshot["about"] for snapshot in budget.snapshots],
    }
    (output / "result.json").write_text(json.dumps(result), encoding="utf-8")


def predict(folder: Path, model, r_max) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs ``(n, 5)``, one of each couple: i, j, R; and their blocks, eV."""
    atoms = Atoms(
        np.loadtxt(folder / "atomic_numbers.dat", dtype=int),
        positions=np.loadtxt(folder / "positions.dat"),
        cell=np.loadtxt(folder / "cell.dat"),
        pbc=True,
    )
    blocks = write_block(atoms, model, {"r_max": r_max}, torch.device("cpu"))
    pairs = np.array([key.split("_") for key in blocks], dtype=np.int64)
    return pairs, np.stack([block.numpy() for block in blocks.values()])


def flat(predictions: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
    """Name pairs and blocks for an archive of arrays."""
    arrays = {}
    for name, (pairs, blocks) in predictions.items():
        arrays[f"{name}/pairs"], arrays[f"{name}/blocks"] = pairs, blocks
    return arrays


def step_time(trainer: Trainer) -> float:
    """Return the median CPU time of a training step of the first structure, s per thread."""
    trainer.plugin_queues["iteration"].clear()
    times = []
    batch = next(iter(type(trainer.train_loader)(trainer.train_datasets[:1], batch_size=1)))
    for _ in range(TIMED_STEPS):
        begin = time.process_time()
        trainer.iteration(batch)
        times.append((time.process_time() - begin) / torch.get_num_threads())
    return statistics.median(times)


if __name__ == "__main__":
    main()
