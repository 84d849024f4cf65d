"""Twisted bilayers: known cells, and layers that are the lattice of the monolayer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import graphene, mx2
from ase.calculators.emt import EMT

from deeph_lightning.core.pairs import neighbour_pairs
from deeph_lightning.errors import ConfigError, MissingDependencyError, PhysicsError
from deeph_lightning.generate.relax import calculator, relaxed
from deeph_lightning.generate.twisted import angle_degrees, twisted_bilayer
from tests.tolerances import BUILT_LENGTH, GIVEN_LENGTH

A = 2.466


@pytest.mark.parametrize(
    ("m", "r", "n_atom", "angle"),
    [(1, 1, 28, 21.79), (6, 1, 508, 5.09), (30, 1, 11164, 1.08), (1, 3, 28, 38.21)],
)
def test_cells_of_the_literature(m: int, r: int, n_atom: int, angle: float) -> None:
    assert angle_degrees(m, r) == pytest.approx(angle, abs=0.005)
    assert len(twisted_bilayer(m, r)) == n_atom


@pytest.mark.parametrize(("m", "r"), [(1, 1), (3, 1), (2, 3), (3, 2)])
def test_both_layers_are_the_lattice_of_the_monolayer(m: int, r: int) -> None:
    atoms = twisted_bilayer(m, r)
    half = len(atoms) // 2
    turns = []
    for layer in (atoms[:half], atoms[half:]):
        pairs = neighbour_pairs(layer, 1.01 * A)
        vectors, distance = pairs.vectors(layer), pairs.distances(layer)
        assert len(pairs) == 9 * half  # three bonds, six second neighbours
        bond = distance < 1.5
        assert np.allclose(distance[bond], A / np.sqrt(3), atol=BUILT_LENGTH)
        assert np.allclose(distance[~bond], A, atol=BUILT_LENGTH)
        assert np.ptp(layer.positions[:, 2]) < BUILT_LENGTH
        turns.append(np.degrees(np.arctan2(*vectors[~bond][:, 1::-1].T)))
    # every bond direction of the upper layer is one of the lower, turned by the angle
    for turn in turns:
        assert np.ptp(np.exp(6j * np.radians(turn)).imag) < BUILT_LENGTH
    difference = (turns[1][0] - turns[0][0]) % 60
    assert min(difference, 60 - difference) == pytest.approx(
        min(angle_degrees(m, r), 60 - angle_degrees(m, r)), abs=1e-6
    )
    assert neighbour_pairs(atoms, 10.0).distances(atoms).min() > 1.4
    gap = atoms.positions[half:, 2].min() - atoms.positions[:half, 2].max()
    assert gap == pytest.approx(3.35, abs=BUILT_LENGTH)


def test_the_cell_of_a_calculation(shared_dir: Path) -> None:
    (file,) = (shared_dir / "data" / "tbg").glob("*/POSCAR")
    expected = ase.io.read(file)
    found = twisted_bilayer(1, 1)
    assert np.allclose(found.cell.cellpar(), expected.cell.cellpar(), atol=GIVEN_LENGTH)
    lengths = [np.sort(neighbour_pairs(a, 5.0).distances(a)) for a in (found, expected)]
    assert np.allclose(*lengths, atol=GIVEN_LENGTH)


def test_other_layers_and_vacuum() -> None:
    layer = mx2("MoS2", a=3.18, thickness=3.13, vacuum=4.0)  # vectors at 120 degrees
    atoms = twisted_bilayer(1, 1, layer, spacing=3.0, vacuum=10.0)
    assert atoms.get_chemical_formula() == "Mo14S28"
    assert atoms.cell.lengths()[2] == pytest.approx(3.0 + 10.0 + 2 * 3.13)
    bonds = neighbour_pairs(atoms, 2.6).distances(atoms)
    one = neighbour_pairs(layer, 2.6).distances(layer)
    assert len(bonds) == 14 * len(one)
    assert np.allclose(bonds, one[0], atol=BUILT_LENGTH)


def test_layers_of_other_lattice_constants() -> None:
    lower, upper = graphene(a=2.466), graphene(a=2.504)
    with pytest.raises(PhysicsError, match=r"max_strain=0\.0153"):
        twisted_bilayer(1, 1, lower, upper, max_strain=0.01)
    atoms = twisted_bilayer(1, 1, lower, upper, max_strain=0.0153)
    bonds = neighbour_pairs(atoms, 1.6).distances(atoms)
    assert np.allclose(bonds, A / np.sqrt(3), atol=BUILT_LENGTH)
    assert np.allclose(upper.cell.lengths()[0], 2.504)


def test_relaxation(tmp_path: Path) -> None:
    copper = Atoms("Cu", cell=[[2.55, 0, 0], [1.275, 2.2084, 0], [0, 0, 10]], pbc=True)
    ase.io.write(tmp_path / "layer.cif", copper)
    command = [
        sys.executable,
        "-m",
        "deeph_lightning.build",
        "m=1",
        f"output={tmp_path / 'POSCAR'}",
    ]
    command += [f"lower={tmp_path / 'layer.cif'}", "spacing=2.6", "fmax=0.05"]
    done = subprocess.run([*command, "calculator=emt"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    atoms = ase.io.read(tmp_path / "POSCAR")
    atoms.calc = EMT()
    assert np.linalg.norm(atoms.get_forces(), axis=1).max() < 0.06
    start = twisted_bilayer(1, 1, copper, spacing=2.6)
    assert np.allclose(atoms.cell, start.cell, atol=GIVEN_LENGTH)
    assert np.abs(atoms.positions - start.positions).max() > 0.05
    with pytest.raises(PhysicsError, match=r"eV/Å are left after 1 steps"):
        relaxed(start, EMT(), 1e-3, 1)
    with pytest.raises(PhysicsError, match="the calculator failed"):
        relaxed(twisted_bilayer(1, 1, mx2("MoS2", a=3.18)), EMT(), 1e-3, 1)


def test_calculators_by_name() -> None:
    assert isinstance(calculator("ase.calculators.emt.EMT", {}), EMT)
    with pytest.raises(ConfigError, match="expected a name of ASE"):
        calculator("os.system", {"command": "ls"})
    with pytest.raises(ConfigError, match="ASE has none"):
        calculator("no_such", {})
    with pytest.raises(ConfigError, match="does not take them"):
        calculator("ase.optimize.FIRE", {"method": "GFN1-xTB"})
    with pytest.raises(MissingDependencyError, match="sevenn is not installed"):
        calculator("sevenn.calculator.SevenNet", {})


def test_what_cannot_be_built() -> None:
    with pytest.raises(ConfigError, match="common divisor"):
        twisted_bilayer(2, 2)
    with pytest.raises(ConfigError, match="spacing"):
        twisted_bilayer(1, 1, spacing=-1.0)
    with pytest.raises(PhysicsError, match="lattice constant"):
        twisted_bilayer(1, 1, graphene(a=2.466), graphene(a=2.5))
    square = Atoms("C", cell=[2.0, 2.0, 10.0], pbc=True)
    with pytest.raises(PhysicsError, match="hexagonal"):
        twisted_bilayer(1, 1, square)


def test_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deeph_lightning.build", "twisted_bilayer", "m=1"]
    output = tmp_path / "POSCAR"
    done = subprocess.run([*command, f"output={output}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "28 atoms, 21.7868 degrees" in done.stdout
    assert len(ase.io.read(output)) == 28
    done = subprocess.run([*command, f"output={output}"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "not replaced" in done.stderr
