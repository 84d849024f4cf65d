"""Archives: a whole set of structures in one HDF5 file.

One pair of every Hermitian couple is kept, numbers on a grid of a power of two (`quantise`),
compressed without further loss. Schema::

    attributes  format, schema_version, length_unit, energy_unit, convention, provenance, ...
    names       names of the structures, in order
    checksums   of each structure
    split       JSON, {"train": [names], "val": ..., "test": ...}; empty if there is none
    structures/<name>
        attributes  info (JSON, the keys of DeepH's info.json), checksum
        numbers (A,), positions (A, 3), cell (3, 3)
        H, S, rho   each with its own pairs
            attributes  exponent, unit, is_complex, is_spinful, checksum
            pairs (n, 5): i, j, R1, R2, R3 in the order of storage;  planes: see quantise

Checksums are of the numbers, not of the file: sha256 over what a reader gets. They are compared
whenever something is read.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from ase import Atoms

from deeph_lightning.core.basis import OrbitalBasis, species_labels
from deeph_lightning.core.operator import Operator
from deeph_lightning.core.pairs import PairTable
from deeph_lightning.errors import DataError, FormatError, SchemaError
from deeph_lightning.io.files import h5_matches, new_file, open_h5
from deeph_lightning.io.info import Info, info_of
from deeph_lightning.io.quantise import grid_exponent, pack, storage_order, unpack
from deeph_lightning.io.split import Split, check_split, unknown_name
from deeph_lightning.io.system import UNITS, Header, SystemData, checked

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

FORMAT = "deeph_lightning archive"
SCHEMA_VERSION = 1
#: Largest loss of an element of H, eV, and of S and rho.
TOLERANCE_H = 5e-6
TOLERANCE_S = 3e-8
#: Bytes of a plane in one chunk of HDF5.
CHUNK_BYTES = 1 << 20

CONVENTION = (
    "O[R,i,j] = <i, cell 0| O |j, cell R>, vector tau_j + R.cell - tau_i; one pair of each "
    "Hermitian couple, O[R,i,j] = O[-R,j,i]^dagger; real harmonics m = -l..l without "
    "Condon-Shortley phase (p: y, z, x); blocks row by row; spin is the slower index"
)


def is_archive(path: str | Path) -> bool:
    """Whether a file is an archive, by its content."""
    return h5_matches(Path(path), lambda file: file.attrs.get("format") == FORMAT)


def write_archive(
    path: str | Path,
    systems: Iterable[SystemData],
    split: Mapping[str, Sequence[str]] | None = None,
    *,
    tolerance_H: float = TOLERANCE_H,
    tolerance_S: float = TOLERANCE_S,
    attributes: Mapping[str, str] | None = None,
) -> dict[str, float]:
    """Write structures to one file; the file appears when it is complete.

    Parameters
    ----------
    path
        File to write.
    systems
        Structures; read one by one, so that they need not fit into memory.
    split
        Names of each part.
    tolerance_H, tolerance_S
        Largest loss of an element of H in eV, and of S and rho.
    attributes
        Further facts for the attributes of the file, such as "provenance".

    Returns
    -------
    dict
        Largest loss of an element of each operator, by its name; where Hermitian partners
        disagree in the source, that counts too.

    Raises
    ------
    DataError
        A name comes twice, or is in the split only; spinful and spinless structures are mixed.
    BasisMismatchError
        Two structures have other shells for one species.
    """
    path = Path(path)
    loss: dict[str, float] = {}
    checksums: dict[str, str] = {}
    common: Header | None = None
    with new_file(path) as partial, h5py.File(partial, "w", libver=("v110", "v110")) as file:
        for system in systems:
            if system.name in checksums:
                msg = f"{path}: the name '{system.name}' comes twice. Rename one structure."
                raise DataError(msg, path=path, structure=system.name)
            common = Header(system.basis, system.is_spinful).merged(common, system.name)
            group = file.create_group(f"structures/{system.name}")
            for key, op in system.operators():
                tolerance = tolerance_H if UNITS[key] == "eV" else tolerance_S
                lost = _write_operator(
                    group.create_group(key), op.scaled(UNITS[key]), tolerance
                )
                loss[key] = max(loss.get(key, 0.0), lost)
            checksums[system.name] = _write_structure(group, system)
        if common is None:
            raise DataError(f"{path}: there is no structure to write.", path=path)
        parts = check_split(split or {}, checksums, path)
        file["names"] = np.array(list(checksums), dtype=h5py.string_dtype())
        file["checksums"] = np.array(list(checksums.values()), dtype="S64")
        file["split"] = json.dumps(parts)
        file.attrs.update(
            {
                "format": FORMAT,
                "schema_version": SCHEMA_VERSION,
                "length_unit": "Angstrom",
                "energy_unit": "eV",
                "convention": CONVENTION,
                "basis": json.dumps(common.basis.to_dict()),
                "is_spinful": common.is_spinful,
                "tolerance_H_eV": tolerance_H,
                "tolerance_S": tolerance_S,
                **(attributes or {}),
            }
        )
    return loss


class Archive:
    """A set of structures in one file.

    Parameters
    ----------
    path
        File.

    Attributes
    ----------
    names
        Structures, in the order of the file.
    split
        ``{"train": [names], ...}``, or None.
    header
        Basis of all structures together, and whether they are spinful.

    Raises
    ------
    FormatError
        The file is no archive, or damaged.
    SchemaError
        It was written by another version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with open_h5(self.path, self.path.name) as file:
            _check_schema(file, self.path)
            try:
                names = [_text(n) for n in file["names"][()]]
                checksums = [_text(c) for c in file["checksums"][()]]
                split = json.loads(_text(file["split"][()]))
                basis = OrbitalBasis.from_dict(json.loads(file.attrs["basis"]))
                self.header = Header(basis, bool(file.attrs["is_spinful"]))
            except KeyError as error:
                raise _damaged(self.path, str(error)) from None
        self.names: list[str] = names
        self._checksums = dict(zip(names, checksums, strict=True))
        self.split: Split | None = check_split(split, names, self.path) or None

    def read(self, name: str, operators: Sequence[str] = ("H", "S")) -> SystemData:
        """Read and check one structure; its operators hold both pairs of every couple.

        Parameters
        ----------
        name
            One of `names`.
        operators
            Which to read, of "H", "S", "rho", "H_pred"; those that are not there are None.

        Raises
        ------
        DataError
            There is no such structure.
        FormatError
            The file is damaged: numbers are not those that were written.
        """
        if name not in self._checksums:
            raise unknown_name(name, self.names, self.path)
        with open_h5(self.path, name) as file:
            try:
                group = file[f"structures/{name}"]
                system = _read_structure(group, name, self._checksums[name], self.path)
                for key in set(operators) & set(group):
                    setattr(system, key, _read_operator(group[key], key, system, self.path))
            except KeyError as error:
                raise _damaged(self.path, str(error), name) from None
        return checked(system, dict.fromkeys(("atoms", *UNITS), self.path))

    def fingerprint(self) -> str:
        """Return a hash of names, split and all numbers, the same wherever the file lies."""
        content = json.dumps([self._checksums, self.split], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


def _write_structure(group: h5py.Group, system: SystemData) -> str:
    """Write all but the operators, which must be there; return the checksum."""
    atoms = system.atoms
    group["numbers"] = atoms.numbers.astype(np.uint8)
    group["positions"] = atoms.get_positions()
    group["cell"] = np.asarray(atoms.cell.array)
    group.attrs["info"] = json.dumps(info_of(system))
    return _structure_checksum(group)


def _structure_checksum(group: h5py.Group) -> str:
    """Return the hash of a structure and of the checksums of its operators."""
    own = _digest(
        group["numbers"][()].astype(np.int64), group["positions"][()], group["cell"][()]
    )
    parts = [own, _text(group.attrs["info"])]
    parts += [f"{key} {_text(group[key].attrs['checksum'])}" for key in UNITS if key in group]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _read_structure(group: h5py.Group, name: str, checksum: str, path: Path) -> SystemData:
    if _structure_checksum(group) != checksum:
        raise _damaged(path, "the structure does not fit its checksum", name)
    info = Info.from_dict(json.loads(_text(group.attrs["info"])), path, name)
    atoms = Atoms(
        group["numbers"][()].astype(int),
        positions=group["positions"][()],
        cell=group["cell"][()],
        pbc=True,
    )
    atoms.info["name"] = name
    info.label(atoms, path, name)
    return SystemData(
        name=name,
        atoms=atoms,
        basis=info.basis,
        is_spinful=info.is_spinful,
        fermi_energy=info.fermi_energy,
        n_electrons=info.n_electrons,
        info=info.extra,
        source_format="archive",
    )


def _write_operator(group: h5py.Group, op: Operator, tolerance: float) -> float:
    """Write one Hermitian half; return the largest loss of an element of the whole operator."""
    kept = op.half()
    is_complex = bool(np.iscomplexobj(kept.values))
    order = storage_order(kept)
    exponent = grid_exponent(tolerance / (np.sqrt(2) if is_complex else 1))
    planes = pack(kept, order, exponent)
    rows = kept.pairs.rows[order]
    sizes = np.diff(kept.offsets)
    values = unpack(planes, sizes, order, exponent, is_complex)
    small = np.int16 if np.abs(rows).max(initial=0) < 2**15 else np.int64
    packed = {"compression": "gzip", "compression_opts": 9}
    if len(rows):
        group.create_dataset("pairs", data=rows.astype(small), shuffle=True, **packed)
    else:
        group["pairs"] = rows
    if planes.size:
        chunks = (planes.shape[0], min(planes.shape[1], CHUNK_BYTES))
        group.create_dataset("planes", data=planes, chunks=chunks, **packed)
    else:
        group["planes"] = planes
    group.attrs.update(
        {
            "exponent": exponent,
            "unit": op.unit,
            "is_complex": is_complex,
            "is_spinful": op.is_spinful,
            "checksum": _digest(kept.pairs.rows, values),
        }
    )
    restored = kept.replace(values=values).complete()  # on the pairs of `op`, both halves
    return float(np.abs(restored.values - op.complete().values).max(initial=0.0))


def _read_operator(group: h5py.Group, key: str, system: SystemData, path: Path) -> Operator:
    rows = group["pairs"][()].astype(np.int64).reshape(-1, 5)
    table, place = PairTable.from_arrays(rows[:, 2:], rows[:, 0], rows[:, 1])
    order = np.empty_like(place)  # pair of the table at each place of storage
    order[place] = np.arange(len(place))
    is_spinful = bool(group.attrs["is_spinful"])
    counts = system.basis.orbital_counts(species_labels(system.atoms))
    sizes = counts[table.i] * counts[table.j] * (4 if is_spinful else 1)
    planes, exponent = group["planes"][()], int(group.attrs["exponent"])
    values = unpack(planes, sizes, order, exponent, bool(group.attrs["is_complex"]))
    if _digest(table.rows, values) != _text(group.attrs["checksum"]):
        raise _damaged(path, f"{key} does not fit its checksum", system.name)
    half = Operator(
        system.atoms, system.basis, table, values, UNITS[key], is_spinful, is_half=True
    )
    return half.complete()


def _check_schema(file: h5py.File, path: Path) -> None:
    if file.attrs.get("format") != FORMAT:
        msg = (
            f"{path}: this HDF5 file is no archive of structures. Give an archive, or a folder "
            f"of DeepH folders."
        )
        raise FormatError(msg, path=path)
    version = int(file.attrs.get("schema_version", 0))
    if version != SCHEMA_VERSION:
        msg = (
            f"{path}: the archive has schema version {version}, this program reads "
            f"{SCHEMA_VERSION}. Write it again from its source, or use the version of "
            f"deeph_lightning that wrote it."
        )
        raise SchemaError(msg, path=path)


def _damaged(path: Path, reason: str, structure: str | None = None) -> FormatError:
    where = "" if structure is None else f" structure '{structure}',"
    msg = f"{path}:{where} the archive is damaged ({reason.strip(chr(39))}). Copy it again."
    return FormatError(msg, path=path, structure=structure)


def _digest(*arrays: NDArray[Any]) -> str:
    """Return the hash of arrays: little-endian bytes, -0.0 as 0.0."""
    state = hashlib.sha256()
    for array in arrays:
        state.update((array + 0).astype(array.dtype.newbyteorder("<")).tobytes())
    return state.hexdigest()


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
