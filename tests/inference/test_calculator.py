"""The ASE calculator: physics that any equivariant network obeys, and ASE's interfaces."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import graphene
from ase.calculators.calculator import PropertyNotImplementedError
from ase.dft.dos import DOS

from deeph_lightning.errors import ConfigError, DataError
from deeph_lightning.inference import HamiltonianCalculator
from tests.inference.systems import sheet


@pytest.fixture
def calculator(with_overlaps):
    return HamiltonianCalculator(with_overlaps, kgrid=(3, 3, 1), device="cpu", precision="fp64")


def perfect():
    atoms = graphene(vacuum=5.0)
    atoms.pbc = True
    return atoms


def test_graphene_has_a_dirac_point(calculator):
    bands = calculator.band_structure(perfect(), path="GKM", n_point=31)
    assert bands.path.path == "GKM"
    assert bands.reference == calculator.get_fermi_level()
    at_K = bands.energies[0, np.abs(bands.path.kpts - [1 / 3, 1 / 3, 0]).sum(1).argmin()]
    # two of the p_z states and two pairs of the s, p_x, p_y states belong to E of D_3h
    assert (np.diff(at_K) < 1e-9).sum() == 3


def test_operators_and_levels_belong_together(calculator):
    atoms = sheet()
    H, S = calculator.get_hamiltonian(atoms), calculator.get_overlap(atoms)
    np.testing.assert_array_equal(H.values, calculator.predictor.predict(atoms).values)
    np.testing.assert_array_equal(S.bloch([0.0, 0.0, 0.0]), np.eye(8))
    k, weight = calculator.get_ibz_k_points(), calculator.get_k_point_weights()
    assert len(k) == 5  # of 9, one of k and -k
    energies = np.array([calculator.get_eigenvalues(n) for n in range(len(k))])
    np.testing.assert_allclose(energies[2], np.linalg.eigvalsh(H.bloch(k[2])), atol=1e-10)
    level = calculator.get_fermi_level()
    occupation = 1 / (1 + np.exp((energies - level) / calculator.smearing_eV))
    assert 2 * weight @ occupation.sum(1) == pytest.approx(8)
    total = 2 * weight @ (occupation * energies).sum(1)
    assert calculator.get_property("band_energy", atoms) == pytest.approx(total)


def test_a_moved_structure_is_predicted_anew(calculator):
    atoms = sheet()
    before = calculator.get_hamiltonian(atoms)
    atoms.positions[0, 2] += 0.2
    assert not np.allclose(calculator.get_hamiltonian(atoms).values, before.values)
    np.testing.assert_array_equal(
        calculator.predictor.predict(atoms).values, calculator.get_hamiltonian().values
    )


def test_ase_takes_it_for_a_calculator(calculator):
    atoms = sheet()
    atoms.calc = calculator
    calculator.calculate(atoms)
    width = 0.2
    dos = DOS(calculator, width=width, npts=2000)
    step = dos.get_energies()[1] - dos.get_energies()[0]
    assert step < width
    assert dos.get_dos().sum() * step == pytest.approx(16, rel=1e-2)  # states of 8 bands
    with pytest.raises(PropertyNotImplementedError, match="no total energy"):
        atoms.get_forces()
    with pytest.raises(PropertyNotImplementedError, match="no total energy"):
        atoms.get_potential_energy()


def test_what_is_missing_is_told(checkpoint, calculator):
    with pytest.raises(ConfigError, match="no structure was given"):
        calculator.get_fermi_level()
    with pytest.raises(ConfigError, match="kpath = GX"):
        calculator.band_structure(sheet(), path="GX")
    plain = HamiltonianCalculator(checkpoint, device="cpu")
    assert plain.get_overlap(sheet()) is None
    with pytest.raises(DataError, match="no overlap S"):
        plain.get_fermi_level(sheet())
