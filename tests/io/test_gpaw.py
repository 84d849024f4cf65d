"""GPAW: H(R) and S(R) against GPAW's own eigenvalues. Needs GPAW with its data."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule

from deeph_lightning.core.two_centre import TOL_AUGMENTED, two_centre_residual
from deeph_lightning.errors import FormatError
from deeph_lightning.io.formats import (
    detect_format,
    read_eigenvalues,
    read_header,
    read_structure_folder,
    write_structure_folder,
)
from deeph_lightning.io.gates import check_gates
from deeph_lightning.io.gpaw import is_hybrid
from deeph_lightning.io.system import SystemData
from deeph_lightning.report.inspection import computed_eigenvalues
from tests.io import gates
from tests.io.systems import assert_same_system

GAAS = Path(__file__).parents[1] / "data" / "codes" / "gpaw_GaAs"
TOL_EIGENVALUE_eV = 1e-6


@pytest.fixture(scope="module")
def gaas() -> SystemData:
    """Two displaced atoms, one of them outside of the cell; 2 x 2 x 2 k-points."""
    pytest.importorskip("gpaw", reason="GPAW is not installed (extra gpaw)")
    return read_structure_folder(GAAS)


@pytest.fixture(scope="module")
def oxygen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """O2, collinear, open boundaries: computed here."""
    gpaw = pytest.importorskip("gpaw", reason="GPAW is not installed (extra gpaw)")
    folder = tmp_path_factory.mktemp("O2")
    atoms = molecule("O2")
    atoms.center(vacuum=2.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        atoms.calc = gpaw.GPAW(
            mode="lcao", basis="dzp", h=0.3, spinpol=True, txt=None,
            convergence={"density": 1e-7},
        )  # fmt: skip
        atoms.get_potential_energy()
        atoms.calc.write(folder / "O2.gpw")
    return folder


def largest_difference(folder: Path, system: SystemData) -> float:
    reference = read_eigenvalues(folder)
    assert reference is not None
    n_band = reference.energies.shape[2]
    own = computed_eigenvalues(system, reference.k, len(reference.energies))[..., :n_band]
    return float(np.abs(own - reference.energies).max())


def test_a_folder_is_known_without_gpaw() -> None:
    assert detect_format(GAAS) == "gpaw"


def test_crystal(gaas: SystemData) -> None:
    assert largest_difference(GAAS, gaas) < TOL_EIGENVALUE_eV
    assert gaas.basis.shells == {"Ga": (0, 1, 0, 1, 2), "As": (0, 1, 0, 1, 2)}
    assert gaas.n_electrons == 8
    assert gaas.info["code"] == "GPAW"
    assert gaas.info["functional"] == "PBE"
    assert (gaas.atoms.get_scaled_positions(wrap=False)[0] < 0).all()
    header = read_header(GAAS)
    assert header.basis == gaas.basis
    assert not header.is_spinful


def test_crystal_passes_the_gates(gaas: SystemData, tmp_path: Path) -> None:
    gates.hermiticity(gaas, 1e-9, 1e-12)
    assert gaas.S is not None
    assert two_centre_residual(gaas.S).rotation < TOL_AUGMENTED
    for code in ("abacus", "openmx"):
        wrong = gaas.S.replace(values=gaas.S.from_convention(code).values)
        assert two_centre_residual(wrong).rotation > 4 * TOL_AUGMENTED
    gates.time_reversal(gaas)
    found = check_gates(gaas)
    assert found["S(k)"] > 0
    # what says that S is augmented is kept, and so the gates of the converted set are those
    write_structure_folder(gaas, tmp_path / "deeph")
    converted = read_structure_folder(tmp_path / "deeph", name=gaas.name)
    check_gates(converted)
    assert_same_system(converted, gaas)


def test_r_counts_from_the_atoms_of_the_file(gaas: SystemData) -> None:
    assert gaas.H is not None
    assert gaas.S is not None
    for op in (gaas.H, gaas.S):
        largest = op.largest_elements()
        distance = op.pairs.distances(op.atoms)
        assert largest[distance > 9].max(initial=0.0) < 0.02 * largest.max()
        nearest = distance < 3
        assert nearest.sum() > 2
        assert largest[nearest].min() > 0.1


@pytest.mark.slow
def test_collinear_molecule(oxygen: Path) -> None:
    system = read_structure_folder(oxygen)
    assert largest_difference(oxygen, system) < TOL_EIGENVALUE_eV
    assert system.is_spinful
    assert system.info["spin"] == "collinear"
    assert not system.atoms.pbc.any()
    assert system.H is not None
    assert (system.H.pairs.R == 0).all()
    assert system.n_electrons == 12
    check_gates(system)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("gpaw", reason="GPAW is not installed (extra gpaw)")
    shutil.copy(GAAS / "GaAs.gpw", tmp_path)
    path = tmp_path / "GaAs.gpw"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(FormatError, match=r"GaAs\.gpw: structure .*GPAW cannot read the file"):
        read_structure_folder(tmp_path)
    path.write_bytes(content.replace(b'"lcao"', b'"pwpw"'))
    with pytest.raises(FormatError, match="its mode is 'pwpw', expected 'lcao'"):
        read_structure_folder(tmp_path)


def test_other_modes_and_hybrids_are_refused(tmp_path: Path) -> None:
    content = (GAAS / "GaAs.gpw").read_bytes()
    assert content.count(b'"PBE"') == 1
    for name in ("EXX", "exx"):
        changed = content.replace(b'"PBE"', f'"{name}"'.encode())
        (tmp_path / "GaAs.gpw").write_bytes(changed)
        with pytest.raises(FormatError, match=f"functional is {name}, whose Fock operator"):
            read_structure_folder(tmp_path)


def test_names_of_hybrids() -> None:
    hybrids = "PBE0 hse06 YS-PBE0 CAMY-B3LYP LCY-PBE LCY-BLYP(0.75) HYB_GGA_XC_PBEH:stencil=2"
    assert all(map(is_hybrid, hybrids.split()))
    others = "LDA PBE revPBE RPBE BLYP TPSS vdW-DF2 GGA_X_PBE_SOL+GGA_C_PBE_SOL"
    assert not any(map(is_hybrid, others.split()))
