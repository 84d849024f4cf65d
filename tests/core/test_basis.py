"""Shells, slices, padding and fingerprints of orbital bases."""

from __future__ import annotations

import copy
import subprocess
import sys

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given
from hypothesis import strategies as st

from deeph_lightning.core.basis import (
    OrbitalBasis,
    shell_text,
    species_labels,
    structure_name,
)
from deeph_lightning.errors import BasisMismatchError, DataError

shells = st.lists(st.integers(0, 4), min_size=1, max_size=6).map(tuple)
bases = st.dictionaries(st.sampled_from(["H", "C", "C_surface", "Mo"]), shells, min_size=1)


def test_orbitals_of_a_species() -> None:
    basis = OrbitalBasis({"C": (0, 1, 0), "B": (2,)})
    assert basis.labels == ("B", "C")
    assert basis.n_orb("C") == 5
    assert basis.shell_slices("C") == (slice(0, 1), slice(1, 4), slice(4, 5))
    assert basis.orbital_l("C").tolist() == [0, 1, 1, 1, 0]
    assert basis.orbital_m("C").tolist() == [0, -1, 0, 1, 0]
    assert basis.orbital_counts(["C", "B", "C"]).tolist() == [5, 5, 5]


@given(bases)
def test_slices_cover_the_orbitals(data: dict[str, tuple[int, ...]]) -> None:
    basis = OrbitalBasis(data)
    for label in basis.labels:
        covered = [
            n for part in basis.shell_slices(label) for n in range(part.start, part.stop)
        ]
        assert covered == list(range(basis.n_orb(label)))


@given(bases)
def test_padding_keeps_degree_and_order(data: dict[str, tuple[int, ...]]) -> None:
    basis = OrbitalBasis(data)
    common = OrbitalBasis({"X": basis.common_shells()})
    for label in basis.labels:
        place, mask = basis.embedding(label), basis.orbital_mask(label)
        assert len(set(place.tolist())) == basis.n_orb(label) == mask.sum()
        assert mask[place].all()
        assert np.array_equal(common.orbital_l("X")[place], basis.orbital_l(label))
        assert np.array_equal(common.orbital_m("X")[place], basis.orbital_m(label))


def test_common_shells_are_the_smallest_list() -> None:
    basis = OrbitalBasis({"C": (0, 0, 1), "Mo": (0, 1, 2, 2)})
    assert basis.common_shells() == (0, 0, 1, 2, 2)
    with pytest.raises(BasisMismatchError, match=r"'Mo'.*1s1p2d.*do not fit into 2s1p1d"):
        basis.embedding("Mo", (0, 0, 1, 2))


@given(bases)
def test_dictionary_copy_and_fingerprint(data: dict[str, tuple[int, ...]]) -> None:
    basis = OrbitalBasis(data)
    reversed_basis = OrbitalBasis(dict(reversed(data.items())))
    for other in (
        OrbitalBasis.from_dict(basis.to_dict()),
        copy.deepcopy(basis),
        reversed_basis,
    ):
        assert other == basis
        assert hash(other) == hash(basis)
        assert other.fingerprint() == basis.fingerprint()
    changed = OrbitalBasis({**data, basis.labels[0]: (*data[basis.labels[0]], 1)})
    assert changed != basis
    assert changed.fingerprint() != basis.fingerprint()


def test_union() -> None:
    one, two = OrbitalBasis({"C": (0, 1)}), OrbitalBasis({"C": (0, 1), "H": (0,)})
    assert one.union(two) == two
    with pytest.raises(BasisMismatchError, match="'C' has shells 1s1p in one set and 2s1p"):
        one.union(OrbitalBasis({"C": (0, 0, 1)}))


@pytest.mark.parametrize("bad", [(), (0, -1), (0, 1.5), ("s",), 3, "sp"])
def test_bad_shells(bad: object) -> None:
    with pytest.raises(DataError, match="orbital map, species 'C'"):
        OrbitalBasis({"C": bad})  # type: ignore[dict-item]


def test_unknown_species_names_the_known_ones() -> None:
    basis = OrbitalBasis({"C": (0,), "H": (0,)})
    with pytest.raises(BasisMismatchError, match=r"'N' is not in the orbital basis.*C, H"):
        basis.orbital_counts(["C", "N"])


def test_species_and_names() -> None:
    atoms = Atoms("C2H", positions=np.eye(3))
    assert species_labels(atoms).tolist() == ["C", "C", "H"]
    assert structure_name(atoms) == "C2H"
    atoms.set_array("species", np.array(["C", "C_surface", "H"]))
    atoms.info["name"] = "slab"
    assert species_labels(atoms).tolist() == ["C", "C_surface", "H"]
    assert structure_name(atoms) == "slab"


def test_shell_text() -> None:
    assert shell_text((1, 0, 0, 2, 1)) == "2s2p1d"


def test_core_imports_without_torch() -> None:
    code = (
        "import sys; import deeph_lightning.core.checks, deeph_lightning.solve.dense, "
        "deeph_lightning.solve.kpath; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
