"""ABACUS calculations in a basis of numerical orbitals: H(R), S(R), the density matrix.

A structure is the folder of a calculation with one ``OUT.*`` folder, or an ``OUT.*`` folder.
The matrices are those of ``out_mat_hs2`` (and ``out_dm1``), text files under the names of any
version (`FILES`), also compressed (``.xz``, ``.gz``); structure, shells and Fermi level are in
``running_*.log``, more digits of the structure in ``STRU``.

Orbitals: atom, l, zeta, m = 0, 1, -1, ..., with the sign (-1)^m; R as in `conventions`. With
nspin = 4 spin is the fastest index of rows and columns, and S is doubled. With nspin = 2 there
are two files of H and one of S: H is then spinful, with zero blocks between the spins.
Energies are in rydberg, converted by the constant of ABACUS.

Source: the manual of ABACUS, "Extracting Hamiltonian and Overlap Matrices".
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import numpy as np
from ase import Atoms

from deeph_lightning.core.basis import OrbitalBasis, species_labels
from deeph_lightning.errors import FormatError
from deeph_lightning.io.abacus import log as logs
from deeph_lightning.io.abacus.csr import CsrMatrix, is_csr, read_csr
from deeph_lightning.io.abacus.stru import refine
from deeph_lightning.io.code_output import Eigenvalues, facts, label_species
from deeph_lightning.io.elements import (
    Elements,
    operator_from_elements,
    stack_spins,
)
from deeph_lightning.io.files import in_file
from deeph_lightning.io.formats import read_only
from deeph_lightning.io.system import UNITS, Header, SystemData, checked
from deeph_lightning.units import CODE_CONSTANTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from deeph_lightning.core.operator import Operator

#: Matrices by every name that they have had: of the first and the second spin channel.
NAMES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "H": (
        ("data-HR-sparse_SPIN0.csr", "hrs1_nao.csr"),
        ("data-HR-sparse_SPIN1.csr", "hrs2_nao.csr"),
    ),
    "S": (("data-SR-sparse_SPIN0.csr", "SR.csr", "srs1_nao.csr", "sr_nao.csr"), ()),
    "rho": (
        ("data-DMR-sparse_SPIN0.csr", "dmrs1_nao.csr"),
        ("data-DMR-sparse_SPIN1.csr", "dmrs2_nao.csr"),
    ),
}
LOGS = ("running_scf.log", "running_nscf.log", "running_get_S.log", "running_get_s.log")
EIGENVALUE_FILES = ("istate.info", "eig_occ.txt")
SUFFIXES = ("", ".xz", ".gz")
FILES: dict[str, tuple[str, ...]] = {
    "files": tuple(
        place + name + suffix
        for place in ("", "OUT.*/")
        for name in (
            *(n for pair in NAMES.values() for names in pair for n in names),
            *LOGS, *EIGENVALUE_FILES, "INPUT", "STRU",
        )
        for suffix in SUFFIXES
    ),
}  # fmt: skip
ORBITAL_ORDER = "abacus"
#: Symbol of each operator in the headers of its files.
SYMBOLS = {"H": {"H"}, "S": {"S"}, "rho": {"DM", "D", "DMR"}}
#: Elements of S that must vanish in a spinor basis.
TOL_SPIN = 1e-8
#: Largest difference of the electrons counted from rho S, relative.
TOL_ELECTRONS = 1e-3


def detect(folder: Path) -> bool:
    """Whether the folder, or its only ``OUT.*`` folder, holds matrices of ABACUS."""
    return _output_folder(folder) is not None


def header(folder: Path, name: str) -> Header:
    """Read basis and spin from the log and from the heads of the matrices."""
    run = _Run.open(folder, name)
    return Header(run.basis, run.n_spin > 1)


def read(
    path: str | Path, operators: Sequence[str] = ("H", "S"), name: str | None = None
) -> SystemData:
    """Read and check a folder (see `formats.read_structure_folder`)."""
    folder = Path(path)
    name = name or folder.resolve().name
    run = _Run.open(folder, name)
    log = run.log
    system = SystemData(
        name=name,
        atoms=run.atoms,
        basis=run.basis,
        is_spinful=run.n_spin > 1,
        fermi_energy=log.fermi_energy,
        n_electrons=run.n_electrons(),
        info=facts(
            code="ABACUS",
            code_version=log.version,
            functional=log.functional,
            spin={1: "none", 2: "collinear", 4: "spinor"}[run.n_spin],
            is_converged=log.is_converged,
        ),
        source_format="abacus",
    )
    files = {"atoms": run.log_path}
    for key in operators:
        # spin layout of the spinor density matrix is not documented
        if key in NAMES and not (key == "rho" and run.n_spin == 4):
            found = run.find(NAMES[key][0])
            if found is not None:
                files[key] = found
                setattr(system, key, run.operator(key, found))
    return checked(system, files)


def read_eigenvalues(path: str | Path, name: str | None = None) -> Eigenvalues | None:
    """Read the eigenvalues that ABACUS printed (see `formats.Reader.read_eigenvalues`)."""
    folder = Path(path)
    run = _Run.open(folder, name or folder.resolve().name)
    table = run.eigenvalues()
    return None if table is None else Eigenvalues(table[0], table[1])


write = read_only("abacus")


class _Run(NamedTuple):
    """A calculation: where its files are and what the log says."""

    name: str
    out: Path
    log_path: Path
    log: logs.Log
    atoms: Atoms
    basis: OrbitalBasis
    n_spin: int

    @classmethod
    def open(cls, folder: Path, name: str) -> _Run:
        """Read the log and decide on the spin."""
        out = _output_folder(folder)
        if out is None:
            msg = f"{folder}: structure '{name}', found no matrices of ABACUS in this folder."
            raise FormatError(msg, path=folder, structure=name)
        log_path = _find_log(out, name)
        log = logs.read_log(log_path, name)
        for place in (out.parent, out):
            if (place / "STRU").is_file():
                log = refine(log, place / "STRU", name)
                break
        atoms = Atoms(log.symbols, positions=log.positions, cell=log.cell, pbc=True)
        atoms.info["name"] = name
        labels = label_species(log.symbols, log.labels)
        if labels != log.symbols:
            atoms.arrays["species"] = np.array(labels)
        shells = {own: log.shells[code] for own, code in zip(labels, log.labels, strict=True)}
        run = cls(name, out, log_path, log, atoms, OrbitalBasis(shells), 1)
        return run._replace(n_spin=run._count_spins())

    def find(self, names: Sequence[str]) -> Path | None:
        """Return the file that has one of the names, plain before compressed."""
        found = [path for name in names if (path := _existing(self.out, name)) is not None]
        if len(found) > 1:
            msg = (
                f"{self.out}: structure '{self.name}', found {found[0].name} and "
                f"{found[1].name}, names of the same file in two versions. Keep one of them."
            )
            raise FormatError(msg, path=self.out, structure=self.name)
        return found[0] if found else None

    def eigenvalues(self) -> tuple[NDArray[np.float64], ...] | None:
        """Return k, energies and occupations, if there is a file of them."""
        path = self.find(EIGENVALUE_FILES)
        return None if path is None else logs.read_eigenvalues(path, self.log, self.name)

    def n_electrons(self) -> float | None:
        """Count occupations where they are printed: the log's number is that of ions."""
        table, neutral = self.eigenvalues(), self.log.n_electrons
        if table is None:
            return neutral
        total = float(table[2].sum())
        if neutral is None or abs(total - neutral) > TOL_ELECTRONS * max(neutral, 1.0):
            return round(total, 6)
        return neutral

    @property
    def n_orb(self) -> int:
        """Orbitals of the cell, without spin."""
        return int(self.basis.orbital_counts(species_labels(self.atoms)).sum())

    def _count_spins(self) -> int:
        """Return nspin: 1, 2 or 4."""
        path = self.find(NAMES["H"][0]) or self.find(NAMES["S"][0])
        assert path is not None
        head = read_csr(path, self.name, header_only=True)
        if head.n_row == 2 * self.n_orb:
            return 4
        if head.n_row != self.n_orb:
            self._fail(
                path,
                f"the matrix has {head.n_row} rows, but {self.log_path.name} lists shells of "
                f"{self.n_orb} orbitals: files of two calculations are mixed here",
            )
        if self.find(NAMES["H"][1]) is not None:
            return 2
        stated = max(head.n_spin, _input_spin(self.out))
        if stated == 2 and self.find(NAMES["H"][0]) is not None:
            expected = " or ".join(NAMES["H"][1])
            self._fail(path, f"nspin is 2, but H of spin down is missing ({expected})")
        return stated

    def operator(self, key: str, path: Path) -> Operator:
        """Read the files of one operator."""
        matrix = self._matrix(key, path)
        elements = matrix.elements
        is_spinful = self.n_spin == 4 and key == "H"
        if self.n_spin == 4:
            elements = _spin_slower(elements, self.n_orb)
            if key == "S":
                elements = self._without_spin(elements, path)
        elif self.n_spin == 2 and key != "S":
            second = self.find(NAMES[key][1])
            if second is None:
                self._fail(path, f"the file of spin down is missing ({NAMES[key][1][0]})")
            down = self._matrix(key, second).elements
            elements, is_spinful = stack_spins(elements, down, self.n_orb), True
        factor = CODE_CONSTANTS["abacus"].rydberg if UNITS[key] == "eV" else 1.0
        elements = elements._replace(values=elements.values * factor)
        with in_file(path, self.name):
            op = operator_from_elements(
                self.atoms, self.basis, elements, unit=UNITS[key], is_spinful=is_spinful
            )
            return op.from_convention(ORBITAL_ORDER)

    def _matrix(self, key: str, path: Path) -> CsrMatrix:
        matrix = read_csr(path, self.name)
        expected = self.n_orb * (2 if self.n_spin == 4 else 1)
        if matrix.n_row != expected:
            self._fail(path, f"the matrix has {matrix.n_row} rows, expected {expected}")
        if matrix.symbol and matrix.symbol not in SYMBOLS[key]:
            self._fail(path, f"the header says {matrix.symbol}(R), expected {key}(R)")
        return matrix

    def _without_spin(self, elements: Elements, path: Path) -> Elements:
        """Return S of one spin; the other must be the same, and nothing between them."""
        values, n = elements.values, self.n_orb
        is_up, is_down = elements.row < n, elements.row >= n
        mixes = is_up != (elements.column < n)
        if np.abs(values[mixes]).max(initial=0.0) > TOL_SPIN:
            self._fail(path, "S couples spin up and spin down")
        if np.abs(values.imag).max(initial=0.0) > TOL_SPIN:
            self._fail(path, "S is not real")
        up, down = (
            Elements(*(a[where & ~mixes] for a in elements)) for where in (is_up, is_down)
        )
        down = down._replace(row=down.row - n, column=down.column - n)
        real = [part._replace(values=part.values.real) for part in (up, down)]
        first, second = (
            operator_from_elements(self.atoms, self.basis, part, unit="1") for part in real
        )
        difference = first.values - second.on_pairs(first.pairs).values
        if np.abs(difference).max(initial=0.0) > TOL_SPIN:
            self._fail(path, "S of spin up and of spin down differ")
        return real[0]

    def _fail(self, path: Path, what: str) -> NoReturn:
        msg = (
            f"{path}: structure '{self.name}', {what}. Copy or make the files of this "
            f"calculation again."
        )
        raise FormatError(msg, path=path, structure=self.name)


def _spin_slower(elements: Elements, n_orb: int) -> Elements:
    """Take spin from the fastest index of rows and columns to the slowest."""
    return elements._replace(
        row=elements.row // 2 + n_orb * (elements.row % 2),
        column=elements.column // 2 + n_orb * (elements.column % 2),
    )


def _existing(folder: Path, name: str) -> Path | None:
    candidates = (folder / (name + suffix) for suffix in SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


def _output_folder(folder: Path) -> Path | None:
    """Return the folder of the matrices: this one, or the only ``OUT.*`` inside."""
    if _has_matrices(folder):
        return folder
    inside = [out for out in sorted(folder.glob("OUT.*")) if _has_matrices(out)]
    return inside[0] if len(inside) == 1 else None


def _has_matrices(folder: Path) -> bool:
    names = NAMES["H"][0] + NAMES["S"][0]
    paths = (_existing(folder, name) for name in names)
    return any(path is not None and is_csr(path) for path in paths)


def _find_log(out: Path, name: str) -> Path:
    for log_name in LOGS:
        path = _existing(out, log_name)
        if path is not None:
            return path
    msg = (
        f"{out}: structure '{name}', the log is missing (expected {' or '.join(LOGS)}); it "
        f"says what the atoms and orbitals are. Copy it here from the calculation."
    )
    raise FormatError(msg, path=out, structure=name)


def _input_spin(out: Path) -> int:
    """Return nspin of ``INPUT``, 1 where it is not stated."""
    for path in (out / "INPUT", out.parent / "INPUT"):
        if path.is_file():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                words = line.split()
                if len(words) > 1 and words[0] == "nspin" and words[1] in {"1", "2", "4"}:
                    return int(words[1])
    return 1
