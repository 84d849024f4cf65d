r"""Checkpoint files of PySCF (``mf.chkfile``): molecules, RHF/RKS, UHF/UKS, GHF/GKS.

The HDF5 file holds the molecule as JSON (``mol``) and orbitals C with energies e (``scf``).
They determine both matrices: :math:`S = C^{-\dagger} C^{-1}` and
:math:`H = C^{-\dagger} e\, C^{-1}`, since :math:`C^\dagger S C = 1`. Neither the functional
nor whether the calculation converged is in the file. Periodic cells are refused: H(k) at the
k-points of self-consistency does not say what H(R) is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from scipy import linalg

from deeph_lightning.errors import FormatError, ShapeError
from deeph_lightning.io.code_output import Eigenvalues, facts, single_file
from deeph_lightning.io.files import h5_matches, in_file, open_h5, read_dataset
from deeph_lightning.io.formats import read_only
from deeph_lightning.io.pyscf.orbitals import (
    all_pairs,
    element_of,
    fermi_level,
    operator_of,
    shells_of,
)
from deeph_lightning.io.system import Header, SystemData, checked
from deeph_lightning.units import BOHR_ANGSTROM, HARTREE_EV

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Files of a structure.
PATTERNS = ("*.chk", "*.chkfile")
FILES: dict[str, tuple[str, ...]] = {"H": PATTERNS, "S": PATTERNS}
#: Column of ``_atm`` with the place of the position in ``_env``.
_POSITION = 1

write = read_only("pyscf")


def detect(folder: Path) -> bool:
    """Whether the folder holds a checkpoint of PySCF."""
    found = (path for pattern in PATTERNS for path in folder.glob(pattern) if path.is_file())
    return any(h5_matches(path, lambda f: "mol" in f and "scf" in f) for path in found)


def header(folder: Path, name: str) -> Header:
    """Read basis and spin only."""
    path = _file(folder, name)
    mol = _molecule(path, name)
    with open_h5(path, name) as file:
        energies = read_dataset(file, "scf/mo_energy", name)
    basis = _shells(mol, path, name)[0]
    n_orb = _n_orb(mol)
    return Header(basis, is_spinful=energies.ndim == 2 or energies.size == 2 * n_orb)


def read(
    path: str | Path, operators: Sequence[str] = ("H", "S"), name: str | None = None
) -> SystemData:
    """Read and check a folder (see `formats.read_structure_folder`)."""
    folder = Path(path)
    name = name or folder.resolve().name
    file_path = _file(folder, name)
    mol = _molecule(file_path, name)
    basis, atoms = _shells(mol, file_path, name)
    with open_h5(file_path, name) as file:
        C, e, occupations = (
            read_dataset(file, f"scf/{key}", name)
            for key in ("mo_coeff", "mo_energy", "mo_occ")
        )
    inverse, n_spin = _inverse_orbitals(C, e, _n_orb(mol), file_path, name)
    is_spinful = n_spin == 2
    pairs = all_pairs(len(atoms))
    which = np.zeros(len(pairs), dtype=np.int64)
    system = SystemData(
        name,
        atoms,
        basis,
        is_spinful,
        fermi_energy=fermi_level(e, occupations) * HARTREE_EV,
        n_electrons=float(np.sum(occupations)),
        info=facts(
            code="PySCF",
            spin="none" if not is_spinful else ("collinear", "spinor")[C.ndim == 2],
        ),
        source_format="pyscf",
    )
    with in_file(file_path, name):
        if "H" in operators:
            H = np.stack(
                [
                    (b.conj().T * own) @ b
                    for b, own in zip(inverse, np.atleast_2d(e), strict=True)
                ]
            )
            system.H = operator_of(
                atoms, basis, pairs, _both_spins(H)[None], which,
                unit="hartree", is_spinful=is_spinful,
            )  # fmt: skip
        if "S" in operators:
            n = _n_orb(mol)
            S = (inverse[0].conj().T @ inverse[0])[:n, :n].real
            system.S = operator_of(atoms, basis, pairs, S[None], which, unit="1")
    return checked(system, dict.fromkeys(("atoms", *operators), file_path))


def read_eigenvalues(path: str | Path, name: str | None = None) -> Eigenvalues | None:
    """Read the orbital energies (see `formats.Reader`)."""
    folder = Path(path)
    structure = name or folder.resolve().name
    with open_h5(_file(folder, structure), structure) as file:
        energies = np.atleast_2d(read_dataset(file, "scf/mo_energy", structure))
    return Eigenvalues(np.zeros((1, 3)), energies[:, None] * HARTREE_EV)


def _file(folder: Path, structure: str) -> Path:
    path = single_file(folder, PATTERNS, structure)
    if path is None:
        msg = (
            f"{folder}: structure '{structure}' has no {' or '.join(PATTERNS)}. Copy the file "
            f"that mf.chkfile names there."
        )
        raise FormatError(msg, path=folder, structure=structure)
    return path


def _molecule(path: Path, structure: str) -> dict[str, Any]:
    """Read what the file says of the molecule, and refuse what is no spherical molecule."""
    try:
        with open_h5(path, structure) as file:
            found = file.get("mol")
            text = found[()] if isinstance(found, h5py.Dataset) else b""
        mol = json.loads(text)
        atm, bas = (np.asarray(mol[key], dtype=np.int64) for key in ("_atm", "_bas"))
        env = np.asarray(mol["_env"], dtype=np.float64)
        labels = [str(label) for label, _ in mol["_atom"]]
        positions = env[atm[:, _POSITION, None] + np.arange(3)]
        has_shape = atm.ndim == bas.ndim == 2 and bas.shape[1] == 8
        if not has_shape or len(atm) != len(labels) or bas[:, 0].max() >= len(labels):
            raise ValueError("its tables of atoms and shells do not fit together")
        is_cartesian, is_periodic = bool(mol.get("cart")), mol.get("a") is not None
    except (ValueError, KeyError, TypeError, IndexError) as error:
        msg = (
            f"{path}: structure '{structure}', the molecule cannot be read "
            f"({type(error).__name__}: {error}). The file is damaged: compute it again."
        )
        raise FormatError(msg, path=path, structure=structure) from None
    for is_wrong, what, advice in (
        (is_periodic, "a periodic cell",
         "Compute it by python -m deeph_lightning.generate engine=pyscf"),
        (is_cartesian, "a basis of Cartesian functions", "Compute it with mol.cart = False"),
    ):  # fmt: skip
        if is_wrong:
            msg = f"{path}: structure '{structure}' is {what}, which is not read. {advice}."
            raise FormatError(msg, path=path, structure=structure)
    return {"_bas": bas, "labels": labels, "positions": positions}


def _shells(mol: dict[str, Any], path: Path, structure: str) -> tuple[Any, Atoms]:
    """Return basis and structure."""
    symbols = [element_of(label) for label in mol["labels"]]
    foreign = [
        label
        for label, s in zip(mol["labels"], symbols, strict=True)
        if s not in atomic_numbers or s == "X"
    ]
    if foreign:
        msg = (
            f"{path}: structure '{structure}' has atoms {', '.join(foreign[:4])}, which are no "
            f"elements. Ghost atoms are not read."
        )
        raise FormatError(msg, path=path, structure=structure)
    with in_file(path, structure):
        basis, species = shells_of(mol["_bas"], mol["labels"], structure)
    atoms = Atoms(symbols, positions=mol["positions"] * BOHR_ANGSTROM)
    atoms.info["name"] = structure
    if species != symbols:
        atoms.arrays["species"] = np.array(species)
    return basis, atoms


def _n_orb(mol: dict[str, Any]) -> int:
    bas = mol["_bas"]
    return int(np.sum((2 * bas[:, 1] + 1) * bas[:, 3]))


def _inverse_orbitals(
    C: NDArray[Any], e: NDArray[Any], n_orb: int, path: Path, structure: str
) -> tuple[list[NDArray[Any]], int]:
    """Return the inverse of the orbitals of each channel, and the length of the spin index."""
    channels = C[None] if C.ndim == 2 else C
    n = channels.shape[-1] if channels.ndim == 3 else 0
    is_spinor = C.ndim == 2 and n == 2 * n_orb
    is_right = channels.ndim == 3 and len(channels) in (1, 2) and e.shape == C.shape[:-1]
    if not is_right or channels.shape[1] != n or n != n_orb * (2 if is_spinor else 1):
        msg = (
            f"{path}: structure '{structure}', mo_coeff has shape {C.shape} and mo_energy "
            f"{e.shape}; expected as many orbitals as the basis has functions, {n_orb}. PySCF "
            f"leaves some out where functions are linearly dependent: use another basis."
        )
        raise ShapeError(msg)
    if not (np.isfinite(C).all() and np.isfinite(e).all()):
        msg = f"{path}: structure '{structure}', orbitals are not finite. Compute it again."
        raise FormatError(msg, path=path, structure=structure)
    try:
        inverse = [linalg.inv(own) for own in channels]
    except linalg.LinAlgError:
        msg = (
            f"{path}: structure '{structure}', the orbitals are linearly dependent. The file "
            f"is damaged: compute it again."
        )
        raise FormatError(msg, path=path, structure=structure) from None
    return inverse, 2 if is_spinor or len(channels) == 2 else 1


def _both_spins(H: NDArray[Any]) -> NDArray[Any]:
    """Return H of one channel as it is, of two as one matrix, up orbitals first."""
    return H[0] if len(H) == 1 else np.asarray(linalg.block_diag(*H))
