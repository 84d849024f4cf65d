"""Folders of DeepH 1.x."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
from ase import Atoms
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from deeph_lightning.core.basis import OrbitalBasis
from deeph_lightning.errors import DataError
from deeph_lightning.io import deeph
from deeph_lightning.io.formats import find_systems, read_structure_folder
from deeph_lightning.io.system import SystemData
from tests.io.systems import OPERATORS, STRUCTURES, assert_same_system, random_system
from tests.tolerances import DFT_ROTATION_H, DFT_ROTATION_S

if TYPE_CHECKING:
    from pathlib import Path


def test_reads_a_public_folder() -> None:
    system = deeph.read(STRUCTURES / "H2O_0")
    assert system.name == "H2O_0" == system.atoms.info["name"] == system.H.name
    assert system.basis.shells == {"O": (0, 0, 0, 1, 1, 2), "H": (0, 0, 1)}
    assert system.H.unit == "eV"
    assert system.S.unit == "1"
    assert len(system.H.pairs) == len(system.S.pairs) == 9
    assert system.fermi_energy == 0.0
    assert system.n_electrons is None
    assert system.rho is None
    with h5py.File(STRUCTURES / "H2O_0" / "hamiltonian.h5") as file:
        n = int(np.flatnonzero((file["atom_pairs"][()] == [0, 0, 0, 2, 0]).all(axis=1))[0])
        start, stop = file["chunk_boundaries"][n : n + 2]
        block = file["entries"][start:stop].reshape(file["chunk_shapes"][n])
    row = int(np.flatnonzero((system.H.pairs.i == 2) & (system.H.pairs.j == 0))[0])
    assert np.array_equal(system.H.block(row), block)


@pytest.mark.parametrize("is_spinful", [False, True])
def test_round_trip_is_exact(rng, tmp_path: Path, is_spinful: bool) -> None:
    system = random_system(rng, is_spinful=is_spinful)
    system.H_pred = system.H.replace(values=system.H.values * 1.5)
    deeph.write(system, tmp_path / "set" / "toy")
    found = read_structure_folder(tmp_path / "set" / "toy", OPERATORS)
    assert_same_system(found, system)
    assert found.info["nested"] == {"a": [1, 2.5, None]}
    assert sorted(p.name for p in (tmp_path / "set").iterdir()) == ["toy"]


def test_files_are_those_of_the_format(rng, tmp_path: Path) -> None:
    system = random_system(rng, is_spinful=True)
    deeph.write(system, tmp_path / "toy")
    info = json.loads((tmp_path / "toy" / "info.json").read_text())
    assert info["atoms_quantity"] == 4
    assert info["orbits_quantity"] == 2 * 5 + 2 * 9
    assert info["spinful"] is True
    assert info["occupation"] == 14
    assert list(info["elements_orbital_map"]) == ["C", "B"]
    with h5py.File(tmp_path / "toy" / "hamiltonian.h5") as file:
        pairs, shapes = file["atom_pairs"][()], file["chunk_shapes"][()]
        boundaries, entries = file["chunk_boundaries"][()], file["entries"][()]
    assert (pairs.dtype, entries.dtype) == (np.int64, np.complex128)
    known = {tuple(p) for p in pairs.tolist()}
    assert {(-a, -b, -c, j, i) for a, b, c, i, j in known} == known  # both halves
    assert boundaries[0] == 0
    assert np.array_equal(np.diff(boundaries), shapes.prod(axis=1))
    assert boundaries[-1] == len(entries)
    assert shapes.max() == 18  # spin doubles them
    with h5py.File(tmp_path / "toy" / "overlap.h5") as file:
        assert file["chunk_shapes"][()].max() == 9  # but not those of S


def test_half_operators_are_completed(rng, tmp_path: Path) -> None:
    system = random_system(rng)
    half = SystemData("toy", system.atoms, system.basis, H=system.H.half())
    deeph.write(half, tmp_path / "toy")
    found = deeph.read(tmp_path / "toy")
    assert np.array_equal(found.H.values, system.H.values)
    assert found.S is None


def test_pairs_of_any_order_and_integer_type(rng, tmp_path: Path) -> None:
    system = random_system(rng)
    deeph.write(system, tmp_path / "toy")
    with h5py.File(tmp_path / "toy" / "hamiltonian.h5", "r+") as file:
        order = rng.permutation(len(file["atom_pairs"]))
        starts, shapes = file["chunk_boundaries"][()], file["chunk_shapes"][()]
        entries = file["entries"][()]
        parts = [entries[starts[n] : starts[n + 1]] for n in order]
        new = {
            "atom_pairs": file["atom_pairs"][()][order].astype(np.int32),
            "chunk_shapes": shapes[order],
            "chunk_boundaries": np.concatenate(([0], np.cumsum([len(p) for p in parts]))),
            "entries": np.concatenate(parts),
        }
        for key, values in new.items():
            del file[key]
            file[key] = values
    assert_same_system(deeph.read(tmp_path / "toy", OPERATORS), system)


def test_collinear_spin_may_be_real(rng, tmp_path: Path) -> None:
    system = random_system(rng, is_spinful=True)
    system.H = system.H.replace(values=system.H.values.real)
    deeph.write(system, tmp_path / "toy")
    found = deeph.read(tmp_path / "toy", OPERATORS)
    assert found.H.is_spinful
    assert found.H.values.dtype == np.float64
    assert_same_system(found, system)


def test_density_matrix_may_have_spin(rng, tmp_path: Path) -> None:
    system = random_system(rng, is_spinful=True)
    system.rho = system.H.replace(unit="1")
    deeph.write(system, tmp_path / "toy")
    assert_same_system(deeph.read(tmp_path / "toy", OPERATORS), system)


def test_atoms_of_elements_in_turn_keep_their_order(rng, tmp_path: Path) -> None:
    system = random_system(rng)
    assert system.atoms.get_chemical_symbols() == ["C", "B", "C", "B"]
    deeph.write(system, tmp_path / "toy")
    lines = (tmp_path / "toy" / "POSCAR").read_text().splitlines()
    assert lines[5:7] == ["C B C B", "1 1 1 1"]
    assert_same_system(deeph.read(tmp_path / "toy", OPERATORS), system)


def test_two_species_of_one_element(rng, tmp_path: Path) -> None:
    atoms = Atoms(
        "CCCB", positions=np.diag([0.0, 1.5, 3.0, 4.5])[:, :3], cell=[6, 6, 6], pbc=True
    )
    atoms.positions = [[0, 0, 0], [1.5, 0, 0], [3, 1, 0], [4.5, 0, 1]]
    atoms.set_array("species", np.array(["C", "C_large", "C", "B"]))
    basis = OrbitalBasis({"C": (0, 1), "C_large": (0, 1, 1, 2), "B": (0,)})
    system = random_system(rng, atoms=atoms, basis=basis)
    deeph.write(system, tmp_path / "toy")
    found = deeph.read(tmp_path / "toy", OPERATORS)
    assert found.atoms.arrays["species"].tolist() == ["C", "C_large", "C", "B"]
    assert found.atoms.get_chemical_symbols() == ["C", "C", "C", "B"]
    assert_same_system(found, system)


coordinate = st.floats(-1e3, 1e3, allow_subnormal=False)


@given(
    st.lists(st.tuples(st.sampled_from("CHO"), coordinate, coordinate, coordinate), min_size=1)
)
def test_poscar_keeps_every_bit(tmp_path_factory, rows) -> None:
    path = tmp_path_factory.mktemp("poscar") / "POSCAR"
    atoms = Atoms(
        [row[0] for row in rows],
        positions=[row[1:] for row in rows],
        cell=[[1 / 3, 7.0, 0], [-5.1, 1e-9, 0.2], [0, 0.1, 11.3]],
    )
    deeph.write_poscar(path, atoms)
    found = deeph.read_poscar(path, "toy")
    assert np.array_equal(found.positions, atoms.positions)
    assert np.array_equal(found.cell.array, atoms.cell.array)
    assert found.get_chemical_symbols() == atoms.get_chemical_symbols()


def test_molecule_gets_a_box(rng, tmp_path: Path) -> None:
    atoms = Atoms("CB", positions=[[0, 0, 0], [0, 0, 1.5]], pbc=False)
    path = tmp_path / "POSCAR"
    deeph.write_poscar(path, atoms)
    found = deeph.read_poscar(path, "toy")
    assert np.allclose(np.diag(found.cell.array), [20, 20, 21.5])
    assert np.array_equal(found.positions, atoms.positions)


def test_other_files_of_the_folder_stay(rng, tmp_path: Path) -> None:
    system = random_system(rng)
    deeph.write(system, tmp_path / "toy")
    (tmp_path / "toy" / "K_PATH").write_text("keep me")
    system.H = system.H.replace(values=system.H.values * 2)
    system.rho = None  # the file of the same structure stays
    deeph.write(system, tmp_path / "toy")
    assert (tmp_path / "toy" / "K_PATH").read_text() == "keep me"
    found = deeph.read(tmp_path / "toy", OPERATORS)
    assert np.array_equal(found.H.values, system.H.values)
    assert found.rho is not None


def test_two_structures_are_not_mixed_in_a_folder(rng, tmp_path: Path) -> None:
    deeph.write(random_system(rng), tmp_path / "toy")
    other = random_system(rng)
    other.S = other.rho = None
    before = (tmp_path / "toy" / "hamiltonian.h5").read_bytes()
    with pytest.raises(DataError, match=r"density_matrix.h5, overlap.h5 of another structure"):
        deeph.write(other, tmp_path / "toy")
    assert (tmp_path / "toy" / "hamiltonian.h5").read_bytes() == before


def test_interrupted_writing_leaves_nothing(rng, tmp_path: Path, monkeypatch) -> None:
    system = random_system(rng)
    deeph.write(system, tmp_path / "old")
    before = {p.name: p.read_bytes() for p in (tmp_path / "old").iterdir()}

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(deeph, "write_poscar", fail)
    system.H = system.H.replace(values=system.H.values * 2)
    for name in ("new", "old"):
        with pytest.raises(KeyboardInterrupt):
            deeph.write(system, tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["old"]
    assert {p.name: p.read_bytes() for p in (tmp_path / "old").iterdir()} == before


def check_rotation(reference: SystemData, rotated: SystemData, angles: list[float]) -> None:
    """Compare H' with D H D^T for Q = Rz(a) Ry(b) Rz(c)."""
    Q = Rotation.from_euler("ZYZ", angles).as_matrix()
    turned = reference.H.rotated(Q)
    shift = rotated.atoms.positions - turned.atoms.positions
    assert np.abs(shift - shift[0]).max() < 1e-6
    assert np.abs(turned.values - rotated.H.values).max() < DFT_ROTATION_H
    S = reference.S.rotated(Q)
    assert np.abs(S.values - rotated.S.values).max() < DFT_ROTATION_S


def test_rotated_molecule() -> None:
    angles = [float(x) for x in (STRUCTURES / "H2O_1" / "euler_angle").read_text().split()]
    systems = [deeph.read(STRUCTURES / name) for name in ("H2O_0", "H2O_1")]
    check_rotation(*systems, angles)


def test_rotated_molecules(shared_dir: Path) -> None:
    folder = shared_dir / "fixtures" / "deeph" / "H2O_rotations"
    reference = deeph.read(folder / "0")
    for name in ("1", "2", "3"):
        angles = [float(x) for x in (folder / name / "euler_angle").read_text().split()]
        check_rotation(reference, deeph.read(folder / name), angles)


def test_public_folders_survive_a_round_trip(shared_dir: Path, tmp_path: Path) -> None:
    folders = [
        *find_systems(shared_dir / "fixtures" / "deeph"),
        *find_systems(shared_dir / "fixtures" / "pyscf"),
    ]
    assert len(folders) == 18
    for folder in folders:
        system = read_structure_folder(folder, OPERATORS)
        deeph.write(system, tmp_path / system.name)
        assert_same_system(deeph.read(tmp_path / system.name, OPERATORS), system)
        shutil.rmtree(tmp_path / system.name)


def test_electrons_of_a_density_matrix(shared_dir: Path) -> None:
    folder = shared_dir / "fixtures" / "deeph" / "H2O_density_matrix" / "1009"
    system = deeph.read(folder, OPERATORS)
    assert np.sum(system.rho.values * system.S.values) == pytest.approx(8.0, abs=1e-3)
    assert system.H_pred is not None
