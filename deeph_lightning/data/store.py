"""The graph store: one HDF5 file with the records of a set, read one structure at a time.

Root attributes tell what the file is and of what it was made; ``structures/<number>`` holds one
record each, in contiguous uncompressed datasets that carry their unit, so that reading takes
about as long as copying. The file knows nothing of models: message edges are found on loading.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from deeph_lightning.core.basis import OrbitalBasis
from deeph_lightning.data.records import GraphRecord
from deeph_lightning.errors import DataError, SchemaError

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = "deeph_lightning graph store"
SCHEMA_VERSION = 2

_UNITS = {
    "position": "angstrom",
    "H_hopping": "eV",
    "H_onsite": "eV",
    "S_hopping": "1",
    "S_onsite": "1",
}
#: Columns of the dataset ``pair``.
_PAIR_COLUMNS = "R1 R2 R3 i j has_H has_S"


class GraphStore:
    """A finished graph store, open for reading.

    The file is opened at the first read, in every process anew; pickling drops the handle.

    Parameters
    ----------
    path
        File that `prepare.prepare_store` made.

    Attributes
    ----------
    names
        Names of the structures.
    n_pair, n_atom
        ``(n,)``, target pairs and atoms of each structure.
    basis
        Shells of all species of the set.
    is_spinful
        Whether H has spin.
    fingerprint
        Hash of structures and labels.
    report
        Summary of the set, see `prepare.summarise`.

    Raises
    ------
    SchemaError
        The file is missing, of another kind or version, or unfinished.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file: h5py.File | None = None
        self._pid = -1
        header = read_header(self.path)
        if header is None:
            raise SchemaError(
                f"{self.path}: there is no such graph store. Prepare the data first.",
                path=self.path,
            )
        if header["schema_version"] != SCHEMA_VERSION or not header["is_complete"]:
            raise SchemaError(
                f"{self.path}: graph store of version {header['schema_version']}, this program "
                f"reads version {SCHEMA_VERSION}. Prepare the data anew.",
                path=self.path,
            )
        self.fingerprint: str = header["fingerprint"]
        self.report: dict[str, Any] = json.loads(header["report"])
        self.is_spinful: bool = self.report["is_spinful"]
        self.basis = OrbitalBasis.from_dict(self.report["shells"])
        index = self._open()["index"]
        self.names: list[str] = [str(name) for name in index["name"].asstr()[()]]
        self.n_pair: NDArray[np.int64] = index["n_pair"][()]
        self.n_atom: NDArray[np.int64] = index["n_atom"][()]
        self._number = {name: n for n, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.names)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None, "_pid": -1}

    def index(self, name: str) -> int:
        """Return the number of a structure.

        Raises
        ------
        DataError
            The store does not hold it.
        """
        if name not in self._number:
            raise DataError(
                f"{self.path}: there is no structure '{name}' among {len(self)} "
                f"({', '.join(self.names[:3])}, ...). Correct the name.",
                path=self.path,
                structure=name,
            )
        return self._number[name]

    def read(self, name: str) -> GraphRecord:
        """Read one structure.

        Raises
        ------
        DataError
            The store does not hold it.
        SchemaError
            The file is damaged.
        """
        number = self.index(name)
        try:
            return read_record(self._open()[f"structures/{number:06d}"])
        except (KeyError, OSError) as error:
            raise SchemaError(
                f"{self.path}: structure '{name}' cannot be read ({error}). The store is "
                f"damaged; delete it, it is made again.",
                path=self.path,
                structure=name,
            ) from None

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        if self._file is not None and self._pid == os.getpid():
            self._file.close()
        self._file = None

    def _open(self) -> h5py.File:
        # a handle that came through a fork is shared with the parent and must not be used
        if self._file is None or self._pid != os.getpid():
            self._file = h5py.File(self.path, "r", locking="best-effort")
            self._pid = os.getpid()
        return self._file


def read_header(path: Path) -> dict[str, Any] | None:
    """Return the root attributes of a graph store of any version; None without a file.

    Raises
    ------
    SchemaError
        The file is not a graph store.
    """
    if not path.exists():
        return None
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            header = dict(file.attrs)
    except OSError as error:
        raise SchemaError(
            f"{path}: is not HDF5, or damaged ({str(error).splitlines()[0]}); expected a graph "
            f"store. Delete it if it is not needed, or choose another data.cache_dir.",
            path=path,
        ) from None
    if header.get("format") != FORMAT:
        raise SchemaError(
            f"{path}: is an HDF5 file of another kind (format {header.get('format')!r}), "
            f"expected {FORMAT!r}. Move it away, or choose another data.cache_dir.",
            path=path,
        )
    return header


def write_record(group: h5py.Group, record: GraphRecord) -> None:
    """Write one record into an empty group."""
    pair = np.column_stack(
        (record.pair_R, record.pair_i, record.pair_j, record.has_H, record.has_S)
    )
    arrays = {
        "atom": np.column_stack((record.species, record.number)).astype(np.int32),
        "position": record.position,
        "pair": pair.astype(np.int32),
        "H_hopping": record.H_hopping,
        "H_onsite": record.H_onsite,
        "S_hopping": record.S_hopping,
        "S_onsite": record.S_onsite,
    }
    for name, array in arrays.items():
        if array is None:
            continue
        dataset = group.create_dataset(name, data=array)
        if name in _UNITS:
            dataset.attrs["unit"] = _UNITS[name]
    group["atom"].attrs["columns"] = "species number"
    group["pair"].attrs["columns"] = _PAIR_COLUMNS
    group.attrs["about"] = json.dumps(
        {
            "name": record.name,
            "shells": record.shells,
            "cell_angstrom": record.cell.tolist(),
            "pbc": record.pbc.tolist(),
            "r_complete_angstrom": record.r_complete,
            "has_S": record.S_hopping is not None,
            "is_spinful": record.is_spinful,
            "fermi_energy_eV": record.fermi_energy,
            "n_electrons": record.n_electrons,
        }
    )


def read_record(group: h5py.Group) -> GraphRecord:
    """Read what `write_record` wrote."""
    about = json.loads(group.attrs["about"])
    atom, pair = _read(group, "atom", np.int64), _read(group, "pair", np.int64)
    h_type = np.complex128 if about["is_spinful"] else np.float64
    return GraphRecord(
        name=about["name"],
        shells={label: tuple(shells) for label, shells in about["shells"].items()},
        species=atom[:, 0].copy(),
        number=atom[:, 1].copy(),
        position=_read(group, "position"),
        cell=np.array(about["cell_angstrom"]),
        pbc=np.array(about["pbc"]),
        pair_i=pair[:, 3].copy(),
        pair_j=pair[:, 4].copy(),
        pair_R=pair[:, :3].copy(),
        r_complete=about["r_complete_angstrom"],
        has_H=pair[:, 5] != 0,
        has_S=pair[:, 6] != 0,
        H_hopping=_read(group, "H_hopping", h_type),
        H_onsite=_read(group, "H_onsite", h_type),
        S_hopping=_read(group, "S_hopping") if about["has_S"] else None,
        S_onsite=_read(group, "S_onsite") if about["has_S"] else None,
        is_spinful=about["is_spinful"],
        fermi_energy=about["fermi_energy_eV"],
        n_electrons=about["n_electrons"],
    )


def _read(group: h5py.Group, name: str, dtype: type = np.float64) -> NDArray[Any]:
    """Read a dataset by the low-level interface, which halves the time of a structure."""
    dataset = h5py.h5d.open(group.id, name.encode())
    array = np.empty(dataset.shape, dtype=dtype)
    dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, array)
    return array
