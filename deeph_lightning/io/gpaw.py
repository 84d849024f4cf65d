"""GPAW calculations in a basis of atomic orbitals (``mode='lcao'``): the ``.gpw`` file.

The file has the potential and the atomic Hamiltonians; H(R) and S(R) are not in it. GPAW makes
H(k) and S(k) from them on a uniform mesh, whose Fourier sums are H(R) and S(R): exactly, since
the mesh is chosen so dense that its supercell holds the reach of all orbitals and projectors.
So GPAW is needed, with the PAW data and basis sets of the calculation.

Orbitals: radial functions in the order of the basis set, m = -l..l, sign +. R counts from
atoms that GPAW has mapped into the cell; what is returned counts from those of the file. S is
that of PAW: orbitals are not normalised, and small terms pass over projectors of a third atom.
A collinear calculation becomes a spinful H with zero blocks between the spins.

Source: Larsen, Vanin, Mortensen, Thygesen, Jacobsen, Phys. Rev. B 80, 195112 (2009).
"""

from __future__ import annotations

import re
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from ase.io import ulm

from deeph_lightning.core.basis import OrbitalBasis
from deeph_lightning.errors import DeepHError, FormatError, MissingDependencyError
from deeph_lightning.io.code_output import Eigenvalues, facts, label_species, single_file
from deeph_lightning.io.elements import Elements, operator_from_elements, stack_spins
from deeph_lightning.io.files import in_file
from deeph_lightning.io.formats import read_only
from deeph_lightning.io.system import Header, SystemData, checked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ase import Atoms
    from numpy.typing import NDArray

FILES: dict[str, tuple[str, ...]] = {"gpw": ("*.gpw",)}
#: First bytes of a file of ASE's ulm, and the tag that GPAW gives it behind them.
MAGIC, TAG = b"- of Ulm", b"gpaw"
#: Blocks without a larger element are rounding of the Fourier sum; hartree, and 1 for S.
NOISE = 1e-12
#: What names of functionals with a Fock operator contain: those of GPAW, also range-separated
#: by Yukawa functions, and of libxc.
HYBRID = re.compile(r"EXX|PBE0|HSE0|B3LYP|CAMY-|LCY-|HYB_", re.IGNORECASE)

write = read_only("gpaw")


def detect(folder: Path) -> bool:
    """Whether the folder holds a file of GPAW, by its first bytes."""
    return any(_is_gpw(path) for pattern in FILES["gpw"] for path in folder.glob(pattern))


def header(folder: Path, name: str) -> Header:
    """Read basis and spin."""
    run = _Run.open(folder, name)
    return Header(run.basis, run.n_spin > 1)


def read(
    path: str | Path, operators: Sequence[str] = ("H", "S"), name: str | None = None
) -> SystemData:
    """Read and check a folder (see `formats.read_structure_folder`)."""
    folder = Path(path)
    name = name or folder.resolve().name
    run = _Run.open(folder, name)
    levels = set(run.fermi_levels)  # two where the magnetic moment was fixed
    system = SystemData(
        name=name,
        atoms=run.atoms,
        basis=run.basis,
        is_spinful=run.n_spin > 1,
        fermi_energy=levels.pop() if len(levels) == 1 else None,
        n_electrons=float(run.builder.nelectrons),
        info={
            **facts(
                code="GPAW",
                code_version=run.version,
                functional=run.functional,
                spin="collinear" if run.n_spin > 1 else "none",
            ),
            "augmented_overlap": True,
        },
        source_format="gpaw",
    )
    if {"H", "S"} & set(operators):
        with _reading(run.path, name):
            H, S = _matrices(run)
        with in_file(run.path, name):
            if "H" in operators:
                system.H = operator_from_elements(
                    run.atoms, run.basis, H, unit="eV", is_spinful=system.is_spinful
                )
            if "S" in operators:
                system.S = operator_from_elements(run.atoms, run.basis, S, unit="1")
    return checked(system, {"atoms": run.path, "H": run.path, "S": run.path})


def is_hybrid(xc: str) -> bool:
    """Whether a functional, in GPAW's words, has a Fock operator, which no potential holds."""
    return HYBRID.search(xc) is not None


def read_eigenvalues(path: str | Path, name: str | None = None) -> Eigenvalues | None:
    """Read the eigenvalues of the file (see `formats.Reader.read_eigenvalues`)."""
    folder = Path(path)
    run = _Run.open(folder, name or folder.resolve().name)
    return Eigenvalues(run.k, run.energies)


class _Run(NamedTuple):
    """A calculation as GPAW reads it."""

    path: Path
    version: str
    functional: str
    hartree: float
    fermi_levels: list[float]
    k: NDArray[np.float64]
    energies: NDArray[np.float64]
    potential: Any
    builder: Any
    atoms: Atoms
    basis: OrbitalBasis

    @classmethod
    def open(cls, folder: Path, name: str) -> _Run:
        """Read everything but the matrices."""
        path = single_file(folder, FILES["gpw"], name)
        if path is None or not _is_gpw(path):
            msg = f"{folder}: structure '{name}', found no .gpw file of GPAW in this folder."
            raise FormatError(msg, path=folder, structure=name)
        # files are opened here, since GPAW leaves them open where it fails
        with _reading(path, name), path.open("rb") as head, path.open("rb") as content:
            file = ulm.Reader(head)
            _refuse_others(file, path, name)
            read_gpw = _reader_of_gpaw(path, name)
            atoms, dft, builder = read_gpw(content)
            atoms = atoms.copy()
            atoms.info["name"] = name
            waves = file.wave_functions
            shells = [
                tuple(f.get_angular_momentum_number() for f in setup.basis_functions_J)
                for setup in builder.setups
            ]
            symbols, kinds = atoms.get_chemical_symbols(), list(builder.setups.id_a)
            labels = label_species(
                symbols, [f"{s}_{kinds.index(k)}" for s, k in zip(symbols, kinds, strict=True)]
            )
            if labels != symbols:
                atoms.arrays["species"] = np.array(labels)
            return cls(
                path,
                str(file.gpaw_version),
                builder.params.xc.name,
                float(file.ha),
                [float(level) for level in waves.fermi_levels],
                np.array(waves.kpts.ibzkpts, dtype=np.float64),
                np.array(waves.eigenvalues, dtype=np.float64),
                dft.potential,
                builder,
                atoms,
                OrbitalBasis(dict(zip(labels, shells, strict=True))),
            )

    @property
    def n_spin(self) -> int:
        """Spin channels."""
        return int(self.builder.ncomponents)


def _is_gpw(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(24)
    except OSError:
        return False
    return head.startswith(MAGIC) and head[8:24].strip(b"\0 ") == TAG


def _reader_of_gpaw(path: Path, name: str) -> Any:
    """Return GPAW's function, bound to one process."""
    try:
        from gpaw.mpi import serial_comm
        from gpaw.new.gpw import read_gpw
    except ImportError:
        msg = (
            f"{path}: structure '{name}', GPAW makes H and S from this file, but it is not "
            f'installed: pip install "deeph-lightning[gpaw]"'
        )
        raise MissingDependencyError(msg) from None
    return lambda file: read_gpw(file, comm=serial_comm)


def _refuse_others(file: Any, path: Path, name: str) -> None:
    """Refuse calculations whose Hamiltonian cannot be made from the potential."""
    parameters = file.parameters.asdict()
    mode, xc = parameters.get("mode", "fd"), parameters.get("xc", "LDA")
    mode = mode["name"] if isinstance(mode, dict) else mode
    xc = xc["name"] if isinstance(xc, dict) else xc
    n_spin = len(file.density.density)
    if mode != "lcao":
        what = f"its mode is '{mode}', expected 'lcao'"
    elif is_hybrid(xc):
        what = f"its functional is {xc}, whose Fock operator is not in the file"
    elif n_spin not in {1, 2}:
        what = "it is non-collinear, expected a calculation without spin or a collinear one"
    else:
        return
    msg = f"{path}: structure '{name}', {what}. Repeat the calculation, or leave it out."
    raise FormatError(msg, path=path, structure=name)


@contextmanager
def _reading(path: Path, structure: str) -> Iterator[None]:
    """Turn whatever GPAW raises on a file that it cannot use into one error, silently."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except DeepHError:
        raise
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        msg = (
            f"{path}: structure '{structure}', GPAW cannot read the file ({first[:300]}). It "
            f"is damaged, of another version, or PAW data and basis sets of the calculation "
            f"are not found (gpaw info lists where they are sought): copy or make it again."
        )
        raise FormatError(msg, path=path, structure=structure) from error


def _matrices(run: _Run) -> tuple[Elements, Elements]:
    """Return the elements of H, eV, and S."""
    from gpaw.dft import Parameters

    old = run.builder
    mesh = _mesh(old)
    settings = old.params.todict()
    for key in ("h", "kpts", "symmetry", "mode", "eigensolver", "parallel"):
        settings.pop(key, None)
    new = Parameters(
        **settings,
        mode={"name": "lcao", "force_complex_dtype": True},
        gpts=run.potential.vt_sR.desc.size_c,
        kpts={"size": mesh, "gamma": True},
        symmetry={"point_group": False},
    ).dft_component_builder(old.atoms, comm=old.communicators["w"])
    waves = new.create_ibz_wave_functions(new.create_basis_set(), None)
    of_k = new.create_hamiltonian_operator().create_hamiltonian_matrix_calculator(run.potential)
    n_k, n_orb = len(new.ibz), new.setups.nao
    H = np.empty((run.n_spin, n_k, n_orb, n_orb), dtype=np.complex128)
    S = np.empty(H.shape[1:], dtype=np.complex128)
    for wave in waves:
        H[wave.spin, wave.k] = of_k.calculate_matrix(wave).data
        S[wave.k] = wave.S_MM.data
    # atoms that GPAW mapped into the cell are those of the file moved by lattice vectors
    moved = np.rint(new.relpos_ac - run.atoms.get_scaled_positions(wrap=False)).astype(int)
    sums = _FourierSums(new.ibz.kpt_kc, new.ibz.weight_k, mesh, new.setups, moved)
    channels = [sums.elements(own, run.hartree) for own in H]
    joined = channels[0]
    if run.n_spin == 2:
        joined = stack_spins(channels[0], channels[1], n_orb)
    return joined, sums.elements(S, 1.0)


def _mesh(builder: Any) -> tuple[int, ...]:
    """Return so many k-points that no two lattice vectors within reach are equivalent."""
    grid, positions = builder.grid, builder.relpos_ac
    orbital = max(f.get_cutoff() for s in builder.setups for f in s.basis_functions_J)
    projector = max((f.get_cutoff() for s in builder.setups for f in s.pt_j), default=0.0)
    reach = 2 * (orbital + projector)  # orbital, projectors of an atom between them, orbital
    spacing = 1 / np.linalg.norm(np.linalg.inv(grid.cell_cv), axis=0)
    farthest = np.floor(reach / spacing + np.ptp(positions, axis=0)).astype(int)
    return tuple(int(n) for n in np.where(grid.pbc_c, 2 * farthest + 1, 1))


class _FourierSums:
    """Sums over half of a mesh, the other being its time reverse: ``O(-k) = conj(O(k))``."""

    def __init__(
        self,
        k: NDArray[np.float64],
        weights: NDArray[np.float64],
        mesh: tuple[int, ...],
        setups: Any,
        moved: NDArray[np.int64],
    ) -> None:
        axes = [np.arange(n) - n // 2 for n in mesh]
        self.R = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
        phase = 2 * np.pi * self.R @ k.T
        self.cosine, self.sine = np.cos(phase) * weights, np.sin(phase) * weights
        counts = np.array([setup.nao for setup in setups])
        self.first = np.cumsum(counts) - counts
        self.atom = np.repeat(np.arange(len(counts)), counts)
        self.moved = moved

    def elements(self, of_k: NDArray[np.complex128], factor: float) -> Elements:
        """Return the elements of an operator, of all blocks that do not vanish."""
        n_orb = of_k.shape[-1]
        flat = of_k.reshape(len(of_k), -1)
        values = (self.cosine @ flat.real + self.sine @ flat.imag).reshape(-1, n_orb, n_orb)
        largest = np.maximum.reduceat(np.abs(values), self.first, axis=1)
        largest = np.maximum.reduceat(largest, self.first, axis=2)
        is_there = largest > NOISE
        cell, row, column = np.nonzero(is_there[:, self.atom][:, :, self.atom])
        R = self.R[cell] + self.moved[self.atom[column]] - self.moved[self.atom[row]]
        return Elements(R, row, column, values[cell, row, column] * factor)
