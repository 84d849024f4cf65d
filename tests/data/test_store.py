"""The graph store: what is read is what was written; no build is lost, or trusted blindly."""

from __future__ import annotations

import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from deeph_lightning.data.prepare import prepare_store
from deeph_lightning.data.records import GraphRecord, record_from_system
from deeph_lightning.data.store import SCHEMA_VERSION, GraphStore
from deeph_lightning.errors import ConfigError, DataError, FormatError, SchemaError
from tests.data.sets import ToySource, random_system
from tests.systems import BASIS

REPOSITORY = Path(__file__).resolve().parents[2]


def build(path: Path, source: ToySource, **options: object) -> GraphStore:
    return GraphStore(prepare_store(source, path, progress=False, **options))  # type: ignore[arg-type]


def same_record(first: GraphRecord, second: GraphRecord) -> bool:
    for key, value in vars(first).items():
        other = getattr(second, key)
        if isinstance(value, np.ndarray):
            if value.dtype != other.dtype or not np.array_equal(value, other):
                return False
        elif value != other:
            return False
    return True


@pytest.mark.parametrize("is_spinful", [False, True])
def test_what_is_read_is_what_was_written(tmp_path: Path, is_spinful: bool) -> None:
    source = ToySource(4, is_spinful=is_spinful)
    store = build(tmp_path / "toy.h5", source)
    assert store.names == source.names
    assert store.is_spinful == is_spinful
    assert store.basis == BASIS
    for name, n_pair, n_atom in zip(store.names, store.n_pair, store.n_atom, strict=True):
        expected, _ = record_from_system(source.read(name))
        assert same_record(store.read(name), expected)
        assert n_pair == len(expected.pair_i)
        assert n_atom == len(expected.species)
        assert store.read(name).atoms() == source.read(name).atoms


def test_system_without_overlap(tmp_path: Path) -> None:
    class NoOverlap(ToySource):
        def read(self, name: str, operators: object = ("H", "S")) -> object:
            system = random_system(int(name[-1]))
            system.S = None
            return system

    store = build(tmp_path / "toy.h5", NoOverlap(2))
    assert store.read("toy_0").S_hopping is None
    assert store.report["n_with_overlap"] == store.report["n_H_only"] == 0


def test_units_are_in_the_file(tmp_path: Path) -> None:
    build(tmp_path / "toy.h5", ToySource(1)).close()
    with h5py.File(tmp_path / "toy.h5") as file:
        group = file["structures/000000"]
        assert group["H_hopping"].attrs["unit"] == group["H_onsite"].attrs["unit"] == "eV"
        assert group["position"].attrs["unit"] == "angstrom"
        assert group["H_hopping"].chunks is None
        assert file.attrs["is_complete"]


def test_report(tmp_path: Path) -> None:
    source = ToySource(5)
    report = build(tmp_path / "toy.h5", source).report
    summaries = [record_from_system(source.read(name))[1] for name in source.names]
    assert report["n_structure"] == report["n_with_overlap"] == 5
    assert report["n_pair"] == sum(s.n_pair for s in summaries)
    assert report["n_H_only"] == sum(s.n_H_only for s in summaries) > 0
    assert report["H_only_max_meV"] == max(s.H_only_max_meV for s in summaries)
    assert report["n_dropped"] == 0
    assert report["r_target"]["B-C"] == max(s.r_target["B-C"] for s in summaries)
    assert set(report["r_target"]) == {"B-B", "B-C", "C-C"}
    assert report["n_electrons"] == pytest.approx({"B": 3.0, "C": 4.0})
    assert report["elements"] == [5, 6]


def test_electrons_that_do_not_add_up(tmp_path: Path) -> None:
    class Charged(ToySource):
        def read(self, name: str, operators: object = ("H", "S")) -> object:
            system = random_system(int(name[-1]))
            system.n_electrons += int(name[-1]) % 2
            return system

    assert build(tmp_path / "toy.h5", Charged(6)).report["n_electrons"] is None


def test_cap_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        report = build(tmp_path / "toy.h5", ToySource(3), r_target_max=4.5).report
    assert report["n_dropped"] > 0
    assert max(report["r_target"].values()) <= 4.5
    drops = f"r_target_max = 4.5 Å drops {report['n_dropped']} pairs"
    assert any(drops in m and "meV" in m for m in caplog.messages)


def test_cap_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.r_target_max is 0"):
        build(tmp_path / "toy.h5", ToySource(1), r_target_max=0.0)


def test_made_once(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    source = ToySource(3, journal=journal)
    build(tmp_path / "toy.h5", source)
    build(tmp_path / "toy.h5", source)
    assert journal.read_text().splitlines() == source.names
    assert sorted(p.name for p in tmp_path.iterdir()) == [".toy.h5.lock", "journal", "toy.h5"]


@pytest.mark.parametrize(
    ("change", "options", "reason"),
    [
        ({"version": "2"}, {}, "source_fingerprint was 1, now 2"),
        ({}, {"r_target_max": 4.5}, "r_target_max_angstrom was -1.0, now 4.5"),
    ],
)
def test_stale_store_is_made_again(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    change: dict[str, str],
    options: dict[str, float],
    reason: str,
) -> None:
    path = tmp_path / "toy.h5"
    build(path, ToySource(2)).close()
    journal = tmp_path / "journal"
    with caplog.at_level(logging.INFO):
        build(path, ToySource(2, journal=journal, **change), **options)  # type: ignore[arg-type]
    assert len(journal.read_text().splitlines()) == 2
    assert sum(reason in message for message in caplog.messages) == 1


def test_store_of_another_version_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "toy.h5"
    build(path, ToySource(2)).close()
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = 99
    with pytest.raises(
        SchemaError, match=f"version 99, this program reads version {SCHEMA_VERSION}"
    ):
        GraphStore(path)
    assert len(build(path, ToySource(2))) == 2


def test_foreign_files_are_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "toy.h5"
    path.write_text("not HDF5")
    with pytest.raises(SchemaError, match=r"toy.h5: is not HDF5, or damaged"):
        build(path, ToySource(1))
    assert path.read_text() == "not HDF5"
    path.unlink()
    with h5py.File(path, "w") as file:
        file["x"] = 1
    with pytest.raises(SchemaError, match=r"HDF5 file of another kind"):
        build(path, ToySource(1))
    with h5py.File(path) as file:
        assert file["x"][()] == 1


def test_truncated_store(tmp_path: Path) -> None:
    path = tmp_path / "toy.h5"
    build(path, ToySource(2)).close()
    with path.open("r+b") as stream:
        stream.truncate(path.stat().st_size // 2)
    with pytest.raises(SchemaError, match="damaged"):
        GraphStore(path)


def test_missing_store(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="no such graph store"):
        GraphStore(tmp_path / "toy.h5")


def test_unknown_structure(tmp_path: Path) -> None:
    store = build(tmp_path / "toy.h5", ToySource(4))
    with pytest.raises(DataError, match="no structure 'x' among 4"):
        store.read("x")


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"data.cache_dir: .*cannot be written"):
        build(tmp_path / "file" / "cache" / "toy.h5", ToySource(1))


def test_processes_make_the_same_store(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    alone = build(tmp_path / "alone.h5", ToySource(6))
    together = build(tmp_path / "together.h5", ToySource(6, journal=journal), n_worker=2)
    assert together.fingerprint == alone.fingerprint
    assert together.report == alone.report
    assert all(same_record(alone.read(n), together.read(n)) for n in alone.names)
    assert sorted(journal.read_text().splitlines()) == alone.names


def test_bad_structure_stops_and_keeps_the_rest(tmp_path: Path) -> None:
    class Broken(ToySource):
        def read(self, name: str, operators: object = ("H", "S")) -> object:
            if name == "toy_2" and self.version == "1":
                raise FormatError(f"structure '{name}': hamiltonian.h5 is truncated")
            return super().read(name)

    path, journal = tmp_path / "toy.h5", tmp_path / "journal"
    with pytest.raises(FormatError, match="toy_2"):
        build(path, Broken(4))
    assert not path.exists()
    repaired = Broken(4, journal=journal)
    repaired.version = "repaired"
    repaired.fingerprint = lambda: "1"  # type: ignore[method-assign]
    assert len(build(path, repaired)) == 4
    assert journal.read_text().splitlines() == ["toy_2", "toy_3"]


BUILD = """
import sys
from pathlib import Path
from deeph_lightning.data.prepare import prepare_store
from tests.data.sets import ToySource
if __name__ == "__main__":
    source = ToySource(12, delay_s=0.1, journal=Path(sys.argv[2]))
    prepare_store(source, sys.argv[1], progress=False, n_worker=int(sys.argv[3]))
"""


@pytest.mark.parametrize("n_worker", [1, 2])
def test_killed_build_goes_on(tmp_path: Path, n_worker: int) -> None:
    path, journal = tmp_path / "toy.h5", tmp_path / "journal"
    script = tmp_path / "build.py"
    script.write_text(BUILD)
    folder = tmp_path / "toy.h5.partial"
    process = subprocess.Popen(
        [sys.executable, script, path, journal, str(n_worker)],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while len(list(folder.glob("[0-9]*.h5"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = {p.name for p in folder.glob("[0-9]*.h5")}
    assert 3 <= len(done) < 12
    assert not path.exists()
    again = tmp_path / "again"
    store = build(path, ToySource(12, journal=again))
    kept = {f"toy_{int(name[:6])}" for name in done}
    assert set(again.read_text().splitlines()) == set(store.names) - kept
    assert store.fingerprint == build(tmp_path / "clean.h5", ToySource(12)).fingerprint
    assert not folder.exists()


def test_script_without_a_guard_is_refused(tmp_path: Path) -> None:
    """Processes import the script that starts them: it must neither start again nor hang."""
    script = tmp_path / "build.py"
    guard = 'if __name__ == "__main__":'
    assert guard in BUILD
    script.write_text(BUILD.replace(guard, "if True:"))
    found = subprocess.run(
        [sys.executable, script, tmp_path / "toy.h5", tmp_path / "journal", "2"],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert found.returncode != 0
    assert "if __name__ == '__main__':" in found.stderr


def test_pieces_of_other_data_are_not_used(tmp_path: Path) -> None:
    path, journal = tmp_path / "toy.h5", tmp_path / "journal"
    folder = tmp_path / "toy.h5.partial"
    folder.mkdir()
    (folder / "made_of.json").write_text(json.dumps({"source_fingerprint": "old"}))
    (folder / "000000.h5").write_text("old")
    assert len(build(path, ToySource(2, journal=journal))) == 2
    assert len(journal.read_text().splitlines()) == 2


def test_handle_stays_behind_when_pickled(tmp_path: Path) -> None:
    store = build(tmp_path / "toy.h5", ToySource(2))
    expected = store.read("toy_1")
    copy = pickle.loads(pickle.dumps(store))  # noqa: S301
    assert copy._file is None
    assert same_record(copy.read("toy_1"), expected)


def test_handle_is_not_used_after_a_fork(tmp_path: Path) -> None:
    store = build(tmp_path / "toy.h5", ToySource(2))
    file = store._open()
    store._pid = -1
    assert store._open() is not file
