"""Atoms that a structure file has in another cell than the blocks."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from ase.build import graphene

from deeph_lightning.config.paths import shipped
from deeph_lightning.core.cells import cells_of_blocks, with_cells_of_atoms
from deeph_lightning.core.operator import Operator
from deeph_lightning.io.deeph import write_poscar
from deeph_lightning.io.formats import read_structure_folder, write_structure_folder
from deeph_lightning.io.source import open_source
from deeph_lightning.io.system import SystemData
from tests.systems import random_operator


@pytest.fixture(scope="module")
def system() -> SystemData:
    """Graphene, 3x3, of the shipped set."""
    source = open_source(shipped("data/graphene/graphene.h5"))
    return source.read(source.split["test"][0])


def moved(op: Operator, shifts: np.ndarray) -> Operator:
    """Move atoms in the structure alone."""
    atoms = op.atoms.copy()
    atoms.positions += shifts @ op.atoms.cell.array
    return op.replace(atoms=atoms)


@pytest.mark.parametrize("half", [False, True])
def test_atoms_in_their_cells_stay(system: SystemData, half: bool) -> None:
    for op in (system.H, system.S):
        op = op.half() if half else op.complete()
        assert not cells_of_blocks(op).any()


@pytest.mark.parametrize("half", [False, True])
def test_moved_atoms_are_found(system: SystemData, half: bool) -> None:
    shifts = np.zeros((18, 3), dtype=int)
    shifts[3], shifts[7], shifts[11] = (1, 0, 0), (0, -1, 0), (-1, 2, 0)
    for op in (system.H, system.S):
        op = op.half() if half else op.complete()
        wrong = moved(op, shifts)
        assert wrong.pairs.distances(wrong.atoms).max() > 15.0
        found = cells_of_blocks(wrong)
        np.testing.assert_array_equal(found, -shifts)
        mended = with_cells_of_atoms(wrong, found)
        assert mended.pairs.distances(mended.atoms).max() == pytest.approx(
            op.pairs.distances(op.atoms).max()
        )
        assert mended.atoms is wrong.atoms
        k = np.array([0.1, 0.23, 0.0])
        expected = np.linalg.eigvalsh(op.complete().bloch(k))
        np.testing.assert_allclose(
            np.linalg.eigvalsh(mended.complete().bloch(k)), expected, atol=1e-10
        )


@pytest.mark.parametrize("shift", [(1, 0, 0), (-1, -1, 0)])
def test_lattice_vectors_not_much_longer_than_the_bond(shift: tuple[int, int, int]) -> None:
    atoms = graphene("C2", a=2.466, vacuum=8.0)
    atoms.pbc = True
    random = random_operator(np.random.default_rng(0), atoms, r_cut=8.0)
    decay = np.repeat(np.exp(-random.pairs.distances(atoms)), 25)  # 5 orbitals an atom
    H = random.replace(values=random.values * decay)
    assert not cells_of_blocks(H).any()
    found = cells_of_blocks(moved(H, np.array([(0, 0, 0), shift])))
    np.testing.assert_array_equal(found[1] - found[0], -np.array(shift))


def test_blocks_without_decay_say_nothing() -> None:
    atoms = graphene("C2", a=2.466, vacuum=8.0)
    atoms.pbc = True
    H = random_operator(np.random.default_rng(0), atoms, r_cut=4.0)
    assert not cells_of_blocks(moved(H, np.array([(0, 0, 0), (1, 0, 0)]))).any()


def test_a_folder_is_read_right(
    system: SystemData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "one"
    write_structure_folder(system, folder)
    atoms = system.atoms.copy()
    atoms.positions[5] += atoms.cell.array[1]
    (folder / "POSCAR").unlink()
    write_poscar(folder / "POSCAR", atoms)
    with caplog.at_level(logging.WARNING):
        read = read_structure_folder(folder)
    assert "has atom 5, and 1 in all, in another cell" in caplog.text
    for one, other in ((read.H, system.H), (read.S, system.S)):
        assert one.pairs.distances(one.atoms).max() == pytest.approx(
            other.pairs.distances(other.atoms).max(), abs=1e-6
        )
    np.testing.assert_allclose(read.atoms.positions, atoms.positions, atol=1e-9)
