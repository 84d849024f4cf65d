"""wannier90: a run of silicon against its own bands, and files written by hand."""

from __future__ import annotations

import lzma
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

from deeph_lightning.errors import FormatError
from deeph_lightning.io.formats import (
    detect_format,
    find_systems,
    read_eigenvalues,
    read_header,
    read_structure_folder,
)
from deeph_lightning.solve.dense import eigenvalues
from tests.io import gates
from tests.io.systems import STRUCTURES
from tests.tolerances import FLOAT64, WANNIER_BANDS, WANNIER_GRID

if TYPE_CHECKING:
    from pathlib import Path

FILES = ("silicon.win", "silicon_hr.dat", "silicon_centres.xyz", "silicon_wsvec.dat")


@pytest.fixture
def run(shared_dir: Path, tmp_path: Path) -> Path:
    source = shared_dir / "fixtures" / "wannier90" / "silicon"
    folder = tmp_path / "silicon"
    folder.mkdir()
    for name in FILES:
        shutil.copy(source / name, folder)
        (folder / name).chmod(0o644)
    log = lzma.decompress((source / "silicon.wout.xz").read_bytes())
    (folder / "silicon.wout").write_bytes(log)
    return folder


def test_energies_of_the_grid(rng, run: Path, shared_dir: Path) -> None:
    """On the k-points of the run the energies are those that went into it."""
    assert detect_format(run) == "wannier90"
    system = read_structure_folder(run)
    source = shared_dir / "fixtures" / "wannier90" / "silicon"
    table = np.loadtxt(source / "silicon.eigW")
    n_band = int(table[:, 0].max())
    expected = table[:, 2].reshape(-1, n_band)
    k = np.stack(np.meshgrid(*[np.arange(4) / 4] * 3, indexing="ij"), -1)
    k = k.transpose(2, 0, 1, 3).reshape(-1, 3)  # as the log lists them
    energies = eigenvalues(system.H, system.S, k)
    assert len(expected) == 64
    error = np.sort(energies, axis=0) - np.sort(expected[:, :4], axis=0)
    assert np.abs(error).max() < WANNIER_GRID
    gates.other_descriptions(system, rng)
    assert system.H.hermiticity_residual()[0] < WANNIER_GRID
    assert system.info["code_version"] == "3.1.0"


def test_bands_of_the_code(run: Path, shared_dir: Path, tmp_path: Path) -> None:
    """Between those k-points the shared lattice vectors count: compare with its own bands."""
    system = read_structure_folder(run)
    source = shared_dir / "fixtures" / "wannier90" / "silicon"
    for name in ("silicon_band.kpt", "silicon_band.dat"):
        shutil.copy(source / name, run)
    k, (bands,) = read_eigenvalues(run)
    assert bands.shape == (380, 4)
    some = slice(None, None, 7)
    error = eigenvalues(system.H, system.S, k[some]) - bands[some]
    assert np.abs(error).max() < WANNIER_BANDS
    (run / "silicon_wsvec.dat").unlink()
    plain = read_structure_folder(run)
    error = eigenvalues(plain.H, plain.S, k[some]) - bands[some]
    assert np.abs(error).max() > 100 * WANNIER_BANDS
    gates.round_trip(system, tmp_path / "out")


def test_two_codes_in_one_folder(shared_dir: Path) -> None:
    """The run of SIESTA that the functions were made from lies beside them."""
    with pytest.raises(
        FormatError,
        match=r"2 codes \(siesta: silicon\.HSX.*; wannier90: silicon_hr\.dat.*its own",
    ):
        read_structure_folder(shared_dir / "fixtures" / "wannier90" / "silicon")


def test_two_codes_made_by_hand(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    assert read_structure_folder(tmp_path / "run").source_format == "wannier90"
    shutil.copy(STRUCTURES.parent / "codes" / "siesta_Pt2" / "Pt2_xx.HSX", tmp_path / "run")
    assert find_systems(tmp_path) == [tmp_path / "run"]
    with pytest.raises(FormatError, match="calculations of 2 codes"):
        read_structure_folder(tmp_path / "run")


def test_sites_are_the_centres(run: Path) -> None:
    system = read_structure_folder(run)
    assert system.atoms.get_chemical_symbols() == ["Si"]  # all four lie around one atom
    assert system.basis.shells == {"Si": (0, 0, 0, 0)}
    assert [atom[0] for atom in system.info["all_atoms"]] == ["Si", "Si"]
    (run / "silicon_centres.xyz").unlink()
    from_log = read_structure_folder(run)
    assert from_log.H.pairs == system.H.pairs
    text = (run / "silicon.win").read_text().replace("Si  0.00", "Si  0.50")
    (run / "silicon.win").write_text(text)  # now none is at an atom
    assert read_structure_folder(run).atoms.get_chemical_symbols() == ["X"] * 4


def write_run(folder: Path, *, spinors: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Write two atoms with two and one functions; the second atom's lie in the next cell."""
    rng = np.random.default_rng(3)
    R = np.array([[0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, -1], [0, -1, 1]])
    H = rng.normal(size=(5, 3, 3)) + 1j * rng.normal(size=(5, 3, 3)) * spinors
    partner = [0, 2, 1, 4, 3]
    H = np.round((H + H[partner].conj().transpose(0, 2, 1)) / 2, 6)
    degeneracy = [1, 2, 2, 1, 1]
    lines = ["by hand", "3", "5", " ".join(map(str, degeneracy))]
    for r, block in zip(R, H, strict=True):
        lines += [
            f"{r[0]} {r[1]} {r[2]} {m + 1} {n + 1} {x.real:.6f} {x.imag:.6f}"
            for n in range(3)
            for m in range(3)
            for x in [block[m, n]]
        ]
    folder.mkdir()
    (folder / "a_hr.dat").write_text("\n".join(lines) + "\n")
    (folder / "a.win").write_text(
        "num_wann = 3 ! functions\nfermi_energy = 1.5d0\n"
        + "spinors = .true.\n" * spinors
        + "begin unit_cell_cart\nAng\n4 0 0\n0 5 0\n0 0 6\nend unit_cell_cart\n"
        "Begin Atoms_Frac\nC1 0 0 0\nO 0.5 0.5 0.5\nend atoms_frac\n"
    )
    (folder / "a_centres.xyz").write_text(
        "5\n\nX 0.1 0 0\nX 2 7.5 3\nX 0 0.1 0\nC 0 0 0\nO 2 2.5 3\n"
    )
    return R, H / np.array(degeneracy)[:, None, None]


@pytest.mark.parametrize("spinors", [False, True])
def test_functions_on_atoms(tmp_path: Path, spinors: bool) -> None:
    R, H = write_run(tmp_path / "a", spinors=spinors)
    system = read_structure_folder(tmp_path / "a")
    assert system.atoms.get_chemical_symbols() == ["C", "O"]
    assert system.basis.shells == {"C": (0, 0), "O": (0,)}
    assert system.fermi_energy == 1.5
    assert np.iscomplexobj(system.H.values) == spinors
    assert not system.is_spinful
    k = np.array([0.13, 0.21, -0.3])
    expected = np.linalg.eigvalsh(np.einsum("r,rmn->mn", np.exp(2j * np.pi * R @ k), H))
    assert np.abs(eigenvalues(system.H, system.S, k) - expected).max() < FLOAT64
    first = system.H.block(0)  # functions 1 and 3, pair R = (-1, 0, 0) or the like
    n = int(np.flatnonzero(system.H.pairs.is_onsite)[0])
    assert np.abs(system.H.block(n) - H[0][np.ix_([0, 2], [0, 2])]).max() < FLOAT64
    assert first.shape == (2, 2)
    pair = [r for i, j, *r in system.H.pairs.rows.tolist() if (i, j) == (0, 1)]
    assert [0, 1, 0] in pair  # the block of R = 0: centre in the next cell
    assert read_header(tmp_path / "a").basis == system.basis


def edit(name: str, old: str, new: str):
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return change


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (edit("a_hr.dat", "\n3\n", "\nthree\n"), "lines 2 and 3"),
        (edit("a_hr.dat", "\n3\n5", "\n3\n6"), "need 384 numbers, found 320"),
        (edit("a_hr.dat", "0 0 0 1 1 ", "0 0 0 1 2 "), "not in their order"),
        (edit("a_hr.dat", "0 0 0 1 1 ", "0 0 0 1 1 x"), "expected numbers"),
        (edit("a.win", "4 0 0\n", ""), "no three lattice vectors"),
        (edit("a.win", "O 0.5", "Qq 0.5"), "Qq are no elements"),
        (edit("a_centres.xyz", "X 0.1 0 0\n", ""), "2 centres, _hr.dat has 3 functions"),
        (lambda f: (f / "a_centres.xyz").unlink(), "write_xyz = true"),
        (lambda f: shutil.copy(f / "a_hr.dat", f / "b_hr.dat"), "a_hr.dat, b_hr.dat"),
        (lambda f: (f / "a_wsvec.dat").write_text(
            "use_ws_distance=.true.\n0 0 0 1 1\n1\n0 0 0\n"), "every element"),
    ],
)  # fmt: skip
def test_bad_files(tmp_path: Path, change, text: str) -> None:
    write_run(tmp_path / "a")
    change(tmp_path / "a")
    with pytest.raises(FormatError, match=text) as caught:
        read_structure_folder(tmp_path / "a", name="silicon")
    assert "'silicon'" in str(caught.value)
