"""Reading and refusing checkpoints."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from deeph_lightning.errors import CheckpointError, ConfigError
from deeph_lightning.training.checkpoint import (
    FORMAT,
    AtomicCheckpointIO,
    find_last,
    load_model,
    read_checkpoint,
)
from deeph_lightning.training.runner import train


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One short run, for all tests of this file."""
    import conftest  # the one of this folder

    make = conftest.make_config.__wrapped__(tmp_path_factory.mktemp("trained"))
    return train(make("trainer.max_epochs=1", "test=false"))


@pytest.fixture
def altered(trained, tmp_path):
    """Write a copy of the checkpoint with something changed."""

    def write(change) -> Path:
        path = trained.run_dir / "checkpoints" / "best.ckpt"
        checkpoint = torch.load(path, weights_only=True)
        change(checkpoint)
        torch.save(checkpoint, tmp_path / "altered.ckpt")
        return tmp_path / "altered.ckpt"

    return write


def test_a_checkpoint_is_plain_and_says_what_it_is(trained):
    checkpoint = torch.load(trained.run_dir / "checkpoints" / "best.ckpt", weights_only=True)
    record = checkpoint["deeph"]
    assert record["format"] == FORMAT
    assert record["basis"] == {"A": [0], "B": [0, 1]}
    assert record["r_target"]["A-B"] == 4.0
    assert record["r_message"] == 3.0
    assert record["units"] == {"energy": "eV", "length": "angstrom"}
    assert record["fingerprint"] == "tiny"
    assert record["seed"] == 0
    assert record["model"]["_target_"] == "standin.TinyModel"


def test_load_model_has_the_averaged_weights(trained):
    module, record = load_model(trained.run_dir)
    checkpoint = torch.load(record["path"], weights_only=True)
    raw = checkpoint["current_model_state"]["model.hopping.weight"]
    average = checkpoint["state_dict"]["model.hopping.weight"]
    assert torch.equal(module.model.hopping.weight, average)
    assert not torch.equal(raw, average)
    assert not module.training
    assert load_model(trained.run_dir, is_double=True)[0].dtype == torch.float64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["deeph"].update(format=99), "format 99.*\n.*Update"),
        (lambda c: c["deeph"].update(format=0), "Train again"),
        (lambda c: c.pop("deeph"), "not a checkpoint of deeph_lightning"),
        (lambda c: c.pop("state_dict"), "lacks state_dict"),
        (lambda c: c["deeph"].update(basis={"A": [0]}), "disagree"),
        (lambda c: c["state_dict"].popitem(), "do not fit"),
    ],
)
def test_other_checkpoints_are_refused(altered, change, message):
    with pytest.raises(CheckpointError, match=message):
        load_model(altered(change))


@pytest.mark.parametrize(
    "target", ["os.system", "torch.load", "torch.nn.Linear", "standin.gone"]
)
def test_a_checkpoint_cannot_call_what_it_likes(altered, target):
    def change(checkpoint):
        for node in (checkpoint["deeph"]["model"], checkpoint["hyper_parameters"]["model"]):
            node["_target_"] = target

    with pytest.raises((CheckpointError, ConfigError)):
        load_model(altered(change))


def test_missing_and_broken_files(trained, tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        read_checkpoint(tmp_path / "none.ckpt")
    with pytest.raises(CheckpointError, match=r"has no checkpoints/best\.ckpt"):
        read_checkpoint(tmp_path)
    whole = (trained.run_dir / "checkpoints" / "best.ckpt").read_bytes()
    contents = {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"H = 0"}
    for name, content in contents.items():
        path = tmp_path / f"{name}.ckpt"
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="cannot be read"):
            read_checkpoint(path)


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"a": 1}, path)

    def fails(*_args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="disk full"):
        AtomicCheckpointIO().save_checkpoint({"a": 2}, path)
    assert torch.load(path, weights_only=True) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_find_last_takes_the_newest_of_the_neighbours(tmp_path):
    for n, name in enumerate(("b", "a", "c")):
        path = tmp_path / name / "checkpoints" / "last.ckpt"
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (n, n))
    assert find_last(tmp_path / "new").parent.parent.name == "c"
    assert find_last(tmp_path / "c").parent.parent.name == "a"
    assert find_last(tmp_path / "elsewhere" / "new") is None
