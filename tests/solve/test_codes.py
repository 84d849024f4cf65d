"""Eigenvalues of DFT codes, of their own output, against those of the operators they wrote."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

from deeph_lightning.io.formats import read_eigenvalues, read_structure_folder
from deeph_lightning.io.source import open_source
from deeph_lightning.solve.levels import channel_energies, grid_levels
from deeph_lightning.solve.sparse import SparseSolver
from deeph_lightning.solve.sparse_levels import sparse_levels
from deeph_lightning.solve.system import electronic_system
from deeph_lightning.units import BOHR_ANGSTROM, RYDBERG_EV
from tests.conftest import ROOT
from tests.tolerances import CODE_EIGENVALUE, DENSE_SPARSE, FERMI_INERTIA, ROUNDED_EIGENVALUE

if TYPE_CHECKING:
    from pathlib import Path


def istate(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read k-points (fractional) and energies of an ABACUS run, ``(n_k, n_band)``."""
    parts = re.split(r"BAND.*\((.*)\)", path.read_text())[1:]
    k = np.array([part.split() for part in parts[::2]], dtype=float)
    rows = [[row.split()[1] for row in part.strip().splitlines()] for part in parts[1::2]]
    return k, np.array(rows, dtype=float)


def test_abacus_mos2(shared_dir: Path) -> None:
    folder = shared_dir / "fixtures" / "abacus" / "MoS2_nspin1"
    system = electronic_system(read_structure_folder(folder / "deeph_ref"), n_electrons=26)
    k, expected = istate(folder / "OUT.ABACUS" / "istate.info")
    found = channel_energies(system, k)[0, :, : expected.shape[1]]
    assert np.abs(found - expected).max() < CODE_EIGENVALUE


def test_abacus_graphene(shared_dir: Path) -> None:
    path = shared_dir / "fixtures" / "abacus" / "graphene18_nspin1" / "OUT.g" / "istate.info"
    system = electronic_system(read_structure_folder(shared_dir / "data" / "graphene" / "003"))
    k, expected = istate(path)
    found = channel_energies(system, k)[0, :, : expected.shape[1]]
    assert np.abs(found - expected).max() < CODE_EIGENVALUE


def test_siesta_silicon(shared_dir: Path) -> None:
    folder = shared_dir / "fixtures" / "siesta" / "Si_hsx2"
    system = electronic_system(read_structure_folder(folder / "deeph_ref"), n_electrons=8)
    words = (folder / "Si.EIG").read_text().split()
    e_fermi, n_band, n_k = float(words[0]), int(words[1]), int(words[3])
    expected = np.array(words[4:], dtype=float).reshape(n_k, n_band + 1)[:, 1:]
    table = np.loadtxt(folder / "Si.KP", skiprows=1)
    k = table[:, 1:4] @ system.atoms.cell.array.T / (2 * np.pi * BOHR_ANGSTROM)
    found = channel_energies(system, k)[0]
    assert np.abs(found - expected).max() < CODE_EIGENVALUE
    assert expected[:, 3].max() < e_fermi < expected[:, 4].min()
    levels = grid_levels(system, (4, 4, 4), 0.01)
    assert levels.edges.vbm is not None
    assert levels.edges.vbm.energy < levels.e_fermi < levels.edges.cbm.energy  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("folder", "grid", "is_metal"),
    [
        ("abacus/MoS2_nspin1", (3, 3, 1), False),
        ("abacus/Fe_nspin2", (3, 3, 3), True),  # two channels
        ("abacus/GaAs_nspin4", (2, 2, 2), True),  # spin-orbit coupling
        ("siesta/Si_hsx2", (2, 2, 2), False),
        ("siesta/SrTiO3_pol", (2, 2, 2), False),  # two channels
        ("siesta/Pt2_soc", (1, 1, 1), False),  # spin-orbit coupling
    ],
)
def test_all_solvers_on_raw_output(
    shared_dir: Path, folder: str, grid, is_metal: bool, record_property
) -> None:
    """Dense against the code, sparse against dense, E_F by inertia and by all states."""
    path, width = shared_dir / "fixtures" / folder, 0.01
    system, printed = electronic_system(read_structure_folder(path)), read_eigenvalues(path)
    assert printed is not None
    some = slice(None, None, max(1, len(printed.k) // 4))
    found = channel_energies(system, printed.k[some])
    if len(found) < len(printed.energies):  # the code had two channels, which are equal
        found = np.repeat(found, len(printed.energies), axis=0)
    error = np.abs(found[..., : printed.energies.shape[2]] - printed.energies[:, some]).max()
    dense = grid_levels(system, grid, width)
    assert dense.edges.is_metal == is_metal
    solvers = [SparseSolver(H, system.S) for H in system.channels]
    sparse = sparse_levels(system, solvers, grid, width, guess_eV=dense.e_fermi + 3)
    first = sparse.first_band
    part = dense.energies[:, :, first : first + sparse.energies.shape[2]]
    states = np.nanmax(np.abs(sparse.energies - part))
    e_fermi = abs(sparse.e_fermi - dense.e_fermi)
    residuals = f"{folder}: code {error:.1e}, sparse {states:.1e}, E_F {e_fermi:.1e} eV"
    record_property("residuals", residuals)
    assert error < CODE_EIGENVALUE, residuals
    assert states < DENSE_SPARSE, residuals
    assert e_fermi < FERMI_INERTIA, residuals


@pytest.mark.parametrize("name", ["000", "017"])
def test_fermi_level_of_the_shipped_graphene(name: str) -> None:
    system = electronic_system(open_source(ROOT / "data" / "graphene").read(name))
    levels = grid_levels(system, (4, 4, 1), 0.002 * RYDBERG_EV)
    assert system.stated_fermi is not None
    assert abs(levels.e_fermi - system.stated_fermi) < ROUNDED_EIGENVALUE
