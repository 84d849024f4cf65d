"""Every configuration composes; every slip gets one clear error before anything is written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from deeph_lightning.config import entry
from deeph_lightning.config.paths import CONF_DIR, check_writable
from deeph_lightning.config.suggest import compose_checked
from deeph_lightning.config.targets import build, check_node, locate, register_prefix
from deeph_lightning.config.validate import check_generate, check_predict, check_train, resolve
from deeph_lightning.errors import ConfigError

assert entry.start  # registers the resolvers that conf/ uses
GROUPS = {
    folder.name: sorted(path.stem for path in folder.glob("*.yaml"))
    for folder in sorted(CONF_DIR.iterdir())
    if folder.is_dir() and folder.name != "local"
}
EXPERIMENTS = GROUPS.pop("experiment")  # each sets groups by itself
GENERATOR = {name: GROUPS.pop(name) for name in ("engine", "sampler", "cluster")}
# one composition checks one option of every group: the n-th of each
N_ROUND = max(len(options) for options in GROUPS.values())


def composed(*overrides: str, name: str = "train", folder: str = "/tmp/never_written") -> dict:
    cfg = compose_checked(name, overrides)
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    if "paths" in cfg:
        cfg.paths.run_dir = folder
    return resolve(cfg)


@pytest.mark.parametrize("n", range(N_ROUND))
def test_every_option_of_every_group_is_valid(n, tmp_path):
    chosen = [f"{group}={options[n % len(options)]}" for group, options in GROUPS.items()]
    if "callbacks=none" in chosen and "debug=anomaly" in chosen:
        chosen.remove("debug=anomaly")  # it sets a callback
    check_train(composed(*chosen, f"data.root={tmp_path}"))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_is_valid(experiment, tmp_path):
    check_train(composed(f"experiment={experiment}", f"data.root={tmp_path}"))


@pytest.mark.parametrize(
    "override", [f"{group}={name}" for group, names in GENERATOR.items() for name in names]
)
def test_every_option_of_the_generator_is_valid(override):
    given = [f"{key}=x" for key in ("structure", "output")]
    missing = {
        "sampler=harmonic": ["sampler.harmonic.calculator=emt"],
        "sampler=md": ["sampler.md.calculator=emt"],
        "sampler=substitute": ["sampler.substitute.elements={Si: [Ge]}"],
        "engine=abacus": ["engine.pseudopotentials={Si: a.upf}", "engine.orbitals={Si: a.orb}"],
        "engine=fhi_aims": ["engine.species_defaults=/data/light"],
        "engine=openmx": [
            "engine.data_path=/data/DFT_DATA19",
            "engine.orbitals={Si: Si7.0-s2p2d1}",
            "engine.pseudopotentials={Si: Si_PBE19}",
        ],
        "engine=siesta": ["engine.pseudopotentials={Si: a.psml}"],
    }.get(override, [])
    check_generate(composed(override, "n=1", *given, *missing, name="generate"))


def test_samplers_add_up_and_a_misspelt_engine_gets_the_nearest_name():
    given = ["structure=x", "output=y", "n=1"]
    config = composed("sampler=[strain,rattle]", *given, name="generate")
    assert list(config["sampler"]) == ["strain", "rattle"]
    with pytest.raises(ConfigError, match="Did you mean engine=pyscf"):
        composed("engine=pyscff", *given, name="generate")
    with pytest.raises(ConfigError, match=r"engine\.bassis is not a key"):
        composed("engine.bassis=sto-3g", *given, name="generate")


def test_every_key_of_a_group_has_a_comment_or_is_plain():
    for path in CONF_DIR.glob("**/*.yaml"):
        text = path.read_text(encoding="utf-8")
        first = next(line for line in text.splitlines() if not line.startswith("# @package"))
        assert first.startswith("# "), f"{path.name}: begin with the command that uses the file"
        assert len(text.splitlines()) <= 80, path.name


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("model.lmax=3", ["model.lmax is not a key", "Did you mean model.l_max=3?"]),
        ("modle=elct", ["modle is not a key", "Did you mean model=elct?"]),
        ("model=elkt", ["no model option 'elkt'", "Did you mean model=elct?"]),
        ("trainer.max_epoch=3", ["Did you mean trainer.max_epochs=3?"]),
        ("lr=1e-3", ["Did you mean optimizer.lr=1e-3?"]),
        ("experiment=graphene_lon", ["Did you mean experiment=graphene_long?"]),
        ("logger=wandv", ["Did you mean logger=wandb?"]),
        ("callbacks.emma=null", ["Did you mean callbacks.ema"]),
        ("~callbacks.emma", ["callbacks.emma is not a key"]),
        ("optimizer.learning_rate=1", ["Keys of optimizer: betas, every, lr"]),
        ("loss.terms.mse=1", ["+loss.terms.mse=1"]),
        ("debug=nan", ["no debug option 'nan'"]),  # to Hydra a number
        ("seed=0,1", ["needs -m"]),
        ("model.l_max=[1,", ["cannot be composed"]),
    ],
)
def test_a_misspelt_override_gets_the_nearest_name(override, parts):
    with pytest.raises(ConfigError) as caught:
        compose_checked("train", [override])
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "is_valid"),
    [
        (["model.l_max=2,3,4", "seed=0,1"], True),
        (["model.l_max=range(2,4)", "loss=mae,mse"], True),
        (["loss=mae,mze"], False),
        (["model.lmax=2,3"], False),
        (["hydra.sweep.dir=/tmp/x", "hydra/job_logging=disabled"], True),
    ],
)
def test_sweeps_pass_the_same_check(overrides, is_valid):
    if is_valid:
        compose_checked("train", overrides, is_multirun=True)
    else:
        with pytest.raises(ConfigError):
            compose_checked("train", overrides, is_multirun=True)


@pytest.mark.parametrize(
    ("override", "key", "parts"),
    [
        ("+model.n_hedas=8", "model.n_hedas", ["is not an argument of ELCT", "Accepted: "]),
        ("+optimizer.learning_rate=8", "optimizer.learning_rate", ["SOAP", "lr"]),
        ("+callbacks.ema.decai=1", "callbacks.ema.decai", ["Nearest: decay"]),
        ("+trainer.epochs=1", "trainer.epochs", ["Trainer"]),
        ("+model.basis=1", "model.basis", ["is set by the program"]),
        ("+sede=1", "sede", ["Nearest: seed"]),
        ("seed=-1", "seed", ["seed = -1"]),
        ("seed=abc", "seed", ["seed = 'abc'"]),
        ("model.l_max=four", "model.l_max", ["expected int"]),
        ("optimizer.lr=fast", "optimizer.lr", ["fast"]),
        ("model._target_=os.system", "model._target_", ["not in an allowed package"]),
        ("model._target_=torch.nn.functional.torch.load", "model._target_", ["."]),
        ("model._target_=deeph_lightning.models.elct.ELKT", "model._target_", [": ELCT"]),
        ("callbacks.ema=3", "callbacks.ema", ["null to remove"]),
        ("data.root=/no/such/place", "data.root", ["data=folder"]),
    ],
)
def test_arguments_are_checked_against_signatures(override, key, parts, tmp_path):
    root = [] if override.startswith("data.root") else [f"data.root={tmp_path}"]
    with pytest.raises(ConfigError) as caught:
        check_train(composed(override, *root))
    assert caught.value.key == key
    for part in parts:
        assert part in str(caught.value)


def test_all_missing_values_come_in_one_error():
    with pytest.raises(ConfigError) as caught:
        composed(name="predict")
    for key in ("checkpoint=VALUE", "structure=VALUE", "output=VALUE"):
        assert key in str(caught.value)
    with pytest.raises(ConfigError, match=r"data\.root=VALUE"):
        composed("data=folder")


def test_predict_checks_its_keys():
    given = ["checkpoint=a", "structure=b", "output=c"]
    check_predict(composed(*given, name="predict"))
    with pytest.raises(ConfigError, match="precision"):
        check_predict(composed(*given, "precision=fp16", name="predict"))


def test_two_ways_to_start_exclude_each_other(tmp_path):
    with pytest.raises(ConfigError, match="exclude each other"):
        check_train(composed("ckpt=last", "init_from=x", f"data.root={tmp_path}"))


def test_an_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"paths\.output_root.*cannot be written"):
        check_writable(tmp_path / "file" / "outputs", key="paths.output_root")
    assert check_writable(tmp_path / "a" / "b", key="k") == tmp_path / "a" / "b"
    assert not (tmp_path / "a").exists()


class Range:
    """Stands for any class with typed arguments."""

    def __init__(self, low: float, high: float = 1.0, name: str | None = None) -> None:
        self.low, self.high, self.name = low, high, name


def test_build_checks_and_nests():
    register_prefix(f"{__name__.split('.')[0]}.")
    target = f"{__name__}.Range"
    node = {"_target_": target, "low": 0}
    assert build(node, key="x", name="n").name == "n"
    with pytest.raises(ConfigError, match="needs low"):
        check_node({"_target_": target}, key="x")
    with pytest.raises(ConfigError, match=r"x\.high = 'a'.*expected float"):
        check_node({"_target_": target, "low": 0, "high": "a"}, key="x")
    with pytest.raises(ConfigError, match=r"x\.lo "):
        check_node({"_target_": target, "lo": 0}, key="x")
    with pytest.raises(ConfigError, match="ends with a dot"):
        register_prefix("os")
    nested = build({"_target_": target, "low": 1, "name": None, "high": 2}, key="x")
    assert (nested.low, nested.high) == (1, 2)


def test_origin_of_a_target_counts_not_its_path():
    with pytest.raises(ConfigError):
        locate("torch.nn.init.torch", key="x")
    with pytest.raises(ConfigError):
        locate("lightning.pytorch.trainer.trainer.os", key="x")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["modle=elct"], "Did you mean model=elct?"),
        (["paths.output_root=/proc/nowhere"], "paths.output_root"),
    ],
)
def test_the_command_prints_one_message_and_exits_2(arguments, message, tmp_path):
    root = [f"data.root={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-m", "deeph_lightning.train", *arguments, *root],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_says_how_to_use_it(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "deeph_lightning.train", "--help"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    assert done.returncode == 0
    for part in ("ckpt=last", "experiment=graphene_long", "scheduler: cosine, plateau"):
        assert part in done.stdout
