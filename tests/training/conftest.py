"""Shared parts of the training tests: the real configuration with tiny stand-ins."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deeph_lightning.config import entry
from deeph_lightning.config.suggest import compose_checked
from deeph_lightning.config.targets import register_prefix
from deeph_lightning.config.validate import check_train, resolve

HERE = Path(__file__).resolve().parent
assert entry.start  # registers the resolvers that conf/ uses

sys.path.insert(0, str(HERE))
register_prefix("standin.")


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Compose ``conf/train.yaml`` with stand-ins; the run folder is chosen by name."""

    def make(*overrides: str, run: str = "run") -> dict[str, Any]:
        tiny = ["data=tiny", "model=tiny", "trainer=cpu", "trainer.max_epochs=4",
                "trainer.check_val_every_n_epoch=1", "trainer.log_every_n_steps=2",
                "trainer.num_threads=1", "trainer.enable_progress_bar=false",
                "callbacks.progress=null"]  # fmt: skip
        cfg = compose_checked("train", [*tiny, *overrides], config_dir=str(HERE / "conf"))
        cfg._set_flag(["struct", "readonly"], [False, False])
        del cfg["hydra"]
        cfg.paths.run_dir = str(tmp_path / run)
        config = resolve(cfg)
        check_train(config)
        return config

    return make
