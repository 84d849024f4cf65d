"""Orbital files of codes, against the overlaps of the same calculations."""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np
import pytest

from deeph_lightning.core.two_centre_integrals import OrbitalOverlaps
from deeph_lightning.errors import BasisMismatchError, ConfigError, DataError, FormatError
from deeph_lightning.io.formats import read_structure_folder
from deeph_lightning.io.orbitals import find_orbitals, read_orbitals
from tests.io.orbital_files import pao
from tests.tolerances import ORBITAL_OVERLAP

CODES = {
    "abacus/graphene18_nspin1": "C_gga_8au_100Ry_2s2p1d.orb",
    "siesta/Si_hsx2": "Si.ion.xml.xz",
}


@pytest.mark.parametrize("folder", CODES)
def test_overlaps_of_the_codes(shared_dir: Path, folder: str) -> None:
    place = shared_dir / "fixtures" / folder
    system = read_structure_folder(place, ("S",))
    (file,) = find_orbitals(place / CODES[folder]).values()
    overlaps = OrbitalOverlaps({file.label: file.of_shells(system.basis.shells[file.label])})
    found = overlaps.operator(system.atoms).complete()
    pairs = found.pairs.union(system.S.pairs)  # codes keep pairs of zeros, too
    error = np.abs(found.on_pairs(pairs).values - system.S.on_pairs(pairs).values)
    assert error.max() < ORBITAL_OVERLAP
    assert np.abs(system.S.values).max() > 0.9


def test_text_and_xml_of_siesta(shared_dir: Path, tmp_path: Path) -> None:
    found = find_orbitals(shared_dir / "fixtures" / "qe_hpro" / "MoS2" / "aobasis")
    assert {label: [f.l for f in o.functions] for label, o in found.items()} == {
        "Mo": [0, 0, 0, 1, 1, 2, 2],
        "S": [0, 0, 0, 1, 1, 2],
    }
    for orbitals in found.values():
        overlaps = OrbitalOverlaps({orbitals.label: orbitals.functions})
        onsite = overlaps.two_centre(orbitals.label, orbitals.label, np.zeros(1))[0]
        assert onsite[0] == pytest.approx(1, abs=1e-7)
    source = shared_dir / "fixtures" / "siesta" / "Si_hsx2" / "Si.ion.xml.xz"
    (tmp_path / "Si.ion.xml").write_bytes(lzma.decompress(source.read_bytes()))
    (tmp_path / "Si.ion").write_text("the same, not read")
    assert list(find_orbitals(tmp_path)) == ["Si"]


def test_a_basis_takes_the_first_functions_of_openmx(tmp_path: Path) -> None:
    (tmp_path / "C7.0.pao").write_text(pao({0: [0.5, 0.8, 1.1], 1: [0.4, 0.9]}))
    (file,) = find_orbitals(tmp_path).values()
    assert file.label == "C"
    functions = file.of_shells((0, 0, 1))
    assert [f.l for f in functions] == [0, 0, 1]
    overlaps = OrbitalOverlaps({"C": functions})
    onsite = overlaps.two_centre("C", "C", np.zeros(1))[0]
    a, b = 0.5, 0.8  # int r^2 exp(-(a + b) r^2) dr
    expected = [np.sqrt(np.pi) / 4 / (p + q) ** 1.5 for p, q in ((a, a), (a, b), (b, b))]
    np.testing.assert_allclose(onsite[[0, 1, 4]], expected, atol=1e-8)
    with pytest.raises(BasisMismatchError, match="3s2p"):
        file.of_shells((0, 0, 1, 1, 1))


def test_bad_files(shared_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        find_orbitals(tmp_path)
    (tmp_path / "C.upf").write_text("x")
    with pytest.raises(ConfigError, match="no orbital file by its name"):
        find_orbitals(tmp_path / "C.upf")
    source = (
        shared_dir
        / "fixtures"
        / "abacus"
        / "graphene18_nspin1"
        / CODES["abacus/graphene18_nspin1"]
    )
    text = source.read_text()
    for name in ("a.orb", "b.orb"):
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match="a second file of species C"):
        find_orbitals(tmp_path)
    with pytest.raises(BasisMismatchError, match="2s2p1d"):
        read_orbitals(source).of_shells((0, 1))
    for name, content in (
        ("cut.orb", text[: len(text) // 2]),
        ("empty.orb", ""),
        ("cut.ion.xml", "<ion><symbol>C</symbol>"),
        (
            "cut.ion",
            "</preamble>\nC # Label\n 0 2 # Lmax for basis, no. of nl orbitals\n# PAOs:\n",
        ),
        ("cut.pao", "AtomSpecies 6\nmaxL.pao 1\n"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(FormatError, match="cannot be read as orbitals"):
            read_orbitals(tmp_path / name)
