"""``python -m deeph_lightning.solve``: files, comparison, and errors a user meets."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
from ase.io import jsonio as ase_json
from omegaconf import OmegaConf
from pymatgen.electronic_structure.bandstructure import BandStructureSymmLine

from deeph_lightning.config.suggest import compose_checked
from deeph_lightning.errors import ConfigError, DataError, PhysicsError
from deeph_lightning.io import deeph
from deeph_lightning.solve.__main__ import run
from deeph_lightning.units import VELOCITY_PER_SLOPE
from tests.conftest import ROOT
from tests.solve.systems import toy
from tests.tolerances import EIGENVALUE

if TYPE_CHECKING:
    from pathlib import Path

STRUCTURES = ROOT / "tests" / "data" / "structures"
GRAPHENE = ROOT / "data" / "graphene"


def solve(**options: Any) -> dict[str, Any]:
    words = [f"{key}={'null' if value is None else value}" for key, value in options.items()]
    cfg = compose_checked("solve", words)
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    return run(cfg)


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    deeph.write(toy(rng, gap=6.0), tmp_path / "dft")
    return tmp_path / "dft"


def test_bands_and_their_comparison(folder: Path, tmp_path: Path, rng) -> None:
    predicted = deeph.read(folder)
    predicted.S = None
    noise = 1e-3 * np.ones_like(predicted.H.values)
    predicted.H = predicted.H.replace(values=predicted.H.values + noise)
    deeph.write(predicted, tmp_path / "predicted")
    facts = solve(
        task="bands", input=folder, compare=tmp_path / "predicted", output=tmp_path / "out",
        n_point=80, k_spacing=0.6, kpath="ase",
    )  # fmt: skip
    assert 0 < facts["difference"]["mae_meV"] < 50
    written = json.loads((tmp_path / "out" / "bands.json").read_text())
    assert written["difference"] == facts["difference"]
    with h5py.File(tmp_path / "out" / "bands.h5") as file:
        assert file["energies"].shape == (1, 80, 14)
        assert file["energies"].attrs["unit"] == "eV"
        assert file["compare/energies"].shape == (1, 80, 14)
        assert "Γ" in file["labels"].asstr()[()]
    assert (tmp_path / "out" / "bands.png").stat().st_size > 10_000


@pytest.mark.parametrize("spin", ["collinear", "spinful"])
def test_spin_is_accepted(spin: str, tmp_path: Path, rng) -> None:
    deeph.write(toy(rng, spin=spin, gap=6.0), tmp_path / "in")
    facts = solve(
        task="bands", input=tmp_path / "in", output=tmp_path, n_point=4, k_spacing=2.0,
        project="orbital", kpath="ase",
    )  # fmt: skip
    assert facts["n_spin_channels"] == (2 if spin == "collinear" else 1)
    with h5py.File(tmp_path / "bands.h5") as file:
        weights = sum(weight[()] for weight in file["weights"].values())
    assert np.abs(weights - 1).max() < EIGENVALUE


def test_velocities(folder: Path, tmp_path: Path) -> None:
    words = {"task": "bands", "input": folder, "output": tmp_path, "kgrid": "[1,1,1]"}
    solve(**words, n_point=40, kpath="ase", velocities=True, html=False)
    with h5py.File(tmp_path / "bands.h5") as file:
        assert file["velocities"].attrs["unit"] == "m/s"
        velocity, energies, k = (file[key][()] for key in ("velocities", "energies", "k"))
    assert velocity.shape == (*energies.shape, 3)
    # along the path the velocity is the slope of the energies; far from degeneracies
    cell = deeph.read(folder).atoms.cell.array
    step = (k[2] - k[0]) @ (2 * np.pi * np.linalg.inv(cell).T)
    lone = np.argmax(np.diff(energies[0, 1]))
    slope = (energies[0, 2, lone] - energies[0, 0, lone]) / np.linalg.norm(step)
    along = velocity[0, 1, lone] @ step / np.linalg.norm(step)
    assert abs(along - slope * VELOCITY_PER_SLOPE) < 0.02 * np.abs(velocity[0, 1]).max()
    with pytest.raises(ConfigError, match="velocities needs all states"):
        solve(**words, n_point=4, kpath="ase", velocities=True, dense_max=5)


def test_gap_of_shipped_graphene(tmp_path: Path) -> None:
    facts = solve(
        task="gap", input=GRAPHENE, structure="000", output=tmp_path, n_point=6, kgrid="[2,2,1]"
    )
    assert facts["gap_eV"] < 0.2
    assert abs(facts["vbm"]["energy_eV"] - facts["e_fermi_eV"]) < 0.2


def test_levels_of_a_molecule(tmp_path: Path) -> None:
    facts = solve(
        task="gap",
        input=STRUCTURES / "H2O_0",
        output=tmp_path,
        n_electrons=10,
        smearing_eV=0.01,
    )
    assert facts["kgrid"] == [1, 1, 1]
    assert 4 < facts["gap_eV"] < 9
    assert facts["direct_gap_eV"] == facts["gap_eV"]


def test_molecules_have_no_bands(tmp_path: Path) -> None:
    with pytest.raises(PhysicsError, match=r"no periodic direction.*task=gap"):
        solve(task="bands", input=STRUCTURES / "H2O_0", output=tmp_path, n_electrons=10)
    assert not list(tmp_path.iterdir())


def test_bad_requests(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(PhysicsError, match="the number of electrons is not known"):
        solve(task="fermi", input=STRUCTURES / "H2O_0", output=out)
    with pytest.raises(PhysicsError, match="99 electrons do not fit"):
        solve(task="fermi", input=folder, output=out, n_electrons=99)
    with pytest.raises(DataError, match=r"structures.*structure=NAME"):
        solve(task="fermi", input=GRAPHENE, output=out)
    with pytest.raises(ConfigError, match="is not known for structure"):
        solve(task="bands", input=folder, output=out, kpath="GQ")
    with pytest.raises(ConfigError, match="lower energy comes first"):
        solve(task="bands", input=folder, output=out, window_eV="[1,-1]")
    with pytest.raises(DataError, match="is not that of the Hamiltonian"):
        solve(task="fermi", input=STRUCTURES / "H2O_0", output=out, overlap=folder)
    with pytest.raises(DataError, match="hamiltonian=H_pred"):
        solve(task="fermi", input=folder, output=out, hamiltonian="H_pred")


def test_no_overlap(folder: Path, tmp_path: Path) -> None:
    (folder / "overlap.h5").rename(tmp_path / "kept.h5")
    with pytest.raises(DataError, match="overlap=DIR"):
        solve(task="gap", input=folder, output=tmp_path / "out")
    other = deeph.read(folder)
    (tmp_path / "kept.h5").rename(folder / "overlap.h5")
    deeph.write(other, tmp_path / "alone")
    facts = [
        solve(task="fermi", input=source, output=tmp_path / "o", overlap=overlap, k_spacing=2.0)
        for source, overlap in ((folder, None), (tmp_path / "alone", folder))
    ]
    assert facts[0]["e_fermi_eV"] == facts[1]["e_fermi_eV"]


def test_command_line(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deeph_lightning.solve", f"input={folder}"]
    command += [f"output={tmp_path / 'out'}", "k_spacing=2.0", "task=gap"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"gap.json", "gap.h5"}
    wrong = subprocess.run([*command, "tsk=dos"], cwd=ROOT, capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "task" in wrong.stderr


@pytest.mark.parametrize("method", ["gaussian", "tetrahedron", "kpm"])
def test_density_of_states(method: str, folder: Path, tmp_path: Path) -> None:
    facts = solve(
        task="dos", input=folder, output=tmp_path, method=method, project="element",
        kgrid="[3,3,3]", n_moments=100, n_vectors=14, factorisation="superlu", n_energy=200,
    )  # fmt: skip
    assert facts["method"] == method
    if method == "kpm":
        assert facts["e_fermi_noise_eV"] == 0  # as many vectors as orbitals
    with h5py.File(tmp_path / "dos.h5") as file:
        total, parts = file["total"][()], file["projected"]
        assert total.shape == (1, 200)
        assert file["total"].attrs["unit"] == "electrons/eV"
        assert np.abs(sum(part[()] for part in parts.values()) - total).max() < EIGENVALUE
    assert (tmp_path / "dos.png").is_file()


def test_noise_of_the_fermi_level_by_random_vectors(folder: Path, tmp_path: Path) -> None:
    """In a gap, too, where the density is nearly zero; it falls with the number of vectors."""
    few, more = (
        solve(
            task="dos", input=folder, output=tmp_path / str(n), method="kpm", kgrid="[1,1,1]",
            n_moments=500, n_vectors=n, factorisation="superlu", n_electrons=18,
        )["e_fermi_noise_eV"]
        for n in (1, 13)
    )  # fmt: skip
    assert 0 < more < few < 100


def test_all_states_of_a_large_system_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Take method=kpm"):
        solve(task="dos", input=folder, output=tmp_path, method="gaussian", dense_max=5)
    with pytest.raises(ConfigError, match="dense_max=5"):
        solve(
            task="bands", input=folder, output=tmp_path, project="element", dense_max=5,
            factorisation="superlu", kpath="ase", kgrid="[1,1,1]",
        )  # fmt: skip


def test_masses_of_the_edges(folder: Path, tmp_path: Path) -> None:
    facts = solve(
        task="effective_mass", input=folder, output=tmp_path, n_electrons=18, kgrid="[3,3,3]",
        n_point=30, kpath="ase",
    )  # fmt: skip
    assert facts["electron"]["energy_eV"] <= facts["cbm"]["energy_eV"] + EIGENVALUE
    assert facts["hole"]["energy_eV"] >= facts["vbm"]["energy_eV"] - EIGENVALUE
    assert np.all(facts["electron"]["principal_masses_electron_mass"] > 0)
    assert np.all(facts["hole"]["principal_masses_electron_mass"] < 0)
    with pytest.raises(ConfigError, match="band=None"):
        solve(
            task="effective_mass", input=folder, output=tmp_path, k="[0,0,0]", kgrid="[1,1,1]"
        )


def test_density_matrix_is_written(folder: Path, tmp_path: Path) -> None:
    facts = solve(task="density_matrix", input=folder, output=tmp_path, kgrid="[2,2,2]")
    assert abs(facts["electrons_counted"] - 8) < 1e3 * EIGENVALUE
    written = deeph.read(tmp_path / "density_matrix", ("rho",))
    assert written.rho is not None
    with pytest.raises(ConfigError, match="one Hamiltonian only"):
        solve(task="density_matrix", input=folder, output=tmp_path, compare=folder)


def test_exports(folder: Path, tmp_path: Path) -> None:
    solve(
        task="bands", input=folder, output=tmp_path, n_point=60, kgrid="[1,1,1]",
        export="[ase,pymatgen,wannier90]",
    )  # fmt: skip
    bands = ase_json.read_json(tmp_path / "bands_ase.json")
    assert bands.energies.shape[2] == 14
    found = json.loads((tmp_path / "bands_pymatgen.json").read_text())
    assert BandStructureSymmLine.from_dict(found).nb_bands == 14
    assert (tmp_path / "wannier90_hr.dat").read_text().split("\n")[1].strip() == "14"
    text = (tmp_path / "bands.html").read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    solve(
        task="dos", input=folder, output=tmp_path, kgrid="[1,1,1]", project="magnetic",
        export="[pymatgen]", html=False,
    )  # fmt: skip
    assert "pdos" in json.loads((tmp_path / "dos_pymatgen.json").read_text())
    assert not (tmp_path / "dos.html").exists()
