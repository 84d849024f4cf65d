"""Samplers: the distributions that they promise, and refusals."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, graphene, molecule
from ase.calculators.emt import EMT

from deeph_lightning.errors import ConfigError
from deeph_lightning.generate.fingerprint import fingerprint
from deeph_lightning.generate.samplers.cells import Layers, Strain, Substitute, Supercell
from deeph_lightning.generate.samplers.displacements import (
    Einstein,
    Harmonic,
    MolecularDynamics,
    Rattle,
)


def rng(n=0):
    return np.random.default_rng(n)


def copies(sampler, atoms, n):
    return [sampler.draw(atoms, rng(k)) for k in range(n)]


ALL = [
    (Rattle(0.1), molecule("H2O")),
    (Einstein(300.0, {"H": 2000.0, "O": 500.0}), molecule("H2O")),
    (Harmonic(300.0, "emt"), molecule("H2O")),
    (MolecularDynamics(300.0, "emt", n_step=5), molecule("H2O")),
    (Strain(0.02), bulk("Si")),
    (Layers(), Atoms("C2", positions=[[0, 0, 1], [0, 0, 4.4]], cell=[2, 2, 20], pbc=True)),
    (Supercell([[1, 1, 1], [2, 1, 1], [1, 2, 1]]), bulk("Si")),
    (Substitute({"Si": ["Ge", "C"]}, 0.5), bulk("Si").repeat(3)),
]


@pytest.mark.parametrize(("sampler", "atoms"), ALL, ids=lambda x: type(x).__name__)
def test_every_sampler_is_reproducible_and_leaves_its_argument(sampler, atoms):
    before = atoms.copy()
    sampler.check([atoms])
    first, again, other = (sampler.draw(atoms, rng(n)) for n in (1, 1, 5))
    assert atoms == before
    assert first == again
    assert first != other
    assert first.calc is None


def test_displacements_have_the_width_that_was_asked_for():
    atoms = bulk("Si").repeat(6)
    moved = Rattle(0.05).draw(atoms, rng()).positions - atoms.positions
    assert moved.std() == pytest.approx(0.05, rel=0.05)


def test_an_einstein_solid_has_its_classical_and_quantum_limits():
    atoms = bulk("Si").repeat(6)
    mass, theta = atoms.get_masses()[0], 100.0
    omega = theta * units.kB / (units._hbar * units.J * units.s)  # 1/(ASE's time)
    for temperature, energy in ((3000.0, units.kB * 3000.0), (0.5, units.kB * theta / 2)):
        moved = Einstein(temperature, theta).draw(atoms, rng()).positions - atoms.positions
        assert mass * omega**2 * np.mean(moved**2) == pytest.approx(energy, rel=0.05)


def test_harmonic_displacements_obey_equipartition():
    """The mean potential energy is k_B T / 2 for each vibration, where masses are large."""
    atoms = bulk("Cu", a=3.59, cubic=True)
    atoms.set_masses([1e6] * 4)  # classical
    atoms.calc = EMT()
    minimum, temperature = atoms.get_potential_energy(), 20.0
    atoms.calc = None
    sampler = Harmonic(temperature, "emt")
    energies = []
    for moved in copies(sampler, atoms, 100):
        np.testing.assert_allclose(
            moved.get_center_of_mass(), atoms.get_center_of_mass(), atol=1e-9
        )
        moved.calc = EMT()
        energies.append(moved.get_potential_energy() - minimum)
    assert np.mean(energies) == pytest.approx(0.5 * 9 * units.kB * temperature, rel=0.15)


def test_vibrations_are_those_of_the_elements_and_masses():
    """Modes of start structures are kept, and serve no structure that differs from them."""
    copper, gold, heavy = (bulk("Cu", a=3.8, cubic=True) for _ in range(3))
    gold.symbols[:2] = "Au"
    heavy.set_masses([500.0] * 4)
    sampler = Harmonic(100.0, "emt")
    sampler.check([copper])
    assert len(sampler._modes) == 1
    for changed in (gold, heavy):
        fresh = Harmonic(100.0, "emt")
        fresh.check([changed])
        own, expected = (s.draw(changed, rng(1)).positions for s in (sampler, fresh))
        np.testing.assert_array_equal(own, expected)
        assert len(sampler._modes) == 1


def test_strain_keeps_fractional_coordinates_and_open_directions():
    atoms = graphene(vacuum=8.0)
    atoms.rotate(20, "z", rotate_cell=True)
    strained = Strain(0.05).draw(atoms, rng())
    assert not np.allclose(strained.cell.array[:2], atoms.cell.array[:2])
    np.testing.assert_allclose(strained.cell.array[2], atoms.cell.array[2], atol=1e-12)
    np.testing.assert_allclose(
        strained.get_scaled_positions(), atoms.get_scaled_positions(), atol=1e-12
    )


def test_layers_move_as_a_whole():
    lower = graphene(vacuum=8.0)
    upper = lower.copy()
    upper.translate((0, 0, 3.4))
    both = lower + upper
    shifted = Layers(spacing_stdev=0.2).draw(both, rng(3))
    moved = shifted.positions - both.positions
    np.testing.assert_allclose(moved[:2], 0, atol=1e-12)
    np.testing.assert_allclose(moved[2], moved[3], atol=1e-12)
    assert np.abs(moved[2, :2]).max() > 0.1
    assert abs(moved[2, 2]) > 1e-3


def test_layers_pass_through_faces_of_the_cell():
    """Two buckled layers; the atoms of one are on both sides of z = 0."""
    heights = np.array([-0.4, 0.4, 3.0, 3.8])
    atoms = Atoms("C4", positions=[[0.1, 0.2, z] for z in heights], cell=[3, 3, 9], pbc=True)
    wrapped = atoms.copy()
    wrapped.wrap()
    assert wrapped.positions[0, 2] > 8
    both = [Layers(spacing_stdev=0.2).draw(own, rng(3)) for own in (atoms, wrapped)]
    for moved in both:
        np.testing.assert_allclose(moved.get_distance(0, 1, mic=True), 0.8, atol=1e-12)
        np.testing.assert_allclose(moved.get_distance(2, 3, mic=True), 0.8, atol=1e-12)
        moved.wrap()
    np.testing.assert_allclose(both[0].positions, both[1].positions, atol=1e-12)
    open_ended = wrapped.copy()
    open_ended.pbc = (True, True, False)
    assert Layers()._layer_of(open_ended).max() == 2


def test_substitution_is_as_probable_as_it_says():
    atoms = bulk("Si").repeat(8)
    symbols = Substitute({"Si": ["Ge"]}, 0.25).draw(atoms, rng()).get_chemical_symbols()
    assert symbols.count("Ge") / len(symbols) == pytest.approx(0.25, abs=0.05)


@pytest.mark.parametrize(
    ("make", "atoms", "said"),
    [
        (lambda: Rattle(0.0), None, "expected a positive"),
        (lambda: Strain(), molecule("H2O"), "no lattice to strain"),
        (lambda: Layers(), bulk("Si"), "is one layer"),
        (lambda: Layers(), molecule("H2O"), "is not periodic"),
        (lambda: Layers(axis=3), None, "axis = 3"),
        (lambda: Supercell([[2, 0, 1]]), None, "three positive integers"),
        (lambda: Supercell([[2, 1, 1]]), molecule("H2O"), "not periodic"),
        (lambda: Substitute({"Si": ["Ge"]}, 0.5), molecule("H2O"), "has not"),
        (lambda: Substitute({"Si": ["Gx"]}, 0.5), None, "expected elements"),
        (lambda: Substitute({"Si": ["Ge"]}, 1.5), None, "probability"),
        (lambda: Einstein(300.0, {"H": 100.0}), molecule("H2O"), "holds O too"),
        (lambda: Harmonic(300.0, "emtt"), None, "ASE cannot make it"),
        (lambda: Harmonic(300.0, "emt"), molecule("SiH4"), "cannot compute structure"),
        (lambda: MolecularDynamics(300.0, "none"), molecule("H2O"), "ASE cannot"),
    ],
)
def test_what_does_not_suit_is_refused(make, atoms, said):
    with pytest.raises(ConfigError, match=said):
        make().check([atoms])


def test_fingerprints_tell_structures_apart_and_know_them_again():
    crystal = bulk("NaCl", "rocksalt", a=5.6).repeat((2, 1, 1))
    crystal.rattle(0.1, seed=1)
    formula, own = fingerprint(crystal)
    turned = crystal[::-1]
    turned.rotate(33, (1, 2, 3), rotate_cell=True)
    turned.translate((7, 8, 9))
    turned.wrap()
    assert fingerprint(turned)[0] == formula
    np.testing.assert_allclose(fingerprint(turned)[1], own, atol=1e-8)
    moved = crystal.copy()
    moved.positions[1] += 0.003
    assert np.abs(fingerprint(moved)[1] - own).max() > 1e-3
