"""From a network to a report; the stand-in returns the labels of its graph, a bit off."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from hydra import compose, initialize_config_dir

from deeph_lightning import evaluate
from deeph_lightning.config.paths import CONF_DIR
from deeph_lightning.data.datamodule import HamiltonianDataModule
from deeph_lightning.errors import BasisMismatchError, ConfigError, DataError, PhysicsError
from deeph_lightning.inference import predict
from deeph_lightning.io import deeph
from deeph_lightning.io.system import SystemData
from deeph_lightning.report import run, write_run_report
from deeph_lightning.report.predictions import predict_systems

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from deeph_lightning.data.graph import Graph

ROUNDING = 1e-6  # of float32 labels of order one, eV


class StandIn(torch.nn.Module):
    """Returns DFT, shifted by an error in eV."""

    def __init__(self, basis, r_target: float = 9.0, error: float = 0.0) -> None:
        super().__init__()
        self.basis, self.r_message, self.error = basis, 2.0, error
        self.r_target = dict.fromkeys(("B-B", "B-N", "N-N"), r_target)
        self.weight = torch.nn.Parameter(torch.zeros(7))

    def forward(self, graph: Graph) -> dict[str, torch.Tensor]:
        assert not self.training
        assert not torch.is_grad_enabled()
        return {key: getattr(graph, key) + self.error for key in ("H_onsite", "H_hopping")}


@pytest.fixture
def slab(random_operator) -> Callable[..., SystemData]:
    """Factory of systems without overlap, by name and seed."""

    def make(name: str, seed: int = 0, **changes) -> SystemData:
        H = random_operator(seed, **changes)
        H.atoms.info["name"] = name
        return SystemData(name, H.atoms, H.basis, is_spinful=H.is_spinful, H=H)

    return make


@pytest.fixture
def folder(tmp_path, slab) -> Path:
    """Set of six structures with a split."""
    names = [f"s{n}" for n in range(6)]
    for n, name in enumerate(names):
        deeph.write(slab(name, n), tmp_path / "set" / name)
    split = {"train": names[:3], "val": names[3:4], "test": names[4:]}
    (tmp_path / "set" / "split.json").write_text(json.dumps(split))
    return tmp_path / "set"


def test_predictions_have_every_pair_of_dft(slab) -> None:
    system = slab("a")
    (prediction,) = predict_systems(StandIn(system.basis), [system])
    assert prediction.H.pairs == system.H.pairs
    assert prediction.H.values == pytest.approx(system.H.values, abs=ROUNDING)


def test_pairs_out_of_reach_of_the_model_are_not_predicted(slab) -> None:
    system = slab("a")
    (prediction,) = predict_systems(StandIn(system.basis, r_target=2.0), [system])
    length = prediction.H.pairs.distances(system.atoms)
    assert 0 < length.max() <= 2.0
    assert prediction.H.pairs.is_onsite.sum() == len(system.atoms)


def test_nan_is_refused(slab) -> None:
    system = slab("a")
    with pytest.raises(PhysicsError, match=r"structure 'a'.*NaN"):
        list(predict_systems(StandIn(system.basis, error=float("nan")), [system]))


def test_another_basis_or_spin_is_refused(slab, random_operator) -> None:
    system = slab("a")
    other = type(system.basis)({"B": (0,), "N": (0,)})
    with pytest.raises(BasisMismatchError, match=r"structure 'a': B has shells \[0, 1\]"):
        list(predict_systems(StandIn(other), [system]))
    with pytest.raises(BasisMismatchError, match="spin"):
        list(predict_systems(StandIn(system.basis), [slab("b", is_spinful=True)]))


def test_run_report_is_of_the_test_split(tmp_path, folder, monkeypatch) -> None:
    monkeypatch.setattr(run, "draw_all", lambda *_: [])
    data = HamiltonianDataModule(folder, 2.0, cache_dir=tmp_path / "cache", progress=False)
    data.prepare_data()
    data.setup()
    network = StandIn(data.basis, error=1e-3)
    module = torch.nn.Module()  # a LightningModule holds the network as `model`
    module.model = network
    out = tmp_path / "run"
    values = write_run_report(out, module, data, None, {"time/train_s": 3.0}, {})
    assert values["test/H_mae_meV"] == pytest.approx(1.0, rel=1e-3)
    assert values["test/H_max_meV"] == pytest.approx(1.0, rel=1e-2)
    assert values["time/train_s"] == 3.0
    assert sorted(p.name for p in (out / "predictions").iterdir()) == ["s4", "s5"]


def evaluation(*overrides: str) -> dict[str, float]:
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return evaluate.run(compose("evaluate", overrides=list(overrides)))


def test_evaluate_reports_on_a_set_or_a_part_of_it(
    tmp_path, folder, slab, monkeypatch, capsys
) -> None:
    class Loaded:
        def __init__(self, checkpoint: str, precision: str, device: str) -> None:
            assert (checkpoint, precision, device) == ("run", "fp64", "auto")
            self.network = StandIn(slab("a").basis, error=2e-3)

    monkeypatch.setattr(run, "draw_all", lambda *_: [])
    monkeypatch.setattr(predict, "Predictor", Loaded)
    given = ["checkpoint=run", f"data.root={folder}", "precision=fp64"]
    values = evaluation(*given, f"output={tmp_path / 'all'}")
    assert values["test/H_mae_meV"] == pytest.approx(2.0, rel=1e-3)
    assert values["model/parameters"] == 7.0
    assert len(list((tmp_path / "all" / "predictions").iterdir())) == 6
    evaluation(*given, f"output={tmp_path / 'part'}", "split=val")
    assert [p.name for p in (tmp_path / "part" / "predictions").iterdir()] == ["s3"]
    (folder / "split.json").unlink()
    with pytest.raises(DataError, match=r"split\.json"):
        evaluation(*given, f"output={tmp_path / 'none'}", "split=val")
    assert "no overlap" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("split=holdout", "split"),
        ("report.near_eV=near", "report.near_eV"),
        ("+report.near=1", "Nearest: near_eV"),
        ("data.root=nowhere", "no such file"),
    ],
)
def test_evaluate_checks_its_keys(tmp_path, folder, override, words) -> None:
    given = ["checkpoint=run", f"data.root={folder}", f"output={tmp_path / 'out'}"]
    with pytest.raises(ConfigError, match=words):
        evaluation(*given, override)
    assert not (tmp_path / "out").exists()
