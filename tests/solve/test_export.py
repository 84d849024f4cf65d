"""Objects and files of other programs hold the same physics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from deeph_lightning.errors import PhysicsError
from deeph_lightning.solve import export
from deeph_lightning.solve.bands import band_structure, projected_states
from deeph_lightning.solve.dense import eigenvalues, kgrid
from deeph_lightning.solve.dos import DensityOfStates, gaussian_dos
from deeph_lightning.solve.kpath import band_path
from deeph_lightning.solve.levels import grid_levels
from deeph_lightning.solve.system import electronic_system
from tests.solve.systems import toy
from tests.tolerances import DENSE_SPARSE, EIGENVALUE

if TYPE_CHECKING:
    from pathlib import Path

K = np.array([[0.1, 0.2, -0.3], [0.0, 0.5, 0.0]])


@pytest.fixture
def system(rng):
    return electronic_system(toy(rng, gap=6.0), n_electrons=18)


@pytest.mark.parametrize("spin", ["none", "collinear"])
def test_band_structures(spin, rng) -> None:
    system = electronic_system(toy(rng, spin=spin, gap=9.0))
    path = band_path(system.atoms, 80)
    level = float(np.mean(grid_levels(system, (2, 2, 2), 0.01).e_fermi))
    bands = band_structure(system, path, level)
    ase = export.to_ase(bands)
    assert np.array_equal(ase.energies, bands.energies)
    assert ase.reference == level
    assert np.abs(ase.path.kpts - path.k).max() == 0
    _, _, names = ase.path.get_linear_kpoint_axis()
    assert "G" in names
    pymatgen = export.to_pymatgen_bands(bands)
    assert pymatgen.nb_bands == bands.energies.shape[2]
    assert len(pymatgen.bands) == len(bands.energies)
    gap = pymatgen.get_band_gap()
    assert abs(gap["energy"] - bands.edges.gap) < EIGENVALUE
    # the path is as long there as here
    length = pymatgen.distance[-1]
    assert abs(length - path.x[-1]) < 1e-6 * length


def test_complete_density(system) -> None:
    k, weight = kgrid((2, 2, 2))
    energies, parts = projected_states(system, k, "magnetic")
    at = np.linspace(energies.min() - 1, energies.max() + 1, 300)
    curves = {name: 2 * gaussian_dos(energies, weight, at, 0.2, p) for name, p in parts.items()}
    total = 2 * gaussian_dos(energies, weight, at, 0.2)
    dos = DensityOfStates(at, total, 0.0, curves)
    complete = export.to_pymatgen_dos(dos, system)
    spd = complete.get_spd_dos()
    summed = sum(part.densities[spin] for part in spd.values() for spin in part.densities)
    assert np.abs(summed - total[0]).max() < EIGENVALUE
    by_element = complete.get_element_dos()
    assert {str(element) for element in by_element} == {"B", "C"}
    with pytest.raises(PhysicsError, match="project=magnetic"):
        export.to_pymatgen_dos(DensityOfStates(at, total, 0.0), system)


def test_sisl_has_the_same_bands(system) -> None:
    pytest.importorskip("sisl")
    found = export.to_sisl(system)
    for k, energies in zip(K, eigenvalues(system.channels[0], system.S, K), strict=True):
        assert np.abs(found.eigh(k) - energies).max() < DENSE_SPARSE


def test_wannier90_file(system, tmp_path: Path) -> None:
    path = export.write_wannier90(tmp_path / "wannier90_hr.dat", system, (6, 6, 6))
    lines = path.read_text().splitlines()
    n, n_R = int(lines[1]), int(lines[2])
    assert (n, n_R) == (14, 343)
    start = 3 + -(-n_R // 15)
    table = np.array([line.split() for line in lines[start:]], dtype=float)
    R = table[:: n * n, :3]
    H = (table[:, 5] + 1j * table[:, 6]).reshape(n_R, n, n).transpose(0, 2, 1)
    assert table[1, 3:5].tolist() == [2, 1]  # the row runs first
    on_grid = np.array([1, 3, 6]) / 7
    for k, tol in ((on_grid, DENSE_SPARSE), (K[0], 0.05)):
        H_k = np.tensordot(np.exp(2j * np.pi * (R @ k)), H, axes=1)
        expected = eigenvalues(system.channels[0], system.S, k)[0]
        assert np.abs(np.linalg.eigvalsh(H_k) - expected).max() < tol
