"""Looking into structures: what is printed, what is called odd, the figure."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from omegaconf import OmegaConf

from deeph_lightning.config.paths import CONF_DIR
from deeph_lightning.errors import ConfigError
from deeph_lightning.inspect import KEYS, run
from deeph_lightning.io.archive import write_archive
from deeph_lightning.io.formats import read_structure_folder, write_structure_folder
from deeph_lightning.report.decay import decay_figure
from deeph_lightning.report.inspection import inspect_system, lacks_overlap
from deeph_lightning.solve.dense import eigenvalues
from tests.io.systems import STRUCTURES, random_system
from tests.tolerances import CODE_EIGENVALUE_SIESTA, EIGENVALUE_DFT

CODES = STRUCTURES.parent / "codes"


def inspect(source: Path, output: Path | None = None, **options: object):
    values = {"input": str(source), "output": None if output is None else str(output)}
    default = {"n": 5, "max_k": 8, "max_orbitals": 1500, "reraise": False}
    return run(OmegaConf.create(values | default | options))


def test_configuration_has_the_keys_that_are_checked() -> None:
    keys = OmegaConf.load(CONF_DIR / "inspect.yaml")
    assert set(keys) - {"defaults", "hydra"} == set(KEYS)


def test_platinum(tmp_path: Path) -> None:
    (found,) = inspect(CODES / "siesta_Pt2", tmp_path)
    assert found.numbers["eigenvalues_eV"] < CODE_EIGENVALUE_SIESTA
    assert abs(found.numbers["spin_orbit_eV"] - 9.2382) < 1e-3
    assert found.odd == []
    for part in ("Pt2", "3s2p2d", "E_F -4.31", "spinor", "time reversal", "nothing looks odd"):
        assert part in found.text()
    assert (tmp_path / "siesta_Pt2.png").stat().st_size > 1000


@pytest.mark.parametrize("name", ["MoTe2", "MoTe2_legacy"])
def test_folders_of_both_generations(name: str) -> None:
    (found,) = inspect(STRUCTURES / name)
    assert found.numbers["two_centre"] < 1e-10
    assert "9 pairs" in found.text()


def test_a_set_and_an_archive(rng, tmp_path: Path) -> None:
    systems = [random_system(rng, f"s{n}") for n in range(4)]
    write_archive(tmp_path / "set.h5", systems, {"test": ["s0"]}, tolerance_H=1e-9)
    found = inspect(tmp_path / "set.h5", tmp_path / "figures", n=2)
    assert [item.title.split()[0] for item in found] == ["s0", "s3"]
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == ["s0.png", "s3.png"]
    assert any("not the form" in sentence for sentence in found[0].odd)
    assert found[0].numbers["n_H_only"] > 0


def test_bands_of_another_program(tmp_path: Path) -> None:
    """``band.h5`` beside the matrices is compared; wrong bands are odd."""
    shutil.copytree(STRUCTURES / "MoTe2", tmp_path / "x")
    system = read_structure_folder(tmp_path / "x")
    k = np.array([[0.0, 0.0, 0.0], [0.1, 0.2, 0.0]])
    bands = eigenvalues(system.H, system.S, k) + 4.0
    with h5py.File(tmp_path / "x" / "band.h5", "w") as file:
        file["kpoints_frac_list"], file["band_data"] = k, bands.T
        file["fermi_energy_before_shift_eV"] = -4.0
    (found,) = inspect(tmp_path / "x")
    assert found.numbers["eigenvalues_eV"] < EIGENVALUE_DFT
    with h5py.File(tmp_path / "x" / "band.h5", "a") as file:
        file["band_data"][0] += 0.01
    (found,) = inspect(tmp_path / "x")
    assert any("bands of H differ" in sentence for sentence in found.odd)


def test_what_is_odd(rng) -> None:
    system = read_structure_folder(CODES / "siesta_Pt2")
    system.info["is_converged"] = False
    system.fermi_energy += 3.0
    system.H = system.H.replace(values=system.H.values.conj())
    odd = " ".join(inspect_system(system).odd)
    for part in ("did not converge", "E_F of the file", "spin-orbit constant is negative or"):
        assert part in odd


def test_figure_shows_every_pair(rng) -> None:
    system = random_system(rng)
    lacks = lacks_overlap(system.H, system.S)
    left, right = decay_figure(system).axes
    rest, marked = left.lines
    assert len(rest.get_xdata()) + len(marked.get_xdata()) == len(system.H.pairs)
    assert len(marked.get_xdata()) == lacks.sum() > 0
    assert np.isclose(max(rest.get_ydata()), np.abs(system.H.values).max())
    assert len(right.lines[0].get_xdata()) == len(system.S.pairs)


@pytest.mark.parametrize("options", [{"n": 0}, {"max_k": True}, {"max_orbitals": "x"}])
def test_wrong_options(options: dict) -> None:
    with pytest.raises(ConfigError, match="a positive integer"):
        inspect(STRUCTURES / "MoTe2", **options)


def test_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deeph_lightning.inspect"]
    where = {"cwd": Path(__file__).resolve().parents[1], "capture_output": True, "text": True}
    done = subprocess.run([*command, str(STRUCTURES / "H2O_0"), f"output={tmp_path}"], **where)
    assert done.returncode == 0, done.stderr
    assert "structure        " in done.stdout
    assert (tmp_path / "H2O_0.png").is_file()
    done = subprocess.run([*command, str(tmp_path)], **where)
    assert done.returncode == 2
    assert "no structure was found" in done.stderr


def test_conversion_of_calculations(tmp_path: Path) -> None:
    from tests.io.test_convert import convert

    for name in ("abacus_GaAs", "siesta_Pt2"):  # GPAW's needs GPAW
        convert(CODES / name, tmp_path / name)
        found = read_structure_folder(tmp_path / name)
        source = read_structure_folder(CODES / name)
        assert np.array_equal(found.S.values, source.S.values)
        assert found.info["code"] == source.info["code"]
    with pytest.raises(ConfigError, match="there is no such format"):
        convert(CODES / "siesta_Pt2", tmp_path / "x", "siesta")
    with pytest.raises(ConfigError, match="can be read, not written"):
        write_structure_folder(source, tmp_path / "x", "siesta")
