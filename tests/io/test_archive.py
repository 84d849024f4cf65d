"""Archives: one HDF5 file for a set, and the one that the repository ships."""

from __future__ import annotations

import hashlib
import pickle
import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from deeph_lightning.core.basis import OrbitalBasis
from deeph_lightning.errors import BasisMismatchError, DataError, FormatError, SchemaError
from deeph_lightning.io.archive import TOLERANCE_H, TOLERANCE_S, Archive, write_archive
from deeph_lightning.io.quantise import grid_exponent
from deeph_lightning.io.source import open_source
from tests.io.systems import (
    OPERATORS,
    assert_same_operator,
    assert_same_structure,
    random_system,
)
from tests.systems import random_atoms

SHIPPED = Path(__file__).resolve().parents[2] / "data" / "graphene"
MAX_BYTES = 25_000_000


def test_grid_is_the_coarsest_that_keeps_the_tolerance() -> None:
    assert grid_exponent(TOLERANCE_H) == 17
    assert grid_exponent(TOLERANCE_S) == 24
    assert grid_exponent(0.5) == 0


@pytest.mark.parametrize("is_spinful", [False, True])
def test_loss_is_below_the_tolerance(rng, tmp_path: Path, is_spinful: bool) -> None:
    systems = [random_system(rng, f"set/{n}", is_spinful=is_spinful) for n in range(3)]
    split = {"train": ["set/0", "set/2"], "test": ["set/1"]}
    path = tmp_path / "set.h5"
    loss = write_archive(path, systems, split, attributes={"provenance": "random"})
    assert 0 < loss["H"] <= TOLERANCE_H
    assert 0 < loss["S"] <= TOLERANCE_S
    archive = Archive(path)
    assert archive.names == ["set/0", "set/1", "set/2"]
    assert archive.split == split
    assert archive.header == (systems[0].basis, is_spinful)
    for system in systems:
        found = archive.read(system.name, OPERATORS)
        assert_same_structure(found, system)
        assert found.info["nested"] == system.info["nested"]
        assert found.name == system.name
        for key, tolerance in (("H", TOLERANCE_H), ("S", TOLERANCE_S), ("rho", TOLERANCE_S)):
            op, expected = getattr(found, key), getattr(system, key)
            assert op.pairs == expected.pairs  # each its own, none lost
            assert op.is_spinful == expected.is_spinful
            assert op.hermiticity_residual()[0] == 0.0
            assert np.abs(op.values - expected.values).max() <= tolerance
    with h5py.File(path) as file:
        assert file.attrs["energy_unit"] == "eV"
        assert file.attrs["provenance"] == "random"


def test_numbers_on_the_grid_are_kept_exactly(rng, tmp_path: Path) -> None:
    system = random_system(rng, is_spinful=True)
    for key, exponent in (("H", 17), ("S", 24), ("rho", 24)):
        op = getattr(system, key)
        values = op.values * 1e4
        rounded = np.round(values * 2.0**exponent) / 2.0**exponent
        setattr(system, key, op.replace(values=rounded))
    loss = write_archive(tmp_path / "set.h5", [system])
    assert set(loss.values()) == {0.0}
    found = Archive(tmp_path / "set.h5").read("toy", OPERATORS)
    for key in OPERATORS:
        assert_same_operator(getattr(found, key), getattr(system, key))


def test_operators_are_optional(rng, tmp_path: Path) -> None:
    system = random_system(rng)
    system.S = system.rho = None
    write_archive(tmp_path / "set.h5", [system])
    archive = Archive(tmp_path / "set.h5")
    found = archive.read("toy", OPERATORS)
    assert found.S is None
    assert found.rho is None
    assert archive.read("toy", ()).H is None
    assert archive.split is None


def test_fingerprint_is_of_the_content(rng, tmp_path: Path) -> None:
    system = random_system(rng)
    write_archive(tmp_path / "a.h5", [system])
    write_archive(tmp_path / "b.h5", [system])
    values = system.S.values.copy()
    values[int(system.S.offsets[np.argmax(system.S.pairs.is_onsite)])] += 1e-6
    system.S = system.S.replace(values=values)
    write_archive(tmp_path / "c.h5", [system])
    a, b, c = (Archive(tmp_path / f"{n}.h5").fingerprint() for n in "abc")
    assert a == b != c
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_can_be_sent_to_workers(rng, tmp_path: Path) -> None:
    write_archive(tmp_path / "set.h5", [random_system(rng)])
    archive = pickle.loads(pickle.dumps(Archive(tmp_path / "set.h5")))  # noqa: S301
    assert archive.read("toy").name == "toy"


def test_failed_writing_keeps_the_old_file(rng, tmp_path: Path) -> None:
    path = tmp_path / "set.h5"
    write_archive(path, [random_system(rng)])
    before = path.read_bytes()
    spinful = random_system(rng, "b", is_spinful=True)
    other = random_system(rng, "b", basis=OrbitalBasis({"C": (0, 1), "B": (0,)}))
    big = random_system(rng, "b")
    big.H = big.H.replace(values=big.H.values * 1e15)
    for systems, split, error, text in (
        ([random_system(rng, "a"), spinful], None, DataError, "structure 'b' is spinful"),
        (
            [random_system(rng, "a"), other],
            None,
            BasisMismatchError,
            "species '[BC]' has shells",
        ),
        ([random_system(rng, "a")] * 2, None, DataError, "'a' comes twice"),
        ([], None, DataError, "no structure to write"),
        ([big], None, DataError, "too large for a grid"),
        ([random_system(rng, "a")], {"test": ["aa"]}, DataError, "no structure 'aa'"),
    ):
        with pytest.raises(error, match=text):
            write_archive(path, systems, split)
        assert path.read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["set.h5"]


def test_damage_is_found(rng, tmp_path: Path) -> None:
    path = tmp_path / "set.h5"
    write_archive(path, [random_system(rng)])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(FormatError, match=r"set.h5.*cannot be read as HDF5"):
        Archive(path)
    path.write_bytes(content)
    with h5py.File(path, "r+") as file:
        file["structures/toy/positions"][0, 0] += 1e-3
    with pytest.raises(FormatError, match="structure 'toy', the archive is damaged"):
        Archive(path).read("toy")
    path.write_bytes(content)
    with h5py.File(path, "r+") as file:
        file["structures/toy/H/planes"][3, 5] ^= 1
    assert Archive(path).read("toy", ("S",)).S is not None
    with pytest.raises(FormatError, match="H does not fit its checksum"):
        Archive(path).read("toy")
    path.write_bytes(content)
    with h5py.File(path, "r+") as file:
        del file["structures/toy/S/pairs"]
    with pytest.raises(FormatError, match="structure 'toy', the archive is damaged"):
        Archive(path).read("toy")


def test_other_files_are_refused(rng, tmp_path: Path) -> None:
    path = tmp_path / "set.h5"
    with h5py.File(path, "w") as file:
        file["x"] = 1
    with pytest.raises(FormatError, match="no archive of structures"):
        open_source(path)
    path.unlink()
    write_archive(path, [random_system(rng, atoms=random_atoms(rng))])
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = 99
    with pytest.raises(SchemaError, match=r"schema version 99, this program reads 1"):
        open_source(path)
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = 1
    with pytest.raises(DataError, match=r"no structure 'toi' among 1. Nearest: toy"):
        Archive(path).read("toi")


# ------------------------------------------------------------------ the shipped set


def test_shipped_archive_is_small_and_whole() -> None:
    path = SHIPPED / "graphene.h5"
    content = path.read_bytes()
    assert len(content) <= MAX_BYTES
    readme = (SHIPPED / "README.md").read_text(encoding="utf-8")
    assert hashlib.sha256(content).hexdigest() in readme
    source = open_source(SHIPPED)
    assert {part: len(names) for part, names in source.split.items()} == {
        "train": 57,
        "val": 5,
        "test": 10,
    }
    assert sorted(n for names in source.split.values() for n in names) == sorted(source.names)
    for name in ("000", "4x4_011"):
        system = source.read(name)
        assert len(system.H.pairs) > len(system.S.pairs)
        assert system.n_electrons == 4 * len(system.atoms)
        assert set(np.unique(system.H.values * 2.0**17 % 1)) == {0.0}


@pytest.mark.parametrize("part", ["val", "test"])
def test_shipped_archive_has_what_the_calculations_gave(shared_dir: Path, part: str) -> None:
    archive = open_source(SHIPPED)
    folders = open_source(shared_dir / "data" / "graphene")
    assert archive.names == folders.names
    assert archive.split == folders.split
    assert re.fullmatch(r"[0-9a-f]{64}", folders.fingerprint())
    for name in archive.split[part]:
        found, expected = archive.read(name), folders.read(name)
        assert_same_structure(found, expected)
        assert found.info == expected.info
        assert_same_operator(found.H, expected.H)
        assert_same_operator(found.S, expected.S)
