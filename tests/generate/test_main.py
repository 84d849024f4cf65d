"""The command: from a structure to a set that the data module takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase.build import molecule
from ase.io import write
from omegaconf import OmegaConf

from deeph_lightning.config.suggest import compose_checked
from deeph_lightning.data.datamodule import HamiltonianDataModule
from deeph_lightning.data.records import MOLECULE_MARGIN
from deeph_lightning.errors import DataError
from deeph_lightning.generate.__main__ import run
from deeph_lightning.io.source import open_source

pytest.importorskip("pyscf", reason="PySCF is not installed: pip install pyscf")


def generate(folder: Path, *overrides: str) -> Path:
    given = [
        f"structure={folder / 'hydrogen.xyz'}", f"output={folder / 'set'}", "cluster=serial",
        "engine.basis=sto-3g", "engine.grid_level=0", "sampler.rattle.stdev=0.1", *overrides,
    ]  # fmt: skip
    cfg = compose_checked("generate", given)
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    return run(cfg)


def test_the_command_makes_a_set_to_train_on(tmp_path):
    write(tmp_path / "hydrogen.xyz", molecule("H2"))
    output = generate(tmp_path, "n=3")
    system = open_source(output).read("00002")
    assert system.n_electrons == 2
    assert system.info["code"] == "PySCF"
    assert system.info["functional"] == "pbe"
    split = {"train": ["00000"], "val": ["00001"], "test": ["00002"]}
    data = HamiltonianDataModule(
        root=str(output), r_message=4.0, split=split, cache_dir=str(tmp_path / "cache"),
        progress=False,
    )  # fmt: skip
    data.prepare_data()
    data.setup("fit")
    assert len(list(data.train_dataloader())) == 1
    # the longest pair of a molecule is not the range of H, where networks go to zero
    lengths = [open_source(output).read(f"0000{n}").atoms.get_distance(0, 1) for n in range(3)]
    assert data.r_target["H-H"] == pytest.approx(max(lengths) + MOLECULE_MARGIN)
    assert generate(tmp_path, "n=3", "engine.max_memory_MB=1000") == output
    with pytest.raises(DataError, match=r"engine\.xc was 'pbe', now it is 'pbe0'"):
        generate(tmp_path, "n=3", "engine.xc=pbe0")


def test_structures_without_result_are_told(tmp_path):
    write(tmp_path / "hydrogen.xyz", molecule("H2"))
    with pytest.raises(DataError, match="1 of 1 structures have no result"):
        generate(tmp_path, "n=1", "engine.max_cycle=1", "engine.conv_tol_grad=1e-30")
    assert (tmp_path / "set" / "report.json").is_file()
