"""Conversion of sets from the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import h5py
import pytest
from omegaconf import OmegaConf

from deeph_lightning.config.paths import CONF_DIR
from deeph_lightning.convert import KEYS, run
from deeph_lightning.errors import ConfigError, DataError
from deeph_lightning.io import conversion
from deeph_lightning.io.archive import write_archive
from deeph_lightning.io.formats import detect_format, read_header, read_structure_folder
from deeph_lightning.io.gates import GATES
from deeph_lightning.io.orbitals import find_orbitals
from deeph_lightning.io.source import open_source
from deeph_lightning.solve.dense import eigenvalues
from tests.io.hpro_files import Radial, ion
from tests.io.systems import OPERATORS, STRUCTURES, assert_same_system, random_system

if TYPE_CHECKING:
    from pathlib import Path

CODES = STRUCTURES.parent / "codes"


def convert(
    source: Path | str, output: Path, format_name: str = "deeph", **options: object
) -> list[Path]:
    values = {"input": str(source), "output": str(output), "format": format_name}
    default = {"skip_checks": list(GATES), "n_worker": None, "reraise": False}
    return run(OmegaConf.create(values | default | options))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "set"
    shutil.copytree(STRUCTURES / "H2O_0", root / "b" / "0")
    shutil.copytree(STRUCTURES / "H2O_1", root / "a")
    shutil.copytree(STRUCTURES / "MoTe2_legacy", root / "c")
    (root / "split.json").write_text('{"train": ["a", "c"], "test": ["b/0"]}')
    return root


def test_configuration_has_the_keys_that_are_checked() -> None:
    keys = OmegaConf.load(CONF_DIR / "convert.yaml")
    assert set(keys) - {"defaults", "hydra"} == set(KEYS)


def test_there_and_back(tree: Path, tmp_path: Path) -> None:
    folders = convert(tree, tmp_path / "legacy", "deeph_legacy")
    assert [p.relative_to(tmp_path / "legacy").as_posix() for p in folders] == ["a", "b/0", "c"]
    convert(tmp_path / "legacy", tmp_path / "new")
    first, last = open_source(tree), open_source(tmp_path / "new")
    assert last.names == first.names
    assert last.split == first.split
    for name in first.names:
        assert detect_format(tmp_path / "legacy" / name) == "deeph_legacy"
        assert detect_format(tmp_path / "new" / name) == "deeph"
        assert_same_system(last.read(name), first.read(name))


def test_one_structure(tmp_path: Path) -> None:
    assert convert(STRUCTURES / "MoTe2_legacy", tmp_path / "x") == [tmp_path / "x"]
    found = read_structure_folder(tmp_path / "x", name="n")
    assert_same_system(found, read_structure_folder(STRUCTURES / "MoTe2", name="n"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x"]


def test_all_operators_go_along(rng, tmp_path: Path) -> None:
    system = random_system(rng, is_spinful=True)
    system.H_pred = system.H
    write_archive(tmp_path / "set.h5", [system], {"test": ["toy"]}, tolerance_H=1e-9)
    convert(tmp_path / "set.h5", tmp_path / "out", "deeph_legacy")
    archive, folders = open_source(tmp_path / "set.h5"), open_source(tmp_path / "out")
    assert_same_system(folders.read("toy", OPERATORS), archive.read("toy", OPERATORS))
    assert folders.split == {"test": ["toy"]}


def test_goes_on_where_it_was_stopped(tree: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    convert(tree, output)
    files = {p: p.stat().st_mtime_ns for p in output.rglob("*.h5")}
    assert len(files) == 6
    content = (output / "a" / "overlap.h5").read_bytes()
    (output / "a" / "overlap.h5").write_bytes(content[:5000])  # damaged
    shutil.rmtree(output / "b")  # missing
    (output / ".c.partial").mkdir()  # of a process that was killed
    source = tree / "c" / "info.json"
    convert(tree, output)
    assert (output / "a" / "overlap.h5").read_bytes() == content
    assert (output / "b" / "0" / "overlap.h5").is_file()
    same = {p for p, t in files.items() if p.stat().st_mtime_ns == t}
    assert same == {output / "c" / "hamiltonian.h5", output / "c" / "overlap.h5"}
    later = (output / "c" / "info.json").stat().st_mtime + 10
    os.utime(source, (later, later))  # a source that changed is converted again
    convert(tree, output)
    assert (output / "c" / "overlap.h5").stat().st_mtime_ns > max(files.values())
    assert not (output / ".c.partial").exists()


def test_bad_structures_are_listed_and_others_converted(tree: Path, tmp_path: Path) -> None:
    path = tree / "b" / "0" / "hamiltonian.h5"
    path.write_bytes(path.read_bytes()[:3000])
    with h5py.File(tree / "c" / "overlaps.h5", "r+") as file:
        del file["[0, 0, 0, 1, 2]"]
    with pytest.raises(DataError) as caught:
        convert(tree, tmp_path / "out")
    message = str(caught.value)
    assert "2 of 3 structures" in message
    assert f"b/0: FormatError: {path}" in message
    assert f"c: HermiticityError: {tree / 'c' / 'overlaps.h5'}" in message
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a", "split.json"]
    assert open_source(tmp_path / "out").split == {"train": ["a"], "test": []}


def test_overlap_must_be_positive(rng, tmp_path: Path) -> None:
    system = random_system(rng)  # S of random numbers
    write_archive(tmp_path / "set.h5", [system])
    text = r"PhysicsError: .*set.h5.*'toy'.*skip_checks=\[overlap\]"
    with pytest.raises(DataError, match=text):
        convert(tmp_path / "set.h5", tmp_path / "out", skip_checks=["two_centre", "electrons"])
    assert not (tmp_path / "out").exists()
    assert len(convert(tmp_path / "set.h5", tmp_path / "out")) == 1


def test_patterns_of_folders_and_files(tree: Path, tmp_path: Path) -> None:
    folders = convert(f"{tree}/*", tmp_path / "out")
    assert [p.relative_to(tmp_path / "out").as_posix() for p in folders] == ["a", "b/0", "c"]
    folders = convert(f"{tree}/**/hamiltonian.h5", tmp_path / "files")
    assert [p.relative_to(tmp_path / "files").as_posix() for p in folders] == ["a", "b/0"]
    assert convert(tree / "a" / "overlap.h5", tmp_path / "one") == [tmp_path / "one"]
    with pytest.raises(DataError, match="nothing matches this pattern"):
        convert(f"{tree}/x*", tmp_path / "out")
    with pytest.raises(DataError, match="no structure was found"):
        convert(f"{tree}/*.json", tmp_path / "none")


def test_the_output_is_not_its_own_input(tree: Path) -> None:
    for _ in range(2):
        folders = convert(f"{tree}/*", tree / "out")
        assert len(folders) == 3
    with pytest.raises(ConfigError, match="this is the input or lies in it"):
        convert(f"{tree}/*", tree / "a" / "out")


def test_processes_give_the_same(tree: Path, tmp_path: Path) -> None:
    (tree / "a" / "overlap.h5").write_bytes(b"damaged")
    for n_worker in (1, 2):
        with pytest.raises(DataError, match=r"1 of 3 structures(.|\n)*a: FormatError"):
            convert(tree, tmp_path / str(n_worker), n_worker=n_worker)
    for path in (tmp_path / "1").rglob("*"):
        if path.is_file() and path.suffix != ".h5":
            other = tmp_path / "2" / path.relative_to(tmp_path / "1")
            assert path.read_bytes() == other.read_bytes()


def test_structures_without_matrices_are_listed(tree: Path, tmp_path: Path) -> None:
    for path in (tree / "a").glob("*.h5"):
        path.unlink()
    with pytest.raises(DataError, match=r"a: DataError: .*'a' has no matrices"):
        convert(tree, tmp_path / "out")
    assert not (tmp_path / "out" / "a").exists()


def test_a_bug_stops_no_other_structure(tree: Path, tmp_path: Path, monkeypatch) -> None:
    right = conversion.check_gates

    def check(system, skipped):
        if system.name == "a":
            raise ZeroDivisionError("oh")
        return right(system, skipped)

    monkeypatch.setattr(conversion, "check_gates", check)
    with pytest.raises(DataError, match=r"a: .*unexpected ZeroDivisionError: oh .*report"):
        convert(tree, tmp_path / "out")
    assert (tmp_path / "out" / "c" / "info.json").is_file()


@pytest.mark.parametrize(
    ("factor", "name", "gate"),
    [(1 / 27.2, "hamiltonian.h5", "electrons"), (0.5, "overlap.h5", "overlap")],
)
def test_units_that_lie(
    tree: Path, tmp_path: Path, factor: float, name: str, gate: str
) -> None:
    """A filled molecule whose H is in another unit has another number of states below E_F."""
    path = tree / "a" / "info.json"
    system = read_structure_folder(tree / "a")
    energies = eigenvalues(system.H, system.S, [0, 0, 0])[0]
    info = json.loads(path.read_text())
    level = float(energies[3:5].mean())
    path.write_text(json.dumps(info | {"occupation": 8, "fermi_energy_eV": level}))
    convert(tree / "a", tmp_path / "right", skip_checks=[])
    with h5py.File(tree / "a" / name, "r+") as file:
        file["entries"][:] = file["entries"][()] * factor
    with pytest.raises(DataError, match=rf"PhysicsError.*skip_checks=\[{gate}\]"):
        convert(tree / "a", tmp_path / "wrong", skip_checks=[])
    assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize("where", [".", "out", "a"])
def test_input_is_not_written_to(tree: Path, where: str) -> None:
    before = sorted(tree.rglob("*"))
    with pytest.raises(ConfigError, match="this is the input or lies in it"):
        convert(tree, tree / where)
    assert sorted(tree.rglob("*")) == before


def test_formats_are_not_mixed_in_a_folder(tree: Path, tmp_path: Path) -> None:
    convert(tree / "a", tmp_path / "out")
    with pytest.raises(
        DataError, match=r"holds a structure of format deeph; deeph_legacy is not"
    ):
        convert(tree / "a", tmp_path / "out", "deeph_legacy")
    assert detect_format(tmp_path / "out") == "deeph"


def test_what_cannot_be_done_is_said_first(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for source, output, error, text in (
        (tree, tmp_path / "file" / "x", ConfigError, "output: the folder .* cannot be written"),
        (tmp_path / "none", tmp_path / "x", DataError, "no such file or folder"),
        (tmp_path / "empty", tmp_path / "x", DataError, "no structure was found"),
        (tmp_path / "file", tmp_path / "x", DataError, "cannot be read as HDF5"),
    ):
        with pytest.raises(error, match=text):
            convert(source, output)
    with pytest.raises(ConfigError, match=r"format=deph.*\n.*format=deeph\?"):
        convert(tree, tmp_path / "x", "deph")
    with pytest.raises(ConfigError, match=r"skip_checks = 3: expected a value of type list"):
        convert(tree, tmp_path / "x", skip_checks=3)
    with pytest.raises(ConfigError, match=r"skip_checks=\[all\]: there is no such check"):
        convert(tree, tmp_path / "x", skip_checks=["all"])
    with pytest.raises(ConfigError, match="n_worker = 0: expected at least one"):
        convert(tree, tmp_path / "x", n_worker=0)
    assert not (tmp_path / "x").exists()


def test_command_line(tree: Path, tmp_path: Path) -> None:
    (tree / "b" / "0" / "POSCAR").unlink()
    command = [sys.executable, "-m", "deeph_lightning.convert", f"input={tree}",
               f"output={tmp_path / 'out'}", "skip_checks=[overlap,two_centre]"]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "DataError: 1 of 3 structures" in done.stderr
    assert "b/0: FormatError" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "set"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a", "c", "split.json"]


def test_radial_functions_are_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Those of the basis, once for a set; others are named."""
    shells = read_header(CODES / "siesta_Pt2").basis.shells["Pt"]
    for n in range(3):
        shutil.copytree(CODES / "siesta_Pt2", tmp_path / "runs" / str(n))
        functions = [Radial(l, 2.0 + 0.1 * (n == 2)) for l in shells]
        (tmp_path / "runs" / str(n) / "Pt.ion").write_text(ion("Pt", functions))
        (tmp_path / "runs" / str(n) / "Au.ion").write_text(ion("Au", functions))
    (tmp_path / "runs" / "0" / "of_Pt.ion").write_text(ion("Pt", functions[:-1]))
    convert(tmp_path / "runs", tmp_path / "out", n_worker=1)
    (kept,) = (tmp_path / "out" / "orbitals").iterdir()
    assert kept.read_text() == (tmp_path / "runs" / "0" / "Pt.ion").read_text()
    assert [f.l for f in find_orbitals(tmp_path / "out")["Pt"].functions] == list(shells)
    (warning,) = [r.getMessage() for r in caplog.records if "radial functions" in r.msg]
    assert "runs/2/Pt.ion" in warning
    assert str(kept) in warning
    assert open_source(tmp_path / "out").names == ["0", "1", "2"]
