"""The tutorial of physics is run as it stands, with a network that was trained for seconds."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from deeph_lightning.core.two_centre import check_two_centre
from deeph_lightning.io.formats import read_structure_folder

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "tutorial_physics.md").read_text(encoding="utf-8")
#: A network of a few hundred numbers beside the fitted two-centre part.
SMALL = [
    *(f"model.{part}channels=[4,2,2,2,2]" for part in ("", "pair_", "head_")),
    *(f"model.unnatural_{part}channels=[0,1,1,1,1]" for part in ("", "pair_", "head_")),
    *("model.n_heads=1", "model.n_radial=4", "model.r_message=3.0", "test=false"),
    *("trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1", "logger=csv"),
    *("trainer.limit_train_batches=2", "trainer.limit_val_batches=1"),
    *("trainer.accelerator=cpu", "trainer.num_threads=1"),
]


def run(*words: str, cwd: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


# one test of half a minute to two: each step needs what the one before it has written
def test_the_page_from_its_first_to_its_last_command(tmp_path: Path) -> None:
    paths = [f"paths.output_root={tmp_path}/outputs", f"data.cache_dir={tmp_path}/cache"]
    run("-m", "deeph_lightning.train", *SMALL, *paths, cwd=tmp_path)
    (checkpoint,) = tmp_path.glob("outputs/**/best.ckpt")
    checkpoint.parent.parent.rename(tmp_path / "RUN")
    commands = re.findall(r"^python (-m deeph_lightning\..*)$", PAGE, re.MULTILINE)
    commands = [c for c in commands if "DFT" not in c and "RUN1" not in c]
    assert len(commands) == 6
    for command in commands:
        run(*shlex.split(command), cwd=tmp_path)
    check_prediction(tmp_path / "predicted")
    e_fermi = check_physics(tmp_path / "physics")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    code += "print(e_fermi, bands.reference, *bands.energies.shape)"
    words = run("-c", code, cwd=tmp_path).split()
    assert [float(word) for word in words[:2]] == pytest.approx([e_fermi] * 2, abs=1e-6)
    assert words[2:] == ["1", "20", "364"]


def check_prediction(folder: Path) -> None:
    system = read_structure_folder(folder)
    assert len(system.atoms) == 28
    assert system.n_electrons == 112
    assert system.info["prediction"]["atoms_outside_training_set"] > 0
    check_two_centre(system.S)
    assert np.linalg.eigvalsh(system.S.bloch([0, 0, 0])).min() > 1e-4


def check_physics(folder: Path) -> float:
    fermi = json.loads((folder / "fermi.json").read_text(encoding="utf-8"))
    assert fermi["n_electrons"] == 112
    with h5py.File(folder / "bands.h5") as file:
        energies = file["energies"][()]
    assert energies.shape == (1, 20, 364)
    highest = energies[0, :, 55]  # 112 electrons fill 56 bands
    assert 0.1 < np.ptp(highest) < 5.0
    assert abs(highest.max() - fermi["e_fermi_eV"]) < 1.0
    for task in ("bands", "dos"):
        page = (folder / f"{task}.html").read_text(encoding="utf-8")
        assert len(page) > 1e6
        assert "plotly" in page
        assert (folder / f"{task}.png").stat().st_size > 1e4
    return float(fermi["e_fermi_eV"])
