"""FHI-aims: ``rs_*`` files of periodic runs, text or HDF5, and the matrices of molecules.

Periodic (``output_rs_matrices plain`` or ``hdf5``): ``rs_indices.out`` lists for every cell c
and row orbital which elements it has. An element of row i, column j and cell c is that of
R = -c, and one triangle is stored. R counts from positions that the code has mapped into
[-0.5, 0.5] of the cell: here it is changed to count from those of ``geometry.in``. Molecules
(``output h_s_matrices``): ``hamiltonian.out`` and ``overlap-matrix.out`` with lines
``i j value`` of one triangle.

``basis-indices.out`` names the orbitals: each radial function is a run of 2l+1 lines. Energies
are in hartree, all electrons. The matrices have no spin-orbit term, even where the bands do.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deeph_lightning.core.operator import Operator
from deeph_lightning.errors import DataError, FormatError
from deeph_lightning.io.code_output import facts, single_file
from deeph_lightning.io.elements import Elements, operator_from_elements, stack_spins
from deeph_lightning.io.fhi_aims.files import (
    SparseIndices,
    read_basis,
    read_geometry,
    read_indices,
    read_triangle,
    read_values,
)
from deeph_lightning.io.fhi_aims.log import read_run
from deeph_lightning.io.files import first_line, in_file
from deeph_lightning.io.formats import read_only
from deeph_lightning.io.system import Header, SystemData, checked
from deeph_lightning.units import CODE_CONSTANTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

#: Endings of compressed files, which are read as they are.
PACKED = ("", ".xz", ".gz")
INDICES = "rs_indices.out"
#: Files of H and S by spin: one of them, or one for each spin.
PERIODIC: dict[str, tuple[str, ...]] = {
    "S": ("rs_overlap.out", "rs_overlap.h5"),
    "H": ("rs_hamiltonian.out", "rs_hamiltonian.h5"),
    "H_up": ("rs_hamiltonian_up.out", "rs_hamiltonian_up.h5"),
    "H_down": ("rs_hamiltonian_dn.out", "rs_hamiltonian_down.h5", "rs_hamiltonian_dn.h5"),
}
MOLECULE: dict[str, tuple[str, ...]] = {
    "S": ("overlap-matrix.out",),
    "H": ("hamiltonian.out",),
    "H_up": ("hamiltonian_up.out",),
    "H_down": ("hamiltonian_dn.out",),
}
BASIS, GEOMETRY = "basis-indices.out", "geometry.in"
FILES: dict[str, tuple[str, ...]] = {
    "structure": (GEOMETRY, "control.in", f"{BASIS}*", f"{INDICES}*"),
    "periodic": tuple(f"{name}*" for names in PERIODIC.values() for name in names),
    "molecule": tuple(f"{name}*" for names in MOLECULE.values() for name in names),
}
HARTREE = CODE_CONSTANTS["fhi_aims"].hartree
#: Margin of the code where it maps atoms into the cell, fractional.
MAPPING_MARGIN = 1e-8


write = read_only("fhi_aims")


def detect(folder: Path) -> bool:
    """Whether the folder has index lists of FHI-aims, or a basis and a molecule's matrix."""
    if any(
        first_line(folder / f"{INDICES}{end}").startswith("n_hamiltonian_matrix_size")
        for end in PACKED
    ):
        return True
    has_basis = any((folder / f"{BASIS}{end}").is_file() for end in PACKED)
    names = (
        INDICES,
        *(name for kind in (PERIODIC, MOLECULE) for f in kind.values() for name in f),
    )
    return has_basis and any(
        (folder / f"{name}{end}").is_file() for name in names for end in PACKED
    )


def header(folder: Path, name: str) -> Header:
    """Read basis and spin."""
    atoms, is_periodic = read_geometry(folder / GEOMETRY, name)
    basis = read_basis(_required(folder, (BASIS,), name), atoms, name).basis
    kinds = PERIODIC if is_periodic else MOLECULE
    return Header(basis, _find(folder, kinds["H_up"], name) is not None)


def read(
    path: str | Path, operators: Sequence[str] = ("H", "S"), name: str | None = None
) -> SystemData:
    """Read and check a folder (see `formats.read_structure_folder`)."""
    folder = Path(path)
    name = name or folder.resolve().name
    atoms, is_periodic = read_geometry(folder / GEOMETRY, name)
    kinds = PERIODIC if is_periodic else MOLECULE
    table = read_basis(_required(folder, (BASIS,), name), atoms, name)
    is_spinful = _find(folder, kinds["H_up"], name) is not None
    run = read_run(folder, atoms, name)
    system = SystemData(
        name=name,
        atoms=atoms,
        basis=table.basis,
        is_spinful=is_spinful,
        fermi_energy=run.fermi_energy,
        n_electrons=run.n_electrons,
        info=facts(
            code="FHI-aims",
            code_version=run.version,
            functional=run.functional,
            spin="collinear" if is_spinful else "none",
            is_converged=run.is_converged,
        ),
        source_format="fhi_aims",
    )
    files = {"atoms": folder / GEOMETRY}
    if not {"H", "S"} & set(operators):
        return checked(system, files)
    n_orb = len(table.order)
    if is_periodic:
        index_path = _required(folder, (INDICES,), name)
        indices = read_indices(index_path, n_orb, name)
        shifts = _mapping_shifts(system)

        def elements(file: Path) -> Elements:
            return _periodic_elements(indices, read_values(file, indices.n_value, name))

    else:
        shifts = np.zeros((len(atoms), 3), dtype=np.int64)

        def elements(file: Path) -> Elements:
            return read_triangle(file, n_orb, name)

    for key in ("H", "S"):
        if key in operators:
            found = _operator(folder, key, kinds, elements, table.order, system)
            if found is not None:
                op, files[key] = found
                with in_file(files[key], name):
                    op = op.from_convention("fhi_aims").with_atoms_shifted(-shifts)
                    setattr(system, key, op.replace(atoms=atoms))
    return checked(system, files)


def _operator(
    folder: Path,
    key: str,
    kinds: dict[str, tuple[str, ...]],
    elements: Callable[[Path], Elements],
    order: NDArray[np.int64],
    system: SystemData,
) -> tuple[Operator, Path] | None:
    """Return H in eV, or S, on the mapped positions, with the file that messages name."""
    name = system.name
    n_orb = len(order)
    if key == "H" and system.is_spinful:
        file, down = (_required(folder, kinds[k], name) for k in ("H_up", "H_down"))
        if _find(folder, kinds["H"], name) is not None:
            msg = (
                f"{folder}: structure '{name}' has H without spin ({kinds['H'][0]}) and of two "
                f"spins; these are of two calculations. Remove one."
            )
            raise DataError(msg, path=folder, structure=name)
        up_part, down_part = (_sorted_orbitals(elements(part), order) for part in (file, down))
        found = stack_spins(up_part, down_part, n_orb)
    else:
        path = _find(folder, kinds[key], name)
        if path is None:
            return None
        file, found = path, _sorted_orbitals(elements(path), order)
    factor = HARTREE if key == "H" else 1.0
    with in_file(file, name):
        return (
            operator_from_elements(
                system.atoms,
                system.basis,
                found._replace(values=found.values * factor),
                unit="eV" if key == "H" else "1",
                is_spinful=key == "H" and system.is_spinful,
            ),
            file,
        )


def _sorted_orbitals(elements: Elements, place: NDArray[np.int64]) -> Elements:
    """Return elements of both triangles, orbitals numbered atom after atom."""
    row, column = place[elements.row], place[elements.column]
    other = row != column
    return Elements(
        np.concatenate((elements.R, -elements.R[other])),
        np.concatenate((row, column[other])),
        np.concatenate((column, row[other])),
        np.concatenate((elements.values, elements.values[other])),
    )


def _periodic_elements(indices: SparseIndices, values: NDArray[np.float64]) -> Elements:
    return Elements(-indices.cell, indices.row, indices.column, values[indices.place])


def _mapping_shifts(system: SystemData) -> NDArray[np.int64]:
    """Return by which lattice vectors the code moves the atoms into [-0.5, 0.5], ``(A, 3)``.

    As the code does, the upper limit belongs to the cell, with a margin for rounding.
    """
    frac = np.linalg.solve(system.atoms.cell.array.T, system.atoms.positions.T).T
    return -np.rint(frac - MAPPING_MARGIN).astype(np.int64)


def _find(folder: Path, names: Sequence[str], name: str) -> Path | None:
    return single_file(folder, [f"{n}{end}" for n in names for end in PACKED], name)


def _required(folder: Path, names: Sequence[str], name: str) -> Path:
    path = _find(folder, names, name)
    if path is None:
        wanted = " or ".join(names)
        msg = (
            f"{folder}: structure '{name}' lacks {wanted}. Restore it, or leave the structure "
            f"out."
        )
        raise FormatError(msg, path=folder, structure=name)
    return path
