"""DeePTB and dftio folders: text files of the structure, one HDF5 dataset for each block.

``hamiltonians.h5``, ``overlaps.h5``, ``density_matrices.h5`` (or their singular) hold group
``0``, the frame, with datasets ``i_j_R1_R2_R3``, atoms from 0, both pairs of every couple,
m = -l..l, H in eV. ``basis.dat`` is ``{'Si': '2s2p1d'}``, numbers of shells. The LMDB form is
a pickle and is refused.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from deeph_lightning.core.basis import OrbitalBasis
from deeph_lightning.core.checks import check_basis
from deeph_lightning.core.conventions import SHELL_LETTERS
from deeph_lightning.core.operator import Operator
from deeph_lightning.errors import FormatError
from deeph_lightning.io.code_output import facts, single_file
from deeph_lightning.io.files import (
    cell_to_write,
    h5_matches,
    in_file,
    open_h5,
    read_dataset,
    read_json,
    read_table,
    require,
)
from deeph_lightning.io.formats import read_only
from deeph_lightning.io.system import UNITS, Header, SystemData, checked

if TYPE_CHECKING:
    from collections.abc import Sequence

FILES: dict[str, tuple[str, ...]] = {
    "H": ("hamiltonians.h5", "hamiltonian.h5"),
    "S": ("overlaps.h5", "overlap.h5"),
    "rho": ("density_matrices.h5", "density_matrix.h5"),
    "text": ("atomic_number*.dat", "position*.dat", "cell.dat", "pbc.dat", "basis.dat"),
    "database": ("data.mdb",),
}
NUMBERS = ("atomic_numbers.dat", "atomic_number.dat")
POSITIONS = ("positions.dat", "position.dat")
#: First bytes of an LMDB file behind the head of its page.
LMDB_MAGIC = bytes((0xDE, 0xC0, 0xEF, 0xBE))
_KEY = re.compile(r"\d+_\d+(_-?\d+){3}$")
_SHELLS = re.compile(r"(\d+)([a-z])")

write = read_only("deeptb")


def detect(folder: Path) -> bool:
    """Whether the folder has matrices of this form, the text files, or an LMDB file."""
    names = [name for key in ("H", "S", "rho") for name in FILES[key]]
    if any(h5_matches(folder / n, _has_frames) for n in names if (folder / n).is_file()):
        return True
    has_structure = any((folder / name).is_file() for name in POSITIONS)
    return (has_structure and (folder / "basis.dat").is_file()) or _is_lmdb(folder)


def _has_frames(file: Any) -> bool:
    frame = file.get("0")
    return hasattr(frame, "keys") and _KEY.match(next(iter(frame), "")) is not None


def _is_lmdb(folder: Path) -> bool:
    path = folder / "data.mdb"
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(20)[16:] == LMDB_MAGIC


def header(folder: Path, name: str) -> Header:
    """Read the basis; there is no spin."""
    _refuse_lmdb(folder, name)
    return Header(_read_basis(folder / "basis.dat", name), False)


def read(
    path: str | Path, operators: Sequence[str] = ("H", "S"), name: str | None = None
) -> SystemData:
    """Read and check a folder (see `formats.read_structure_folder`)."""
    folder = Path(path)
    name = name or folder.resolve().name
    _refuse_lmdb(folder, name)
    atoms, positions = _read_atoms(folder, name)
    basis = _read_basis(folder / "basis.dat", name)
    with in_file(folder / "basis.dat", name):
        check_basis(atoms, basis, name)
    system = SystemData(
        name=name,
        atoms=atoms,
        basis=basis,
        info=facts(code="DeePTB", spin="none"),
        source_format="deeptb",
    )
    files = {"atoms": positions}
    for key in ("H", "S", "rho"):
        file = single_file(folder, FILES[key], name)
        if key in operators and file is not None:
            files[key] = file
            setattr(system, key, _read_operator(file, key, system))
    return checked(system, files)


def _refuse_lmdb(folder: Path, name: str) -> None:
    if not _is_lmdb(folder):
        return
    path = folder / "data.mdb"
    msg = (
        f"{path}: structure '{name}', the values of this LMDB file are pickles: loading them "
        f"would run code that the file names, so they are not loaded. Parse the calculations "
        f"again with dftio and -f dat, or give the outputs of the code itself."
    )
    raise FormatError(msg, path=path, structure=name)


def _read_atoms(folder: Path, name: str) -> tuple[Atoms, Path]:
    def of(names: Sequence[str], what: str) -> Path:
        return single_file(folder, names, name) or require(folder / names[0], name, what)

    number_path = of(NUMBERS, "an atomic number on each line")
    numbers = read_table(number_path, name, "atomic numbers").ravel()
    path = of(POSITIONS, "positions, Å")
    positions = read_table(path, name, "positions, Å")
    cell_path, pbc_path = folder / "cell.dat", folder / "pbc.dat"
    pbc = (
        read_table(pbc_path, name, "periodicity").ravel() if pbc_path.is_file() else np.ones(3)
    )
    cell = np.zeros((3, 3))
    if cell_path.is_file():
        cell = read_table(cell_path, name, "lattice vectors as rows, Å")
    n_atom = len(numbers)
    if positions.shape[1] == 3 and len(positions) > n_atom and len(positions) % n_atom == 0:
        msg = (
            f"{path}: structure '{name}', found {len(positions) // n_atom} frames, expected "
            f"one. Write every frame into a folder of its own."
        )
        raise FormatError(msg, path=path, structure=name)
    known = (numbers >= 1) & (numbers < len(chemical_symbols)) & (numbers % 1 == 0)
    for file, is_right, found in (
        (path, positions.shape == (n_atom, 3), f"a table of shape {positions.shape}"),
        (cell_path, cell.shape == (3, 3), f"a table of shape {cell.shape}"),
        (pbc_path, pbc.size in (1, 3) and set(pbc) <= {0, 1}, f"{pbc[:6].tolist()}"),
        (number_path, bool(known.all()), f"atomic number {numbers[np.argmin(known)]}"),
    ):
        if not is_right:
            msg = (
                f"{file}: structure '{name}', found {found}; expected {n_atom} elements and "
                f"positions, three vectors, and 0 or 1 for each periodic direction. Correct it."
            )
            raise FormatError(msg, path=file, structure=name)
    info = read_json(folder / "info.json", name) if (folder / "info.json").is_file() else {}
    if info.get("pos_type") == "frac":
        positions = positions @ cell
    atoms = Atoms(numbers.astype(int), positions=positions, pbc=True)
    atoms.set_cell(cell * pbc.reshape(-1, 1))
    atoms.set_cell(cell_to_write(atoms))
    atoms.info["name"] = name
    return atoms, path


def _read_basis(path: Path, name: str) -> OrbitalBasis:
    """Read ``{'Si': '2s2p1d'}``, or ``{'Si': ['3s', '3p']}`` with one shell for each entry."""
    require(path, name, "the shells of every element")
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        data = ast.literal_eval(text.strip())
        shells = {str(key): _degrees(value) for key, value in data.items()}
    except (ValueError, SyntaxError, AttributeError, TypeError, MemoryError, RecursionError):
        msg = (
            f"{path}: structure '{name}', found {text[:60]!r}, expected shells of "
            f"every element as {{'Si': '2s2p1d'}}. Correct the file."
        )
        raise FormatError(msg, path=path, structure=name) from None
    with in_file(path, name):
        return OrbitalBasis(shells)


def _degrees(value: object) -> tuple[int, ...]:
    """Return degrees; raise ValueError for anything else."""
    if isinstance(value, list):
        return tuple(SHELL_LETTERS.index(re.fullmatch(r"\d*([a-z])", w)[1]) for w in value)  # type: ignore[index]
    parts = _SHELLS.findall(str(value))
    if "".join(n + letter for n, letter in parts) != value or any(
        int(n) > 50 for n, _ in parts
    ):
        raise ValueError(value)
    return tuple(SHELL_LETTERS.index(letter) for n, letter in parts for _ in range(int(n)))


def _read_operator(path: Path, key: str, system: SystemData) -> Operator:
    name = system.name
    with open_h5(path, name) as file:
        if list(file) != ["0"] or not hasattr(file["0"], "keys"):
            msg = (
                f"{path}: structure '{name}', found {', '.join(list(file)[:6]) or 'nothing'}, "
                f"expected one frame, the group '0'. Write every frame into its own folder."
            )
            raise FormatError(msg, path=path, structure=name)
        keys = [f"0/{k}" for k in file["0"]]
        blocks = [read_dataset(file, k, name) for k in keys]
    for k, block in zip(keys, blocks, strict=True):
        if _KEY.match(k[2:]) is None or block.ndim != 2:
            msg = (
                f"{path}: structure '{name}', dataset '{k}' has shape {block.shape}; expected "
                f"blocks with names such as 0/0_1_0_0_-1 (i, j, R). Write the file again."
            )
            raise FormatError(msg, path=path, structure=name)
    try:
        pairs = np.array([k[2:].split("_") for k in keys], dtype=np.int64).reshape(-1, 5)
    except OverflowError:
        msg = f"{path}: structure '{name}', a number in a name is too large. Write it again."
        raise FormatError(msg, path=path, structure=name) from None
    with in_file(path, name):
        return Operator.from_blocks(
            system.atoms, system.basis, pairs[:, 2:], pairs[:, 0], pairs[:, 1],
            blocks, unit=UNITS[key],
        ).from_convention("deeptb")  # fmt: skip
