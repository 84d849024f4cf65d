"""ABACUS: real calculations against what the code printed, and files of every version."""

from __future__ import annotations

import lzma
import shutil
from pathlib import Path

import numpy as np
import pytest

from deeph_lightning.core.basis import OrbitalBasis
from deeph_lightning.core.operator import Operator
from deeph_lightning.core.spin import spin_channel, spin_mixing, time_reversal_residual
from deeph_lightning.errors import DataError, FormatError
from deeph_lightning.io.abacus.csr import read_csr
from deeph_lightning.io.formats import (
    detect_format,
    find_systems,
    read_eigenvalues,
    read_header,
    read_structure_folder,
)
from deeph_lightning.io.system import SystemData
from tests.io import abacus_files as files
from tests.io import gates
from tests.io.systems import STRUCTURES
from tests.systems import random_atoms, random_operator
from tests.tolerances import (
    CODE_EIGENVALUE_ABACUS,
    FLOAT64,
    OTHER_CONVERTER,
    TWO_CENTRE_ABACUS,
)

BASIS = OrbitalBasis({"B": (0, 0, 1, 2), "C": (0, 1, 3)})
CASES = ("MoS2_nspin1", "Fe_nspin2", "GaAs_nspin4", "graphene18_nspin1")


@pytest.fixture(scope="module")
def root(shared_dir: Path) -> Path:
    return shared_dir / "fixtures" / "abacus"


@pytest.fixture(scope="module")
def systems(root: Path) -> dict[str, SystemData]:
    return {name: read_structure_folder(root / name) for name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_gates(root: Path, systems, name: str, tmp_path: Path, rng) -> None:
    assert detect_format(root / name) == "abacus"
    system, reference = systems[name], read_eigenvalues(root / name)
    assert reference is not None
    gates.hermiticity(system, 1e-7, 1e-8)
    gates.overlap(system, 1e-6)
    tol = CODE_EIGENVALUE_ABACUS
    gates.against_the_code(system, reference, tol, tol)
    gates.two_centre(system, TWO_CENTRE_ABACUS)
    if system.H.n_orb < 100:
        gates.other_descriptions(system, rng)
        gates.time_reversal(system)
    gates.round_trip(system, tmp_path)


@pytest.mark.parametrize("name", CASES)
def test_facts(systems, name: str) -> None:
    system = systems[name]
    stated = {
        "MoS2_nspin1": (26, -2.3123356452, "none", "v3.10.0", True),
        "Fe_nspin2": (16, 23.959890101, "collinear", "v3.8.1", True),
        "GaAs_nspin4": (28, 14.5776936771, "spinor", "v3.8.1", False),
        "graphene18_nspin1": (72, -1.123655211, "none", "v3.8.1", True),
    }[name]
    info = system.info
    assert (system.n_electrons, system.fermi_energy) == stated[:2]
    assert (info["spin"], info["code_version"], info["is_converged"]) == stated[2:]
    assert info["functional"] == "PBE"
    assert system.is_spinful == (info["spin"] != "none")


@pytest.mark.parametrize(("name", "smearing_Ry"), [("MoS2_nspin1", 1e-3), ("Fe_nspin2", 5e-3)])
def test_electrons(root: Path, systems, name: str, smearing_Ry: float) -> None:
    reference = read_eigenvalues(root / name)
    assert reference is not None
    gates.electrons(systems[name], reference, smearing_Ry * files.RYDBERG)


def test_H_reaches_further_than_S(systems) -> None:
    system = systems["MoS2_nspin1"]
    assert system.H is not None
    assert system.S is not None
    only = system.S.pairs.locate(system.H.pairs) < 0
    assert only.sum() == 114
    assert 6e-5 < system.H.largest_elements()[only].max() < 7e-5


def test_magnetism_is_exact(root: Path, systems) -> None:
    """Both channels of iron are those of their files, and nothing couples them."""
    folder, H = root / "Fe_nspin2", systems["Fe_nspin2"].H
    assert H is not None
    assert H.values.dtype == np.float64
    assert time_reversal_residual(H) > 1.0
    assert spin_mixing(H) == 0.0
    for n in (0, 1):
        csr = read_csr(folder / "OUT.x" / f"data-HR-sparse_SPIN{n}.csr.xz", "Fe")
        largest = np.abs(csr.elements.values).max() * files.RYDBERG
        assert abs(np.abs(spin_channel(H, n).values).max() - largest) < FLOAT64 * largest


def test_spin_orbit_coupling(systems) -> None:
    gates.spin_orbit(systems["GaAs_nspin4"], 0.3039)


@pytest.mark.parametrize("name", ["MoS2_nspin1", "GaAs_nspin4_overlap"])
def test_another_converter(root: Path, name: str) -> None:
    folder = root / name
    found = read_structure_folder(folder)
    other = read_structure_folder(folder / "deeph_ref")
    assert found.basis == other.basis
    for key, op in other.operators():
        own: Operator = getattr(found, key)
        position = np.linalg.norm(
            found.atoms.positions[:, None] - other.atoms.positions, axis=2
        )
        own = own.permuted(np.argmin(position, axis=0)).on_pairs(op.pairs)
        scale = max(1.0, np.abs(op.values).max())
        assert np.abs(own.values - op.values).max() < OTHER_CONVERTER * scale


def test_committed_overlap() -> None:
    """S of gallium arsenide with spin-orbit coupling, ABACUS 3.10: doubled, compressed."""
    folder = STRUCTURES.parent / "codes" / "abacus_GaAs"
    system = read_structure_folder(folder)
    assert system.H is None
    assert read_header(folder).is_spinful
    gates.overlap(system, 1e-6)
    gates.two_centre(system, TWO_CENTRE_ABACUS)


@pytest.mark.parametrize("name", ["newformat_Si_nspin2/hrs1", "newformat_C_nspin4/srs1"])
def test_real_files_of_the_new_layout(root: Path, name: str) -> None:
    matrix = read_csr(root / f"{name}_nao.csr", "x")
    dense = {tuple(R): np.zeros((matrix.n_row,) * 2, complex) for R in matrix.elements.R}
    for R, a, b, value in zip(*matrix.elements, strict=True):
        dense[tuple(R)][a, b] = value
    for R, block in dense.items():
        assert np.abs(block - dense[tuple(-x for x in R)].conj().T).max() == 0.0


# ------------------------------------------------------------------ files made here


def make(folder: Path, rng, n_spin: int, *, is_new: bool = False) -> SystemData:
    """Write a calculation with random operators; return what must be read."""
    atoms = random_atoms(rng)
    atoms = atoms[np.argsort(atoms.get_chemical_symbols(), kind="stable")]
    atoms.info["name"] = "run"
    shells = {"B1": BASIS.shells["B"], "C": BASIS.shells["C"]}
    labels = ["B1" if s == "B" else s for s in atoms.get_chemical_symbols()]
    out = folder / "OUT.x"
    out.mkdir(parents=True)
    files.write_log(out / "running_scf.log", atoms, labels, shells)
    files.write_stru(folder / "STRU", atoms, labels)
    (folder / "INPUT").write_text(f"INPUT_PARAMETERS\nnspin {n_spin} # spins\n")
    is_spinor = n_spin == 4
    S = random_operator(rng, atoms, BASIS, r_cut=3.4).replace(unit="1")
    parts = [
        random_operator(rng, atoms, BASIS, r_cut=4.2, is_spinful=is_spinor)
        for _ in range(2 if n_spin == 2 else 1)
    ]
    cells_S = files.cells_of(S)
    if is_spinor:
        cells_S = {R: np.kron(m, np.eye(2)).astype(complex) for R, m in cells_S.items()}
    names = ("hrs1_nao.csr", "hrs2_nao.csr") if is_new else (
        "data-HR-sparse_SPIN0.csr", "data-HR-sparse_SPIN1.csr")  # fmt: skip
    for spin, (part, name) in enumerate(zip(parts, names, strict=False), 1):
        cells = files.cells_of(part, spin_fastest=is_spinor)
        cells = {R: m / files.RYDBERG for R, m in cells.items()}
        if is_new:
            files.write_new(out / name, cells, "H", n_spin=len(parts), spin=spin)
        else:
            files.write_old(out / name, cells, "H")
    if is_new:
        files.write_new(out / "sr_nao.csr", cells_S, "S")
    else:
        files.write_old(out / "data-SR-sparse_SPIN0.csr", cells_S, "S")
    H = parts[0]
    if n_spin == 2:
        up, down = parts
        blocks = [
            np.block([[up.block(n), np.zeros_like(up.block(n))],
                      [np.zeros_like(up.block(n)), down.block(n)]])
            for n in range(len(up.pairs))
        ]  # fmt: skip
        H = Operator.from_blocks(
            atoms, BASIS, up.pairs.R, up.pairs.i, up.pairs.j, blocks, is_spinful=True
        )
    return SystemData("run", atoms, BASIS, n_spin > 1, H, S)


@pytest.mark.parametrize("is_new", [False, True])
@pytest.mark.parametrize("n_spin", [1, 2, 4])
def test_every_layout_and_spin(tmp_path: Path, rng, n_spin: int, is_new: bool) -> None:
    expected = make(tmp_path / "run", rng, n_spin, is_new=is_new)
    assert find_systems(tmp_path) == [tmp_path / "run"]
    found = read_structure_folder(tmp_path / "run")
    assert found.basis == BASIS
    assert read_header(tmp_path / "run").is_spinful == (n_spin > 1)
    assert np.abs(found.atoms.positions - expected.atoms.positions).max() < 1e-9
    assert np.abs(found.atoms.cell.array - expected.atoms.cell.array).max() < 1e-9
    assert (found.fermi_energy, found.n_electrons) == (1.25, 16.0)
    for key in ("H", "S"):
        own, other = getattr(found, key), getattr(expected, key)
        assert own.pairs == other.pairs
        assert own.is_spinful == other.is_spinful
        assert np.abs(own.values - other.values).max() < FLOAT64 * 100


def test_density_matrix_and_compressed_files(tmp_path: Path, rng) -> None:
    expected = make(tmp_path, rng, 1)
    out = tmp_path / "OUT.x"
    rho = random_operator(rng, expected.atoms, BASIS, r_cut=3.0)
    files.write_old(out / "data-DMR-sparse_SPIN0.csr", files.cells_of(rho), "DM")
    for name in ("data-DMR-sparse_SPIN0.csr", "running_scf.log"):
        with lzma.open(out / f"{name}.xz", "wb") as file:
            file.write((out / name).read_bytes())
        (out / name).unlink()
    found = read_structure_folder(tmp_path, ("rho",)).rho
    assert found is not None
    assert np.abs(found.values - rho.values).max() < FLOAT64
    assert found.unit == "1"


def test_elements_below_the_threshold_of_the_code(tmp_path: Path, rng) -> None:
    """One of two partners may be cut off, its other is not lost."""
    make(tmp_path, rng, 1)
    out = tmp_path / "OUT.x"
    cells = {(0, 0, 0): np.eye(42), (0, 0, 1): np.zeros((42, 42))}
    cells[0, 0, 1][0, 41] = 1e-10
    files.write_old(out / "data-HR-sparse_SPIN0.csr", cells, "H")
    H = read_structure_folder(tmp_path).H
    assert H is not None
    assert H.pairs.partner.min() >= 0
    assert len(H.pairs) == 4 + 2


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("truncate", "the file ends after|expected R1 R2 R3|rows"),
        ("text", "could not convert|invalid literal"),
        ("second_step", "a second ionic step"),
        ("later_step", "of ionic step 3"),
        ("spin_down", "H of spin down is missing"),
        ("symbol", r"the header says S\(R\), expected H\(R\)"),
        ("rows", "lists shells of 42 orbitals"),
        ("log", "the log is missing"),
        ("log_cut", "expected one structure"),
        ("stru", "the positions of this file and of the log differ"),
        ("two_names", "names of the same file in two versions"),
        ("element", "does not begin with an element"),
    ],
)
def test_damaged_files(tmp_path: Path, rng, damage: str, message: str) -> None:
    make(tmp_path, rng, 2)
    out = tmp_path / "OUT.x"
    path, log = out / "data-HR-sparse_SPIN0.csr", out / "running_scf.log"
    text = path.read_text()
    if damage == "truncate":
        path.write_text(text[: len(text) // 2])
    elif damage == "text":
        path.write_text(text.replace(" 0.", " O.", 1))
    elif damage == "second_step":
        path.write_text(text + text.replace("STEP: 0", "STEP: 1"))
    elif damage == "later_step":
        path.write_text(text.replace("STEP: 0", "STEP: 3"))
    elif damage == "spin_down":
        (out / "data-HR-sparse_SPIN1.csr").unlink()
    elif damage == "symbol":
        shutil.copy(out / "data-SR-sparse_SPIN0.csr", path)
    elif damage == "rows":
        files.write_old(path, {(0, 0, 0): np.eye(35)}, "H")
    elif damage == "log":
        log.unlink()
    elif damage == "log_cut":
        log.write_text(log.read_text().split("CARTESIAN")[0])
    elif damage == "stru":
        stru = tmp_path / "STRU"
        lines = stru.read_text().splitlines()
        lines[-1] = "0.5 0.5 0.5 1 1 1"
        stru.write_text("\n".join(lines))
    elif damage == "two_names":
        shutil.copy(path, out / "hrs1_nao.csr")
    elif damage == "element":
        log.write_text(log.read_text().replace("label = C", "label = X"))
    with pytest.raises(FormatError, match=message) as caught:
        read_structure_folder(tmp_path, name="the_name")
    assert "the_name" in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_sublattices_keep_their_labels(tmp_path: Path, rng) -> None:
    make(tmp_path, rng, 1)
    log = tmp_path / "OUT.x" / "running_scf.log"
    (tmp_path / "STRU").unlink()
    log.write_text(log.read_text().replace("label = C", "label = B2").replace("_C1", "_B21"))
    system = read_structure_folder(tmp_path)
    assert system.atoms.get_chemical_symbols() == ["B"] * 4
    assert system.atoms.arrays["species"].tolist() == ["B1", "B1", "B2", "B2"]
    assert system.basis.shells["B2"] == BASIS.shells["C"]


def test_a_folder_of_two_runs_is_two_structures(tmp_path: Path, rng) -> None:
    make(tmp_path / "a", rng, 1)
    shutil.copytree(tmp_path / "a" / "OUT.x", tmp_path / "a" / "OUT.y")
    assert detect_format(tmp_path / "a") is None
    assert [p.name for p in find_systems(tmp_path)] == ["OUT.x", "OUT.y"]
    with pytest.raises(DataError):
        read_structure_folder(tmp_path / "a")
