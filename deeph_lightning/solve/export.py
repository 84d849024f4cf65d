"""Results as objects and files of other programs: ASE, pymatgen, sisl, wannier90."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from deeph_lightning.core.basis import species_labels
from deeph_lightning.errors import MissingDependencyError, PhysicsError
from deeph_lightning.io.files import new_file
from deeph_lightning.solve.dense import kgrid, overlap_at
from deeph_lightning.solve.projection import MAGNETIC

if TYPE_CHECKING:
    from pathlib import Path

    from ase.spectrum.band_structure import BandStructure
    from pymatgen.electronic_structure.bandstructure import BandStructureSymmLine
    from pymatgen.electronic_structure.dos import CompleteDos

    from deeph_lightning.core.operator import Operator
    from deeph_lightning.solve.bands import Bands
    from deeph_lightning.solve.dos import DensityOfStates
    from deeph_lightning.solve.system import ElectronicSystem


def special_points(bands: Bands) -> dict[str, Any]:
    """Return the special points of a path by name, both of a jump by their own."""
    path = bands.path
    found: dict[str, Any] = {}
    for at, label in zip(path.tick, path.labels, strict=True):
        index = np.flatnonzero(np.abs(path.x - at) < 1e-9)
        names = label.split("|")
        for name, n in zip(names, (index[0], index[-1]), strict=False):
            found[name] = path.k[n]
    return found


def to_ase(bands: Bands) -> BandStructure:
    """Return an ASE band structure, eV; Γ is called G there."""
    from ase.dft.kpoints import BandPath as AsePath
    from ase.spectrum.band_structure import BandStructure

    points = {name.replace("Γ", "G"): k for name, k in special_points(bands).items()}
    labels = "".join(label.replace("|", ",") for label in bands.path.labels)
    path = AsePath(
        bands.atoms.cell, kpts=bands.path.k, special_points=points,
        path=labels.replace("Γ", "G"),
    )  # fmt: skip
    return BandStructure(path, bands.energies, reference=bands.e_fermi)


def to_pymatgen_bands(bands: Bands) -> BandStructureSymmLine:
    """Return a pymatgen band structure, eV, with the structure and the labels of the path."""
    from pymatgen.core import Lattice
    from pymatgen.electronic_structure.bandstructure import BandStructureSymmLine
    from pymatgen.electronic_structure.core import Spin
    from pymatgen.io.ase import AseAtomsAdaptor

    lattice = Lattice(bands.atoms.cell.complete().array).reciprocal_lattice
    energies = {
        spin: channel.T
        for spin, channel in zip((Spin.up, Spin.down), bands.energies, strict=False)
    }
    labels = {name.replace("Γ", r"\Gamma"): k for name, k in special_points(bands).items()}
    return BandStructureSymmLine(
        list(bands.path.k), energies, lattice, bands.e_fermi, labels,
        structure=AseAtomsAdaptor.get_structure(bands.atoms),
    )  # fmt: skip


def to_pymatgen_dos(dos: DensityOfStates, system: ElectronicSystem) -> CompleteDos:
    """Return a pymatgen density of states, electrons/eV.

    Parameters
    ----------
    dos
        Projected on the magnetic orbitals of every atom (project=magnetic).
    system
        Its structure.

    Raises
    ------
    PhysicsError
        It is projected otherwise.
    """
    from pymatgen.electronic_structure.core import Orbital, Spin
    from pymatgen.electronic_structure.dos import CompleteDos, Dos
    from pymatgen.io.ase import AseAtomsAdaptor

    spins = (Spin.up, Spin.down)[: len(dos.total)]
    structure = AseAtomsAdaptor.get_structure(system.atoms)
    labels, basis = species_labels(system.atoms), system.channels[0].basis
    parts: dict[Any, Any] = {}
    for n, label in enumerate(map(str, labels)):
        of_atom = parts.setdefault(structure[n], {})
        for l in sorted(set(basis.shells[label])):
            for m in range(-l, l + 1):
                name = MAGNETIC.format(label=label, atom=n, l=l, m=m)
                if name not in dos.projected:
                    msg = f"the density of states has no part '{name}': use project=magnetic"
                    raise PhysicsError(msg, structure=system.name)
                curve = dict(zip(spins, dos.projected[name], strict=True))
                if l <= 3:  # pymatgen knows s, p, d and f
                    of_atom[Orbital(l * l + l + m)] = curve
    total = Dos(dos.e_fermi, dos.energies, dict(zip(spins, dos.total, strict=True)))
    return CompleteDos(structure, total, parts)


def to_sisl(system: ElectronicSystem, channel: int = 0) -> Any:
    """Return a sisl Hamiltonian, with overlap, of one spin channel without spin.

    Raises
    ------
    MissingDependencyError
        sisl is not installed.
    PhysicsError
        H is non-collinear.
    """
    try:
        import sisl
    except ImportError:
        msg = "sisl is not installed. Install it: pip install sisl"
        raise MissingDependencyError(msg) from None
    H = system.channels[channel]
    if H.is_spinful:
        msg = f"structure '{H.name}': a non-collinear H is not handed to sisl"
        raise PhysicsError(msg, structure=H.name)
    counts = np.diff(H.orbital_offsets)
    atoms = [
        sisl.Atom(int(Z), orbitals=[1.0] * int(n))
        for Z, n in zip(H.atoms.numbers, counts, strict=True)
    ]
    reach = 2 * np.abs(H.pairs.R).max(axis=0, initial=0) + 1
    lattice = sisl.Lattice(H.atoms.cell.complete().array, nsc=reach)
    geometry = sisl.Geometry(H.atoms.positions, atoms, lattice=lattice)
    parts = [
        _supercell_csr(op, geometry.lattice.sc_index, geometry.no, geometry.n_s)
        for op in (H, system.S)
        if op is not None
    ]
    overlap = {} if system.S is None else {"S": parts[1]}
    return sisl.Hamiltonian.fromsp(geometry, parts[0], **overlap)


def _supercell_csr(op: Operator, cell_number: Any, n: int, n_cell: int) -> Any:
    """Return blocks side by side, ``(n, n * n_cell)``, in the order of sisl's supercells."""
    from scipy import sparse

    rows, columns, values = [], [], []
    column_of_cell = n * np.array([cell_number(R) for R in op.pairs.R.tolist()])
    for _, _, index, blocks in op.iterate_blocks():
        shape = blocks.shape
        row = op.orbital_offsets[op.pairs.i[index]][:, None] + np.arange(shape[1])
        column = op.orbital_offsets[op.pairs.j[index]][:, None] + np.arange(shape[2])
        column = column + column_of_cell[index][:, None]
        rows.append(np.broadcast_to(row[:, :, None], shape).ravel())
        columns.append(np.broadcast_to(column[:, None, :], shape).ravel())
        values.append(blocks.ravel())
    data = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return sparse.csr_matrix(data, shape=(n, n * n_cell))


def write_wannier90(
    path: Path, system: ElectronicSystem, grid: tuple[int, int, int], channel: int = 0
) -> Path:
    r"""Write ``wannier90_hr.dat`` of the Löwdin-orthonormalised Hamiltonian.

    ``H_L(k) = S(k)^{-1/2} H(k) S(k)^{-1/2}`` is transformed back from a grid; what the grid
    cannot hold is beyond half its size in cells. Bands at its k-points are exact.

    Parameters
    ----------
    path
        File to write.
    system
        Operators.
    grid
        Points along each axis; even numbers are raised by one, so that no cell lies on the
        border.
    channel
        Spin channel.

    Notes
    -----
    Source: P.-O. Löwdin, J. Chem. Phys. 18, 365 (1950); format: wannier90 user guide.
    """
    H, size = system.channels[channel], tuple(n + 1 - n % 2 for n in grid)
    k, _ = kgrid(size)
    matrices = np.array([_loewdin(H, system.S, point) for point in k])
    R, _ = kgrid(size)
    cells = np.rint(R * size).astype(int)
    cells = np.where(cells > np.array(size) // 2, cells - np.array(size), cells)
    cells = cells[np.lexsort(cells.T[::-1])]
    n = H.n_orb
    with new_file(path) as partial, partial.open("w", encoding="ascii") as file:
        file.write(
            f"H in eV of {H.n_orb} Loewdin orbitals, deeph_lightning\n{n}\n{len(cells)}\n"
        )
        ones = ["    1"] * len(cells)
        file.writelines("".join(ones[at : at + 15]) + "\n" for at in range(0, len(ones), 15))
        b, a = np.meshgrid(np.arange(1, n + 1), np.arange(1, n + 1), indexing="ij")
        for cell in cells:
            phase = np.exp(-2j * np.pi * (k @ cell)) / len(k)
            block = np.tensordot(phase, matrices, axes=1)
            table = np.column_stack(
                (*(np.full(n * n, x) for x in cell), a.ravel(), b.ravel(),
                 block.T.ravel().real, block.T.ravel().imag)
            )  # fmt: skip
            np.savetxt(file, table, fmt="%5d%5d%5d%5d%5d%20.12f%20.12f")
    return path


def _loewdin(H: Operator, S: Operator | None, k: np.ndarray) -> np.ndarray:
    H_k = H.bloch(k)
    if S is None:
        return H_k
    values, vectors = np.linalg.eigh(overlap_at(S, k, H.n_spin))
    root = (vectors / np.sqrt(values)) @ vectors.conj().T
    return np.asarray(root @ H_k @ root)


def write_pymatgen(path: Path, result: Any) -> Path:
    """Write a pymatgen object as JSON (``as_dict``)."""
    with new_file(path) as partial:
        text = json.dumps(result.as_dict(), default=lambda value: np.asarray(value).tolist())
        partial.write_text(text, encoding="utf-8")
    return path
