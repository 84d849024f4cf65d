"""FHI-aims: files of runs, and files written from their description."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
from scipy import linalg

from deeph_lightning.core.basis import OrbitalBasis
from deeph_lightning.core.two_centre import two_centre_residual
from deeph_lightning.errors import DataError, DeepHError, FormatError
from deeph_lightning.io import fhi_aims
from deeph_lightning.io.formats import detect_format, read_header, read_structure_folder
from deeph_lightning.solve.dense import eigenvalues
from tests.io import gates
from tests.io.fhi_aims_files import write_periodic
from tests.io.systems import random_system
from tests.tolerances import (
    AIMS_EIGENVALUE,
    EIGENVALUE_DFT,
    TWO_CENTRE_AIMS,
    TWO_CENTRE_WRONG,
)

if TYPE_CHECKING:
    from pathlib import Path

    from deeph_lightning.io.system import SystemData

BASIS = OrbitalBasis({"C": (0, 1, 0, 1), "B": (2, 0, 3)})


def toy_system(rng: np.random.Generator, *, is_spinful: bool = False) -> SystemData:
    system = random_system(rng, basis=BASIS, is_spinful=is_spinful)
    H = system.H.on_pairs(system.S.pairs)
    if is_spinful:
        values = H.values.real.copy()
        for n in range(len(H.pairs)):
            block = values[H.offsets[n] : H.offsets[n + 1]].reshape(H.block_shapes[n])
            a, b = H.block_shapes[n] // 2
            block[:a, b:] = block[a:, :b] = 0.0
        H = H.replace(values=values)
    system.H = H
    return system


@pytest.mark.parametrize("is_spinful", [False, True])
@pytest.mark.parametrize("use_hdf5", [False, True])
def test_written_files(rng, tmp_path: Path, is_spinful: bool, use_hdf5: bool) -> None:
    system = toy_system(rng, is_spinful=is_spinful)
    folder = tmp_path / "toy"
    write_periodic(folder, system, use_hdf5=use_hdf5)
    assert detect_format(folder) == "fhi_aims"
    found = read_structure_folder(folder)
    for key in ("H", "S"):
        op, expected = getattr(found, key), getattr(system, key)
        assert op.pairs == expected.pairs
        assert np.abs(op.values - expected.values).max() < EIGENVALUE_DFT
        assert np.array_equal(op.atoms.positions, system.atoms.positions)
    assert found.H.is_spinful == is_spinful
    assert found.n_electrons == 2 * 6 + 2 * 5 - 1
    assert found.fermi_energy is None
    spin = "collinear" if is_spinful else "none"
    assert found.info == {"code": "FHI-aims", "functional": "pbe", "spin": spin}
    assert read_header(folder) == (BASIS, is_spinful)


@pytest.fixture(scope="module")
def mos2(shared_dir: Path) -> SystemData:
    return read_structure_folder(shared_dir / "fixtures" / "fhi_aims" / "MoS2")


def test_run_passes_the_gates(rng, mos2: SystemData, tmp_path: Path) -> None:
    assert max(two_centre_residual(mos2.S)[:2]) < TWO_CENTRE_AIMS
    diagonal = np.concatenate(
        [np.diag(mos2.S.block(n)) for n in np.flatnonzero(mos2.S.pairs.is_onsite)]
    )
    assert np.abs(diagonal - 1).max() < TWO_CENTRE_AIMS
    assert mos2.n_electrons == 74
    gates.other_descriptions(mos2, rng)
    gates.round_trip(mos2, tmp_path)


def test_gap_of_the_run(mos2: SystemData) -> None:
    """74 electrons, no magnetisation: the gap in PBE lies above band 37 of each spin."""
    K = [1 / 3, 1 / 3, 0]
    energies = eigenvalues(mos2.H, mos2.S, [K, [0, 0, 0]])
    assert np.abs(energies[:, ::2] - energies[:, 1::2]).max() < 1e-3
    gap = energies[:, 74].min() - energies[:, 73].max()
    assert 1.0 < gap < 1.9


@pytest.mark.parametrize("defect", ["R", "unmapped", "signs"])
def test_planted_mistakes_are_seen(mos2: SystemData, defect: str, monkeypatch) -> None:
    S = mos2.S
    if defect == "signs":
        wrong = S.to_convention("fhi_aims")
    elif defect == "unmapped":
        shifts = fhi_aims._mapping_shifts(mos2)
        assert shifts.any()
        wrong = S.with_atoms_shifted(shifts).replace(atoms=S.atoms)
    else:
        from deeph_lightning.core.pairs import PairTable

        pairs, order = PairTable.from_arrays(-S.pairs.R, S.pairs.i, S.pairs.j)
        wrong = S.replace(
            pairs=pairs, values=np.concatenate([S.block(n).ravel() for n in order])
        )
    assert max(two_centre_residual(wrong)[:2]) > TWO_CENTRE_WRONG


def test_molecule(shared_dir: Path, tmp_path: Path) -> None:
    folder = shared_dir / "fixtures" / "fhi_aims" / "Mo_atom"
    found = fhi_aims.read(folder, name="Mo")
    matrices = []
    for file_name in ("hamiltonian.h5", "overlap.h5"):
        with h5py.File(folder / "deeph_ref" / file_name) as file:
            matrices.append(file["entries"][()].reshape(49, 49))
    energies = eigenvalues(found.H, found.S, [0, 0, 0])[0]
    assert np.abs(energies - linalg.eigvalsh(*matrices)).max() < AIMS_EIGENVALUE
    assert found.fermi_energy < -1
    assert found.n_electrons == 42
    assert found.info["code_version"] == "240920.1"
    gates.round_trip(found, tmp_path)


def test_last_fermi_level_and_short_exponents(rng, tmp_path: Path) -> None:
    write_periodic(tmp_path, toy_system(rng))
    line = "  | Chemical potential (Fermi level):    {} eV\n"
    (tmp_path / "aims.out").write_text(
        "          Invoking FHI-aims ...\n  FHI-aims version      : 240920.1\n"
        "  The structure contains  4 atoms,  and a total of         21.500 electrons.\n"
        + line.format(-3.5) + line.format(-3.25)
    )  # fmt: skip
    path = tmp_path / "rs_hamiltonian.out"
    lines = path.read_text().splitlines()
    lines[4] = "0.12345678901234567-139"
    path.write_text("\n".join(lines))
    found = read_structure_folder(tmp_path)
    assert found.fermi_energy == -3.25
    assert found.n_electrons == 21.5
    assert found.info["code_version"] == "240920.1"


def edit(name: str, old: str, new: str):
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return change


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda f: (f / "rs_indices.out").unlink(), FormatError, "lacks rs_indices.out"),
        (lambda f: (f / "geometry.in").unlink(), FormatError, "geometry.in.*lacks this file"),
        (edit("rs_indices.out", "n_basis: ", "n_basis: 1"), FormatError, "the basis has"),
        (edit("rs_indices.out", "column_index", "columns"), FormatError, "'column_index_ham"),
        (edit("rs_overlap.out", "\n", "\nx\n"), FormatError, "expected numbers"),
        (edit("rs_overlap.out", "\n", "\n1.0\n"), FormatError, "rs_indices.out says"),
        (edit("basis-indices.out", "atomic     1   2   1  -1", "atomic     1   2   1   1"),
         FormatError, "begins no run of m"),
        (edit("geometry.in", " C\n", " B\n"), DataError, "atom 2 .B. has shells"),
        (edit("geometry.in", " C\n", " Cc\n"), FormatError, "no elements: Cc"),
        (lambda f: shutil.copy(f / "rs_overlap.out", f / "rs_overlap.h5"), FormatError,
         "rs_overlap.h5, rs_overlap.out"),
        (lambda f: shutil.copy(f / "rs_overlap.out", f / "rs_hamiltonian_up.out"), DeepHError,
         "lacks rs_hamiltonian_dn.out"),
    ],
)  # fmt: skip
def test_bad_files(rng, tmp_path: Path, change, error, text: str) -> None:
    write_periodic(tmp_path / "toy", toy_system(rng))
    change(tmp_path / "toy")
    with pytest.raises(error, match=text) as caught:
        read_structure_folder(tmp_path / "toy")
    assert "'toy'" in str(caught.value)
