"""Several processes: gradients of the whole batch, one writer, resume on another number."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from deeph_lightning.config.ranks import is_first_rank, run_stamp
from deeph_lightning.io.formats import write_structure_folder
from tests.data.sets import random_system

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@pytest.mark.ddp
def test_gradients_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "ddp_gradients.py")]
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "store")],
            cwd=ROOT,
            env=ENVIRONMENT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    for process in ranks:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    root = tmp_path / "set"
    names = [f"toy_{seed}" for seed in range(12)]
    for seed, name in enumerate(names):
        write_structure_folder(random_system(seed, n_atom=3), root / name)
    split = {"train": names[:8], "val": names[8:11], "test": names[11:]}
    (root / "split.json").write_text(json.dumps(split))
    return root


def train(output: Path, root: Path, *words: str, launcher: tuple[str, ...] = ()) -> None:
    command = [
        sys.executable, *launcher, "-m", "deeph_lightning.train", "data=folder",
        f"data.root={root}", f"data.cache_dir={output / 'cache'}", "data.max_pairs=1",
        f"paths.output_root={output}", "trainer.num_threads=1", "scheduler.warmup_steps=0",
        "callbacks.progress=null", "trainer.log_every_n_steps=1", "data.progress=false",
        "model.r_message=3.0", "test=false", *words,
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr


def runs(output: Path) -> list[Path]:
    return sorted((output / "train" / "folder_elct").glob("[!.]*"))


@pytest.mark.ddp
def test_one_writes_and_any_number_goes_on(data_root: Path, tmp_path: Path) -> None:
    """8 structures, one a batch: 2, then 1, then 2 processes; the schedule keeps its epoch.

    Of 3 batches to validate, one process has one, the other two.
    """
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    for n, (launcher, words, steps, position) in enumerate(
        (
            ((), ("trainer=ddp_sim", "trainer.max_epochs=2"), 8, 8),
            ((), ("trainer=cpu", "trainer.max_epochs=3", "ckpt=last"), 16, 24),
            (torchrun, ("trainer=ddp_sim", "trainer.max_epochs=4", "ckpt=last"), 20, 16),
        )
    ):
        train(tmp_path, data_root, *words, launcher=launcher)
        assert len(runs(tmp_path)) == n + 1
        run = runs(tmp_path)[-1]
        for name in ("env.json", "config_resolved.yaml", ".hydra"):
            assert (run / name).exists()
        checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
        assert checkpoint["global_step"] == steps
        assert checkpoint["lr_schedulers"][0]["last_epoch"] == position
        with (run / "metrics.csv").open(newline="") as stream:
            logged = [row["step"] for row in csv.DictReader(stream) if row["train/lr"]]
        assert [int(step) for step in logged] == list(range(steps))
    others = tmp_path / "train" / "folder_elct" / ".rank1"
    assert not (others / "config_resolved.yaml").exists()
    assert not (others / "checkpoints").exists()


def test_which_process_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert is_first_rank()
    assert not run_stamp().startswith(".")
    for name, value in (("RANK", "0"), ("LOCAL_RANK", "0"), ("SLURM_PROCID", "3")):
        monkeypatch.setenv(name, value)
    assert not is_first_rank()
    assert run_stamp() == ".rank3"
