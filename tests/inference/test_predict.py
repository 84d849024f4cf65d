"""From a checkpoint and any structure to DeepH folders."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from types import SimpleNamespace

import ase.io
import numpy as np
import pytest
import torch
from ase.build import molecule
from omegaconf import OmegaConf

from deeph_lightning.config.paths import PACKAGE_DIR
from deeph_lightning.core.two_centre import check_two_centre
from deeph_lightning.errors import (
    BasisMismatchError,
    CheckpointError,
    ConfigError,
    DataError,
    FormatError,
    PhysicsError,
    ResourceError,
)
from deeph_lightning.inference.predict import Predictor
from deeph_lightning.io.formats import read_structure_folder
from deeph_lightning.io.structures import read_structures
from deeph_lightning.training.module import HamiltonianModule
from tests.inference.systems import predict, ribbon, sheet
from tests.io.orbital_files import pao


def test_one_structure_becomes_one_folder(checkpoint, tmp_path):
    ase.io.write(tmp_path / "POSCAR", sheet(), direct=True)
    (folder,) = predict(checkpoint, tmp_path / "POSCAR", tmp_path / "out")
    assert folder == tmp_path / "out"
    system = read_structure_folder(folder)
    assert system.n_electrons == 8
    assert system.basis.shells == {"C": (0, 1), "H": (0,)}
    system.H.check_hermitian(1e-12)
    (atoms,) = read_structures(tmp_path / "POSCAR")
    expected = Predictor(checkpoint, device="cpu").predict(atoms)
    np.testing.assert_array_equal(system.H.values, expected.values)
    distances = system.H.pairs.distances(system.atoms)
    assert 2.0 < distances.max() < 3.0  # the range stored in the checkpoint
    assert system.info["prediction"]["precision"] == "fp32"


def test_a_run_folder_and_fp64(checkpoint, tmp_path):
    ase.io.write(tmp_path / "POSCAR", sheet())
    run_dir = checkpoint.parent.parent
    (single,) = predict(run_dir, tmp_path / "POSCAR", tmp_path / "a")
    (double,) = predict(run_dir, tmp_path / "POSCAR", tmp_path / "b", precision="fp64")
    a, b = (read_structure_folder(folder).H for folder in (single, double))
    assert np.abs(a.values - b.values).max() < 1e-4 * np.abs(b.values).max()
    assert not np.array_equal(a.values, b.values)


def test_many_structures_of_many_kinds(checkpoint, tmp_path):
    source = tmp_path / "in"
    (source / "deep" / "one").mkdir(parents=True)
    ase.io.write(source / "deep" / "one" / "POSCAR", sheet(1))
    ase.io.write(source / "frames.extxyz", [sheet(2), sheet(3)])
    ase.io.write(source / "x.cif", sheet(4))
    folders = predict(checkpoint, source, tmp_path / "out")
    names = [str(folder.relative_to(tmp_path / "out")) for folder in folders]
    assert names == ["frames_0", "frames_1", "x", "deep/one"]
    assert all(read_structure_folder(folder).H is not None for folder in folders)
    # the output is input again
    again = predict(checkpoint, tmp_path / "out", tmp_path / "again")
    first, second = (read_structure_folder(f[0]).H for f in (sorted(folders), sorted(again)))
    assert np.abs(first.values - second.values).max() < 1e-5


def test_a_molecule_has_no_images(checkpoint, tmp_path):
    ase.io.write(tmp_path / "ch4.xyz", molecule("CH4"))
    (folder,) = predict(checkpoint, tmp_path / "ch4.xyz", tmp_path / "out")
    H = read_structure_folder(folder).H
    assert not H.pairs.R.any()
    assert len(H.pairs) == 25


def test_errors_come_before_anything_is_written(checkpoint, tmp_path):
    good, bad, close = sheet(), sheet(), sheet()
    bad.symbols[0] = "N"
    close.positions[1] = close.positions[0] + 0.1
    for name, atoms, error in (("n", bad, BasisMismatchError), ("close", close, PhysicsError)):
        ase.io.write(tmp_path / f"{name}.extxyz", [good, atoms])
        with pytest.raises(error, match=f"{name}_1"):
            predict(checkpoint, tmp_path / f"{name}.extxyz", tmp_path / "out")
        assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match="no such file"):
        predict(checkpoint, tmp_path / "none", tmp_path / "out")
    (tmp_path / "text.cif").write_text("not a structure")
    with pytest.raises(FormatError, match="ASE cannot read"):
        predict(checkpoint, tmp_path / "text.cif", tmp_path / "out")
    with pytest.raises(CheckpointError, match="does not exist"):
        predict(tmp_path / "none.ckpt", tmp_path / "n.extxyz", tmp_path / "out")
    with pytest.raises(ConfigError, match=r"output.*cannot be written"):
        predict(checkpoint, tmp_path / "n.extxyz", tmp_path / "text.cif" / "out")
    with pytest.raises(ConfigError, match="device = gpu7"):
        predict(checkpoint, tmp_path / "n.extxyz", tmp_path / "out", device="gpu7")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no structure"):
        predict(checkpoint, tmp_path / "empty", tmp_path / "out")


def test_what_is_there_is_skipped_or_refused(checkpoint, tmp_path):
    ase.io.write(tmp_path / "a.extxyz", [sheet(1), sheet(2)])
    folders = predict(checkpoint, tmp_path / "a.extxyz", tmp_path / "out")
    before = [(f / "hamiltonian.h5").stat().st_mtime_ns for f in folders]
    (folders[1] / "hamiltonian.h5").unlink()  # as if stopped before the second
    predict(checkpoint, tmp_path / "a.extxyz", tmp_path / "out")
    after = [(f / "hamiltonian.h5").stat().st_mtime_ns for f in folders]
    assert after[0] == before[0]
    assert after[1] != before[1]

    ase.io.write(tmp_path / "a.extxyz", [sheet(1), sheet(3)])
    with pytest.raises(DataError, match="overwrite=true"):
        predict(checkpoint, tmp_path / "a.extxyz", tmp_path / "out")
    predict(checkpoint, tmp_path / "a.extxyz", tmp_path / "out", overwrite=True)
    assert np.allclose(read_structure_folder(folders[1]).atoms.positions, sheet(3).positions)

    # a calculation is never replaced by a prediction
    info = folders[0] / "info.json"
    info.write_text(info.read_text().replace('"prediction"', '"other"'))
    with pytest.raises(DataError, match="not a prediction"):
        predict(checkpoint, tmp_path / "a.extxyz", tmp_path / "out", overwrite=True)


def test_the_command_leaves_nothing_but_its_output(checkpoint, tmp_path):
    ase.io.write(tmp_path / "POSCAR", sheet())
    arguments = [f"checkpoint={checkpoint}", "structure=POSCAR", "output=out", "device=cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "deeph_lightning.predict", *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PACKAGE_DIR.parent)},
    )
    assert done.returncode == 0, done.stderr
    assert "wrote 1 structures" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["POSCAR", "out"]


def test_learned_overlaps_are_written_beside(with_overlaps, tmp_path):
    ase.io.write(tmp_path / "POSCAR", sheet(), direct=True)
    (folder,) = predict(with_overlaps, tmp_path / "POSCAR", tmp_path / "out")
    system = read_structure_folder(folder)
    assert system.S is not None
    assert system.S.pairs == system.H.pairs
    np.testing.assert_array_equal(system.S.bloch([0, 0, 0]), np.eye(8))
    assert system.info["prediction"]["overlap"] == "learned"
    (plain,) = predict(with_overlaps, tmp_path / "POSCAR", tmp_path / "b", overlap="none")
    assert not (plain / "overlap.h5").exists()
    # the folder is what overlap=DIR takes
    (third,) = predict(with_overlaps, tmp_path / "POSCAR", tmp_path / "c", overlap=str(folder))
    np.testing.assert_array_equal(read_structure_folder(third).S.values, system.S.values)
    with pytest.raises(DataError, match="another overlap"):
        predict(with_overlaps, tmp_path / "POSCAR", tmp_path / "c")
    ase.io.write(tmp_path / "POSCAR", sheet(7), direct=True)
    with pytest.raises(DataError, match="of another structure"):
        predict(with_overlaps, tmp_path / "POSCAR", tmp_path / "d", overlap=str(folder))
    with pytest.raises(DataError, match="no overlap of structure"):
        predict(with_overlaps, tmp_path / "POSCAR", tmp_path / "d", overlap=str(plain))
    with pytest.raises(ConfigError, match="no such folder"):
        predict(with_overlaps, tmp_path / "POSCAR", tmp_path / "d", overlap="nowhere")


def test_overlaps_from_orbital_files(checkpoint, tmp_path):
    (tmp_path / "C7.0.pao").write_text(pao({0: [0.5, 0.8], 1: [0.4]}))
    ase.io.write(tmp_path / "POSCAR", sheet(), direct=True)
    options = {"orbitals": str(tmp_path / "C7.0.pao")}
    (folder,) = predict(checkpoint, tmp_path / "POSCAR", tmp_path / "out", **options)
    system = read_structure_folder(folder)
    check_two_centre(system.S)
    onsite = system.S.block(int(np.flatnonzero(system.S.pairs.is_onsite)[0]))
    expected = np.sqrt(np.pi) / 4  # int r^2 exp(-r^2) dr, and int r^4 exp(-0.8 r^2) dr
    assert onsite[0, 0] == pytest.approx(expected, abs=1e-8)
    assert onsite[1, 1] == pytest.approx(1.5 * expected / 0.8**2.5, rel=1e-7)
    assert "orbitals" in system.info["prediction"]["overlap"]

    with pytest.raises(ConfigError, match="no orbital files are given, and the training set"):
        predict(checkpoint, tmp_path / "POSCAR", tmp_path / "a", overlap="orbitals")
    with pytest.raises(ConfigError, match="not used"):
        predict(checkpoint, tmp_path / "POSCAR", tmp_path / "a", overlap="none", **options)
    (tmp_path / "C7.0.pao").write_text(pao({0: [0.5, 0.8], 1: [0.5]}))
    with pytest.raises(DataError, match="another overlap"):
        predict(checkpoint, tmp_path / "POSCAR", tmp_path / "out", **options)
    ase.io.write(tmp_path / "ch4.xyz", molecule("CH4"))
    with pytest.raises(BasisMismatchError, match="holds H, but the orbital files"):
        predict(checkpoint, tmp_path / "ch4.xyz", tmp_path / "a", **options)
    assert not (tmp_path / "a").exists()


def test_a_checkpoint_without_overlaps_says_so(checkpoint, tmp_path, caplog):
    ase.io.write(tmp_path / "POSCAR", sheet(), direct=True)
    with pytest.raises(CheckpointError, match="no learned overlaps"):
        predict(checkpoint, tmp_path / "POSCAR", tmp_path / "out", overlap="learned")
    (folder,) = predict(checkpoint, tmp_path / "POSCAR", tmp_path / "out")
    assert "no overlap.h5 is written" in caplog.text
    assert not (folder / "overlap.h5").exists()
    info = read_structure_folder(folder).info["prediction"]
    assert info["atoms_outside_training_set"] is None


def test_what_lies_outside_the_training_set_is_counted(with_overlaps, tmp_path, caplog):
    far = sheet()
    far.positions[1] += (0.0, 0.0, 1.2)
    ase.io.write(tmp_path / "a.extxyz", [sheet(1), far])
    folders = predict(with_overlaps, tmp_path / "a.extxyz", tmp_path / "out")
    found = [read_structure_folder(f).info["prediction"] for f in folders]
    assert [info["atoms_outside_training_set"] for info in found] == [0, 2]
    assert "'a_1' lies outside the training set: C-C distances" in caplog.text


def test_estimate_chunk_and_lists_of_structures(with_overlaps, tmp_path, caplog):
    caplog.set_level("INFO")
    (tmp_path / "in").mkdir()
    for n in range(3):
        ase.io.write(tmp_path / "in" / f"x{n}.cif", sheet(n))
    pattern = str(tmp_path / "in" / "x[01].cif")
    folders = predict(with_overlaps, pattern, tmp_path / "a", chunk=5, estimate=True)
    assert [folder.name for folder in folders] == ["x0", "x1"]
    assert "GB of memory" in caplog.text
    both = OmegaConf.create([str(tmp_path / "in" / f"x{n}.cif") for n in (0, 1)])
    again = predict(with_overlaps, both, tmp_path / "b")
    for first, second in zip(folders, again, strict=True):
        a, b = (read_structure_folder(folder) for folder in (first, second))
        assert np.abs(a.H.values - b.H.values).max() < 1e-6 * np.abs(b.H.values).max()
        assert np.abs(a.S.values - b.S.values).max() < 1e-12
    with pytest.raises(DataError, match="no such file"):
        predict(with_overlaps, str(tmp_path / "in" / "y*.cif"), tmp_path / "c")


def test_a_network_that_has_diverged_writes_nothing(with_overlaps, tmp_path):
    content = torch.load(with_overlaps, weights_only=True)
    for key, value in content["state_dict"].items():
        if "readouts" in key and value.is_floating_point():
            value.fill_(torch.nan)
    torch.save(content, tmp_path / "nan.ckpt")
    ase.io.write(tmp_path / "POSCAR", sheet())
    with pytest.raises(PhysicsError, match=r"pair R=.* not finite"):
        predict(str(tmp_path / "nan.ckpt"), tmp_path / "POSCAR", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_too_small_a_disk_is_told_before_the_work(with_overlaps, tmp_path, monkeypatch):
    ase.io.write(tmp_path / "POSCAR", sheet())
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(ResourceError, match="are free"):
        predict(with_overlaps, tmp_path / "POSCAR", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("limit", [20_000, 90_000])  # in the tables of pairs, in the blocks
def test_a_disk_that_fills_up_leaves_nothing(with_overlaps, tmp_path, limit):
    ase.io.write(tmp_path / "a.extxyz", [sheet(), ribbon(8)])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(ResourceError, match="a_1: there was no room"):
            predict(with_overlaps, tmp_path / "a.extxyz", tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    # the first is complete, of the second there is nothing, and the command goes on
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a_0"]
    folders = predict(with_overlaps, tmp_path / "a.extxyz", tmp_path / "out")
    assert all(read_structure_folder(folder).H is not None for folder in folders)


def test_a_pair_of_species_that_was_never_seen(checkpoint, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    for record in (content["deeph"], content["hyper_parameters"]["model"]):
        record["r_target"] = {k: v for k, v in record["r_target"].items() if k != "H-H"}
    content["deeph"]["model"]["r_target"] = content["deeph"]["r_target"]
    module = HamiltonianModule(**content["hyper_parameters"])
    content["state_dict"] = module.state_dict()
    torch.save(content, tmp_path / "few.ckpt")
    ase.io.write(tmp_path / "ch4.xyz", molecule("CH4"))
    with pytest.raises(DataError, match=r"'ch4': H and H are .* seen no such pair"):
        predict(tmp_path / "few.ckpt", tmp_path / "ch4.xyz", tmp_path / "out")
    assert not (tmp_path / "out").exists()
