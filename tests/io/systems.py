"""Systems for tests of files, and comparison to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deeph_lightning.io.system import SystemData
from tests.systems import BASIS, random_atoms, random_operator

if TYPE_CHECKING:
    from ase import Atoms

    from deeph_lightning.core.basis import OrbitalBasis
    from deeph_lightning.core.operator import Operator

STRUCTURES = Path(__file__).resolve().parents[1] / "data" / "structures"
OPERATORS = ("H", "S", "rho", "H_pred")


def random_system(
    rng: np.random.Generator,
    name: str = "toy",
    *,
    is_spinful: bool = False,
    atoms: Atoms | None = None,
    basis: OrbitalBasis = BASIS,
) -> SystemData:
    """Make a system with H, a shorter-ranged S, and a density matrix."""
    atoms = random_atoms(rng) if atoms is None else atoms
    atoms.info["name"] = name
    H = random_operator(rng, atoms, basis, r_cut=4.5, is_spinful=is_spinful)
    S = random_operator(rng, atoms, basis, r_cut=3.8).replace(unit="1")
    rho = random_operator(rng, atoms, basis, r_cut=3.0).replace(unit="1")
    assert len(S.pairs) < len(H.pairs)
    return SystemData(
        name=name,
        atoms=atoms,
        basis=basis,
        is_spinful=is_spinful,
        H=H,
        S=S,
        rho=rho,
        fermi_energy=-1.0 / 3.0,
        n_electrons=14.0,
        info={"basis": "toy", "nested": {"a": [1, 2.5, None]}},
    )


def assert_same_operator(found: Operator | None, expected: Operator | None) -> None:
    """Compare pairs, values to the last bit, unit and spin."""
    if expected is None:
        assert found is None
        return
    assert found is not None
    assert found.pairs == expected.pairs
    assert found.values.dtype == expected.values.dtype
    assert np.array_equal(found.values, expected.values)
    assert (found.unit, found.is_spinful) == (expected.unit, expected.is_spinful)
    assert found.is_half == expected.is_half


def assert_same_structure(found: SystemData, expected: SystemData) -> None:
    """Compare all but operators and the format, numbers to the last bit."""
    assert found.atoms.get_chemical_symbols() == expected.atoms.get_chemical_symbols()
    assert np.array_equal(found.atoms.positions, expected.atoms.positions)
    assert np.array_equal(found.atoms.cell.array, expected.atoms.cell.array)
    assert found.atoms.pbc.all()
    assert found.basis == expected.basis
    assert found.is_spinful == expected.is_spinful
    assert found.fermi_energy == expected.fermi_energy
    assert found.n_electrons == expected.n_electrons


def assert_same_system(found: SystemData, expected: SystemData) -> None:
    """Compare everything but the format."""
    assert_same_structure(found, expected)
    for key in OPERATORS:
        assert_same_operator(getattr(found, key), getattr(expected, key))
    ignored = {"orthogonal_basis"}
    assert {k: v for k, v in found.info.items() if k not in ignored} == {
        k: v for k, v in expected.info.items() if k not in ignored
    }
