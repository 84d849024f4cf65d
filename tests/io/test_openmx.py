"""OpenMX: bytes written from the description of the format, and matrices of runs."""

from __future__ import annotations

import json
import lzma
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from ase import Atoms

from deeph_lightning.core.basis import OrbitalBasis
from deeph_lightning.core.operator import Operator
from deeph_lightning.core.pairs import PairTable
from deeph_lightning.core.spin import spin_orbit_constants
from deeph_lightning.core.two_centre import two_centre_residual
from deeph_lightning.errors import DataError, DeepHError, FormatError, PhysicsError
from deeph_lightning.io.formats import (
    detect_format,
    read_eigenvalues,
    read_header,
    read_structure_folder,
)
from deeph_lightning.io.system import SystemData
from deeph_lightning.solve.dense import eigenvalues
from tests.io import gates
from tests.io.openmx_files import HARTREE, input_text, write_scfout
from tests.io.systems import STRUCTURES, assert_same_structure, random_system
from tests.tolerances import (
    FLOAT64,
    OPENMX_EIGENVALUE,
    OPENMX_SPIN_ORBIT,
    TWO_CENTRE_OPENMX,
)

if TYPE_CHECKING:
    from pathlib import Path

SPINS = {0: False, 1: True, 3: True}
#: Shells sorted by l, as names of OpenMX's bases have them.
BASIS = OrbitalBasis({"C": (0, 0, 1), "B": (0, 1, 2, 3)})


def toy_system(rng: np.random.Generator, spin: int) -> SystemData:
    """Make a system of random numbers whose density matrix holds its electrons."""
    system = random_system(rng, is_spinful=SPINS[spin], basis=BASIS)
    H, rho = system.H, system.rho.on_pairs(system.S.pairs)
    if spin == 1:  # collinear: no block between the spins
        values = H.values.real.copy()
        for n in range(len(H.pairs)):
            block = values[H.offsets[n] : H.offsets[n + 1]].reshape(H.block_shapes[n])
            a, b = H.block_shapes[n] // 2
            block[:a, b:] = block[a:, :b] = 0.0
        system.H = H.replace(values=values)
    system.rho = rho
    system.n_electrons = float(np.sum(rho.values * system.S.values))
    return system


def expected_density(system: SystemData, spin: int) -> Operator:
    """Return half the density matrix in each spin."""
    rho = system.rho
    if spin == 0:
        return rho
    values = [np.kron(np.eye(2), rho.block(n) / 2).ravel() for n in range(len(rho.pairs))]
    return Operator(
        rho.atoms, rho.basis, rho.pairs, np.concatenate(values), "1", is_spinful=True
    )


def compare(found: Operator, expected: Operator) -> None:
    wanted = expected.on_pairs(found.pairs)
    assert len(found.pairs) >= len(expected.pairs)
    assert np.abs(found.values - wanted.values).max() < FLOAT64
    assert (found.unit, found.is_spinful) == (expected.unit, expected.is_spinful)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "toy").mkdir()
    return tmp_path / "toy"


@pytest.mark.parametrize("spin", SPINS)
def test_all_arrays_are_found(rng, folder: Path, spin: int) -> None:
    system = toy_system(rng, spin)
    system.rho = expected_density(system, spin)
    write_scfout(folder / "toy.scfout", system, spin)
    assert detect_format(folder) == "openmx"
    found = read_structure_folder(folder, ("H", "S", "rho"))
    for key in ("H", "S", "rho"):
        compare(getattr(found, key), getattr(system, key))
    assert np.iscomplexobj(found.H.values) == (spin == 3)
    assert np.abs(found.atoms.positions - system.atoms.positions).max() < FLOAT64
    assert found.fermi_energy == pytest.approx(system.fermi_energy, abs=FLOAT64)
    assert found.n_electrons == system.n_electrons
    words = {0: "none", 1: "collinear", 3: "spinor"}
    assert found.info == {"code": "OpenMX", "code_version": "3.9", "functional": "GGA-PBE",
                          "spin": words[spin]}  # fmt: skip
    assert read_header(folder) == (found.basis, SPINS[spin])


def test_input_from_the_output_beside_or_appended(rng, folder: Path) -> None:
    system = toy_system(rng, 0)
    output = f"performed by OpenMX Ver. 3.9.9\n\n{input_text(system)}\n rest\n"
    write_scfout(folder / "toy.scfout", system, 0, text="", appended=output)
    found = read_structure_folder(folder)
    assert found.basis == BASIS
    assert found.info["code_version"] == "3.9.9"
    write_scfout(folder / "toy.scfout", system, 0, text="")
    with pytest.raises(FormatError, match="neither its copy of the input nor a text output"):
        read_structure_folder(folder)
    (folder / "toy.out").write_text(output)
    assert_same_structure(read_structure_folder(folder), found)


def test_species_of_one_element_with_other_orbitals(rng, folder: Path) -> None:
    system = toy_system(rng, 0)
    atoms = system.atoms.copy()
    atoms.arrays["species"] = np.array(["C_a", "C_b"] * 2)
    atoms.set_chemical_symbols(["C"] * 4)
    basis = OrbitalBasis({"C_a": BASIS.shells["C"], "C_b": BASIS.shells["B"]})
    for key in ("H", "S", "rho"):
        op = getattr(system, key)
        setattr(system, key, Operator(atoms, basis, op.pairs, op.values, op.unit))
    system.atoms, system.basis = atoms, basis
    write_scfout(folder / "toy.scfout", system, 0)
    found = read_structure_folder(folder)
    assert found.basis == basis
    compare(found.H, system.H)


def shared_mote2(shared_dir: Path) -> SystemData:
    folder = shared_dir / "fixtures" / "openmx" / "MoTe2_no_scfout"
    system = read_structure_folder(folder / "deeph_ref", name="toy")
    system.n_electrons = 46.0
    return system


def test_matrices_and_eigenvalues_of_a_run(rng, shared_dir: Path, folder: Path) -> None:
    """Write the matrices of a run into its bytes; compare with the eigenvalues it printed."""
    source = shared_dir / "fixtures" / "openmx" / "MoTe2_no_scfout"
    system = shared_mote2(shared_dir)
    output = (source / "openmx.out").read_text()
    write_scfout(folder / "openmx.scfout", system, 0, text="", appended=output)
    found = read_structure_folder(folder)
    compare(found.H, system.H)
    compare(found.S, system.S)
    residual = two_centre_residual(found.S)
    assert max(residual.rotation, residual.distance) < TWO_CENTRE_OPENMX
    gates.other_descriptions(found, rng)
    printed = read_eigenvalues(folder)
    assert printed.energies.shape == (1, 41, 57)
    some = slice(None, None, 8)
    energies = eigenvalues(found.H, found.S, printed.k[some])
    assert np.abs(energies - printed.energies[0, some]).max() < OPENMX_EIGENVALUE


def test_spin_orbit_of_a_run(shared_dir: Path, folder: Path) -> None:
    """Write the spinor H of a crystal with one atom; its spin-orbit term must be isotropic."""
    path = shared_dir / "fixtures" / "openmx" / "hks_soc" / "rel.json.xz"
    with lzma.open(path) as file:
        data = json.load(file)
    complex_of = lambda key: np.array(data[key])[..., 0] + 1j * np.array(data[key])[..., 1]  # noqa: E731
    atoms = Atoms("Bi", cell=5 * np.eye(3), pbc=True, info={"name": "toy"})
    basis = OrbitalBasis({"Bi": (0, 1, 2)})
    pairs, order = PairTable.from_arrays(data["vectors"], [0] * 79, [0] * 79)
    blocks = complex_of("H")[order] * HARTREE
    H = Operator(atoms, basis, pairs, blocks.ravel(), is_spinful=True)
    S = Operator(atoms, basis, pairs, complex_of("S")[order][:, :9, :9].real.ravel(), "1")
    H, S = H.from_convention("openmx"), S.from_convention("openmx")
    system = SystemData("toy", atoms, basis, True, H, S, fermi_energy=0.0, n_electrons=5.0)
    write_scfout(folder / "toy.scfout", system, 3)
    found = read_structure_folder(folder)
    compare(found.H, H)
    constants = spin_orbit_constants(found.H)
    assert [shell.l for shell in constants] == [1, 2]
    for shell in constants:
        assert shell.xi > 1.0
        assert shell.anisotropy < OPENMX_SPIN_ORBIT


def mangled(path: Path, start: int, content: bytes) -> None:
    data = bytearray(path.read_bytes())
    data[start : start + len(content)] = content
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (
            lambda p: mangled(p, 4, bytes([1, 0, 0, 0])),
            FormatError,
            "expected 3, that of OpenMX",
        ),
        (
            lambda p: p.write_bytes(p.read_bytes()[:5000]),
            FormatError,
            "the file ends at byte 5000",
        ),
        (lambda p: p.write_bytes(p.read_bytes() + b"\0" * 9), FormatError, "9 bytes are left"),
        (
            lambda p: shutil.copy(p, p.with_name("b.scfout")),
            FormatError,
            "b.scfout, toy.scfout",
        ),
        (lambda p: mangled(p, 24, bytes([1, 0, 0, 0])), DeepHError, "toy"),
        (lambda p: mangled(p, 36, b"\0" * 7 + b"@"), FormatError, "do not fit the lattice"),
    ],
    ids=["version", "truncated", "longer", "two files", "order_max", "cells"],
)
def test_bad_files(rng, folder: Path, change, error, text: str) -> None:
    write_scfout(folder / "toy.scfout", toy_system(rng, 0), 0)
    change(folder / "toy.scfout")
    with pytest.raises(error, match=text):
        read_structure_folder(folder)


def test_other_output_and_wrong_density(rng, folder: Path) -> None:
    system = toy_system(rng, 0)
    wrong = input_text(system).replace("s1p1d1f1", "s2p1d1f1")
    write_scfout(folder / "toy.scfout", system, 0, text=wrong)
    with pytest.raises(DataError, match=r"atom 2, species 'B', has 16 orbitals"):
        read_structure_folder(folder)
    write_scfout(folder / "toy.scfout", system, 0, electrons=system.n_electrons + 1)
    assert read_structure_folder(folder).n_electrons == system.n_electrons + 1
    with pytest.raises(PhysicsError, match="the density matrix holds"):
        read_structure_folder(folder, ("rho",))


def test_folder_of_the_repository_is_another_format() -> None:
    assert detect_format(STRUCTURES / "MoTe2") == "deeph"
