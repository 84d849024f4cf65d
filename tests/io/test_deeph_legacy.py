"""Legacy DeepH folders, and conversion between both generations to the last bit."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
from ase import Atoms

from deeph_lightning.core.basis import OrbitalBasis
from deeph_lightning.io import deeph, deeph_legacy
from deeph_lightning.io.formats import detect_format, read_header, read_structure_folder
from tests.io.systems import (
    OPERATORS,
    STRUCTURES,
    assert_same_operator,
    assert_same_structure,
    assert_same_system,
    random_system,
)

if TYPE_CHECKING:
    from pathlib import Path


def blocks_of(path: Path) -> dict[str, bytes]:
    with h5py.File(path) as file:
        return {key: file[key][()].tobytes() for key in file}


def check_both_generations(new: Path, legacy: Path, tmp_path: Path) -> None:
    """Read both, convert either way, and compare everything to the last bit."""
    first, second = deeph.read(new, name="x"), deeph_legacy.read(legacy, name="x")
    assert_same_structure(second, first)
    assert_same_operator(second.H, first.H)
    assert_same_operator(second.S, first.S)
    deeph_legacy.write(first, tmp_path / "legacy")
    for name in ("hamiltonians.h5", "overlaps.h5"):
        assert blocks_of(tmp_path / "legacy" / name) == blocks_of(legacy / name)
    for name in ("lat.dat", "site_positions.dat", "element.dat", "orbital_types.dat"):
        written = np.loadtxt(tmp_path / "legacy" / name, ndmin=2)
        assert np.array_equal(written, np.loadtxt(legacy / name, ndmin=2))
    reciprocal = np.loadtxt(tmp_path / "legacy" / "rlat.dat")
    assert np.allclose(reciprocal, np.loadtxt(legacy / "rlat.dat"), rtol=0, atol=1e-12)
    deeph.write(read_structure_folder(tmp_path / "legacy", name="x"), tmp_path / "new")
    assert_same_system(deeph.read(tmp_path / "new", name="x"), first)


def test_both_generations_of_one_run(tmp_path: Path) -> None:
    check_both_generations(STRUCTURES / "MoTe2", STRUCTURES / "MoTe2_legacy", tmp_path)


def test_both_generations_of_the_whole_run(shared_dir: Path, tmp_path: Path) -> None:
    folder = shared_dir / "fixtures" / "deeph"
    check_both_generations(folder / "MoTe2_new", folder / "MoTe2_legacy", tmp_path)


def test_overlap_of_a_spinful_run_has_no_spin(shared_dir: Path) -> None:
    folder = shared_dir / "fixtures" / "deeph"
    legacy = read_structure_folder(folder / "Bi2Se3_SOC_legacy_overlap", name="x")
    new = read_structure_folder(folder / "Bi2Se3_SOC_new_overlap", name="x")
    assert (legacy.source_format, new.source_format) == ("deeph_legacy", "deeph")
    assert legacy.is_spinful
    assert new.is_spinful
    assert legacy.H is None
    assert_same_structure(legacy, new)
    assert_same_operator(legacy.S, new.S)


@pytest.mark.parametrize("is_spinful", [False, True])
def test_round_trip_is_exact(rng, tmp_path: Path, is_spinful: bool) -> None:
    system = random_system(rng, is_spinful=is_spinful)  # H and S with other pairs
    system.H_pred = system.H.replace(values=system.H.values * 1.5)
    deeph_legacy.write(system, tmp_path / "toy")
    assert detect_format(tmp_path / "toy") == "deeph_legacy"
    found = read_structure_folder(tmp_path / "toy", OPERATORS)
    assert list(found.basis.shells) == ["C", "B"]
    assert_same_system(found, system)


def test_orbital_order_is_that_of_openmx(rng, tmp_path: Path) -> None:
    atoms = Atoms("C", cell=[3, 3, 3], pbc=True)
    basis = OrbitalBasis({"C": (1, 2)})
    system = random_system(rng, atoms=atoms, basis=basis)
    deeph_legacy.write(system, tmp_path / "toy")
    with h5py.File(tmp_path / "toy" / "hamiltonians.h5") as file:
        block = file["[0, 0, 0, 1, 1]"][()]
    onsite = system.H.block(int(np.argmax(system.H.pairs.is_onsite)))
    x, y, z = 2, 0, 1  # of p: (y, z, x)
    assert np.array_equal(block[:3, :3], onsite[np.ix_([x, y, z], [x, y, z])])
    xy, yz, z2, xz, x2 = 3, 4, 5, 6, 7
    order = [z2, x2, xy, xz, yz]
    assert np.array_equal(block[3:, 3:], onsite[np.ix_(order, order)])
    with h5py.File(tmp_path / "toy" / "overlaps.h5") as file:
        assert next(iter(file)).startswith("[")


@pytest.mark.parametrize("is_spinful", [False, True])
def test_spin_without_info_comes_from_the_blocks(rng, tmp_path: Path, is_spinful: bool) -> None:
    system = random_system(rng, is_spinful=is_spinful)
    deeph_legacy.write(system, tmp_path / "toy")
    (tmp_path / "toy" / "info.json").unlink()
    assert read_header(tmp_path / "toy").is_spinful == is_spinful
    found = read_structure_folder(tmp_path / "toy", OPERATORS)
    assert found.fermi_energy is None
    assert found.n_electrons is None
    assert_same_operator(found.H, system.H)
    assert_same_operator(found.S, system.S)


def test_two_species_of_one_element(rng, tmp_path: Path) -> None:
    atoms = Atoms(
        "CCB", positions=[[0, 0, 0], [1.5, 0, 0], [3, 1, 0]], cell=[6, 6, 6], pbc=True
    )
    atoms.set_array("species", np.array(["C", "C_large", "B"]))
    basis = OrbitalBasis({"C": (0, 1), "C_large": (0, 1, 1, 2), "B": (0,)})
    system = random_system(rng, atoms=atoms, basis=basis)
    deeph_legacy.write(system, tmp_path / "toy")
    assert_same_system(read_structure_folder(tmp_path / "toy", OPERATORS), system)
    info = json.loads((tmp_path / "toy" / "info.json").read_text())
    assert info.pop("species") == ["C", "C_large", "B"]
    (tmp_path / "toy" / "info.json").write_text(json.dumps(info))
    found = read_structure_folder(tmp_path / "toy", OPERATORS)  # labels are made
    assert found.atoms.arrays["species"].tolist() == ["C1", "C2", "B"]
    assert found.basis.shells == {"C1": (0, 1), "C2": (0, 1, 1, 2), "B": (0,)}
    assert np.array_equal(found.H.values, system.H.values)


def test_other_name_of_the_density_matrix(rng, tmp_path: Path) -> None:
    system = random_system(rng)
    folder = tmp_path / "toy"
    deeph_legacy.write(system, folder)
    (folder / "density_matrixs.h5").rename(folder / "density_matrices.h5")
    assert_same_operator(read_structure_folder(folder, OPERATORS).rho, system.rho)


def test_one_atom(rng, tmp_path: Path) -> None:
    basis = OrbitalBasis({"C": (0, 1, 0)})
    system = random_system(rng, atoms=Atoms("C", cell=[3, 3, 3], pbc=True), basis=basis)
    deeph_legacy.write(system, tmp_path / "toy")
    assert_same_system(read_structure_folder(tmp_path / "toy", OPERATORS), system)


def test_found_by_content_beside_a_poscar(tmp_path: Path) -> None:
    folder = shutil.copytree(STRUCTURES / "MoTe2_legacy", tmp_path / "x")
    shutil.copy(STRUCTURES / "MoTe2" / "POSCAR", folder)
    assert detect_format(folder) == "deeph_legacy"
