"""OpenMX 3.9: the binary file ``<System.Name>.scfout``.

A little-endian stream without record marks (source: ``read_scfout.c`` of OpenMX). It holds the
structure, H, S, the density matrix, the chemical potential, the number of electrons and a copy
of the input, which names the orbitals. Where that copy is missing, the text output is read: a
``*.out`` beside the file, or appended to it. H in hartree, lengths in bohr.

Spin: H[0] without spin; H[0] = uu, H[1] = dd collinear; non-collinear uu = H[0] + i iH[0],
dd = H[1] + i iH[1], ud = H[2] + i (H[3] + iH[2]), and du is its adjoint. The density matrix has
uu = D[0] + i iD[0], dd = D[1] + i iD[1], ud = D[2] + i D[3]; without spin D[0] is that of one
spin, half of the total.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from deeph_lightning.core.basis import OrbitalBasis
from deeph_lightning.core.checks import MAX_LENGTH
from deeph_lightning.core.operator import Operator
from deeph_lightning.core.spin import spinful_operator
from deeph_lightning.errors import DataError, FormatError, PhysicsError
from deeph_lightning.io.code_output import Eigenvalues, facts, label_species, single_file
from deeph_lightning.io.files import in_file
from deeph_lightning.io.formats import read_only
from deeph_lightning.io.openmx.stream import BinaryStream
from deeph_lightning.io.openmx.text import RunText, find_text
from deeph_lightning.io.system import Header, SystemData, checked
from deeph_lightning.units import CODE_CONSTANTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

FILES: dict[str, tuple[str, ...]] = {"H": ("*.scfout",), "text": ("*.out",)}
#: The only layout that is read; 0 is OpenMX 3.8 and older, 1 and 2 are development versions.
VERSION = 3
#: Length of a line of the input copy, bytes.
INPUT_LINE = 256
#: Spin code and number of real and imaginary arrays of H.
N_ARRAY = {0: (1, 0), 1: (2, 0), 3: (4, 3)}
#: What a spin code means, in the words of `formats.facts`.
SPINS = {0: "none", 1: "collinear", 3: "spinor"}
BOHR, HARTREE = CODE_CONSTANTS["openmx"].bohr, CODE_CONSTANTS["openmx"].hartree


write = read_only("openmx")


def detect(folder: Path) -> bool:
    """Whether the folder holds a .scfout file that begins as one."""
    return any(_is_scfout(path) for path in sorted(folder.glob("*.scfout")))


def _is_scfout(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = np.frombuffer(file.read(24), dtype="<i4")
    return (
        len(start) == 6
        and 1 <= start[0] <= 10**7
        and 0 <= start[1] <= 4 * VERSION + 3
        and start[1] % 4 in N_ARRAY
        and bool(np.all(start[2:] >= 0))
    )


def header(folder: Path, name: str) -> Header:
    """Read basis and spin; the matrices are passed over."""
    system = read(folder, (), name)
    return Header(system.basis, system.is_spinful)


def read(
    path: str | Path, operators: Sequence[str] = ("H", "S"), name: str | None = None
) -> SystemData:
    """Read and check a folder (see `formats.read_structure_folder`)."""
    run = _Run.open(Path(path), name)
    stream, layout, starts, file = run.stream, run.layout, run.starts, run.stream.path
    name = stream.structure
    with in_file(file, name):
        atoms, basis = _structure(layout, run.text, name)
    system = SystemData(
        name=name,
        atoms=atoms,
        basis=basis,
        is_spinful=layout.spin > 0,
        fermi_energy=run.chemical_potential * HARTREE,
        n_electrons=run.n_electrons,
        info=facts(
            code="OpenMX",
            code_version=run.text.version,
            functional=run.text.functional,
            spin=SPINS[layout.spin],
            is_converged=run.text.is_converged,
        ),
        source_format="openmx",
    )
    with in_file(file, name):
        if "H" in operators:
            system.H = _hamiltonian(stream, layout, starts, system)
        if "S" in operators or "rho" in operators:
            S = _part(stream, layout, starts["S"], system, "1")
            system.S = S if "S" in operators else None
        if "rho" in operators:
            system.rho = _density(stream, layout, starts, system)
            _check_trace(system.rho, S, system.n_electrons)
        _to_common_order(system)
    return checked(system, dict.fromkeys(("atoms", "H", "S", "rho"), file))


def read_eigenvalues(path: str | Path, name: str | None = None) -> Eigenvalues | None:
    """Read the energies that the text output lists; None if it does not, or of spinors."""
    run = _Run.open(Path(path), name)
    found = run.text.eigenvalues()
    if found is None or run.layout.spin == 3:
        return None
    k, energies = found
    return Eigenvalues(k, energies[: run.layout.spin + 1] * HARTREE)


@dataclass
class _Run:
    """A folder whose file has been gone through, but for the matrices."""

    stream: BinaryStream
    layout: _Layout
    starts: dict[str, list[int]]
    chemical_potential: float
    n_electrons: float
    text: RunText

    @classmethod
    def open(cls, folder: Path, name: str | None) -> _Run:
        name = name or folder.resolve().name
        file = single_file(folder, FILES["H"], name)
        if file is None:
            msg = f"{folder}: structure '{name}', there is no .scfout file. Give another one."
            raise FormatError(msg, path=folder, structure=name)
        stream = BinaryStream(file, name)
        layout = _read_layout(stream)
        starts = _array_starts(stream, layout)
        potential, electrons, copy = _read_end(stream)
        with in_file(file, name):
            text = find_text(copy, stream.rest_as_text(), folder, file)
        return cls(stream, layout, starts, potential, electrons, text)


@dataclass
class _Layout:
    """What stands before the matrices: structure, and pairs in the order of the blocks."""

    spin: int
    order_max: int
    counts: NDArray[np.int64]
    R: NDArray[np.int64]
    i: NDArray[np.int64]
    j: NDArray[np.int64]
    cell: NDArray[np.float64]
    positions: NDArray[np.float64]

    @property
    def n_value(self) -> int:
        """Length of the flat blocks of one array."""
        return int(np.sum(self.counts[self.i] * self.counts[self.j]))


def _read_layout(stream: BinaryStream) -> _Layout:
    n_atom = int(stream.integers(1, "atomnum")[0])
    code = int(stream.integers(1, "SpinP_switch")[0])
    version, spin = divmod(code, 4)
    if version != VERSION:
        raise stream.error(
            f"the layout has version {version} (spin code {code}), expected {VERSION}, that of "
            f"OpenMX 3.9. Repeat the calculation with OpenMX 3.9"
        )
    if spin not in N_ARRAY:
        raise stream.error(f"SpinP_switch is {spin}, expected 0, 1 or 3. The file is damaged")
    n_cell = int(stream.integers(4, "TCpyCell")[3]) + 1
    order_max = int(stream.integers(1, "order_max")[0])
    if n_atom < 1 or n_cell < 1 or not 0 <= order_max <= 100:
        raise stream.error(
            f"{n_atom} atoms, {n_cell} cells and order_max {order_max} make no sense. The file "
            f"is damaged, or of another version: make or copy it again"
        )
    cells = stream.numbers(4 * n_cell, "atv").reshape(-1, 4)[:, 1:]
    cell_R = stream.integers(4 * n_cell, "atv_ijk").reshape(-1, 4)[:, 1:]
    counts = stream.integers(n_atom, "Total_NumOrbs")
    n_neighbour = stream.integers(n_atom, "FNAN") + 1
    if counts.min() < 1 or n_neighbour.min() < 1 or n_neighbour.max() > n_atom * n_cell:
        raise stream.error(
            "numbers of orbitals or neighbours are out of range. The file is damaged"
        )
    n_pair = int(n_neighbour.sum())
    j = stream.integers(n_pair, "natn") - 1
    which = stream.integers(n_pair, "ncn")
    if not (j.min() >= 0 and j.max() < n_atom and which.min() >= 0 and which.max() < n_cell):
        raise stream.error("natn or ncn name an atom or cell that is not there. It is damaged")
    cell = stream.numbers(12, "tv").reshape(3, 4)[:, 1:]
    stream.skip(12, "rtv")
    positions = stream.numbers(4 * n_atom, "Gxyz").reshape(-1, 4)[:, 1:]
    if not np.abs(cell_R @ cell - cells).max(initial=0.0) < 1e-6 * MAX_LENGTH:
        raise stream.error("cells atv and atv_ijk do not fit the lattice tv. It is damaged")
    i = np.repeat(np.arange(n_atom), n_neighbour)
    return _Layout(spin, order_max, counts, cell_R[which], i, j, cell * BOHR, positions * BOHR)


def _array_starts(stream: BinaryStream, layout: _Layout) -> dict[str, list[int]]:
    """Pass over the matrices; return where the arrays of each begin."""
    n_real, n_imaginary = N_ARRAY[layout.spin]
    starts: dict[str, list[int]] = {}
    for key, count in (
        ("H", n_real),
        ("iH", n_imaginary),
        ("S", 1),
        ("position", 3 * layout.order_max),
        ("momentum", 3),
        ("rho", n_real),
        ("irho", 2),
    ):
        starts[key] = []
        for _ in range(count):
            starts[key].append(stream.position)
            stream.skip(layout.n_value, key)
    return starts


def _read_end(stream: BinaryStream) -> tuple[float, float, str]:
    """Read chemical potential (hartree), electrons and the copy of the input."""
    stream.integers(1, "Solver")
    numbers = stream.numbers(10, "ChemP")
    n_line = int(stream.integers(1, "number of input lines")[0])
    if not 0 <= n_line <= 10**7:
        raise stream.error(f"it says {n_line} lines of input. The file is damaged")
    if not (np.isfinite(numbers).all() and numbers[8] >= 0):
        raise stream.error(f"Valence_Electrons is {numbers[8]}. The file is damaged")
    lines = stream.bytes(INPUT_LINE * n_line, "input").reshape(n_line, INPUT_LINE)
    texts = [bytes(line).split(b"\0")[0].decode("utf-8", "replace") for line in lines]
    copy = "\n".join(text.rstrip("\n") for text in texts)
    return float(numbers[0]), float(numbers[8]), copy


def _structure(layout: _Layout, text: RunText, name: str) -> tuple[Atoms, OrbitalBasis]:
    species = text.species_of_atoms(len(layout.counts))
    definitions = text.definitions()
    shells: list[tuple[int, ...]] = []
    symbols: list[str] = []
    for n, label in enumerate(species):
        if label not in definitions:
            msg = (
                f"structure '{name}': atom {n + 1} is of species '{label}', but "
                f"Definition.of.Atomic.Species has {', '.join(definitions)}. Use the output "
                f"of the same calculation."
            )
            raise DataError(msg, structure=name)
        symbol, choices = definitions[label]
        fitting = [c for c in choices if sum(2 * l + 1 for l in c) == layout.counts[n]]
        if not fitting:
            msg = (
                f"structure '{name}': atom {n + 1}, species '{label}', has {layout.counts[n]} "
                f"orbitals; its basis has shells {[list(c) for c in choices]}. The file and "
                f"the text output are of two calculations, or the file is damaged."
            )
            raise DataError(msg, structure=name)
        symbols.append(symbol)
        shells.append(fitting[0])
    atoms = Atoms(symbols, positions=layout.positions, cell=layout.cell, pbc=True)
    atoms.info["name"] = name
    labels = label_species(symbols, species)
    if labels != symbols:
        atoms.arrays["species"] = np.array(labels)
    return atoms, OrbitalBasis(dict(zip(labels, shells, strict=True)))


def _part(
    stream: BinaryStream,
    layout: _Layout,
    starts: Sequence[int],
    system: SystemData,
    unit: str,
    factors: Sequence[complex] = (1.0,),
) -> Operator:
    """Return the sum of arrays with factors, a spinless operator in the order of the code."""
    arrays = (stream.numbers_at(start, layout.n_value) for start in starts)
    values = sum(factor * array for factor, array in zip(factors, arrays, strict=True))
    return Operator.from_flat(
        system.atoms, system.basis, layout.R, layout.i, layout.j, values, unit=unit
    )


def _hamiltonian(
    stream: BinaryStream, layout: _Layout, starts: dict[str, list[int]], system: SystemData
) -> Operator:
    def part(real: Sequence[int], factors: Sequence[complex]) -> Operator:
        scaled = [HARTREE * factor for factor in factors]
        return _part(stream, layout, real, system, "eV", scaled)

    H, iH = starts["H"], starts["iH"]
    if layout.spin == 0:
        return part(H, [1.0])
    if layout.spin == 1:
        return spinful_operator(part([H[0]], [1.0]), part([H[1]], [1.0]))
    return spinful_operator(
        part([H[0], iH[0]], [1.0, 1j]),
        part([H[1], iH[1]], [1.0, 1j]),
        part([H[2], H[3], iH[2]], [1.0, 1j, 1j]),
    )


def _density(
    stream: BinaryStream, layout: _Layout, starts: dict[str, list[int]], system: SystemData
) -> Operator:
    def part(real: Sequence[int], factors: Sequence[complex]) -> Operator:
        return _part(stream, layout, real, system, "1", factors)

    D, iD = starts["rho"], starts["irho"]
    if layout.spin == 0:
        return part(D, [2.0])
    if layout.spin == 1:
        return spinful_operator(part([D[0]], [1.0]), part([D[1]], [1.0]))
    return spinful_operator(
        part([D[0], iD[0]], [1.0, 1j]),
        part([D[1], iD[1]], [1.0, 1j]),
        part([D[2], D[3]], [1.0, 1j]),
    )


def _check_trace(rho: Operator, S: Operator, n_electrons: float | None) -> None:
    """Compare tr(rho S) with the number of electrons."""
    doubled = spinful_operator(S, S) if rho.is_spinful else S
    found = float(np.sum(rho.values * doubled.values.conj()).real)
    if n_electrons is not None and not abs(found - n_electrons) < 1e-3 * max(n_electrons, 1.0):
        msg = (
            f"structure '{S.name}': the density matrix holds {found:.4f} electrons, "
            f"Valence_Electrons is {n_electrons}. The calculation is not converged, or the "
            f"file is damaged."
        )
        raise PhysicsError(msg, structure=S.name)


def _to_common_order(system: SystemData) -> None:
    for key, op in list(system.operators()):
        setattr(system, key, op.from_convention("openmx"))
