"""SIESTA calculations: H and S of ``.HSX`` or ``.TSHS``, the density matrix of ``.DM``.

A structure is a folder with one of these files (`SaveHS`, or ``TS.HS.Save``). Elements come
from ``.XV``, else from the species labels; shells from the HSX file, else from ``.ORB_INDX``.
The lattice of HSX version 0 (SIESTA to 4.1) is that of ``.XV``.

The files are read by their records: a damaged file is an error that says where, and nothing is
shifted or transposed on the way.

Orbitals: shells in the order of the file, m = -l..l, with the sign (-1)^m; R as in
`conventions`. Spin: nspin = 2 becomes a spinful H with zero blocks between the spins; the
components h of nspin = 4 are ``uu = h0, dd = h1, ud = h2 - i h3, du = h2 + i h3``; those of
nspin = 8 belong to the element with row and column exchanged, so that
``uu = h0 - i h4, dd = h1 - i h5, ud = h6 - i h7, du = h2 + i h3``. The density matrix is
``rho_ij = sum_n f_n c_in conj(c_jn)``, and of nspin = 8 ``uu = d0 + i d4, dd = d1 + i d5,
ud = d2 - i d3, du = d6 + i d7``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import numpy as np
from ase import Atoms

from deeph_lightning.core.basis import OrbitalBasis, species_labels
from deeph_lightning.errors import FormatError
from deeph_lightning.io.code_output import Eigenvalues, facts, label_species, single_file
from deeph_lightning.io.elements import (
    Elements,
    operator_from_elements,
    stack_spins,
)
from deeph_lightning.io.files import in_file
from deeph_lightning.io.formats import read_only
from deeph_lightning.io.siesta import text
from deeph_lightning.io.siesta.matrices import (
    SiestaMatrices,
    read_dm,
    read_hsx,
    read_tshs,
    set_cells,
)
from deeph_lightning.io.system import UNITS, Header, SystemData, checked
from deeph_lightning.units import CODE_CONSTANTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from deeph_lightning.core.operator import Operator

FILES: dict[str, tuple[str, ...]] = {
    "matrices": ("*.HSX", "*.TSHS", "*.DM"),
    "text": tuple(
        name + suffix
        for name in ("*.XV", "*.ORB_INDX", "*.EIG", "*.KP")
        for suffix in ("", ".xz", ".gz")
    ),
    "log": ("*.out", "*.log"),
}
ORBITAL_ORDER = "siesta"
#: Largest |S - 1| of an orbital with itself: beyond it, periodic images were added to it.
TOL_NORM = 1e-2


def detect(folder: Path) -> bool:
    """Whether the folder holds an HSX or TSHS file, by its first records."""
    patterns = FILES["matrices"][:2]
    return any(_kind(path) is not None for pattern in patterns for path in folder.glob(pattern))


def header(folder: Path, name: str) -> Header:
    """Read basis and spin."""
    run = _Run.open(folder, name)
    return Header(run.basis, run.matrices.n_spin > 1)


def read(
    path: str | Path, operators: Sequence[str] = ("H", "S"), name: str | None = None
) -> SystemData:
    """Read and check a folder (see `formats.read_structure_folder`)."""
    folder = Path(path)
    name = name or folder.resolve().name
    run = _Run.open(folder, name)
    found, log = run.matrices, run.log
    fermi_energy = None
    if found.fermi_energy is not None:
        fermi_energy = found.fermi_energy * run.rydberg
    elif (eig := run.beside(".EIG")) is not None:
        fermi_energy = text.read_eig(eig, name)[0]
    system = SystemData(
        name=name,
        atoms=run.atoms,
        basis=run.basis,
        is_spinful=found.n_spin > 1,
        fermi_energy=fermi_energy,
        n_electrons=found.n_electrons,
        info=facts(
            code="SIESTA",
            code_version=log.version,
            functional=log.functional,
            spin={1: "none", 2: "collinear"}.get(found.n_spin, "spinor"),
            is_converged=log.is_converged,
        ),
        source_format="siesta",
    )
    files = {"atoms": run.path}
    if "H" in operators and found.H is not None:
        system.H, files["H"] = run.operator("H", found.H * run.rydberg), run.path
    if "S" in operators:
        system.S, files["S"] = run.overlap(), run.path
    if "rho" in operators and (dm := run.beside(".DM")) is not None:
        system.rho, files["rho"] = run.density(dm), dm
    return checked(system, files)


def read_eigenvalues(path: str | Path, name: str | None = None) -> Eigenvalues | None:
    """Read ``.EIG`` at the k-points of ``.KP`` (see `formats.Reader.read_eigenvalues`)."""
    folder = Path(path)
    run = _Run.open(folder, name or folder.resolve().name)
    eig, kp = run.beside(".EIG"), run.beside(".KP")
    if eig is None or kp is None:
        return None
    energies = text.read_eig(eig, run.name)[1]
    k = text.read_kp(kp, run.name) @ run.cell_bohr.T / (2 * np.pi)
    if energies.shape[1] != len(k):
        run.fail(kp, f"it has {len(k)} k-points, {eig.name} has {energies.shape[1]}")
    return Eigenvalues(k, energies)


write = read_only("siesta")


class _Run(NamedTuple):
    """A calculation: its files and what they say."""

    name: str
    path: Path
    matrices: SiestaMatrices
    log: text.LogFacts
    rydberg: float
    cell_bohr: NDArray[np.float64]
    atoms: Atoms
    basis: OrbitalBasis

    @classmethod
    def open(cls, folder: Path, name: str) -> _Run:
        """Read the matrices and what the structure needs."""
        patterns = FILES["matrices"]
        path = single_file(folder, patterns[:1], name) or single_file(
            folder, patterns[1:2], name
        )
        kind = None if path is None else _kind(path)
        if path is None or kind is None:
            msg = f"{folder}: structure '{name}', found no HSX or TSHS file of SIESTA in it."
            raise FormatError(msg, path=folder, structure=name)
        found = (read_tshs if kind == "tshs" else read_hsx)(path, name)
        logs = sorted(p for pattern in FILES["log"] for p in folder.glob(pattern))
        log = text.read_log(logs)
        is_old = log.is_before_5 if log.version else kind == "hsx0"
        constants = CODE_CONSTANTS["siesta_4" if is_old else "siesta"]
        run = cls(
            name, path, found, log, constants.rydberg, np.eye(3), Atoms(), OrbitalBasis({})
        )
        cell, positions, symbols, labels, shells = run._structure()
        atoms = Atoms(symbols, positions=positions * constants.bohr, pbc=True)
        atoms.set_cell(cell * constants.bohr)
        atoms.info["name"] = name
        species = label_species(symbols, labels)
        if species != symbols:
            atoms.arrays["species"] = np.array(species)
        basis = OrbitalBasis(dict(zip(species, shells, strict=True)))
        counts = basis.orbital_counts(species_labels(atoms))
        assert found.last_orbital is not None
        if not np.array_equal(np.cumsum(counts), found.last_orbital):
            run.fail(path, "its orbitals are not those of the species of .ORB_INDX or .XV")
        if found.R is None:
            of_row = np.repeat(positions, counts, axis=0)
            if not set_cells(found, of_row, cell):
                run.fail(run.path, "its vectors do not lead to the atoms of the .XV file")
        return run._replace(cell_bohr=cell, atoms=atoms, basis=basis)

    def beside(self, suffix: str) -> Path | None:
        """Return the file of the same system label with another suffix, if it exists."""
        names = (self.path.stem + suffix + packed for packed in ("", ".xz", ".gz"))
        return next((p for n in names if (p := self.path.with_name(n)).is_file()), None)

    def fail(self, path: Path, what: str) -> NoReturn:
        """Raise the error of a file."""
        msg = (
            f"{path}: structure '{self.name}', {what}. Copy or make the files of this "
            f"calculation again, in a folder of its own."
        )
        raise FormatError(msg, path=path, structure=self.name)

    def _structure(self) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str],
                                  list[str], list[tuple[int, ...]]]:  # fmt: skip
        """Return cell and positions (bohr), and element, label and shells of each atom."""
        found = self.matrices
        xv_path, orbital_path = self.beside(".XV"), self.beside(".ORB_INDX")
        xv = None if xv_path is None else text.read_xv(xv_path, self.name)
        if found.species is not None and found.labels is not None and found.shells is not None:
            labels = [found.labels[s] for s in found.species]
            shells = [found.shells[s] for s in found.species]
        elif orbital_path is not None:
            orbitals = text.read_orbitals(orbital_path, self.name)
            labels, shells = [own[0] for own in orbitals], [own[1] for own in orbitals]
        else:
            self.fail(self.path, "the file has no shells and there is no .ORB_INDX beside it")
        if xv is not None and len(xv.symbols) != len(labels):
            assert xv_path is not None
            self.fail(xv_path, f"it has {len(xv.symbols)} atoms, the matrices {len(labels)}")
        cell, positions = found.cell, found.positions
        if cell is None or positions is None:
            if xv is None:
                self.fail(self.path, "this version of the file has no lattice; .XV is missing")
            cell, positions = xv.cell, xv.positions
        symbols = xv.symbols if xv is not None else [self._symbol(label) for label in labels]
        return cell, positions, symbols, labels, shells

    def _symbol(self, label: str) -> str:
        symbol = text.symbol_of(label)
        if symbol is None:
            self.fail(
                self.path, f"species '{label}' names no element, and there is no .XV file"
            )
        return symbol

    def overlap(self) -> Operator:
        """Read S; refuse one in which periodic images were added up."""
        found = self.matrices
        S = self.operator("S", found.S[None])
        assert found.R is not None
        is_same = (found.row == found.column) & ~found.R.any(axis=1)
        worst = float(np.abs(found.S[is_same] - 1).max(initial=0.0))
        if worst > TOL_NORM:
            self.fail(
                self.path,
                f"the norm of an orbital differs from 1 by {worst:.2f}: periodic images were "
                f"added to R = 0, and cannot be told apart. Repeat with ForceAuxCell T",
            )
        return S

    def operator(self, key: str, values: NDArray[np.float64]) -> Operator:
        """Build H or S from its components, ``(n_spin, n)``."""
        found = self.matrices
        assert found.R is not None
        return self._build(key, found.R, found.row, found.column, values, self.path)

    def density(self, path: Path) -> Operator:
        """Read the density matrix."""
        row, column, values, n_repeat = read_dm(path, self.name)
        n_orb = int(self.atoms_orbitals)
        if row.size and int(row.max()) >= n_orb:
            self.fail(path, f"it is of {int(row.max()) + 1} orbitals, expected {n_orb}")
        R = _supercell(n_repeat)[column // n_orb]
        return self._build("rho", R, row, column % n_orb, values, path)

    @property
    def atoms_orbitals(self) -> int:
        """Orbitals of the cell, without spin."""
        return int(self.basis.orbital_counts(species_labels(self.atoms)).sum())

    def _build(
        self,
        key: str,
        R: NDArray[np.int64],
        row: NDArray[np.int64],
        column: NDArray[np.int64],
        values: NDArray[np.float64],
        path: Path,
    ) -> Operator:
        n, n_spin = self.atoms_orbitals, len(values)
        parts = [Elements(R, row, column, part) for part in _spin_blocks(key, values)]
        if n_spin == 1:
            elements = parts[0]
        elif n_spin == 2:
            elements = stack_spins(parts[0], parts[1], n)
        else:
            up, down = stack_spins(parts[0], parts[3], n), parts[1:3]
            mixed = [
                down[0]._replace(column=column + n),
                down[1]._replace(row=row + n),
            ]
            elements = Elements(*(np.concatenate(run) for run in zip(up, *mixed, strict=True)))
        with in_file(path, self.name):
            op = operator_from_elements(
                self.atoms, self.basis, elements, unit=UNITS[key], is_spinful=n_spin > 1
            )
            return op.from_convention(ORBITAL_ORDER)


def _spin_blocks(
    key: str, h: NDArray[np.float64]
) -> list[NDArray[np.float64] | NDArray[np.complex128]]:
    """Return the operator; its channels; or uu, ud, du, dd: of 1, 2, or 4 and 8 components."""
    if len(h) == 4:
        return [h[0] + 0j, h[2] - 1j * h[3], h[2] + 1j * h[3], h[1] + 0j]
    if len(h) == 8 and key == "rho":
        return [h[0] + 1j * h[4], h[2] - 1j * h[3], h[6] + 1j * h[7], h[1] + 1j * h[5]]
    if len(h) == 8:
        return [h[0] - 1j * h[4], h[6] - 1j * h[7], h[2] + 1j * h[3], h[1] - 1j * h[5]]
    return list(h)


def _supercell(n_repeat: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the cells as SIESTA counts them: 0, 1, ..., -1 along each, the first fastest."""
    runs = [np.where(np.arange(n) <= n // 2, np.arange(n), np.arange(n) - n) for n in n_repeat]
    third, second, first = np.meshgrid(*runs[::-1], indexing="ij")
    return np.stack((first, second, third), axis=-1).reshape(-1, 3).astype(np.int64)


def _kind(path: Path) -> str | None:
    """Return "hsx", "hsx0" or "tshs" by the first two records of a file, or None."""
    try:
        with path.open("rb") as file:
            head = np.frombuffer(file.read(16), "<i4")
    except (OSError, ValueError):
        return None
    if len(head) < 4:
        return None
    if head[0] == 16:
        return "hsx0"
    if head[0] == 4 and head[2] == 4 and head[3] == 4 and 0 < head[1] < 100:
        return "hsx"
    if head[0] == 4 and head[2] == 4 and head[3] == 20 and head[1] == 1:
        return "tshs"
    return None
