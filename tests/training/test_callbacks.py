"""What happens beside training."""

from __future__ import annotations

import csv
import json
import math

import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from deeph_lightning.config import sweep_table
from deeph_lightning.config.validate import resolve
from deeph_lightning.errors import ConfigError
from deeph_lightning.train import run
from deeph_lightning.training import history
from deeph_lightning.training.callbacks.average import WeightAverage
from deeph_lightning.training.callbacks.nan_guard import DivergedError
from deeph_lightning.training.runner import train


def test_a_loss_that_is_not_finite_names_step_and_structure(make_config):
    with pytest.raises(
        DivergedError, match=r"step \d+ \(epoch \d+\), structure tiny_\d"
    ) as caught:
        train(make_config("optimizer.lr=1e30", "trainer.gradient_clip_val=null"))
    assert caught.value.step > 1
    assert caught.value.structures[0].startswith("tiny_")


def test_a_diverging_run_keeps_its_earlier_checkpoint(make_config, tmp_path):
    config = make_config("trainer.max_epochs=1", "test=false", run="good")
    last = train(config).run_dir / "checkpoints" / "last.ckpt"
    bad = ["optimizer.lr=1e30", "trainer.gradient_clip_val=null", "test=false"]
    with pytest.raises(DivergedError):
        train(make_config(*bad, "trainer.max_epochs=20", run="bad"))
    kept = tmp_path / "bad" / "checkpoints" / "last.ckpt"
    for path in [last, *([kept] if kept.exists() else [])]:
        state = torch.load(path, weights_only=True)["current_model_state"]
        assert all(value.isfinite().all() for value in state.values())


def test_the_log_has_the_promised_columns(make_config):
    result = train(make_config("trainer.max_epochs=3"))
    with result.history_csv.open() as stream:
        names = set(csv.DictReader(stream).fieldnames)
    assert names >= {
        "train/loss", "train/H_onsite_mae_meV", "train/lr", "train/grad_norm",
        "train/ema_distance", "val/H_mae_meV", "val/H_onsite_mae_meV", "val/H_hopping_mae_meV",
        "perf/edges_per_s", "perf/data_wait_ms", "time/elapsed_s",
    }  # fmt: skip
    assert result.metrics["model/parameters"] == 493
    assert result.metrics["perf/edges_per_s"] > 0
    assert result.metrics["time/train_s"] > 0
    assert result.metrics["val/H_mae_meV"] > 0


def test_the_last_epoch_is_validated_wherever_it_falls(make_config):
    every = "trainer.check_val_every_n_epoch=2"
    result = train(make_config("trainer.max_epochs=3", every, "test=false"))
    with result.history_csv.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    epochs = {int(row["epoch"]) for row in rows if row["val/H_mae_meV"]}
    assert epochs == {1, 2}  # counted from zero


def test_the_average_forgets_its_start(make_config):
    average = WeightAverage(decay=0.9)
    update = average._kwargs["multi_avg_fn"]
    values = [torch.zeros(2)]
    for n in range(200):
        update(values, [torch.ones(2)], torch.tensor(n))
    assert values[0] == pytest.approx(1.0, abs=1e-6)
    with pytest.raises(ConfigError):
        WeightAverage(decay=1.0)


def test_precision_64_computes_in_double(make_config):
    result = train(make_config("trainer.precision=64-true", "trainer.max_epochs=1"))
    assert next(result.module.parameters()).dtype == torch.float64


def test_mixed_precision_trains(make_config):
    result = train(make_config("trainer.precision=bf16-mixed", "trainer.max_epochs=1"))
    assert math.isfinite(result.metrics["test/H_mae_meV"])


@pytest.mark.parametrize("logger", ["none", "tensorboard"])
def test_other_loggers(make_config, logger):
    result = train(make_config(f"logger={logger}", "trainer.max_epochs=1", "test=false"))
    has_events = bool(list(result.run_dir.glob("tensorboard/events*")))
    assert has_events == (logger == "tensorboard")
    assert (result.history_csv is None) == (logger == "none")


def test_wandb_works_offline_without_an_account(make_config, monkeypatch, tmp_path):
    pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    result = train(make_config("logger=wandb", "trainer.max_epochs=1", "test=false"))
    import wandb

    wandb.finish()
    assert list(result.run_dir.glob("wandb/offline-run-*/*.wandb"))
    assert result.history_csv.is_file()


def test_a_sweep_with_several_devices_is_refused(make_config):
    with pytest.raises(ConfigError, match="would run a sweep of its own"):
        train(make_config("trainer.devices=2"), is_multirun=True)
    with pytest.raises(ConfigError, match="in folders by number"):
        train(make_config("ckpt=last"), is_multirun=True)


def test_a_run_folder_says_how_it_was_made(make_config):
    config = make_config("trainer.max_epochs=1", "test=false")
    assert not HydraConfig.initialized()
    metrics = run(OmegaConf.create(config))
    from pathlib import Path

    folder = Path(config["paths"]["run_dir"])
    assert resolve(OmegaConf.load(folder / "config_resolved.yaml")) == config
    environment = json.loads((folder / "env.json").read_text())
    assert environment["seed"] == 0
    assert environment["data_fingerprint"] == "tiny"
    assert {"python", "packages", "git", "device", "threads"} <= environment.keys()
    assert json.loads((folder / "metrics.json").read_text()) == metrics


def test_logs_of_chained_resumes_join(tmp_path):
    for n, rows in enumerate((["0,a", "5,b"], ["3,c", "9,d"], ["6,e"])):
        (tmp_path / str(n)).mkdir()
        (tmp_path / str(n) / "metrics.csv").write_text("\n".join(["step,x", *rows]) + "\n")
    history.carry_over(tmp_path / "0", tmp_path / "1", n_step=3)
    history.carry_over(tmp_path / "1", tmp_path / "2", n_step=6)
    history.merge(tmp_path / "2")
    with (tmp_path / "2" / "metrics.csv").open() as stream:
        rows = [(row["step"], row["x"]) for row in csv.DictReader(stream)]
    assert rows == [("0", "a"), ("3", "c"), ("6", "e")]
    assert not list(tmp_path.rglob("*.partial"))


def test_a_sweep_leaves_one_table(tmp_path, capsys):
    for n, (l_max, value) in enumerate(((2, 0.5), (3, 0.25), (4, None))):
        (tmp_path / str(n) / ".hydra").mkdir(parents=True)
        overrides = [f"model.l_max={l_max}", "trainer.max_epochs=2"]
        OmegaConf.save(OmegaConf.create(overrides), tmp_path / str(n) / ".hydra/overrides.yaml")
        if value is not None:
            metrics = {"val/H_mae_meV": value, "test/H_mae_meV": value, "test/H_rmse_meV": 1.0}
            (tmp_path / str(n) / "metrics.json").write_text(json.dumps(metrics))
    rows = sweep_table.collect(tmp_path)
    sweep_table.write_table(rows, tmp_path)
    sweep_table.print_table(rows, tmp_path)
    with (tmp_path / "sweep.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [row["model.l_max"] for row in table] == ["2", "3", "4"]
    assert [row["test/H_rmse_meV"] for row in table] == ["1.0", "1.0", ""]
    shown = capsys.readouterr().out
    assert "test H MAE (meV)" in shown
    assert "max_epochs" not in shown  # the same in all runs
    assert shown.index("0.2500") < shown.index("0.5000") < shown.index("no result")
