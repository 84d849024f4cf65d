"""Runs of the generator: reproducible, resumable, complete."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule

from deeph_lightning.errors import ConfigError, DataError
from deeph_lightning.generate.clusters import Local, Serial, Slurm
from deeph_lightning.generate.run import Run
from deeph_lightning.generate.samplers.cells import Substitute
from deeph_lightning.generate.samplers.displacements import Einstein, Rattle
from deeph_lightning.generate.structures import draw_structures
from deeph_lightning.io.source import open_source
from tests.generate.engines import Toy

ROOT = Path(__file__).resolve().parents[2]


def drawn(n, seed=0, stdev=0.05, min_distance=0.6, samplers=None, starts=None):
    samplers = {"rattle": Rattle(stdev)} if samplers is None else samplers
    return list(
        draw_structures(
            starts or [molecule("H2O")], samplers, n, seed,
            min_distance=min_distance, max_draws=20,
        )
    )  # fmt: skip


def computed(output, n=6, engine=None, settings=None, cluster=None, **options):
    run = Run(output, engine or Toy(), cluster or Serial(), settings or {"seed": 0}, **options)
    run.compute(drawn(n), show_progress=False)
    return run


def test_structures_do_not_depend_on_how_many_are_drawn():
    few, many = drawn(3), drawn(8)
    for a, b in zip(few, many, strict=False):
        np.testing.assert_array_equal(a.atoms.positions, b.atoms.positions)
        assert a.atoms.info == b.atoms.info
        assert a.seed == b.seed
    assert not np.allclose(drawn(1, seed=1)[0].atoms.positions, few[0].atoms.positions)


def test_repeated_structures_are_refused():
    with pytest.raises(ConfigError, match="same as structure 00000"):
        drawn(2, samplers={})
    moved = molecule("H2O")
    moved.rotate(40, (1, 2, 3))
    moved.translate((1, 2, 3))
    moved = moved[[1, 0, 2]]
    with pytest.raises(ConfigError, match="same as structure 00000"):
        drawn(2, samplers={}, starts=[molecule("H2O"), moved])


def test_samplers_are_checked_with_what_those_before_have_changed():
    copper = bulk("Cu").repeat(2)
    copper.info["name"] = "copper"
    gold = {"substitute": Substitute({"Cu": ["Au"]}, 1.0)}
    with pytest.raises(ConfigError, match="structure 'copper' holds Au too"):
        drawn(1, samplers=gold | {"einstein": Einstein(300.0, {"Cu": 300.0})}, starts=[copper])
    found = drawn(
        1, samplers=gold | {"einstein": Einstein(300.0, {"Au": 200.0})}, starts=[copper]
    )
    assert set(found[0].atoms.symbols) == {"Au"}


def test_structures_with_close_atoms_are_refused():
    with pytest.raises(ConfigError, match="sum of their covalent radii"):
        drawn(1, min_distance=3.0)


def test_a_run_writes_a_set_and_adds_to_it(tmp_path):
    run = computed(tmp_path / "set", n=4)
    assert (run.n_done, run.n_there, run.left_out) == (4, 0, {})
    source = open_source(tmp_path / "set")
    assert source.names == ["00000", "00001", "00002", "00003"]
    system = source.read("00002")
    assert system.info["code"] == "toy"
    np.testing.assert_allclose(system.atoms.positions, drawn(3)[2].atoms.positions, atol=1e-12)
    before = (tmp_path / "set" / "00001" / "hamiltonian.h5").stat().st_mtime_ns
    run = computed(tmp_path / "set", n=6)
    assert (run.n_done, run.n_there) == (2, 4)
    assert (tmp_path / "set" / "00001" / "hamiltonian.h5").stat().st_mtime_ns == before
    record = json.loads((tmp_path / "set" / "generate.json").read_text())
    assert record["settings"] == {"seed": 0}
    assert record["engine"] == {"version": "1"}
    assert record["versions"]["numpy"]


@pytest.mark.parametrize(
    ("engine", "settings", "said"),
    [
        (Toy(version="2"), {"seed": 0}, "engine: version was '1', now it is '2'"),
        (Toy(), {"seed": 1}, "seed was 0, now it is 1"),
    ],
)
def test_other_settings_are_refused(engine, settings, said, tmp_path):
    computed(tmp_path / "set", n=1)
    with pytest.raises(DataError, match=said):
        computed(tmp_path / "set", n=1, engine=engine, settings=settings)


def test_a_foreign_folder_is_not_written_to(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(DataError, match=r"holds thesis\.tex"):
        computed(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_attempts_failures_and_the_report(tmp_path):
    engine = Toy(unconverged={"00001": 2, "00003": 9}, broken=["00004"])
    run = computed(tmp_path / "set", engine=engine)
    assert run.n_done == 4
    report = json.loads((tmp_path / "set" / "report.json").read_text())
    assert report["computed"] == 4
    left_out = report["left_out"]
    assert [left_out[n]["state"] for n in ("00003", "00004")] == ["unconverged", "failed"]
    assert left_out["00003"]["attempts"] == 3
    assert "ZeroDivisionError: a bug (engines.py" in left_out["00004"]["message"]
    assert (tmp_path / "set" / left_out["00003"]["files"] / "attempt_2" / "log.txt").is_file()
    source = open_source(tmp_path / "set")
    assert source.names == ["00000", "00001", "00002", "00005"]
    assert source.read("00001").info["generate"]["attempt"] == 2
    # what failed is tried again, what did not converge only when asked for
    run = computed(tmp_path / "set")
    assert (run.n_done, run.n_there, list(run.left_out)) == (1, 4, ["00003"])
    run = computed(tmp_path / "set", retry_unconverged=True)
    assert (run.n_done, run.n_there, run.left_out) == (1, 5, {})


def test_a_damaged_folder_is_computed_again(tmp_path):
    computed(tmp_path / "set", n=2)
    path = tmp_path / "set" / "00001" / "hamiltonian.h5"
    path.write_bytes(path.read_bytes()[:200])
    assert computed(tmp_path / "set", n=2).n_done == 1


KILLED = """
import sys
from pathlib import Path
from tests.generate.engines import Toy
from tests.generate.test_run import computed
from deeph_lightning.generate.clusters import Local
if __name__ == "__main__":
    computed(Path(sys.argv[1]), n=12, engine=Toy(seconds=0.4), cluster=Local(n_worker=2))
"""


def test_a_killed_run_goes_on(tmp_path):
    pytest.importorskip("distributed")
    output = tmp_path / "set"
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, script, output], env=environment)
    for _ in range(3000):
        time.sleep(0.1)
        if len(list(output.glob("0*"))) >= 2 or process.poll() is not None:
            break
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    there = {path.name for path in output.glob("0*")}
    assert 2 <= len(there) < 12
    run = computed(output, n=12, engine=Toy(), cluster=Local(n_worker=2))
    assert run.n_there >= len(there)
    assert run.n_done + run.n_there == 12
    assert open_source(output).names == [f"{n:05d}" for n in range(12)]
    for n, sample in enumerate(drawn(12)):
        found = open_source(output).read(f"{n:05d}")
        np.testing.assert_allclose(found.atoms.positions, sample.atoms.positions, atol=1e-12)


# the cluster that is refused complains of itself when it is collected
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_jobs_of_slurm_carry_their_options():
    pytest.importorskip("dask_jobqueue")
    options = {"queue": "long", "cores": 2, "processes": 2, "memory": "4GB", "account": None}
    with Slurm(1, {**options, "job_script_prologue": ["module load x"]}).cluster() as cluster:
        script = cluster.job_script()
    for line in ("#SBATCH -p long", "export OMP_NUM_THREADS=1", "module load x"):
        assert line in script
    with pytest.raises(ConfigError, match="nonsense"):
        Slurm(1, {**options, "nonsense": 1}).cluster()


def test_two_runs_do_not_write_to_one_folder(tmp_path):
    from deeph_lightning.generate.run import _only_run

    with _only_run(tmp_path), pytest.raises(ConfigError, match="another run"):
        computed(tmp_path)
