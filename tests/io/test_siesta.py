"""SIESTA: real calculations against what the code printed, and files of every version."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from deeph_lightning.core.basis import OrbitalBasis
from deeph_lightning.core.operator import Operator
from deeph_lightning.core.spin import spin_channel
from deeph_lightning.errors import DeepHError, FormatError
from deeph_lightning.io.formats import (
    detect_format,
    read_eigenvalues,
    read_header,
    read_structure_folder,
)
from deeph_lightning.io.system import SystemData
from deeph_lightning.solve.dense import eigenstates
from tests.io import gates
from tests.io import siesta_files as files
from tests.io.systems import STRUCTURES
from tests.systems import random_atoms, random_operator
from tests.tolerances import (
    CODE_EIGENVALUE_SIESTA,
    CODE_EIGENVALUE_SIESTA_TOP,
    FLOAT64,
    OTHER_CONVERTER,
    SINGLE_PRECISION,
    TWO_CENTRE_ABACUS,
)

CASES = ("Si_hsx2", "Si_tshs", "SrTiO3_pol", "Pt2_soc")
#: p shells that are not sorted by l, as polarisation orbitals make them.
BASIS = OrbitalBasis({"B": (0, 1, 0), "C": (2, 0, 1)})
PLATINUM = STRUCTURES.parent / "codes" / "siesta_Pt2"


@pytest.fixture(scope="module")
def root(shared_dir: Path) -> Path:
    return shared_dir / "fixtures" / "siesta"


@pytest.fixture(scope="module")
def systems(root: Path) -> dict[str, SystemData]:
    return {name: read_structure_folder(root / name, ("H", "S", "rho")) for name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_gates(root: Path, systems, name: str, tmp_path: Path, rng) -> None:
    assert detect_format(root / name) == "siesta"
    system, reference = systems[name], read_eigenvalues(root / name)
    assert reference is not None
    gates.hermiticity(system, 1e-7, 1e-8)
    gates.overlap(system, 1e-5)
    gates.against_the_code(
        system, reference, CODE_EIGENVALUE_SIESTA, CODE_EIGENVALUE_SIESTA_TOP
    )
    gates.two_centre(system, TWO_CENTRE_ABACUS)
    if name != "SrTiO3_pol":
        gates.other_descriptions(system, rng)
    gates.time_reversal(system)
    gates.round_trip(system, tmp_path)


@pytest.mark.parametrize("name", CASES)
def test_facts(root: Path, systems, name: str) -> None:
    system = systems[name]
    stated = {
        "Si_hsx2": (8, -4.209317, "none", "5.4.2-dirty"),
        "Si_tshs": (8, -4.483767, "none", "5.1-MaX-24-gc2193a788"),
        "SrTiO3_pol": (40, -3.663440, "collinear", "5.1-MaX-42-gb6955e60a"),
        "Pt2_soc": (36, -4.311394, "spinor", "5.1-MaX-42-gb6955e60a"),
    }[name]
    assert abs(system.n_electrons - stated[0]) < 1e-4
    assert abs(system.fermi_energy - stated[1]) < 1e-6
    assert (system.info["spin"], system.info["code_version"]) == stated[2:]
    assert system.info["is_converged"]
    assert system.is_spinful == (stated[2] != "none")
    reference = read_eigenvalues(root / name)
    assert reference is not None
    # insulators, and the smearing of the platinum dimer
    if name in ("SrTiO3_pol", "Pt2_soc"):
        gates.electrons(system, reference, 0.05 if name == "Pt2_soc" else 1e-3)


@pytest.mark.parametrize("name", ["Si_hsx2", "Si_tshs", "Pt2_soc"])
def test_density_matrix(root: Path, systems, name: str) -> None:
    """It holds all electrons, and is made of the occupied states, not of their conjugates."""
    system = systems[name]
    rho, S = system.rho, system.S
    parts = [spin_channel(rho, n) for n in (0, 1)] if rho.is_spinful else [rho]
    count = sum((part.values.real * S.on_pairs(part.pairs).values).sum() for part in parts)
    assert abs(count - system.n_electrons) < 1e-4
    k = [0, 0, 0] if name == "Pt2_soc" else read_eigenvalues(root / name).k[0]
    energies, states = eigenstates(system.H, S, k)
    weight = 1 / (1 + np.exp(np.clip((energies[0] - system.fermi_energy) / 0.05, -99, 99)))
    expected = (2 / rho.n_spin) * (states[0] * weight) @ states[0].conj().T
    found = rho.bloch(k)
    right, wrong = (np.abs(x - expected).max() for x in (found, found.conj()))
    assert right < (1e-5 if name == "Pt2_soc" else 0.1)  # of periodic ones, cut off at a range
    assert wrong > 2 * right


def test_spin_orbit_coupling() -> None:
    """Of the committed dimer of platinum; its eigenvalues are those that SIESTA printed."""
    system, reference = read_structure_folder(PLATINUM), read_eigenvalues(PLATINUM)
    assert reference is not None
    gates.spin_orbit(system, 9.2382)
    gates.against_the_code(system, reference, CODE_EIGENVALUE_SIESTA, CODE_EIGENVALUE_SIESTA)
    gates.two_centre(system, TWO_CENTRE_ABACUS)


def test_another_converter(root: Path, systems) -> None:
    """DeePH-dock's folder of the same file; its hartree is 27.2113845 eV."""
    other = read_structure_folder(root / "Si_hsx2" / "deeph_ref")
    found = systems["Si_hsx2"]
    assert found.basis == other.basis
    for key, factor in (("H", 13.60569225 / files.RYDBERG), ("S", 1.0)):
        own, reference = getattr(found, key), getattr(other, key)
        assert own.pairs == reference.pairs
        assert np.abs(own.values * factor - reference.values).max() < OTHER_CONVERTER * 1e-6


def test_tshs_is_hsx(root: Path, systems, tmp_path: Path) -> None:
    for name, label in (("Si_tshs", "Si_pdos"), ("Pt2_soc", "Pt2_xx")):
        folder = tmp_path / name
        folder.mkdir()
        for suffix in (".TSHS", ".XV", ".ORB_INDX", ".ORB_INDX.xz"):
            path = root / name / (label + suffix)
            if path.exists():
                shutil.copy(path, folder)
        found = read_structure_folder(folder)
        assert found.basis == systems[name].basis
        assert np.array_equal(found.H.values, systems[name].H.values)
        assert np.array_equal(found.S.values, systems[name].S.values)


def test_versions_of_hsx(root: Path, tmp_path: Path) -> None:
    """Version 0, in single precision and without a lattice, is the same as version 1."""
    found = []
    for version in "10":
        folder = tmp_path / version
        folder.mkdir()
        shutil.copy(root / "hsx_versions" / f"si_pdos_kgrid.{version}.HSX", folder / "si.HSX")
        if version == "0":
            with pytest.raises(FormatError, match=r"no lattice; \.XV is missing"):
                read_structure_folder(folder)
            S = found[0].S
            files.write_xv(folder / "si.XV", S, files.BOHR)
        found.append(read_structure_folder(folder))
    new, old = found
    assert old.H.pairs == new.H.pairs
    scale = 13.6058 / files.RYDBERG  # SIESTA 4 has another rydberg
    largest = np.abs(new.H.values).max()
    assert np.abs(old.H.values - new.H.values * scale).max() < SINGLE_PRECISION * largest
    assert np.abs(old.S.values - new.S.values).max() < SINGLE_PRECISION


def test_folded_images_are_refused(root: Path) -> None:
    with pytest.raises(FormatError, match="periodic images were added"):
        read_structure_folder(root / "C2_gamma_folded")


# ------------------------------------------------------------------ files made here


def normalised(S: Operator) -> Operator:
    """Set the onsite blocks to one."""
    values = S.values.copy()
    for n in np.flatnonzero(S.pairs.is_onsite):
        values[S.offsets[n] : S.offsets[n + 1]] = np.eye(S.block_shapes[n, 0]).ravel()
    return S.replace(values=values, unit="1")


def expected_H(h: list[Operator]) -> Operator:
    """Assemble the spinor blocks by the formulas of the format, by a loop over pairs."""
    zero = np.zeros
    blocks = []
    for n in range(len(h[0].pairs)):
        c = [op.block(n) for op in h]
        if len(c) == 1:
            return h[0]
        uu, dd = c[0], c[1]
        ud = du = zero(uu.shape)
        if len(c) == 4:
            ud, du = c[2] - 1j * c[3], c[2] + 1j * c[3]
        elif len(c) == 8:
            uu, dd = c[0] - 1j * c[4], c[1] - 1j * c[5]
            ud, du = c[6] - 1j * c[7], c[2] + 1j * c[3]
        blocks.append(np.block([[uu, ud], [du, dd]]))
    pairs = h[0].pairs
    return Operator.from_blocks(
        h[0].atoms, h[0].basis, pairs.R, pairs.i, pairs.j, blocks, is_spinful=True
    )


def antisymmetric(op: Operator) -> Operator:
    """Return a real operator with O[R,i,j] = -O[-R,j,i]^T."""
    values = op.values.copy()
    for n, m in enumerate(op.pairs.partner.tolist()):
        half = 0.5 * (op.block(n) - op.block(m).T)
        values[op.offsets[n] : op.offsets[n + 1]] = half.ravel()
    return op.replace(values=values)


def make(rng, n_spin: int) -> tuple[Operator, list[Operator]]:
    """Return S and components of H that are Hermitian together."""
    atoms = random_atoms(rng)
    atoms.info["name"] = "run"
    S = normalised(random_operator(rng, atoms, BASIS, r_cut=3.6))

    def draw() -> Operator:
        return random_operator(rng, atoms, BASIS, r_cut=3.6)

    if n_spin < 8:
        return S, [draw() for _ in range(n_spin)]
    free = draw()
    free = free.replace(values=rng.normal(size=free.values.shape))
    other = free.replace(values=rng.normal(size=free.values.shape))
    transposed = [_transposed(op) for op in (free, other)]
    return S, [
        draw(), draw(), free, other, antisymmetric(free), antisymmetric(other), *transposed
    ]  # fmt: skip


def _transposed(op: Operator) -> Operator:
    values = np.concatenate([op.block(m).T.ravel() for m in op.pairs.partner.tolist()])
    return op.replace(values=values)


@pytest.mark.parametrize("kind", ["hsx1", "hsx2", "hsx2_intel", "hsx1_single", "hsx0", "tshs"])
@pytest.mark.parametrize("n_spin", [1, 2, 4, 8])
def test_every_file_and_spin(tmp_path: Path, rng, n_spin: int, kind: str) -> None:
    S, h = make(rng, n_spin)
    rows = files.Sparse(S, h)
    files.write_xv(tmp_path / "x.XV", S, 0.529177 if kind == "hsx0" else files.BOHR)
    if kind == "tshs":
        files.write_tshs(tmp_path / "x.TSHS", rows)
        files.write_orbitals(tmp_path / "x.ORB_INDX", S)
    elif kind == "hsx0":
        files.write_hsx_0(tmp_path / "x.HSX", rows)
    else:
        is_dp = {"hsx2_intel": -1, "hsx1_single": 0}.get(kind, 1)
        files.write_hsx(tmp_path / "x.HSX", rows, int(kind[3]), is_dp)
    assert detect_format(tmp_path) == "siesta"
    assert read_header(tmp_path).is_spinful == (n_spin > 1)
    found = read_structure_folder(tmp_path, name="run")
    expected = expected_H(h)
    assert found.basis == BASIS
    assert found.n_electrons == 8.0
    tol = 5e-6 if kind in ("hsx0", "hsx1_single") else FLOAT64 * 100
    for own, other in ((found.H, expected), (found.S, S)):
        assert own.pairs == other.pairs
        assert own.is_spinful == other.is_spinful
        assert np.abs(own.values - other.values).max() < tol
    assert np.abs(found.atoms.positions - S.atoms.positions).max() < 1e-9
    if kind == "hsx0":
        assert found.fermi_energy is None
    else:
        assert abs(found.fermi_energy + 0.3 * files.RYDBERG) < FLOAT64 * 10


@pytest.mark.parametrize("n_spin", [1, 2])
def test_density_matrix_file(tmp_path: Path, rng, n_spin: int) -> None:
    S, h = make(rng, n_spin)
    rows = files.Sparse(S, h)
    files.write_xv(tmp_path / "x.XV", S)
    files.write_hsx(tmp_path / "x.HSX", rows, 1)
    files.write_dm(tmp_path / "x.DM", rows)
    rho = read_structure_folder(tmp_path, ("rho",)).rho
    assert rho is not None
    assert np.abs(rho.values - expected_H(h).values).max() < FLOAT64


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("truncate", "the file ends inside it"),
        ("mark", "its two length marks differ"),
        ("size", "it has 64 bytes, expected"),
        ("version", "HSX of version 3"),
        ("tail", "follow the last record"),
        ("two", "expected one of them"),
        ("label", "names no element"),
        ("xv", "the matrices 4"),
        ("xv_cut", "expected cell, number and coordinates"),
        ("ghost", "a ghost atom"),
        ("orbitals", "no shells and there is no"),
    ],
)
def test_damaged_files(tmp_path: Path, rng, damage: str, message: str) -> None:
    S, h = make(rng, 1)
    rows = files.Sparse(S, h)
    path, xv = tmp_path / "x.HSX", tmp_path / "x.XV"
    files.write_hsx(path, rows, 1)
    files.write_xv(xv, S)
    data, lines = path.read_bytes(), xv.read_text().splitlines()
    if damage == "truncate":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "mark":
        path.write_bytes(data[:56] + b"\x07" + data[57:])
    elif damage == "size":
        path.write_bytes(data[:40] + b"\x07" + data[41:])
    elif damage == "version":
        path.write_bytes(data[:4] + b"\x03" + data[5:])
    elif damage == "tail":
        path.write_bytes(data + b"\0\0\0\0")
    elif damage == "two":
        shutil.copy(path, tmp_path / "y.HSX")
    elif damage == "label":
        xv.unlink()
        path.write_bytes(data.replace(b"B" + b" " * 19, b"qq" + b" " * 18))
    elif damage == "xv":
        lines[3] = "3"
        xv.write_text("\n".join(lines[:-1]))
    elif damage == "xv_cut":
        xv.write_text("\n".join(lines[:-1]))
    elif damage == "ghost":
        xv.write_text(xv.read_text().replace(" 6 ", " -6 ", 1))
    elif damage == "orbitals":
        files.write_tshs(tmp_path / "x.TSHS", rows)
        path.unlink()
    with pytest.raises(FormatError, match=message) as caught:
        read_structure_folder(tmp_path, name="the_name")
    assert str(tmp_path) in str(caught.value)


def test_every_byte_may_be_wrong(tmp_path: Path, rng) -> None:
    """A flipped byte is an error of ours or a slightly other number, never a crash."""
    data = bytearray((PLATINUM / "Pt2_xx.HSX").read_bytes())
    shutil.copy(PLATINUM / "Pt2_xx.XV", tmp_path / "x.XV")
    n_refused = 0
    for _ in range(40):
        place = int(rng.integers(0, 1200))
        changed = bytearray(data)
        changed[place] ^= 1 << int(rng.integers(0, 8))
        (tmp_path / "x.HSX").write_bytes(changed)
        try:
            read_structure_folder(tmp_path)
        except DeepHError:
            n_refused += 1
    assert n_refused > 10
