"""Plane waves through HPRO: against plane waves. Needs HPRO, mpi4py and an MPI library."""

from __future__ import annotations

import json
import lzma
import sys
from pathlib import Path

import numpy as np
import pytest

from deeph_lightning.core.two_centre import two_centre_residual
from deeph_lightning.errors import DataError, FormatError, MissingDependencyError
from deeph_lightning.io.conversion import Conversion
from deeph_lightning.io.formats import (
    detect_format,
    find_systems,
    read_eigenvalues,
    read_header,
    read_structure_folder,
    write_structure_folder,
)
from deeph_lightning.io.gates import check_gates
from deeph_lightning.io.orbitals import find_orbitals
from deeph_lightning.io.system import SystemData
from deeph_lightning.report.inspection import computed_eigenvalues, inspect_system
from deeph_lightning.units import HARTREE_EV
from tests.io import gates
from tests.io.hpro_files import Calculation, matrices
from tests.io.systems import assert_same_system

#: Integration of HPRO at the cutoff of the made-up calculation.
TOL_S, TOL_H_HARTREE = 1e-5, 3e-4
#: Bands of MoS2, whose basis is not complete: mean and largest difference of the occupied ones.
MEAN_eV, LARGEST_eV = 0.06, 0.12


def needs_hpro() -> None:
    pytest.importorskip("HPRO", reason="HPRO is not installed (extra hpro)")
    pytest.importorskip(
        "mpi4py.MPI", reason="mpi4py or an MPI library is not installed", exc_type=ImportError
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folder of the made-up calculation; orbitals and pseudopotential lie beside it."""
    Calculation().write(tmp_path / "H2" / "scf", tmp_path / "H2" / "basis")
    return tmp_path / "H2" / "scf"


@pytest.fixture(scope="module")
def hydrogen(tmp_path_factory: pytest.TempPathFactory) -> SystemData:
    needs_hpro()
    root = tmp_path_factory.mktemp("H2")
    Calculation().write(root / "scf", root / "basis")
    return read_structure_folder(root / "scf")


def test_a_folder_is_known_and_described_without_hpro(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "HPRO", None)
    assert find_systems(folder.parents[1]) == [folder]
    assert detect_format(folder) == "hpro"
    assert read_header(folder).basis.shells == {"H": (0, 0, 1)}
    system = read_structure_folder(folder, ())
    assert system.n_electrons == 2
    assert system.fermi_energy == pytest.approx(0.2 * HARTREE_EV)
    assert system.info["code_version"] == "7.1"
    assert system.info["is_converged"] is True
    reference = read_eigenvalues(folder)
    assert reference is not None
    assert np.allclose(reference.k, [[0, 0, 0.5]])
    assert np.allclose(reference.energies, [[[0.1 * HARTREE_EV, 0.3 * HARTREE_EV]]])
    with pytest.raises(MissingDependencyError, match=r'pip install "deeph-lightning\[hpro\]"'):
        read_structure_folder(folder)


def test_against_plane_waves(hydrogen: SystemData) -> None:
    k = np.array([0.11, -0.23, 0.31])
    H, S = matrices(k)
    assert hydrogen.S is not None
    assert hydrogen.H is not None
    assert np.abs(hydrogen.S.bloch(k) - S).max() < TOL_S
    assert np.abs(hydrogen.H.bloch(k) / HARTREE_EV - H).max() < TOL_H_HARTREE


def test_gates(hydrogen: SystemData, tmp_path: Path, rng: np.random.Generator) -> None:
    gates.hermiticity(hydrogen, 1e-9, 1e-12)
    gates.overlap(hydrogen, 1e-5)
    assert hydrogen.S is not None
    assert two_centre_residual(hydrogen.S).rotation < 1e-12
    gates.other_descriptions(hydrogen, rng)
    gates.time_reversal(hydrogen)
    write_structure_folder(hydrogen, tmp_path / "deeph")
    assert_same_system(read_structure_folder(tmp_path / "deeph", name=hydrogen.name), hydrogen)
    assert str(hydrogen.info["rebuilt_by"]).startswith("HPRO ")


def test_compressed_files_are_read(folder: Path, tmp_path: Path) -> None:
    needs_hpro()
    for path in [*folder.iterdir(), *(folder.parent / "basis").iterdir()]:
        path.with_name(path.name + ".xz").write_bytes(lzma.compress(path.read_bytes()))
        path.unlink()
    conversion = Conversion(folder, tmp_path / "out", "deeph")
    conversion.run(1, show_progress=False)
    assert conversion.failures == {}
    assert read_header(tmp_path / "out").basis.shells == {"H": (0, 0, 1)}
    kept = find_orbitals(tmp_path / "out")
    assert [f.l for f in kept["H"].functions] == [0, 0, 1]


@pytest.mark.parametrize("name", ["H.ion", "H_made_up.upf", "hydrogen.xml", "VSC"])
def test_missing_files_are_named(folder: Path, name: str) -> None:
    (path,) = folder.parent.rglob(name)
    path.unlink()
    if name == "VSC":
        assert detect_format(folder) is None
        return
    with pytest.raises(FormatError, match=r"lacks .*" + (name if "xml" not in name else "xml")):
        read_structure_folder(folder)


def test_two_files_of_one_name_must_be_the_same(folder: Path) -> None:
    own, other = folder.parent / "basis" / "H.ion", folder.parent / "other" / "H.ion"
    other.parent.mkdir()
    other.write_text(own.read_text())
    read_header(folder)
    other.write_text(own.read_text().replace("1.0  # Valence", "2.0  # Valence"))
    with pytest.raises(FormatError, match=r"basis/H\.ion and .*other/H\.ion differ"):
        read_header(folder)
    (folder / "H.ion").write_text(own.read_text())  # the nearest counts
    read_header(folder)


@pytest.mark.parametrize(
    ("there", "new", "message"),
    [
        ("<lsda>false", "<lsda>true", "is collinear"),
        ("<noncolin>false", "<noncolin>true", "is non-collinear"),
        ("<paw>false", "<paw>true", "has PAW data sets"),
        ("<gamma_only>false", "<gamma_only>true", "half of the plane waves"),
        (">PBE<", ">SCAN<", "is of SCAN, whose kinetic-energy term"),
        ("</functional>", "</functional><hybrid/>", "has a Fock operator"),
        ("</functional>", "</functional><dftU/>", "has Hubbard terms"),
        ("<a1>5.0", "<a1>", "has other numbers than expected in 'output/atomic_structure/"),
        ("</output>", "", "this is no XML"),
    ],
)
def test_other_calculations_are_refused(
    folder: Path, there: str, new: str, message: str
) -> None:
    Calculation({there: new}).write(folder, folder)
    with pytest.raises(FormatError, match=message):
        read_structure_folder(folder, ())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_files_that_hpro_would_misread_are_refused(folder: Path) -> None:
    needs_hpro()
    Calculation(degrees=(1, 0)).write(folder, folder)
    with pytest.raises(
        FormatError, match=r"projectors of H\.upf are not sorted by l: \[1, 0\]"
    ):
        read_structure_folder(folder)
    Calculation(mesh_power=2).write(folder, folder)
    with pytest.raises(FormatError, match=r"the mesh of H\.upf is not uniform"):
        read_structure_folder(folder)
    Calculation({"<a2>0 5.0": "<a2>0 5.1"}).write(folder, folder)
    with pytest.raises(DataError, match=r"VSC: .* its atoms are not those of .*hydrogen\.xml"):
        read_structure_folder(folder)
    Calculation().write(folder, folder)
    potential = folder / "VSC"
    potential.write_bytes(potential.read_bytes()[:-100])
    with pytest.raises(FormatError, match=r"VSC: .*HPRO cannot rebuild H"):
        read_structure_folder(folder)


@pytest.mark.slow
def test_molybdenum_disulphide(shared_dir: Path, tmp_path: Path) -> None:
    """A bilayer: bands of the orbitals and of the plane waves, on a path."""
    needs_hpro()
    source = shared_dir / "fixtures" / "qe_hpro" / "MoS2"
    system = read_structure_folder(source / "scf")
    assert system.S is not None
    assert two_centre_residual(system.S).rotation < 1e-12
    gates.hermiticity(system, 1e-9, 1e-12)
    assert check_gates(system)["electrons"] <= 2
    assert inspect_system(system, read_eigenvalues(source / "scf")).odd == []
    (tmp_path / "VSC.xz").symlink_to(source / "scf" / "VSC.xz")
    (tmp_path / "bands.xml.xz").symlink_to(source / "bands" / "MoS2.xml.xz")
    reference = read_eigenvalues(tmp_path)
    assert reference is not None
    plotted = json.loads((source / "bands" / "band.json").read_text())["spin_up_energys"]
    above = np.array(plotted).T + system.fermi_energy
    assert np.allclose(above, reference.energies[0], atol=1e-3)
    own = computed_eigenvalues(system, reference.k, 1)[0, :, :36]
    difference = own - reference.energies[0]
    occupied = difference[:, :26]
    assert occupied.min() > -1e-3  # plane waves span the orbitals
    assert np.abs(occupied).mean() < MEAN_eV
    assert np.abs(occupied).max() < LARGEST_eV
    assert np.abs(difference[:, 26:30]).max() < 0.15
