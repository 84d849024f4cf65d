"""The data module: splits, batches and what a resumed run sees of an epoch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from deeph_lightning.core.basis import OrbitalBasis
from deeph_lightning.data.datamodule import HamiltonianDataModule
from deeph_lightning.errors import BasisMismatchError, ConfigError, DataError
from deeph_lightning.io.formats import write_structure_folder
from tests.data.sets import random_system
from tests.systems import BASIS, random_atoms, random_operator

if TYPE_CHECKING:
    from deeph_lightning.data.graph import Graph

N = 10
SPLIT = {"train": [f"toy_{n}" for n in range(7)], "val": ["toy_7", "toy_8"], "test": ["toy_9"]}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of DeepH folders with a split."""
    folder = tmp_path_factory.mktemp("data") / "toys"
    for seed in range(N):
        write_structure_folder(random_system(seed), folder / f"toy_{seed}")
    (folder / "split.json").write_text(json.dumps(SPLIT))
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def make(root: Path, cache: Path, **options: Any) -> HamiltonianDataModule:
    options = {"r_message": 4.0, "max_pairs": 400, "progress": False} | options
    data = HamiltonianDataModule(root, cache_dir=cache, **options)
    data.prepare_data()
    data.setup()
    return data


def test_what_a_model_needs(root: Path, cache: Path) -> None:
    data = make(root, cache)
    assert data.basis == BASIS
    assert data.n_electrons == pytest.approx({"B": 3.0, "C": 4.0})
    assert set(data.r_target) == {"B-B", "B-C", "C-C"}
    assert all(4.0 < r <= 5.0 for r in data.r_target.values())
    assert not data.is_spinful
    assert data.report["n_structure"] == N
    assert [g.name for g in data.train_graphs()] == [[name] for name in SPLIT["train"]]
    assert len(list(data.train_graphs())) == len(list(data.train_graphs()))


def test_loaders_give_the_parts(root: Path, cache: Path) -> None:
    data = make(root, cache)
    names = {
        part: [name for graph in loader for name in graph.name]
        for part, loader in (
            ("train", data.train_dataloader()),
            ("val", data.val_dataloader()),
            ("test", data.test_dataloader()),
        )
    }
    assert sorted(names["train"]) == SPLIT["train"]
    assert names["val"] == SPLIT["val"]
    assert names["test"] == SPLIT["test"]
    assert all(g.n_graph == 1 for g in data.test_dataloader())
    assert max(g.n_graph for g in data.train_dataloader()) > 1
    assert all(g.n_graph == 1 or g.n_target <= 400 for g in data.train_dataloader())


def test_overlaps_of_another_set(root: Path, cache: Path, tmp_path: Path) -> None:
    """Those of a set of the same basis are learned in place of the own; of no other basis."""
    bare, other = tmp_path / "bare", tmp_path / "other"
    for seed in range(3):
        write_structure_folder(replace(random_system(seed), S=None), bare / f"bare_{seed}")
    parts = {"train": ["bare_0"], "val": ["bare_1"], "test": ["bare_2"]}
    data = make(bare, cache, split=parts, overlap_root=root)
    assert [g.name for g in data.train_graphs()] != [g.name for g in data.overlap_graphs()]
    assert all(g.S_hopping is None for g in data.train_graphs())
    assert sum(g.S_hopping is not None for g in data.overlap_graphs()) == N
    with pytest.raises(DataError, match=r"bare: has no overlaps"):
        make(root, cache, overlap_root=bare).overlap_graphs()
    rng = np.random.default_rng(0)
    atoms, basis = random_atoms(rng, 1), OrbitalBasis({"C": (0,)})
    H, S = (random_operator(rng, atoms, basis) for _ in range(2))
    system = replace(random_system(0), atoms=atoms, basis=basis, H=H, S=S.replace(unit="1"))
    write_structure_folder(system, other / "s_only")
    with pytest.raises(BasisMismatchError, match=r"the same orbitals"):
        make(root, cache, overlap_root=other).overlap_graphs()


def test_order_without_shuffling(root: Path, cache: Path) -> None:
    data = make(root, cache, shuffle=False, max_pairs=1)
    assert [g.name[0] for g in data.train_dataloader()] == SPLIT["train"]


def test_fingerprint(root: Path, cache: Path, tmp_path: Path) -> None:
    data = make(root, cache)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.symlink_to(root)
    assert make(elsewhere, tmp_path / "cache").fingerprint == data.fingerprint
    assert make(root, cache, limit_train=3).fingerprint != data.fingerprint
    other = {"train": ["toy_0"], "val": ["toy_1"], "test": ["toy_2"]}
    assert make(root, cache, split=other).fingerprint != data.fingerprint
    assert make(root, tmp_path, r_target_max=4.2).fingerprint != data.fingerprint


def test_limit_train(root: Path, cache: Path) -> None:
    data = make(root, cache, limit_train=3)
    assert len(list(data.train_graphs())) == 3
    assert len(data.dataset("val")) == 2
    with pytest.raises(ConfigError, match="there are 7 training structures"):
        make(root, cache, limit_train=8)


def test_repeat_names_training_structures(root: Path, cache: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere_"):
        make(root, cache, repeat={"nowhere_*": 2})


def test_unknown_name_in_split(root: Path, cache: Path) -> None:
    split = {"train": ["toy_0", "toy_77"], "val": ["toy_1"], "test": ["toy_2"]}
    with pytest.raises(DataError, match=r"'train' of the split names 'toy_77'.*among 10"):
        make(root, cache, split=split)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"r_message": 0.0}, "data.r_message is 0.0, expected a positive length in Å"),
        ({"num_workers": -1}, "data.num_workers is -1"),
        ({"max_pairs": 0}, "data.max_pairs is 0"),
    ],
)
def test_arguments_out_of_range(
    root: Path, cache: Path, options: dict[str, float], text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        make(root, cache, **options).train_dataloader()


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        make(tmp_path / "none", tmp_path)


def test_use_before_setup(root: Path, cache: Path) -> None:
    with pytest.raises(RuntimeError, match="prepare_data"):
        _ = HamiltonianDataModule(root, 4.0, cache_dir=cache).basis


class Recorder(LightningModule):
    """Notes the structures of every step."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[tuple[int, list[str]]] = []

    def training_step(self, graph: Graph, batch_idx: int) -> torch.Tensor:
        self.seen.append((self.current_epoch, graph.name))
        return (self.weight - 1.0) ** 2

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SaveAt(Callback):
    """Writes a checkpoint after a step, and ends the run."""

    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: Trainer, *_args: object) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


def fit(
    data: HamiltonianDataModule, *callbacks: Callback, epochs: int = 3, **options: Any
) -> list[tuple[int, list[str]]]:
    recorder = Recorder()
    resume = options.pop("resume", None)
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=list(callbacks),
        **options,
    )
    trainer.fit(recorder, datamodule=data, ckpt_path=resume, weights_only=True)
    return recorder.seen


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize("num_workers", [0, 1])
def test_resumed_run_sees_the_rest(
    root: Path, cache: Path, tmp_path: Path, num_workers: int
) -> None:
    options = {"num_workers": num_workers, "max_pairs": 250, "seed": 5}
    alone = fit(make(root, cache, **options))
    n_batch = len(alone) // 3
    assert n_batch >= 4
    orders = [[names for epoch, names in alone if epoch == e] for e in range(3)]
    assert orders[0] != orders[1] != orders[2]
    assert all(sorted(sum(order, [])) == SPLIT["train"] for order in orders)  # noqa: RUF017
    for step in (n_batch + 2, 2 * n_batch):  # within the second epoch, and at its end
        path = tmp_path / f"{step}.ckpt"
        first = fit(make(root, cache, **options), SaveAt(step, path), min_epochs=0)
        rest = fit(make(root, cache, **options), resume=path)
        assert first == alone[:step]
        assert rest == alone[step:]


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_resume_after_limited_epochs(root: Path, cache: Path, tmp_path: Path) -> None:
    options = {"max_pairs": 250, "seed": 5}
    alone = fit(make(root, cache, **options), limit_train_batches=3)
    path = tmp_path / "end.ckpt"

    class SaveAtEnd(Callback):
        def on_train_epoch_end(self, trainer: Trainer, *_args: object) -> None:
            trainer.save_checkpoint(path)

    fit(make(root, cache, **options), SaveAtEnd(), epochs=1, limit_train_batches=3)
    rest = fit(make(root, cache, **options), resume=path, limit_train_batches=3)
    assert rest == alone[3:]


@pytest.mark.ddp
def test_two_processes_share_an_epoch(root: Path, tmp_path: Path) -> None:
    repository = Path(__file__).resolve().parents[2]
    subprocess.run(
        [sys.executable, Path(__file__).with_name("ddp_epoch.py"), root, tmp_path],
        check=True,
        timeout=240,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"},
    )
    seen = [json.loads((tmp_path / f"rank_{rank}.json").read_text()) for rank in (0, 1)]
    steps = [s["train"] for s in seen]
    n_batch = len(steps[0]) // 2
    assert len(steps[0]) == len(steps[1]) == 2 * n_batch
    for epoch in range(2):
        own = slice(epoch * n_batch, (epoch + 1) * n_batch)
        names = [name for rank in steps for batch in rank[own] for name in batch]
        assert sorted(names) == SPLIT["train"]
    assert steps[0][:n_batch] != steps[0][n_batch:]
    # one batch: both validate it
    assert [s["val"] for s in seen] == [[["toy_7", "toy_8"]] * 2] * 2
