"""DeePTB and dftio folders, and data sets that are pickles and refused."""

from __future__ import annotations

import lzma
import shutil
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest

from deeph_lightning.core.basis import OrbitalBasis
from deeph_lightning.core.two_centre import two_centre_residual
from deeph_lightning.errors import DataError, FormatError, ShapeError
from deeph_lightning.io.formats import detect_format, read_header, read_structure_folder
from deeph_lightning.solve.dense import eigenvalues
from tests.io.systems import assert_same_operator, random_system
from tests.tolerances import EIGENVALUE_DFT, FLOAT64, TWO_CENTRE_DEEPTB

if TYPE_CHECKING:
    from pathlib import Path

    from deeph_lightning.io.system import SystemData

BASIS = OrbitalBasis({"C": (0, 0, 1), "B": (0, 1, 2)})


def write_run(folder: Path, system: SystemData, *, plural: bool = True) -> None:
    """Write a folder, names as of DeePTB or of dftio."""
    folder.mkdir()
    s = "s" if plural else ""
    np.savetxt(folder / f"atomic_number{s}.dat", system.atoms.numbers, fmt="%d")
    np.savetxt(folder / f"position{s}.dat", system.atoms.positions, fmt="%.17g")
    np.savetxt(folder / "cell.dat", system.atoms.cell.array, fmt="%.17g")
    np.savetxt(folder / "pbc.dat", np.ones(3))
    words = {
        label: "".join(f"{shells.count(l)}{'spd'[l]}" for l in sorted(set(shells)))
        for label, shells in system.basis.shells.items()
    }
    (folder / "basis.dat").write_text(str(words))
    for name, op in (("hamiltonian", system.H), ("overlap", system.S)):
        with h5py.File(folder / f"{name}{s}.h5", "w") as file:
            group = file.create_group("0")
            for n, (i, j, a, b, c) in enumerate(op.pairs.rows.tolist()):
                group[f"{i}_{j}_{a}_{b}_{c}"] = op.block(n)


@pytest.mark.parametrize("plural", [True, False])
def test_written_folder(rng, tmp_path: Path, plural: bool) -> None:
    system = random_system(rng, basis=BASIS)
    folder = tmp_path / "toy"
    write_run(folder, system, plural=plural)
    assert detect_format(folder) == "deeptb"
    found = read_structure_folder(folder)
    assert_same_operator(found.H, system.H)
    assert_same_operator(found.S, system.S)
    assert np.array_equal(found.atoms.positions, system.atoms.positions)
    assert found.basis == BASIS
    assert read_header(folder) == (BASIS, False)
    (folder / "basis.dat").write_text("{'C': ['2s', '3s', '2p'], 'B': ['2s', '2p', 'd']}")
    assert read_header(folder).basis == BASIS


def test_run_passes_the_gates(shared_dir: Path, tmp_path: Path) -> None:
    source = shared_dir / "fixtures" / "deeptb" / "Si64"
    folder = tmp_path / "Si64"
    shutil.copytree(source, folder, copy_function=shutil.copyfile)
    for path in source.glob("*.xz"):
        (folder / path.stem).write_bytes(lzma.decompress(path.read_bytes()))
    found = read_structure_folder(folder)
    assert len(found.atoms) == 64
    residual = two_centre_residual(found.S)
    assert residual.rotation < TWO_CENTRE_DEEPTB
    diagonal = [np.diag(found.S.block(n)) - 1 for n in np.flatnonzero(found.S.pairs.is_onsite)]
    assert np.abs(diagonal).max() < FLOAT64
    k = [0.11, -0.23, 0.31]
    shifts = np.eye(64, 3, dtype=int)
    moved = [op.with_atoms_shifted(shifts) for op in (found.H, found.S)]
    energies = eigenvalues(found.H, found.S, k)
    assert np.abs(eigenvalues(*moved, k) - energies).max() < EIGENVALUE_DFT


def edit(name: str, old: str, new: str):
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return change


def two_frames(folder: Path) -> None:
    path = folder / "positions.dat"
    path.write_text(path.read_text() * 2)


def doubled(folder: Path) -> None:
    with h5py.File(folder / "hamiltonians.h5", "r+") as file:
        for key in file["0"]:
            block = file["0"][key][()]
            del file["0"][key]
            file["0"][key] = np.kron(np.eye(2), block)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda f: (f / "basis.dat").unlink(), FormatError, "basis.dat.*lacks this file"),
        (edit("basis.dat", "2s1p", "2x1p"), FormatError, "basis.dat.*expected shells"),
        (edit("basis.dat", "{", "open('x') or {"), FormatError, "expected shells"),
        (edit("atomic_numbers.dat", "6", "600"), FormatError, "atomic number 600"),
        (two_frames, FormatError, "found 2 frames, expected one"),
        (lambda f: h5py.File(f / "overlaps.h5", "r+").create_group("1"), FormatError, "0, 1"),
        (lambda f: h5py.File(f / "overlaps.h5", "r+")["0"].create_dataset("x", data=[[1.0]]),
         FormatError, "dataset '0/x'"),
        (doubled, ShapeError, "hamiltonians.h5"),
        (lambda f: shutil.copy(f / "overlaps.h5", f / "overlap.h5"), DataError,
         "overlap.h5, overlaps.h5"),
    ],
)  # fmt: skip
def test_bad_files(rng, tmp_path: Path, change, error, text: str) -> None:
    write_run(tmp_path / "toy", random_system(rng, basis=BASIS))
    change(tmp_path / "toy")
    with pytest.raises(error, match=text) as caught:
        read_structure_folder(tmp_path / "toy")
    assert "'toy'" in str(caught.value)


class Bomb:
    """Says so when it is loaded."""

    def __reduce__(self) -> tuple:
        return exec, ("raise SystemExit('a pickle was loaded')",)  # fmt: skip


def test_hamgnn_is_refused_and_not_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    np.savez(folder / "graph_data.npz", graph=np.array({"a": Bomb()}, dtype=object))
    assert detect_format(folder) == "hamgnn"
    for read in (read_structure_folder, read_header):
        with pytest.raises(FormatError, match=r"pickle: loading it would run code.*scfout"):
            read(folder)
    np.savez(folder / "graph_data.npz", graph=np.arange(3))
    assert detect_format(folder) is None


def test_lmdb_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "data.lmdb"
    folder.mkdir()
    (folder / "data.mdb").write_bytes(b"\0" * 16 + bytes.fromhex("dec0efbe") + b"\1" * 100)
    assert detect_format(folder) == "deeptb"
    for read in (read_structure_folder, read_header):
        with pytest.raises(FormatError, match=r"LMDB file are pickles.*-f dat"):
            read(folder)
