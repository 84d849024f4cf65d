"""Engines that start programs, with a stand-in that replays what the programs write."""

from __future__ import annotations

import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from ase.build import molecule

from deeph_lightning.errors import (
    ConfigError,
    DataError,
    MissingDependencyError,
    NotConvergedError,
    ProgramError,
)
from deeph_lightning.generate.clusters import Serial
from deeph_lightning.generate.engines.abacus import Abacus
from deeph_lightning.generate.engines.fhi_aims import FHIaims
from deeph_lightning.generate.engines.openmx import OpenMX
from deeph_lightning.generate.engines.siesta import Siesta
from deeph_lightning.generate.jobs import Job, compute
from deeph_lightning.generate.program import merged
from deeph_lightning.generate.run import Run
from deeph_lightning.generate.structures import Sample
from deeph_lightning.io.formats import read_structure_folder
from deeph_lightning.io.system import SystemData
from deeph_lightning.solve.dense import eigenvalues
from tests.io import abacus_files, fhi_aims_files, openmx_files, siesta_files
from tests.systems import BASIS, random_atoms, slater_koster
from tests.tolerances import EIGENVALUE_DFT

if TYPE_CHECKING:
    from ase import Atoms

    from deeph_lightning.core.operator import Operator

REPLAY = Path(__file__).with_name("replay.py")
K = [0.11, -0.23, 0.31]
CODES = ("abacus", "siesta", "openmx", "fhi_aims")
#: A setting of the second attempt of each, and one of every attempt.
SECOND = {
    "abacus": "mixing_beta 0.1\n",
    "siesta": "SCF.Mixer.Weight 0.05\n",
    "openmx": "scf.Init.Mixing.Weight 0.05\n",
    "fhi_aims": "charge_mix_param 0.05\n",
}
EVERY = {"abacus": "out_mat_hs2 1\n", "siesta": "SaveHS T\n", "openmx": "HS.fileout on\n",
         "fhi_aims": "output_rs_matrices plain\n"}  # fmt: skip


@dataclass
class Case:
    """An engine of toy atoms, and what the program writes for them."""

    code: str
    structure: Atoms
    system: SystemData
    record: Path
    settings: dict[str, Any]

    def engine(self, wanted: str | None = None, **changed: Any):
        words = [sys.executable, str(REPLAY), str(self.record), wanted or EVERY[self.code]]
        kind = {"abacus": Abacus, "siesta": Siesta, "openmx": OpenMX, "fhi_aims": FHIaims}
        command = shlex.join(words) + (" {input}" if self.code == "openmx" else "")
        return kind[self.code](**{"command": command, **self.settings, **changed})

    def run(self, folder: Path, wanted: str | None = None, attempt: int = 0) -> SystemData:
        folder.mkdir()
        return self.engine(wanted).run(self.structure, folder, attempt)


def overlap_of(H: Operator) -> Operator:
    """Return something like an overlap on the same pairs: orbitals are normalised."""
    values = 0.002 * H.values.real
    for n in np.flatnonzero(H.pairs.is_onsite):
        block = values[H.offsets[n] : H.offsets[n + 1]]
        block[:: round(len(block) ** 0.5) + 1] = 1.0
    return H.replace(values=values, unit="1")


def recorded(code: str, folder: Path, system: SystemData) -> None:
    """Write what a program would, as converged and as not."""
    for kind, is_converged in ((folder, True), (folder / "unconverged", False)):
        kind.mkdir(parents=True)
        printed = {
            "siesta": ("siesta\nVersion: 5.0.0\n", "SCF cycle converged after 9 iterations",
                       "SCF_NOT_CONV: SCF did not converge in maximum number of steps."),
            "fhi_aims": ("  FHI-aims version : 240920\n", "  Self-consistency cycle converged.",
                         "  Self-consistency cycle not yet converged."),
        }.get(code, ("", "", ""))  # fmt: skip
        (kind / "printed.txt").write_text(printed[0] + printed[1 if is_converged else 2])
        {"abacus": abacus, "siesta": siesta, "openmx": openmx, "fhi_aims": fhi_aims}[code](
            kind, system, is_converged
        )


def abacus(folder: Path, system: SystemData, is_converged: bool) -> None:
    """Species after species, as ABACUS numbers atoms."""
    symbols = np.array(system.atoms.get_chemical_symbols())
    order = np.concatenate([np.flatnonzero(symbols == x) for x in dict.fromkeys(symbols)])
    assert (order != np.arange(len(order))).any()
    H, S = system.H.permuted(order), system.S.permuted(order)
    out = folder / "OUT.deeph"
    out.mkdir()
    cells = abacus_files.cells_of(H)
    cells = {R: matrix / abacus_files.RYDBERG for R, matrix in cells.items()}
    abacus_files.write_old(out / "data-HR-sparse_SPIN0.csr", cells, "H")
    abacus_files.write_old(out / "data-SR-sparse_SPIN0.csr", abacus_files.cells_of(S), "S")
    labels = H.atoms.get_chemical_symbols()
    log = out / "running_scf.log"
    # ABACUS lists the zetas of an element by l
    abacus_files.write_log(log, H.atoms, labels, system.basis.shells)
    if not is_converged:
        text = log.read_text().replace(
            "convergence is achieved", "convergence has not been achieved"
        )
        log.write_text(text)


def siesta(folder: Path, system: SystemData, is_converged: bool) -> None:
    rows = siesta_files.Sparse(system.S, [system.H])
    siesta_files.write_hsx(folder / "deeph.HSX", rows, 2)
    siesta_files.write_xv(folder / "deeph.XV", system.S)


def openmx(folder: Path, system: SystemData, is_converged: bool) -> None:
    """With atoms mapped into the cell, as OpenMX does."""
    frac = system.atoms.get_scaled_positions(wrap=False)
    shifts = -np.floor(frac).astype(int)
    assert shifts.any()
    H, S = (op.with_atoms_shifted(shifts) for op in (system.H, system.S))
    moved = SystemData("toy", H.atoms, system.basis, H=H, S=S, fermi_energy=1.0,
                       n_electrons=14.0)  # fmt: skip
    openmx_files.write_scfout(folder / "deeph.scfout", moved, 0)
    energies = (-49.1, -49.75, -49.75 if is_converged else -49.6)
    lines = ["OpenMX Ver. 3.9.9", "scf.criterion 1.0e-8"]
    lines += [f"   SCF=   {n}  NormRD=  0.1  Uele= {e}" for n, e in enumerate(energies, 1)]
    (folder / "deeph.out").write_text("\n".join(lines) + "\n")


def fhi_aims(folder: Path, system: SystemData, is_converged: bool) -> None:
    fhi_aims_files.write_periodic(folder, system)
    for name in ("geometry.in", "control.in"):
        (folder / name).unlink()


@pytest.fixture(params=CODES)
def case(request: pytest.FixtureRequest, tmp_path: Path, rng: np.random.Generator) -> Case:
    return make_case(request.param, tmp_path, rng)


def make_case(code: str, folder: Path, rng: np.random.Generator) -> Case:
    atoms = random_atoms(rng)
    # codes that sort shells by l
    shells = {label: tuple(sorted(own)) for label, own in BASIS.shells.items()}
    basis = type(BASIS)(shells)
    H = slater_koster(atoms, basis)
    system = SystemData("toy", atoms, basis, H=H, S=overlap_of(H), fermi_energy=1.0)
    recorded(code, folder / "record", system)
    data = folder / "data"
    for name in ("PAO", "VPS"):
        (data / name).mkdir(parents=True)
    files = {}
    for number, symbol in ((6, "C"), (5, "B")):
        for name in (f"{symbol}.upf", f"{symbol}.orb", f"{symbol}.psml",
                     f"{number:02d}_{symbol}_default", f"PAO/{symbol}7.0.pao"):  # fmt: skip
            (data / name).write_text(f"  species {symbol}\n")
        (data / f"VPS/{symbol}_PBE19.vps").write_text("valence.electron   4.0\n")
        files[symbol] = str(data / symbol)
    settings: dict[str, dict[str, Any]] = {
        "abacus": {"pseudopotentials": {x: f"{p}.upf" for x, p in files.items()},
                   "orbitals": {x: f"{p}.orb" for x, p in files.items()}},
        "siesta": {"pseudopotentials": {x: f"{p}.psml" for x, p in files.items()}},
        "openmx": {"data_path": str(data), "orbitals": {"C": "C7.0-s2p1", "B": "B7.0-s1p1d1"},
                   "pseudopotentials": {x: f"{x}_PBE19" for x in files}},
        "fhi_aims": {"species_defaults": str(data), "parameters": {"xc": "pbe"}},
    }  # fmt: skip
    return Case(code, atoms, system, folder / "record", settings[code])


def test_result(case: Case, tmp_path: Path) -> None:
    """Atoms are those that were given, in order and cells; H is that of the output."""
    assert case.engine().check([case.structure])["code"]
    found = case.run(tmp_path / "run")
    assert found.atoms.get_chemical_symbols() == case.structure.get_chemical_symbols()
    np.testing.assert_allclose(found.atoms.positions, case.structure.positions, atol=1e-6)
    assert found.info["is_converged"]
    for key in ("H", "S"):
        own, expected = getattr(found, key), getattr(case.system, key)
        assert own.atoms == found.atoms
        np.testing.assert_allclose(
            own.on_pairs(expected.pairs).values, expected.values, atol=1e-6, rtol=1e-7
        )
        assert len(own.pairs) == len(expected.pairs)


def test_second_attempt_mixes_otherwise(case: Case, tmp_path: Path) -> None:
    wanted = SECOND[case.code]
    with pytest.raises(NotConvergedError, match="'toy': the density is not self-consistent"):
        case.run(tmp_path / "first", wanted)
    assert case.run(tmp_path / "second", wanted, attempt=1).H is not None
    with pytest.raises(NotConvergedError):
        case.run(tmp_path / "third", wanted, attempt=2)


def test_what_never_converges_is_left_out(case: Case, tmp_path: Path) -> None:
    engine = case.engine("no such setting")
    run = Run(tmp_path / "set", engine, Serial(), {})
    run.compute([Sample(case.structure, (0, 0, 0))], show_progress=False)
    assert run.n_done == 0
    left = run.left_out["toy"]
    assert (left["state"], left["attempts"]) == ("unconverged", engine.n_attempt)
    assert not (tmp_path / "set" / "toy").exists()


def test_crash(case: Case, tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match=r"(?s)'toy'.*status 139 .*Segmentation fault"):
        case.run(tmp_path / "run", "crash")
    job = Job("toy", Sample(case.structure, (0,)), tmp_path / "toy", tmp_path / "work", False)
    outcome = compute(case.engine("crash"), job)
    assert (outcome.state, outcome.attempts) == ("failed", 1)
    assert "ProgramError" in outcome.message


def test_missing_program(case: Case, tmp_path: Path) -> None:
    engine = case.engine(command="no_such_program {input}")
    with pytest.raises(MissingDependencyError, match="there is no program 'no_such_program'"):
        engine.check([case.structure])
    with pytest.raises(MissingDependencyError, match="cannot be started"):
        engine.run(case.structure, tmp_path, 0)


def test_output_of_another_structure(case: Case, tmp_path: Path) -> None:
    case.structure.positions[1] += 0.01
    if case.code == "fhi_aims":  # the output has no positions
        case.record.joinpath("geometry.in").write_text("atom 0 0 0 C\natom 2 0 0 B\n")
    with pytest.raises(DataError, match=r"another structure|differ|another calculation"):
        case.run(tmp_path / "run")


def test_incomplete_output(case: Case, tmp_path: Path) -> None:
    for path in [*case.record.rglob("*.csr"), *case.record.glob("*.scfout"),
                 *case.record.glob("*.HSX"), *case.record.glob("rs_hamiltonian*")]:  # fmt: skip
        if "HR" in path.name or path.suffix != ".csr":
            path.unlink()
    with pytest.raises(DataError, match=r"toy|run"):
        case.run(tmp_path / "run")


def test_settings_are_checked(case: Case) -> None:
    own = {"abacus": "out_mat_hs2", "siesta": "save_hs", "openmx": "hs.fileout",
           "fhi_aims": "output_rs_matrices"}[case.code]  # fmt: skip
    with pytest.raises(ConfigError, match=rf"engine\.parameters\.{own}: .*set by the engine"):
        case.engine(parameters={own: 0})
    with pytest.raises(ConfigError, match="three positive integers"):
        case.engine(kmesh=(1, 1))
    water = molecule("H2O")
    water.info["name"] = "water"
    with pytest.raises(ConfigError, match=r"water|there is no such file"):
        case.engine().check([water])
    slab = case.structure.copy()
    slab.pbc = (True, True, False)
    with pytest.raises(ConfigError, match=r"(?s)three vectors.*periodic along all"):
        case.engine().check([slab])


def test_moved_files_are_the_same_and_other_content_is_not(case: Case, tmp_path: Path) -> None:
    """Settings that may differ are those that the facts of an engine stand for."""
    engine = case.engine()
    assert set(engine.incidental) <= {"command", *case.settings}
    before = engine.check([case.structure])
    old, new = tmp_path / "data", tmp_path / "moved"
    shutil.copytree(old, new)
    moved = {
        key: {x: path.replace(str(old), str(new)) for x, path in value.items()}
        if isinstance(value, dict)
        else value.replace(str(old), str(new))
        for key, value in case.settings.items()
        if key != "parameters"
    }
    assert {key for key in moved if moved[key] != case.settings[key]} <= set(engine.incidental)
    assert case.engine(**moved).check([case.structure]) == before
    for path in new.rglob("*C*"):
        path.write_text(path.read_text() + "\n")
    assert case.engine(**moved).check([case.structure]) != before


def test_moments_and_k_points_are_in_the_input(case: Case, tmp_path: Path) -> None:
    moments = np.array([0.0, 1.5, 0.0, -0.5])
    case.structure.set_initial_magnetic_moments(moments)
    folder = tmp_path / "run"
    folder.mkdir()
    case.engine(kmesh=(2, 3, 4)).run(case.structure, folder, 0)
    files = {"abacus": ("STRU", "KPT"), "siesta": ("deeph.fdf",), "openmx": ("deeph.dat",),
             "fhi_aims": ("geometry.in", "control.in")}[case.code]  # fmt: skip
    text = "\n".join((folder / name).read_text() for name in files)
    expected = {
        "abacus": ["mag 1.5", "mag -0.5", "Gamma\n2 3 4 0 0 0"],
        "siesta": ["2 1.5", "4 -0.5", "0 3 0 0.0"],
        "openmx": ["2.75 1.25", "1.75 2.25", "scf.Kgrid 2 3 4"],
        "fhi_aims": ["initial_moment 1.5", "initial_moment -0.5", "k_grid 2 3 4"],
    }[case.code]
    for part in expected:
        assert part in text


@pytest.mark.parametrize(
    ("code", "name"), [("abacus", "MoS2_nspin1"), ("siesta", "Si_hsx2"), ("fhi_aims", "MoS2")]
)
def test_real_output(
    code: str, name: str, shared_dir: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    """Of atoms in another order and other cells; eigenvalues are those of the reader."""
    original = shared_dir / "fixtures" / code / name
    system = read_structure_folder(original)
    record = tmp_path / "record"
    shutil.copytree(
        original, record, ignore=shutil.ignore_patterns("*.in", "STRU", "deeph_ref")
    )
    case = make_case(code, tmp_path / "toy", rng)
    shutil.copytree(case.record / "unconverged", record / "unconverged")
    printed = (case.record / "printed.txt").read_text()
    (record / "printed.txt").write_text(printed if code == "fhi_aims" else "")
    if code == "siesta":
        shutil.copy(original / "Si.fdf", record / "printed.txt")
    structure = system.atoms.copy()
    if code == "siesta":  # the record of others tells the order and cells of its input
        structure = structure[rng.permutation(len(structure))]
        structure.positions += rng.integers(-1, 2, (len(structure), 3)) @ structure.cell.array
    structure.info["name"] = "real"
    data = tmp_path / "toy" / "data"
    for symbol, number in (("Mo", 42), ("S", 16), ("Si", 14)):
        for file in (f"{symbol}.upf", f"{symbol}.orb", f"{symbol}.psml",
                     f"{number}_{symbol}_default"):  # fmt: skip
            (data / file).write_text("x\n")
    files = {x: str(data / x) for x in set(structure.get_chemical_symbols())}
    settings = {
        "abacus": {"pseudopotentials": {x: f"{p}.upf" for x, p in files.items()},
                   "orbitals": {x: f"{p}.orb" for x, p in files.items()}},
        "siesta": {"pseudopotentials": {x: f"{p}.psml" for x, p in files.items()}},
        "fhi_aims": {"species_defaults": str(data)},
    }[code]  # fmt: skip
    found = Case(code, structure, system, record, settings).run(tmp_path / "run")
    np.testing.assert_allclose(found.atoms.positions, structure.positions, atol=1e-4)
    assert found.atoms.get_chemical_symbols() == structure.get_chemical_symbols()
    own, expected = (eigenvalues(s.H, s.S, K)[0] for s in (found, system))
    assert np.abs(own - expected).max() < EIGENVALUE_DFT * max(1, np.abs(expected).max())


def test_nested_parameters_and_those_of_the_attempt() -> None:
    found = merged({"scf": {"Mixing.Type": "x", "maxIter": 9}}, {"SCF.mixing-type": "y"})
    assert found == {"SCF.mixing-type": "y", "scf.maxIter": 9}
