"""Legacy DeepH folders (DeepH-pack 0.x, DeepH-E3): text files and one dataset for each block.

``lat.dat`` and ``site_positions.dat`` hold vectors as columns; keys of blocks are
``[R1, R2, R3, i, j]`` with atoms from 1; orbitals are in the order of OpenMX. H in eV, both
pairs of every Hermitian couple. H and S may have different pairs. ``info.json`` may be missing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from deeph_lightning.core.basis import OrbitalBasis, species_labels
from deeph_lightning.core.operator import Operator
from deeph_lightning.errors import DataError, FormatError
from deeph_lightning.io.files import (
    cell_to_write,
    h5_matches,
    in_file,
    new_folder,
    number_text,
    open_h5,
    read_dataset,
    read_json,
    read_table,
    refuse_mixture,
    require,
    write_json,
)
from deeph_lightning.io.info import OWN_KEYS, Info, info_of
from deeph_lightning.io.system import UNITS, Header, SystemData, checked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: Files of each operator; the first is the one that is written.
FILES: dict[str, tuple[str, ...]] = {
    "H": ("hamiltonians.h5",),
    "S": ("overlaps.h5",),
    "rho": ("density_matrixs.h5", "density_matrices.h5"),
    "H_pred": ("hamiltonians_pred.h5",),
}
#: Keys of ``info.json`` here and in DeepH 1.x.
INFO_KEYS = {
    "nsites": "atoms_quantity",
    "isorthogonal": "orthogonal_basis",
    "isspinful": "spinful",
    "fermi_level": "fermi_energy_eV",
}
ORBITAL_ORDER = "deeph_legacy"


def detect(folder: Path) -> bool:
    """Whether the folder is of this format: by its files, or the content of a matrix file."""
    matrices = [folder / name for names in FILES.values() for name in names]
    matrices = [path for path in matrices if path.is_file()]
    has_lattice = (folder / "lat.dat").is_file()
    if has_lattice and (matrices or (folder / "element.dat").is_file()):
        return True
    return any(
        h5_matches(path, lambda f: next(iter(f), "").startswith("[")) for path in matrices
    )


def header(folder: Path, name: str) -> Header:
    """Read basis and spin; the latter from the first block of H if ``info.json`` lacks it."""
    atoms, basis = _read_atoms(folder, name)
    return Header(basis, _read_info(folder, atoms, basis, name).is_spinful)


def read(
    path: str | Path, operators: Sequence[str] = ("H", "S"), name: str | None = None
) -> SystemData:
    """Read and check a folder (see `formats.read_structure_folder`)."""
    folder = Path(path)
    name = name or folder.resolve().name
    atoms, basis = _read_atoms(folder, name)
    info = _read_info(folder, atoms, basis, name)
    system = SystemData(
        name=name,
        atoms=atoms,
        basis=basis,
        is_spinful=info.is_spinful,
        fermi_energy=info.fermi_energy,
        n_electrons=info.n_electrons,
        info=info.extra,
        source_format="deeph_legacy",
    )
    files = {"atoms": folder / "site_positions.dat"}
    for key in operators:
        for file_name in FILES[key]:
            if (folder / file_name).is_file():
                files[key] = folder / file_name
                setattr(system, key, _read_operator(files[key], key, system))
                break
    return checked(system, files)


def write(system: SystemData, path: str | Path) -> None:
    """Write a folder: temporary names until it is complete (see `deeph.write`)."""
    folder = Path(path)
    names = {key: FILES[key][0] for key, _ in system.operators()}
    kept = {name for files in FILES.values() for name in files} - set(names.values())
    refuse_mixture(
        folder, sorted(kept), lambda: _read_atoms(folder, folder.name)[0], system.atoms
    )
    with new_folder(folder) as partial:
        for key, op in system.operators():
            _write_operator(partial / names[key], op.complete().scaled(UNITS[key]))
        _write_atoms(partial, system)
        write_json(partial / "info.json", _info_to_write(system))


def _read_atoms(folder: Path, name: str) -> tuple[Atoms, OrbitalBasis]:
    """Read the text files; species of one element with other shells get labels."""
    lattice = read_table(folder / "lat.dat", name, "lattice vectors as columns, Å")
    positions = read_table(folder / "site_positions.dat", name, "positions as columns, Å")
    numbers = read_table(folder / "element.dat", name, "an atomic number on each line").ravel()
    n_atom = len(numbers)
    for file_name, found, expected in (
        ("lat.dat", lattice.shape, (3, 3)),
        ("site_positions.dat", positions.shape, (3, n_atom)),
    ):
        if found != expected:
            msg = (
                f"{folder / file_name}: structure '{name}', found a table of shape {found}, "
                f"expected {expected} (element.dat has {n_atom} atoms). Correct the file."
            )
            raise FormatError(msg, path=folder / file_name, structure=name)
    is_known = (numbers >= 1) & (numbers < len(chemical_symbols)) & (numbers % 1 == 0)
    if not is_known.all():
        msg = (
            f"{folder / 'element.dat'}: structure '{name}', atom {np.argmin(is_known) + 1} has "
            f"the atomic number {numbers[np.argmin(is_known)]}, which is no element. Correct "
            f"the file."
        )
        raise FormatError(msg, path=folder / "element.dat", structure=name)
    atoms = Atoms(numbers.astype(int), positions=positions.T, cell=lattice.T, pbc=True)
    atoms.info["name"] = name
    return atoms, _read_basis(folder, atoms, name)


def _read_basis(folder: Path, atoms: Atoms, name: str) -> OrbitalBasis:
    """Read ``orbital_types.dat`` and label the atoms where elements are not enough."""
    path = require(folder / "orbital_types.dat", name, "the shells of each atom on a line")
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
        shells = [tuple(int(l) for l in line) for line in lines if line]
    except ValueError as error:
        msg = (
            f"{path}: structure '{name}', found {error}, expected degrees l. Correct the file."
        )
        raise FormatError(msg, path=path, structure=name) from None
    if len(shells) != len(atoms):
        msg = (
            f"{path}: structure '{name}' has {len(atoms)} atoms, but {len(shells)} lines of "
            f"shells. Write one line for each atom."
        )
        raise FormatError(msg, path=path, structure=name)
    labels = _labels(folder, atoms, shells, name)
    if labels != atoms.get_chemical_symbols():
        atoms.arrays["species"] = np.array(labels)
    with in_file(path, name):
        basis = OrbitalBasis(dict(zip(labels, shells, strict=True)))
    for n, (label, own) in enumerate(zip(labels, shells, strict=True)):
        if basis.shells[label] != own:
            msg = (
                f"{path}: structure '{name}', atom {n + 1} has shells {list(own)}, others of "
                f"species '{label}' have {list(basis.shells[label])}. Correct the key "
                f"'species' of info.json, or the shells."
            )
            raise DataError(msg, path=path, structure=name)
    return basis


def _labels(
    folder: Path, atoms: Atoms, shells: Sequence[tuple[int, ...]], name: str
) -> list[str]:
    """Return labels: those of ``info.json``, else symbols, numbered if their shells differ."""
    symbols = atoms.get_chemical_symbols()
    path = folder / "info.json"
    if path.is_file():
        data = read_json(path, name)
        if "species" in data:
            written = {"spinful": False, "elements_orbital_map": {"H": [0]}}
            Info.from_dict({**written, "species": data["species"]}, path, name).label(
                atoms.copy(), path, name
            )
            return list(data["species"])
    kinds: dict[str, list[tuple[int, ...]]] = {}
    for symbol, own in zip(symbols, shells, strict=True):
        if own not in kinds.setdefault(symbol, []):
            kinds[symbol].append(own)
    return [
        symbol if len(kinds[symbol]) == 1 else f"{symbol}{kinds[symbol].index(own) + 1}"
        for symbol, own in zip(symbols, shells, strict=True)
    ]


def _read_info(folder: Path, atoms: Atoms, basis: OrbitalBasis, name: str) -> Info:
    """Read ``info.json``, which may be missing or lack the spin."""
    path = folder / "info.json"
    data: dict[str, Any] = read_json(path, name) if path.is_file() else {}
    data = {INFO_KEYS.get(key, key): value for key, value in data.items()}
    if "spinful" not in data:
        data["spinful"] = _is_spinful(folder, atoms, basis, name)
    data["elements_orbital_map"] = basis.to_dict()
    data["species"] = species_labels(atoms).tolist()
    info = Info.from_dict(data, path, name)
    info.label(atoms.copy(), path, name)
    return info


def _is_spinful(folder: Path, atoms: Atoms, basis: OrbitalBasis, name: str) -> bool:
    """Whether the blocks of H are twice as long as the orbitals; False without H."""
    for file_name in FILES["H"] + FILES["H_pred"]:
        path = folder / file_name
        if path.is_file():
            with open_h5(path, name) as file:
                key = next(iter(file), None)
                if key is None:
                    return False
                pair = _pair_of(key, path, name)
                if 1 <= pair[3] <= len(atoms):
                    n_orb = basis.n_orb(str(species_labels(atoms)[pair[3] - 1]))
                    return bool(file[key].shape[0] == 2 * n_orb)
    return False


def _read_operator(path: Path, key: str, system: SystemData) -> Operator:
    pairs, blocks = _read_blocks(path, system.name)
    pairs[:, 3:] -= 1
    is_spinful = system.is_spinful and key != "S"
    if key == "rho" and is_spinful and len(pairs) and 0 <= pairs[0, 3] < len(system.atoms):
        label = str(species_labels(system.atoms)[pairs[0, 3]])
        is_spinful = blocks[0].shape[0] == 2 * system.basis.n_orb(label)
    with in_file(path, system.name):
        op = Operator.from_blocks(
            system.atoms,
            system.basis,
            pairs[:, :3],
            pairs[:, 3],
            pairs[:, 4],
            blocks,
            unit=UNITS[key],
            is_spinful=is_spinful,
        )
        return op.from_convention(ORBITAL_ORDER)


def _read_blocks(path: Path, name: str) -> tuple[NDArray[np.int64], list[NDArray[Any]]]:
    """Read pairs, ``(n, 5)`` with atoms from 1, and blocks."""
    with open_h5(path, name) as file:
        keys = list(file)
        blocks = [read_dataset(file, key, name) for key in keys]
    pairs = np.array([_pair_of(key, path, name) for key in keys], dtype=np.int64)
    for key, block in zip(keys, blocks, strict=True):
        if block.ndim != 2:
            msg = (
                f"{path}: structure '{name}', dataset '{key}' has shape {block.shape}, "
                f"expected a block. Write the file again."
            )
            raise FormatError(msg, path=path, structure=name)
    return pairs.reshape(-1, 5), blocks


def _pair_of(key: str, path: Path, name: str) -> list[int]:
    """Return the integers of a key ``[R1, R2, R3, i, j]``."""
    try:
        pair = json.loads(key)
    except json.JSONDecodeError:
        pair = None
    if not (isinstance(pair, list) and len(pair) == 5 and all(type(n) is int for n in pair)):
        msg = (
            f"{path}: structure '{name}', found the dataset '{key}', expected keys as "
            f"'[0, 0, 0, 1, 1]' (R1, R2, R3, i, j, atoms from 1). Write the file again."
        )
        raise FormatError(msg, path=path, structure=name)
    return pair


def _write_atoms(folder: Path, system: SystemData) -> None:
    atoms = system.atoms
    cell = cell_to_write(atoms)
    reciprocal = 2 * np.pi * np.linalg.inv(cell).T
    for file_name, vectors in (
        ("lat.dat", cell),
        ("rlat.dat", reciprocal),
        ("site_positions.dat", atoms.get_positions()),
    ):
        text = "\n".join(number_text(row) for row in vectors.T)
        (folder / file_name).write_text(text + "\n", encoding="utf-8")
    numbers = "\n".join(str(z) for z in atoms.numbers)
    (folder / "element.dat").write_text(numbers + "\n", encoding="utf-8")
    shells = (system.basis.shells[str(label)] for label in species_labels(atoms))
    lines = "\n".join("  ".join(str(l) for l in own) for own in shells)
    (folder / "orbital_types.dat").write_text(lines + "\n", encoding="utf-8")


def _info_to_write(system: SystemData) -> dict[str, Any]:
    """Return the content of ``info.json`` under the names of this format."""
    data = info_of(system)
    own = {key: data[new] for key, new in INFO_KEYS.items()}
    if own["fermi_level"] is None:
        del own["fermi_level"]
    also = {key: data[key] for key in ("occupation", "species") if key in data}
    rest = {k: v for k, v in data.items() if k not in OWN_KEYS | {"orthogonal_basis"}}
    return own | also | rest


def _write_operator(path: Path, op: Operator) -> None:
    stored = op.to_convention(ORBITAL_ORDER)
    pairs = np.column_stack((op.pairs.R, op.pairs.i + 1, op.pairs.j + 1)).tolist()
    with h5py.File(path, "w") as file:
        for n, pair in enumerate(pairs):
            file[str(pair)] = stored.block(n)
