"""A run that is stopped and resumed ends with the same numbers, bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from deeph_lightning.errors import CheckpointError, ConfigError
from deeph_lightning.training import runner
from deeph_lightning.training.runner import train

HERE = Path(__file__).resolve().parent
# what a checkpoint says of weights, averages, optimiser and schedule
STATES = (
    "state_dict",
    "current_model_state",
    "averaging_state",
    "optimizer_states",
    "lr_schedulers",
)


def assert_same(a: object, b: object, where: str) -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for n, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{n}]")
    else:
        assert a == b, where


def assert_same_end(run_a: Path, run_b: Path) -> None:
    paths = [run / "checkpoints" / "last.ckpt" for run in (run_a, run_b)]
    a, b = (torch.load(path, weights_only=True) for path in paths)
    assert a["epoch"] == b["epoch"]
    assert a["global_step"] == b["global_step"]
    for state in STATES:
        assert_same(a[state], b[state], state)


class Stop(Exception):
    """Stands for anything that ends a run in the middle of an epoch."""


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer, *_args) -> None:
        if trainer.global_step == self.step:
            raise Stop


@pytest.mark.parametrize("scheduler", ["cosine", "plateau"])
@pytest.mark.parametrize("every", [1, 2])
def test_a_stopped_run_goes_on_exactly(make_config, monkeypatch, tmp_path, scheduler, every):
    options = [
        f"scheduler={scheduler}", f"trainer.check_val_every_n_epoch={every}",
        "trainer.max_epochs=6", "scheduler.warmup_steps=3",
    ]  # fmt: skip
    if scheduler == "plateau":  # so impatient that every validation counts
        options += ["scheduler.patience=0", "scheduler.threshold=0.5"]
    alone = train(make_config(*options, run="alone"))

    make_trainer = runner._make_trainer

    def stopping(config, run_dir):
        trainer = make_trainer(config, run_dir)
        trainer.callbacks.insert(0, StopAt(14))  # epochs have 4 batches: in the fourth
        return trainer

    monkeypatch.setattr(runner, "_make_trainer", stopping)
    with pytest.raises(Stop):
        train(make_config(*options, run="stopped"))
    monkeypatch.undo()
    last = tmp_path / "stopped" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["epoch"] == 2

    resumed = train(make_config(*options, f"ckpt={last}", run="resumed"))
    assert_same_end(alone.run_dir, resumed.run_dir)
    for name, value in alone.metrics.items():
        if name.startswith(("test/", "val/")):
            assert resumed.metrics[name] == value, name
    steps = [line.split(",")[0] for line in resumed.history_csv.read_text().splitlines()[1:]]
    assert {"0", "1", "2", "3", "4", "5"} <= set(steps)  # epochs of the stopped run included


def _command(folder: Path, *more: str) -> list[str]:
    return [
        sys.executable, str(HERE / "standin_train.py"), "--config-dir", str(HERE / "conf"),
        "data=tiny", "model=tiny", "trainer=cpu", "trainer.max_epochs=4", "test=false",
        "trainer.check_val_every_n_epoch=2", "trainer.num_threads=1",
        f"paths.output_root={folder}", *more,
    ]  # fmt: skip


def _environment(delay_s: float) -> dict[str, str]:
    return {**os.environ, "STANDIN_DELAY_S": str(delay_s), "OMP_NUM_THREADS": "1"}


def test_kill_9_and_the_same_command_with_ckpt_last(tmp_path):
    alone = subprocess.Popen(_command(tmp_path / "alone"), env=_environment(0.0))
    killed = subprocess.Popen(_command(tmp_path / "killed"), env=_environment(0.5))
    pattern = "train/tiny_tiny/*/checkpoints/last.ckpt"
    deadline = time.monotonic() + 90
    while not list((tmp_path / "killed").glob(pattern)):
        assert killed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1.2)  # an epoch takes 2 s: now in the middle of the second
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    (last,) = (tmp_path / "killed").glob(pattern)
    assert torch.load(last, weights_only=True)["epoch"] < 3  # stopped before its end

    again = _command(tmp_path / "killed", "ckpt=last")
    subprocess.run(again, env=_environment(0.0), check=True)
    assert alone.wait() == 0
    (run_a,) = (tmp_path / "alone").glob("train/tiny_tiny/*")
    run_b = max((tmp_path / "killed").glob("train/tiny_tiny/*"), key=lambda p: p.name)
    assert run_b != last.parent.parent
    assert_same_end(run_a, run_b)
    assert not list((tmp_path / "killed").rglob("*.partial"))


def test_a_checkpoint_of_other_settings_is_refused(make_config):
    first = train(make_config("trainer.max_epochs=1", "test=false", run="first"))
    last = first.run_dir / "checkpoints" / "last.ckpt"
    other = make_config(
        f"ckpt={last}", "model.width=4", "loss=mae_rmse", "data.n_train=3", run="b"
    )
    with pytest.raises(ConfigError) as caught:
        train(other)
    expected = ("model.width: checkpoint 8, now 4", "data.n_train", "loss.terms.rmse")
    for part in (*expected, "init_from="):
        assert part in str(caught.value)


def test_init_from_takes_weights_and_starts_anew(make_config):
    first = train(make_config("trainer.max_epochs=1", "test=false", run="first"))
    second = train(
        make_config(f"init_from={first.run_dir}", "loss=mae", "trainer.max_epochs=1",
                    "optimizer.lr=0.0", "optimizer.weight_decay=0.0", run="second")
    )  # fmt: skip
    theirs = torch.load(first.run_dir / "checkpoints" / "best.ckpt", weights_only=True)
    for name, value in second.module.state_dict().items():
        # the average of equal numbers rounds
        torch.testing.assert_close(value, theirs["state_dict"][name])
    with pytest.raises(CheckpointError, match="do not fit"):
        train(make_config(f"init_from={first.run_dir}", "model.width=4", run="third"))


def test_ckpt_last_without_a_run_starts_anew(make_config, caplog):
    with caplog.at_level("WARNING"):
        short = make_config("ckpt=last", "trainer.max_epochs=1", "test=false", run="only")
        result = train(short)
    assert "starting anew" in caplog.text
    assert result.trainer.current_epoch == 1
