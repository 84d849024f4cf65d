r"""Periodic cells by PySCF: from H at k-points to H in real space.

PySCF gives H(k). Blocks follow from a mesh of N k-points by

.. math:: H_{ij}(R) = \frac{1}{N} \sum_k e^{-2\pi i k \cdot R} H_{ij}(k),

which are exact as long as all orbitals that overlap fit into the N cells of the mesh: images
are folded onto each other else. Self-consistency needs fewer k-points than that, so H is
computed once more on a finer mesh from the density that was found. Exact exchange is known at
the k-points of self-consistency only; with it these must be enough, and blocks reach over all
their cells, each at its closest image (shared where several are equally close).

S(R) is computed in real space and has no folding.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import brentq

from deeph_lightning.core.pairs import PairTable, neighbour_pairs
from deeph_lightning.errors import ConfigError
from deeph_lightning.io.pyscf.orbitals import fermi_level, operator_of, shells_of
from deeph_lightning.io.system import SystemData
from deeph_lightning.units import HARTREE_EV

if TYPE_CHECKING:
    from pathlib import Path

    from ase import Atoms
    from numpy.typing import NDArray

    from deeph_lightning.generate.engines.pyscf import PySCF

#: Distance up to which orbitals are followed, Å: nothing useful reaches further.
MAX_RANGE = 40.0
#: States are full or empty if they are filled to within this of 1 or 0.
FILLED = 1e-6
#: Distances that count as equal where the closest images are looked for, Å.
SAME_DISTANCE = 1e-5


def compute(
    engine: PySCF, cell: Any, structure: Atoms, folder: Path, attempt: int
) -> SystemData:
    """Compute one periodic structure.

    Parameters
    ----------
    engine
        Settings.
    cell
        ``pyscf.pbc.gto.Cell``, built.
    structure
        The same as `cell`.
    folder, attempt
        See `engine.Engine`: which way to self-consistency.

    Raises
    ------
    NotConvergedError
        The density is not self-consistent.
    ConfigError
        The functional has exact exchange and the k-points are too few, or the basis is
        linearly dependent.
    """
    name = structure.info["name"]
    dft = importlib.import_module("pyscf.pbc.dft")
    mf = {"rks": dft.KRKS, "uks": dft.KUKS}[engine.method](cell, cell.make_kpts(engine.kmesh))
    mf.xc = engine.xc
    n_k = int(np.prod(engine.kmesh))
    if engine.method == "uks":
        mf.nelec = tuple(n * n_k for n in cell.nelec)
    if not cell.pseudo:
        mf = mf.density_fit()  # plane waves cannot describe cores
    smearing = {}
    if engine.smearing_eV is not None:
        smearing["smearing_eV"] = engine.smearing_eV
        addons = importlib.import_module("pyscf.pbc.scf.addons")
        mf = addons.smearing(mf, sigma=engine.smearing_eV / HARTREE_EV, method="fermi")
    is_hybrid = has_exact_exchange(engine.xc)
    ranges = check_mesh(engine, structure)
    mesh = engine.kmesh if is_hybrid else enough_cells(structure, max(ranges.values()))
    engine.converge(mf, structure, folder, attempt)
    if np.shape(mf.mo_coeff)[-1] != cell.nao:
        msg = (
            f"engine.basis = {engine.basis!r}: structure '{name}' has linearly dependent "
            f"orbitals, some of which PySCF left out. Use a basis made for solids."
        )
        raise ConfigError(msg, key="engine.basis")
    is_spinful = engine.method == "uks"
    fock = _fock_in_real_space(mf, engine.kmesh, mesh)
    basis, _ = shells_of(cell._bas, structure.get_chemical_symbols(), name)
    near = with_onsite(neighbour_pairs(structure, ranges), len(structure))
    pairs, weights = closest_images(structure, mesh) if is_hybrid else (near, None)
    which = np.ravel_multi_index(tuple(np.mod(pairs.R, mesh).T), mesh)
    H = operator_of(structure, basis, pairs, fock, which, unit="hartree", is_spinful=is_spinful)
    if weights is not None:
        H = H.replace(values=H.values * np.repeat(weights, np.diff(H.offsets)))
    R, index = np.unique(near.R, axis=0, return_inverse=True)
    overlaps = _overlaps(cell, R)
    return SystemData(
        name,
        structure,
        basis,
        is_spinful,
        H=H,
        S=operator_of(structure, basis, near, overlaps, index.ravel(), unit="1"),
        fermi_energy=_fermi_level(mf) * HARTREE_EV,
        n_electrons=float(cell.nelectron),
        info=engine.facts() | {"kmesh": list(engine.kmesh)} | smearing,
    )


def has_exact_exchange(xc: str) -> bool:
    """Whether a functional, in PySCF's words, is a hybrid."""
    return bool(importlib.import_module("pyscf.dft.libxc").is_hybrid_xc(xc))


def check_mesh(engine: PySCF, structure: Atoms) -> dict[tuple[str, str], float]:
    """Return `overlap_ranges`, after checking that k-points suffice for exact exchange.

    Raises
    ------
    ConfigError
        They do not.
    """
    ranges = overlap_ranges(engine, structure)
    longest = max(ranges.values())
    is_enough = min_translation(structure, engine.kmesh) >= 2 * longest
    if has_exact_exchange(engine.xc) and not is_enough:
        msg = (
            f"engine.kmesh = {list(engine.kmesh)}: structure '{structure.info['name']}' has "
            f"orbitals that overlap up to {longest:.1f} Å; with exact exchange the mesh must "
            f"hold them: kmesh={list(enough_cells(structure, longest))}, or a larger "
            f"overlap_threshold, or a less diffuse basis."
        )
        raise ConfigError(msg, key="engine.kmesh")
    return ranges


def check_filling(engine: PySCF, structure: Atoms) -> None:
    """Refuse an odd number of electrons on all k-points, of which PySCF would add one.

    Raises
    ------
    ConfigError
        There is an odd number, with smearing.
    """
    if engine.smearing_eV is None:
        return
    n_electrons, n_k = engine.molecule(structure).nelectron, int(np.prod(engine.kmesh))
    if n_electrons * n_k % 2:
        msg = (
            f"engine.kmesh = {list(engine.kmesh)}: structure '{structure.info['name']}' has "
            f"{n_electrons} electrons, {n_electrons * n_k} on all k-points, which cannot be "
            f"paired. Take an even number of k-points."
        )
        raise ConfigError(msg, key="engine.kmesh")


def _fermi_level(mf: Any) -> float:
    """Return E_F, hartree: in the gap, or where the Fermi function is half of its maximum."""
    sigma = getattr(mf, "sigma", None)
    energy, filling = np.ravel(mf.mo_energy), np.ravel(mf.mo_occ) / 2
    nearest = np.abs(filling - 0.5).argmin()
    if sigma is None or abs(filling[nearest] - 0.5) > 0.5 - FILLED:
        return fermi_level(mf.mo_energy, mf.mo_occ)
    level = energy[nearest] + sigma * np.log(filling[nearest] / (1 - filling[nearest]))
    return float(level)


def overlap_ranges(engine: PySCF, structure: Atoms) -> dict[tuple[str, str], float]:
    """Return, for each pair of elements, the distance at which their overlap is lost.

    Beyond it, in Å, no element of S between two atoms exceeds the threshold. It depends on
    elements and basis alone, so that all structures of a set have pairs of the same ranges.
    """
    from ase import Atoms

    elements = sorted(set(structure.get_chemical_symbols()))
    found = {}
    for n, a in enumerate(elements):
        for b in elements[n:]:

            def excess(distance: float, a: str = a, b: str = b) -> float:
                pair = Atoms([a, b], positions=[[0, 0, 0], [0, 0, distance]])
                mol = engine.molecule(pair, only_basis=True)
                n_a = mol.aoslice_by_atom()[0, 3]
                largest = np.abs(mol.intor("int1e_ovlp")[:n_a, n_a:]).max()
                return float(np.log(max(largest, 1e-300) / engine.overlap_threshold))

            found[a, b] = float(brentq(excess, 0.5, MAX_RANGE, xtol=1e-3))
    return found


def min_translation(structure: Atoms, mesh: tuple[int, ...]) -> float:
    """Return the shortest translation of the cells of a mesh taken together, Å."""
    steps = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), -1).reshape(-1, 3)
    cell = np.asarray(structure.cell.array) * np.asarray(mesh)[:, None]
    lengths = np.linalg.norm(steps[steps.any(axis=1)] @ cell, axis=1)
    return float(lengths.min())


def enough_cells(structure: Atoms, longest: float) -> tuple[int, ...]:
    """Return the smallest mesh whose cells hold all pairs up to a distance (Å) once."""
    cell = np.asarray(structure.cell.array)
    heights = 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    return tuple(int(n) for n in np.ceil((2 * longest + 2 * SAME_DISTANCE) / heights))


def with_onsite(pairs: PairTable, n_atom: int) -> PairTable:
    """Return a table with the onsite pair of every atom added."""
    atoms = np.arange(n_atom)
    onsite = PairTable(np.zeros((n_atom, 3), dtype=np.int64), atoms, atoms)
    return pairs.union(onsite)


def closest_images(
    structure: Atoms, mesh: tuple[int, ...]
) -> tuple[PairTable, NDArray[np.float64]]:
    """Return the closest image of every pair among the cells of a mesh.

    Returns
    -------
    pairs, weights
        Pairs, and ``(n,)`` one over the number of images that are equally close.
    """
    cell = np.asarray(structure.cell.array) * np.asarray(mesh)[:, None]
    far = 0.5 * float(np.linalg.norm(cell, axis=1).sum())
    pairs = with_onsite(neighbour_pairs(structure, far), len(structure))
    lengths = pairs.distances(structure)
    place = np.ravel_multi_index(tuple(np.mod(pairs.R, mesh).T), mesh)
    n = len(structure)
    _, code = np.unique((place * n + pairs.i) * n + pairs.j, return_inverse=True)
    nearest = np.full(int(code.max()) + 1, np.inf)
    np.minimum.at(nearest, code, lengths)
    is_nearest = lengths <= nearest[code] + SAME_DISTANCE
    share = np.bincount(code[is_nearest])[code[is_nearest]]
    return pairs.select(is_nearest), 1.0 / share


def _fock_in_real_space(
    mf: Any, kmesh: tuple[int, ...], mesh: tuple[int, ...]
) -> NDArray[np.float64]:
    """Return H of every cell of a mesh, ``(N, n, n)``, hartree; spin-major of two spins."""
    if mesh == kmesh:
        fock = np.asarray(mf.get_fock())
    else:
        fock = _fock_on_mesh(mf, mesh)
    fock = fock.reshape(-1, *mesh, *fock.shape[-2:])
    cells = np.fft.fftn(fock, axes=(1, 2, 3), norm="forward").real
    cells = cells.reshape(len(cells), -1, *cells.shape[-2:])
    if len(cells) == 1:
        return np.asarray(cells[0])
    n = cells.shape[-1]
    both = np.zeros((cells.shape[1], 2 * n, 2 * n))
    both[:, :n, :n], both[:, n:, n:] = cells
    return both


def _fock_on_mesh(mf: Any, mesh: tuple[int, ...]) -> NDArray[np.complex128]:
    """Return H of the density that was found, at other k-points, ``(..., N, n, n)``."""
    index = np.stack(np.meshgrid(*map(np.arange, mesh), indexing="ij"), -1).reshape(-1, 3)
    opposite = np.ravel_multi_index(tuple(np.mod(-index, mesh).T), mesh)
    own = np.flatnonzero(np.arange(len(index)) <= opposite)  # H(-k) is the conjugate of H(k)
    kpts = mf.cell.make_kpts(mesh)[own]
    half = mf.get_hcore(mf.cell, kpts) + mf.get_veff(
        mf.cell, mf.make_rdm1(), kpts=mf.kpts, kpts_band=kpts
    )
    half = np.asarray(half)
    fock = np.empty((*half.shape[:-3], len(index), *half.shape[-2:]), dtype=np.complex128)
    fock[..., opposite[own], :, :] = half.conj()
    fock[..., own, :, :] = half
    return fock


def _overlaps(cell: Any, R: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return S between cell 0 and each cell R, ``(len(R), n, n)``, in PySCF's order."""
    gto = importlib.import_module("pyscf.gto")
    here = cell.to_mol()
    positions = here.atom_coords()
    matrices = []
    for shift in R @ cell.lattice_vectors():
        there = here.set_geom_(positions + shift, unit="Bohr", inplace=False)
        matrices.append(gto.intor_cross("int1e_ovlp", here, there))
    return np.array(matrices)
