"""Sets of structures: archives, folders of any depth and generation, splits, fingerprints."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest

from deeph_lightning.core.basis import OrbitalBasis
from deeph_lightning.errors import BasisMismatchError, DataError, FormatError
from deeph_lightning.io import deeph, deeph_legacy, source
from deeph_lightning.io.archive import write_archive
from deeph_lightning.io.formats import find_systems
from deeph_lightning.io.source import open_source
from tests.io.systems import STRUCTURES, assert_same_structure, random_system

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three structures of both generations at several depths, and what is none."""
    root = tmp_path / "set"
    shutil.copytree(STRUCTURES / "H2O_0", root / "b" / "dft" / "0")
    shutil.copytree(STRUCTURES / "H2O_1", root / "a")
    shutil.copytree(STRUCTURES / "MoTe2_legacy", root / "b" / "MoTe2")
    (root / "notes").mkdir()
    (root / "notes" / "POSCAR").write_text("not of a calculation")
    shutil.copytree(STRUCTURES / "H2O_0", root / ".hidden" / "x")
    return root


def test_folders_of_any_depth_and_generation(tree: Path) -> None:
    found = open_source(tree)
    assert found.names == ["a", "b/MoTe2", "b/dft/0"]
    assert found.split is None
    assert sorted(found.header.basis.labels) == ["H", "Mo", "O", "Te"]
    assert not found.header.is_spinful
    system = found.read("b/MoTe2")
    assert (system.name, system.source_format) == ("b/MoTe2", "deeph_legacy")
    assert found.read("b/dft/0").atoms.info["name"] == "b/dft/0"
    assert found.read("a", ("S",)).H is None


def test_a_structure_folder_is_a_set_of_one() -> None:
    assert open_source(STRUCTURES / "H2O_0").names == ["H2O_0"]


def test_links_are_followed_once(tree: Path) -> None:
    (tree / "c").symlink_to(tree / "a", target_is_directory=True)
    (tree / "b" / "loop").symlink_to(tree, target_is_directory=True)
    found = find_systems(tree)
    assert len(found) == 3


def test_split_is_read_and_checked(tree: Path) -> None:
    split = {"train": ["a"], "val": [], "test": ["b/dft/0"]}
    (tree / "split.json").write_text(json.dumps(split))
    assert open_source(tree).split == split
    for data, error, text in (
        ({"train": ["b/dft/1"]}, DataError, r"'train' .* 'b/dft/1'.*Nearest: b/dft/0"),
        ({"train": ["a"], "test": ["a"]}, DataError, r"'a' in 'train' and 'test'"),
        ({"training": ["a"]}, FormatError, r"keys training"),
        ({"train": "a"}, FormatError, r"lists of names"),
        ([1], FormatError, r"no split"),
    ):
        (tree / "split.json").write_text(json.dumps(data))
        with pytest.raises(error, match=f"split.json.*{text}"):
            open_source(tree)
    (tree / "split.json").write_text('{"train": [')
    with pytest.raises(FormatError, match=r"split.json: this is not JSON"):
        open_source(tree)


def test_fingerprint_is_of_the_content(tree: Path, tmp_path: Path) -> None:
    before = open_source(tree).fingerprint()
    moved = tmp_path / "elsewhere"
    shutil.copytree(tree, moved)
    assert open_source(moved).fingerprint() == before
    with h5py.File(moved / "a" / "overlap.h5", "r+") as file:
        file["entries"][7] += 1e-15
    changed = open_source(moved).fingerprint()
    assert changed != before
    (moved / "a" / "unrelated.txt").write_text("x")
    assert open_source(moved).fingerprint() == changed
    (moved / "split.json").write_text('{"train": ["a"]}')
    assert open_source(moved).fingerprint() != changed


def test_fingerprint_of_large_files_is_of_windows(tree: Path, monkeypatch) -> None:
    whole = open_source(tree).fingerprint()
    monkeypatch.setattr(source, "WHOLE_FILE", 4096)
    found = open_source(tree)
    windows = found.fingerprint()
    assert windows == found.fingerprint() != whole
    path = tree / "a" / "hamiltonian.h5"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert found.fingerprint() != windows


def test_archive_or_the_folder_that_holds_one(rng, tmp_path: Path) -> None:
    system = random_system(rng)
    write_archive(tmp_path / "set.h5", [system], {"test": ["toy"]})
    for root in (tmp_path, tmp_path / "set.h5", str(tmp_path)):
        found = open_source(root)
        assert found.names == ["toy"]
        assert found.split == {"test": ["toy"]}
    shutil.copy(tmp_path / "set.h5", tmp_path / "copy.h5")
    with pytest.raises(DataError, match=r"2 archives \(copy.h5, set.h5\)"):
        open_source(tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        open_source(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"no structure was found in it. Expected folders with"):
        open_source(tmp_path)


def test_unknown_structure(tree: Path) -> None:
    with pytest.raises(DataError, match=r"no structure 'b/MoTe' among 3. Nearest: b/MoTe2"):
        open_source(tree).read("b/MoTe")


def test_sets_are_of_one_kind(rng, tmp_path: Path) -> None:
    deeph.write(random_system(rng), tmp_path / "a")
    deeph_legacy.write(random_system(rng, is_spinful=True), tmp_path / "b")
    with pytest.raises(
        DataError, match=r"structure 'b' is spinful, those before it .* spinless"
    ):
        open_source(tmp_path)
    shutil.rmtree(tmp_path / "b")
    basis = OrbitalBasis({"C": (0, 1), "B": (0, 1)})
    deeph.write(random_system(rng, basis=basis), tmp_path / "b")
    with pytest.raises(BasisMismatchError, match=r"structure 'b': species '[BC]' has shells"):
        open_source(tmp_path)


def test_folders_and_archive_hold_the_same(tree: Path, tmp_path: Path) -> None:
    folders = open_source(tree)
    loss = write_archive(tmp_path / "set.h5", map(folders.read, folders.names))
    archive = open_source(tmp_path / "set.h5")
    assert archive.header == folders.header
    for name in folders.names:
        found, expected = archive.read(name), folders.read(name)
        assert_same_structure(found, expected)
        for key in ("H", "S"):
            op, reference = getattr(found, key), getattr(expected, key)
            assert op.pairs == reference.pairs
            assert np.abs(op.values - reference.values).max() <= loss[key]
