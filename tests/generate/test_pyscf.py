"""PySCF as an engine: its own eigenvalues, and blocks that turn with the molecule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from scipy.linalg import block_diag, eigh
from scipy.spatial.transform import Rotation

from deeph_lightning.errors import ConfigError, NotConvergedError
from deeph_lightning.generate.engines.pyscf import PySCF
from deeph_lightning.io.deeph import write
from deeph_lightning.io.formats import read_eigenvalues, read_structure_folder
from deeph_lightning.io.gates import check_gates
from deeph_lightning.units import HARTREE_EV

pytest.importorskip("pyscf", reason="PySCF is not installed: pip install pyscf")
pytestmark = pytest.mark.filterwarnings("ignore")

#: Largest difference of eigenvalues, eV, and of blocks of a turned molecule (PySCF's grid).
GTH = {"basis": "gth-szv", "pseudo": "gth-pbe"}
TOL_ENERGY, TOL_ROTATION = 1e-6, 1e-4


def water() -> Atoms:
    atoms = molecule("H2O")
    atoms.rattle(0.05, seed=1)
    atoms.info["name"] = "water"
    return atoms


def helium(size: float) -> Atoms:
    """Return a crystal without symmetry, one atom outside of the cell."""
    cell = np.array([[1.0, 0, 0], [0.07, 1.05, 0], [0, 0.05, 1.1]]) * size
    atoms = Atoms("He2", positions=[[0.3, 0.1, 0.2], [2.2, 1.9, 2.0]], cell=cell, pbc=True)
    atoms.positions[1] += cell[0]
    atoms.info["name"] = "helium"
    return atoms


def spied(engine: PySCF, monkeypatch) -> list:
    """Keep the methods of PySCF that an engine brings to self-consistency."""
    found = []

    def converge(mf, *arguments):
        found.append(mf)
        return PySCF.converge(engine, mf, *arguments)

    monkeypatch.setattr(engine, "converge", converge)
    return found


def levels(system, k) -> np.ndarray:
    S = system.S.bloch(k)
    return eigh(
        system.H.bloch(k), block_diag(S, S) if system.is_spinful else S, eigvals_only=True
    )


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"attempt": 1},
        {"attempt": 2},
        {"basis": "def2-svp", "xc": "lda,vwn"},
        {"basis": {"O": "6-31g*", "H": "sto-3g"}},
        {"xc": "b3lyp"},
        {"method": "uks", "charge": 1, "spin": 1},
        {"method": "uks", "xc": "pbe0"},
        {"relativity": "sfx2c1e"},
        {"method": "gks", "relativity": "x2c1e"},
    ],
    ids=str,
)
def test_eigenvalues_of_molecules_are_those_of_pyscf(settings, tmp_path, monkeypatch):
    settings = {"basis": "sto-3g", "grid_level": 1, "density_matrix": True} | settings
    attempt = settings.pop("attempt", 0)
    engine, atoms = PySCF(**settings), water()
    assert engine.check([atoms])["code"] == "PySCF"
    found = spied(engine, monkeypatch)
    system = engine.run(atoms, tmp_path, attempt)
    own = np.sort(np.ravel(found[0].mo_energy)) * HARTREE_EV
    np.testing.assert_allclose(levels(system, [0, 0, 0]), own, rtol=0, atol=TOL_ENERGY)
    gates = check_gates(system)
    assert gates["electrons"] == 0
    assert gates["two-centre"] < 1e-12
    S = system.S.bloch([0, 0, 0])
    rho = system.rho.bloch([0, 0, 0])
    S = block_diag(S, S) if system.rho.is_spinful else S
    assert np.trace(rho @ S).real == pytest.approx(system.n_electrons, abs=1e-8)
    write(system, tmp_path / "written")
    again = read_structure_folder(tmp_path / "written")
    np.testing.assert_allclose(levels(again, [0, 0, 0]), own, rtol=0, atol=TOL_ENERGY)


@pytest.mark.parametrize(
    "settings",
    [{"basis": "def2-svp"}, {"basis": "sto-3g", "method": "gks", "relativity": "x2c1e"}],
    ids=str,
)
def test_blocks_turn_with_the_molecule(settings, tmp_path):
    engine, atoms = PySCF(grid_level=3, **settings), water()
    turned = atoms.copy()
    Q = Rotation.random(random_state=3).as_matrix()
    turned.positions = atoms.positions @ Q.T
    one, two = (engine.run(a, tmp_path, 0) for a in (atoms, turned))
    for key, tol in (("H", TOL_ROTATION), ("S", 1e-10)):
        left, right = (getattr(one, key).rotated(Q), getattr(two, key))
        np.testing.assert_allclose(left.values, right.values, rtol=0, atol=tol)
    assert np.abs(one.H.values - two.H.values).max() > 0.1


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({"kmesh": [1, 1, 2]}, 4.4),
        ({"method": "uks"}, 5.0),
        pytest.param({"xc": "pbe0", "kmesh": [3, 3, 3]}, 5.5, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_eigenvalues_of_crystals_are_those_of_pyscf(settings, size, tmp_path, monkeypatch):
    basis = {"basis": "gth-szv", "pseudo": "gth-pbe", "ke_cutoff": 15.0}
    engine, atoms = PySCF(overlap_threshold=1e-9, **basis, **settings), helium(size)
    engine.check([atoms])
    found = spied(engine, monkeypatch)
    system = engine.run(atoms, tmp_path, 0)
    mf = found[0]
    channels = np.asarray(mf.mo_energy).reshape(-1, len(mf.kpts), 2)
    for n, k in enumerate(mf.cell.get_scaled_kpts(mf.kpts)):
        own = np.sort(channels[:, n].ravel()) * HARTREE_EV
        np.testing.assert_allclose(levels(system, k), own, rtol=0, atol=TOL_ENERGY)
    assert check_gates(system)["two-centre"] < 1e-10


def hydrogen() -> Atoms:
    """Return a crystal with one electron a cell: a metal."""
    cell = np.array([[1.0, 0, 0], [0.07, 1.05, 0], [0, 0.05, 1.1]]) * 2.8
    atoms = Atoms("H", positions=[[0.1, 0.0, 0.2]], cell=cell, pbc=True)
    atoms.info["name"] = "hydrogen"
    return atoms


@pytest.mark.parametrize("attempt", [0, 2])
def test_metals(attempt, tmp_path, monkeypatch):
    """Levels are PySCF's, and E_F fills them with the electrons."""
    settings = {"kmesh": [2, 2, 2], "smearing_eV": 0.5, "ke_cutoff": 15.0}
    engine = PySCF(overlap_threshold=1e-9, **GTH, **settings)
    atoms = hydrogen()
    engine.check([atoms])
    found = spied(engine, monkeypatch)
    system = engine.run(atoms, tmp_path, attempt)
    mf = found[0]
    assert mf.sigma == pytest.approx(0.5 / HARTREE_EV)
    channels = np.asarray(mf.mo_energy).reshape(-1, len(mf.kpts), 1)
    filling = np.ravel(mf.mo_occ) / 2
    assert np.any((filling > 0.05) & (filling < 0.95))
    filled = 0.0
    for n, k in enumerate(mf.cell.get_scaled_kpts(mf.kpts)):
        own = np.sort(channels[:, n].ravel()) * HARTREE_EV
        energies = levels(system, k)
        np.testing.assert_allclose(energies, own, rtol=0, atol=TOL_ENERGY)
        filled += np.sum(1 / (1 + np.exp((energies - system.fermi_energy) / 0.5)))
    n_electrons = 2 * filled / len(mf.kpts)
    assert n_electrons == pytest.approx(1.0, abs=1e-5)
    assert system.n_electrons == 1


def test_exact_exchange_needs_enough_points():
    engine = PySCF(basis="gth-szv", pseudo="gth-pbe", xc="pbe0", kmesh=[1, 2, 2])
    with pytest.raises(ConfigError, match=r"kmesh=\[4, 4, 4\]"):
        engine.check([helium(4.4)])


@pytest.mark.parametrize(
    ("settings", "atoms", "said"),
    [
        ({"xc": "pbee"}, water(), "does not know this functional"),
        ({"basis": "def2-xyz"}, water(), "cannot set it up"),
        ({"charge": 1}, water(), "charge = 1 and spin = 0"),
        ({"method": "gks"}, helium(4.4), "are for molecules"),
        ({"smearing_eV": 0.1}, water(), "is for periodic cells"),
        ({"smearing_eV": 0.1, **GTH}, hydrogen(), "1 electrons, 1 on all k-points"),
    ],
)
def test_settings_that_do_not_suit_are_refused_before_the_work(settings, atoms, said):
    with pytest.raises(ConfigError, match=said):
        PySCF(**settings).check([atoms])


def test_impossible_settings_are_refused_at_once():
    for settings in (
        {"kmesh": [1, 1]},
        {"spin": 1},
        {"smearing_eV": 0},
        {"grid_level": 12},
        {"max_cycle": 0},
    ):
        with pytest.raises(ConfigError, match="expected"):
            PySCF(**settings)
    slab = water()
    slab.cell = [5, 5, 20]
    slab.pbc = [True, True, False]
    with pytest.raises(ConfigError, match="third vector with vacuum"):
        PySCF().check([slab])


def test_too_few_cycles_are_no_convergence(tmp_path):
    with pytest.raises(NotConvergedError, match="after 2 cycles"):
        PySCF(basis="sto-3g", grid_level=0, max_cycle=2).run(water(), tmp_path, 0)


@pytest.mark.parametrize(
    "settings",
    [{}, {"method": "uks", "charge": 1, "spin": 1}, {"method": "gks", "relativity": "x2c1e"}],
    ids=str,
)
def test_checkpoint_files_give_the_same_matrices(settings, tmp_path: Path):
    engine = PySCF(basis="def2-svp", grid_level=1, **settings)
    system = engine.run(water(), tmp_path, 0)
    found = read_structure_folder(tmp_path, name="water")
    assert found.source_format == "pyscf"
    assert found.is_spinful == system.is_spinful
    assert found.basis == system.basis
    assert found.n_electrons == system.n_electrons
    np.testing.assert_allclose(found.atoms.positions, system.atoms.positions, atol=1e-10)
    np.testing.assert_allclose(found.S.values, system.S.values, atol=1e-10)
    np.testing.assert_allclose(found.H.values, system.H.values, atol=1e-5)
    own = np.sort(read_eigenvalues(tmp_path).energies.ravel())
    np.testing.assert_allclose(levels(found, [0, 0, 0]), own, rtol=0, atol=TOL_ENERGY)
