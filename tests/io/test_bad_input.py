"""Bad input: each mistake gives one typed error that names file, key and structure."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from deeph_lightning.errors import (
    BasisMismatchError,
    DataError,
    DeepHError,
    FormatError,
    HermiticityError,
    PhysicsError,
    ShapeError,
)
from deeph_lightning.io import deeph, deeph_legacy
from deeph_lightning.io.formats import read_header, read_structure_folder
from tests.io.systems import OPERATORS, STRUCTURES, random_system

Change = Callable[[Path], None]


def edit_info(**changes: object) -> Change:
    """Set keys of info.json; None removes one."""

    def change(folder: Path) -> None:
        path = folder / "info.json"
        info = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({k: v for k, v in info.items() if v is not None}))

    return change


def edit_text(name: str, edit: Callable[[list[str]], list[str]]) -> Change:
    """Change the lines of a text file."""

    def change(folder: Path) -> None:
        path = folder / name
        path.write_text("\n".join(edit(path.read_text().splitlines())) + "\n")

    return change


def edit_h5(name: str, key: str, edit: Callable[[np.ndarray], object]) -> Change:
    """Replace a dataset by a function of it; None removes it."""

    def change(folder: Path) -> None:
        with h5py.File(folder / name, "r+") as file:
            new = edit(file[key][()])
            del file[key]
            if new is not None:
                file[key] = new

    return change


def set_value(index: object, value: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that sets an element."""

    def edit(array: np.ndarray) -> np.ndarray:
        array[index] = value
        return array

    return edit


def truncate(name: str, share: float = 0.6) -> Change:
    """Cut a file off."""

    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(share * len(content))])

    return change


def remove(name: str) -> Change:
    """Remove a file."""
    return lambda folder: (folder / name).unlink()


def drop_pair(n: int) -> Change:
    """Remove a pair of H consistently."""

    def change(folder: Path) -> None:
        with h5py.File(folder / "hamiltonian.h5", "r+") as file:
            starts, shapes = file["chunk_boundaries"][()], file["chunk_shapes"][()]
            shapes = np.delete(shapes, n, axis=0)
            new = {
                "atom_pairs": np.delete(file["atom_pairs"][()], n, axis=0),
                "chunk_shapes": shapes,
                "chunk_boundaries": np.concatenate(([0], np.cumsum(shapes.prod(axis=1)))),
                "entries": np.delete(file["entries"][()], np.r_[starts[n] : starts[n + 1]]),
            }
            for key, values in new.items():
                del file[key]
                file[key] = values

    return change


def move_closer(lines: list[str]) -> list[str]:
    """Put the last atom of a POSCAR near the first."""
    x, y, z = (float(v) for v in lines[8].split()[:3])
    return [*lines[:-1], f"{x + 0.2} {y} {z}"]


H, S = "hamiltonian.h5", "overlap.h5"
NEW: dict[str, tuple[Change, type[DeepHError], list[str]]] = {
    "no POSCAR": (remove("POSCAR"), FormatError, ["POSCAR", "lacks this file"]),
    "no info.json": (remove("info.json"), FormatError, ["info.json", "lacks this file"]),
    "truncated H": (truncate(H), FormatError, [H, "cannot be read as HDF5", "copy it again"]),
    "empty S": (truncate(S, 0.0), FormatError, [S, "cannot be read as HDF5"]),
    "H is text": (
        lambda folder: (folder / H).write_text("no matrix"),
        FormatError,
        [H, "cannot be read as HDF5"],
    ),
    "dataset missing": (
        edit_h5(H, "chunk_shapes", lambda _: None),
        FormatError,
        [H, "dataset 'chunk_shapes' is missing", "atom_pairs"],
    ),
    "dataset of text": (
        edit_h5(H, "entries", lambda _: "text"),
        FormatError,
        [H, "dataset 'entries' has dtype object"],
    ),
    "pairs of four numbers": (
        edit_h5(H, "atom_pairs", lambda a: a[:, :4]),
        FormatError,
        [H, "dataset 'atom_pairs' has shape (9, 4), expected (number of pairs, 5)"],
    ),
    "wrong block shape": (
        edit_h5(H, "chunk_shapes", set_value((3, 1), 7)),
        ShapeError,
        [H, "R=(0, 0, 0) i=1 j=0", "[5, 7]", "[5, 14]"],
    ),
    "wrong boundaries": (
        edit_h5(S, "chunk_boundaries", set_value(4, 1)),
        ShapeError,
        [S, "offsets", "orbital map"],
    ),
    "boundaries too short": (
        edit_h5(S, "chunk_boundaries", lambda a: a[:-1]),
        ShapeError,
        [S, "offsets", "(9,)", "(10,)"],
    ),
    "entries too short": (
        edit_h5(H, "entries", lambda a: a[:-1]),
        ShapeError,
        [H, "truncated"],
    ),
    "NaN": (
        edit_h5(H, "entries", set_value(200, np.nan)),
        PhysicsError,
        [H, "pair R=(0, 0, 0) i=0 j=1", "nan"],
    ),
    "infinite": (edit_h5(S, "entries", set_value(0, np.inf)), PhysicsError, [S, "inf"]),
    "pair twice": (
        edit_h5(H, "atom_pairs", set_value((1, 4), 0)),
        DataError,
        [H, "comes twice, at positions 0 and 1"],
    ),
    "atom that is not there": (
        edit_h5(H, "atom_pairs", set_value((8, 3), 5)),
        DataError,
        [H, "i=5", "3 atoms"],
    ),
    "partner missing": (
        drop_pair(1),
        HermiticityError,
        [H, "pair R=(0, 0, 0) i=1 j=0 has no Hermitian partner"],
    ),
    "onsite block missing": (
        drop_pair(4),
        DataError,
        [H, "1 of 3 atoms have no onsite block, among them atom 1"],
    ),
    "partner differs": (
        edit_h5(H, "entries", lambda a: set_value(200, a[200] + 1e-3)(a)),
        HermiticityError,
        [H, "differ by 1.00e-03 eV, tolerance 1e-05 eV"],
    ),
    "partner of S differs": (
        edit_h5(S, "entries", lambda a: set_value(200, a[200] + 1e-3)(a)),
        HermiticityError,
        [S, "tolerance 1e-06"],
    ),
    "map does not fit": (
        edit_info(elements_orbital_map={"O": [0, 0, 1, 1, 2], "H": [0, 0, 1]}),
        DataError,
        ["info.json", "'orbits_quantity' is 24", "23 orbitals"],
    ),
    "map does not fit the blocks": (
        edit_info(
            elements_orbital_map={"O": [0, 0, 1, 1, 2], "H": [0, 0, 1]}, orbits_quantity=None
        ),
        ShapeError,
        [H, "orbital map", "[14, 14]", "[13, 13]"],
    ),
    "map lacks an element": (
        edit_info(elements_orbital_map={"O": [0, 0, 0, 1, 1, 2]}),
        BasisMismatchError,
        ["info.json", "also holds H"],
    ),
    "map has no element": (
        edit_info(elements_orbital_map={"O": [0], "H": [0], "Qq": [0]}),
        FormatError,
        ["info.json", "'elements_orbital_map'", "Qq"],
    ),
    "map is no map": (
        edit_info(elements_orbital_map={"O": ["s"], "H": [0]}),
        FormatError,
        ["info.json", "'elements_orbital_map'"],
    ),
    "degree is absurd": (
        edit_info(elements_orbital_map={"O": [0, 10**20], "H": [0]}),
        DataError,
        ["info.json", "species 'O'", "0 <= l <= 20"],
    ),
    "map is missing": (
        edit_info(elements_orbital_map=None),
        FormatError,
        ["info.json", "'elements_orbital_map'", "no such key"],
    ),
    "spinful by mistake": (edit_info(spinful=True), ShapeError, [H, "[14, 14]", "[28, 28]"]),
    "spin is no truth value": (
        edit_info(spinful="no"),
        FormatError,
        ["info.json", "key 'spinful': found 'no', expected true or false"],
    ),
    "other number of atoms": (
        edit_info(atoms_quantity=4),
        DataError,
        ["info.json", "'atoms_quantity' says 4 atoms, the structure has 3"],
    ),
    "labels of other atoms": (
        edit_info(species=["O", "H"]),
        DataError,
        ["info.json", "'species' says 2 atoms"],
    ),
    "Fermi level is NaN": (
        edit_info(fermi_energy_eV=float("nan")),
        FormatError,
        ["info.json", "fermi_energy_eV", "finite"],
    ),
    "info is no JSON": (truncate("info.json"), FormatError, ["info.json", "not JSON"]),
    "info is a list": (
        lambda folder: (folder / "info.json").write_text("[]"),
        FormatError,
        ["info.json", "found a list"],
    ),
    "POSCAR too short": (
        edit_text("POSCAR", lambda lines: lines[:-1]),
        FormatError,
        ["POSCAR", "no POSCAR"],
    ),
    "POSCAR of unknown element": (
        edit_text("POSCAR", lambda lines: [x.replace("O H", "Qq H") for x in lines]),
        FormatError,
        ["POSCAR", "no POSCAR", "Qq"],
    ),
    "position is NaN": (
        edit_text("POSCAR", lambda lines: [*lines[:-1], "nan 0 0"]),
        PhysicsError,
        ["POSCAR", "NaN"],
    ),
    "lattice is flat": (
        edit_text("POSCAR", lambda lines: [*lines[:4], "0 10 1e-7", *lines[5:]]),
        PhysicsError,
        ["POSCAR", "lattice planes 1e-07 Å apart"],
    ),
    "a lattice vector is zero": (
        edit_text("POSCAR", lambda lines: [*lines[:3], "0 0 0", *lines[4:]]),
        PhysicsError,
        ["POSCAR", "span no volume"],
    ),
    "POSCAR without elements": (
        edit_text("POSCAR", lambda lines: [*lines[:5], *lines[6:]]),
        FormatError,
        ["POSCAR", "no POSCAR"],
    ),
    "lattice is endless": (
        edit_text("POSCAR", lambda lines: [*lines[:4], "0 0 1e99", *lines[5:]]),
        PhysicsError,
        ["POSCAR", "1e+99 Å long"],
    ),
    "atoms too close": (
        edit_text("POSCAR", move_closer),
        PhysicsError,
        ["POSCAR", "0.200 Å apart", "0.3 Å expected"],
    ),
}


@pytest.mark.parametrize("case", NEW)
def test_deeph(tmp_path: Path, case: str) -> None:
    change, error, texts = NEW[case]
    folder = shutil.copytree(STRUCTURES / "H2O_0", tmp_path / "water")
    change(folder)
    with pytest.raises(error) as caught:
        read_structure_folder(folder, OPERATORS)
    check_message(caught.value, folder, "water", texts)


LEGACY: dict[str, tuple[Change, type[DeepHError], list[str]]] = {
    "no lattice": (remove("lat.dat"), FormatError, ["lat.dat", "lacks this file"]),
    "no elements": (remove("element.dat"), FormatError, ["element.dat", "lacks this file"]),
    "no shells": (remove("orbital_types.dat"), FormatError, ["orbital_types.dat"]),
    "lattice of two vectors": (
        edit_text("lat.dat", lambda lines: lines[:2]),
        FormatError,
        ["lat.dat", "shape (2, 3), expected (3, 3)"],
    ),
    "positions of fewer atoms": (
        edit_text("site_positions.dat", lambda lines: [x.rsplit(" ", 1)[0] for x in lines]),
        FormatError,
        ["site_positions.dat", "(3, 2), expected (3, 3)", "3 atoms"],
    ),
    "table with words": (
        edit_text("lat.dat", lambda lines: ["a b c", *lines[1:]]),
        FormatError,
        ["lat.dat", "no table of numbers"],
    ),
    "unknown element": (
        edit_text("element.dat", lambda lines: ["520", *lines[1:]]),
        FormatError,
        ["element.dat", "atom 1", "520"],
    ),
    "shells of fewer atoms": (
        edit_text("orbital_types.dat", lambda lines: lines[:-1]),
        FormatError,
        ["orbital_types.dat", "3 atoms, but 2 lines"],
    ),
    "shells as letters": (
        edit_text("orbital_types.dat", lambda lines: ["s p d", *lines[1:]]),
        FormatError,
        ["orbital_types.dat", "expected degrees"],
    ),
    "shells do not fit": (
        edit_text("orbital_types.dat", lambda lines: [*lines[:2], "0 0 1"]),
        ShapeError,
        ["hamiltonians.h5", "[19, 19]", "[19, 5]"],
    ),
    "truncated H": (truncate("hamiltonians.h5"), FormatError, ["hamiltonians.h5", "HDF5"]),
    "foreign key": (
        lambda folder: h5py.File(folder / "overlaps.h5", "r+").create_dataset("x", data=[1.0]),
        FormatError,
        ["overlaps.h5", "dataset 'x'", "[0, 0, 0, 1, 1]"],
    ),
    "key of six numbers": (
        lambda folder: h5py.File(folder / "overlaps.h5", "r+").create_dataset(
            "[0, 0, 0, 1, 1, 1]", data=[1.0]
        ),
        FormatError,
        ["overlaps.h5", "'[0, 0, 0, 1, 1, 1]'"],
    ),
    "block is flat": (
        edit_h5("overlaps.h5", "[0, 0, 0, 1, 2]", np.ravel),
        FormatError,
        ["overlaps.h5", "dataset '[0, 0, 0, 1, 2]' has shape (361,)"],
    ),
    "atom that is not there": (
        lambda folder: h5py.File(folder / "overlaps.h5", "r+").move(
            "[0, 0, 0, 1, 1]", "[0, 0, 0, 0, 1]"
        ),
        DataError,
        ["overlaps.h5", "i=-1"],
    ),
    "partner missing": (
        edit_h5("hamiltonians.h5", "[0, 0, 0, 1, 2]", lambda _: None),
        HermiticityError,
        ["hamiltonians.h5", "i=1 j=0", "no Hermitian partner"],
    ),
    "partner differs": (
        edit_h5("hamiltonians.h5", "[0, 0, 0, 1, 2]", lambda a: a + 1e-3),
        HermiticityError,
        ["hamiltonians.h5", "differ by 1.00e-03 eV"],
    ),
    "NaN": (
        edit_h5("hamiltonians.h5", "[0, 0, 0, 1, 2]", set_value((0, 0), np.nan)),
        PhysicsError,
        ["hamiltonians.h5", "i=0 j=1", "nan"],
    ),
    "spinful by mistake": (
        edit_info(isspinful=True),
        ShapeError,
        ["hamiltonians.h5", "[19, 19]", "[38, 38]"],
    ),
    "info is no JSON": (truncate("info.json"), FormatError, ["info.json", "not JSON"]),
}


@pytest.mark.parametrize("case", LEGACY)
def test_deeph_legacy(tmp_path: Path, case: str) -> None:
    change, error, texts = LEGACY[case]
    folder = shutil.copytree(STRUCTURES / "MoTe2_legacy", tmp_path / "sheet")
    change(folder)
    with pytest.raises(error) as caught:
        read_structure_folder(folder)
    check_message(caught.value, folder, "sheet", texts)


def check_message(error: DeepHError, folder: Path, name: str, texts: list[str]) -> None:
    """Check that a message names folder, structure and all texts, and says what to do."""
    message = str(error)
    for text in (str(folder), f"'{name}'", *texts):
        assert text in message, message
    assert message.count(str(folder)) == 1, message
    assert len(message) < 600
    if isinstance(error, DataError | PhysicsError):
        assert error.structure == name
    if isinstance(error, DataError):
        assert folder in (error.path, Path(error.path).parent)


def test_atoms_of_one_species_with_other_shells(rng, tmp_path: Path) -> None:
    system = random_system(rng)
    deeph_legacy.write(system, tmp_path / "toy")
    edit_info(species=["C", "C", "C", "C"])(tmp_path / "toy")
    with pytest.raises(DataError, match=r"orbital_types.dat.*atom 1 has shells \[0, 1, 0\]"):
        read_structure_folder(tmp_path / "toy")


def test_no_structure_folder(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("")
    for folder, text in ((tmp_path, "it holds x.txt"), (tmp_path / "no", "it is empty or no")):
        with pytest.raises(FormatError, match=rf"of a structure \({text}.*Expected POSCAR"):
            read_structure_folder(folder)


def test_header_names_the_file(tmp_path: Path) -> None:
    folder = shutil.copytree(STRUCTURES / "H2O_0", tmp_path / "water")
    edit_info(spinful=None)(folder)
    with pytest.raises(FormatError, match=r"info.json: structure 'water', key 'spinful'"):
        read_header(folder)


def test_reading_does_not_need_what_is_not_asked_for(tmp_path: Path) -> None:
    folder = shutil.copytree(STRUCTURES / "H2O_0", tmp_path / "water")
    truncate(H)(folder)
    assert deeph.read(folder, ("S",)).S is not None
    assert deeph.read(folder, ()).atoms.get_chemical_formula() == "H2O"
