"""What the k-grid of DFT leaves in Hamiltonians of a semimetal, and what that does to learning.

    python scripts/study_kgrid.py                               # shipped graphene, ten minutes
    python scripts/study_kgrid.py --set outputs/kgrid/set       # write the set without it
    python scripts/study_kgrid.py --predictions RUN/predictions # of a network trained on that

A grid that samples the Dirac point of graphene weighs the few states there as if they stood for
a whole piece of the zone. How these mix is decided by the whole crystal, so the charges that
they leave at atoms and on bonds cannot be learned from neighbourhoods. They are the Mulliken
and overlap populations of the grid of DFT less those of a finer one, both of the same H. H
responds to them linearly: onsite blocks are fitted by invariants and tensors of the
neighbourhood (`study_onsite.py`, here for every degree L) with and without the potentials of
these charges; hopping blocks get the mean of both ends, ``(O_i S_ij + S_ij O_j) / 2``.
``--set`` writes the structures less that response.
``--predictions`` adds it to predictions of the test part (the mean of several networks), with
charges that follow from the predicted H, and compares with DFT as it is. Charges are kept in
``--work``.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list
from bench_report import Table, report
from e3nn import o3
from joblib import Parallel, delayed
from numpy.typing import NDArray
from rich.progress import track
from study_onsite import (
    R_PAIR,
    R_POWER,
    density_functions,
    hamiltonian,
    onsite,
    pair_functions,
    power,
    ridge,
    rms,
)

from deeph_lightning.config.paths import shipped
from deeph_lightning.core.operator import Operator
from deeph_lightning.io.files import new_file
from deeph_lightning.io.formats import write_structure_folder
from deeph_lightning.io.source import open_source
from deeph_lightning.io.system import SystemData
from deeph_lightning.nn.coupling import BlockCoupling
from deeph_lightning.nn.edge_frame import frame_rotations
from deeph_lightning.nn.wigner import real_harmonics_from_blocks, wigner_blocks
from deeph_lightning.report.bands import BandSettings
from deeph_lightning.report.collect import Report
from deeph_lightning.report.predictions import Prediction
from deeph_lightning.solve.dense import grid_size
from deeph_lightning.solve.density import Density, density
from deeph_lightning.solve.levels import grid_levels
from deeph_lightning.solve.system import electronic_system
from deeph_lightning.training.environment import write_json

Array = NDArray[np.float64]
#: k-points of the fine grid over those of DFT, along each axis.
FINER = 2.25
#: Longest bond, Å. Distances at which charges of atoms and of bonds act, and the width of each.
BOND, ATOM_SHELLS, BOND_SHELLS, SHELL_WIDTH = 1.9, (1.42, 2.46, 2.85, 3.8), (0.71, 1.88), 0.4
#: Degrees of products of densities.
PRODUCT_L_MAX = 3
#: Times that charges follow from H and H from charges.
N_CYCLE = 3
#: Direction in which orbitals of these charges point.
NORMAL = np.array([[0.0, 0.0, 1.0]])


class Charges(NamedTuple):
    """What a grid puts where, less what a finer one does, electrons.

    Attributes
    ----------
    atoms
        Mulliken populations, ``(A,)``.
    bonds, places
        Overlap populations, half at each direction of a bond, and centres of bonds, Å:
        ``(B,)`` and ``(B, 3)``.
    """

    atoms: Array
    bonds: Array
    places: Array


class Response(NamedTuple):
    """Linear response of H to charges.

    Attributes
    ----------
    coupling
        Components of onsite blocks.
    weights
        ``{L: (columns, components)}``, meV.
    """

    coupling: BlockCoupling
    weights: dict[int, Array]

    def onsite(self, atoms: Atoms, charges: Charges) -> Array:
        """Return its part of the onsite blocks, ``(A, n, n)``, meV."""
        parts = np.zeros((len(atoms), len(self.coupling.node_matrix)))
        columns = potentials(atoms, charges, self.coupling.layout.l_max)
        for L, _, where in sections(self.coupling):
            value = columns[L] @ self.weights[L]
            parts[:, where] = value.reshape(len(atoms), -1)
        n = round(self.coupling.size**0.5)
        return np.asarray(parts @ self.coupling.node_matrix.numpy()).reshape(-1, n, n)

    def operator(self, system: SystemData, charges: Charges) -> Operator:
        """Return its part of H, eV."""
        H, S = operators(system)
        O = 1e-3 * self.onsite(system.atoms, charges)
        overlap = S.on_pairs(H.pairs).values.reshape(-1, *O.shape[1:])
        values = 0.5 * (O[H.pairs.i] @ overlap + overlap @ O[H.pairs.j])
        return H.replace(values=values.ravel())


def main() -> None:
    """Work out charges, fit, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path(shipped("data/graphene/graphene.h5")))
    parser.add_argument("--k-spacing", type=float, default=BandSettings.k_spacing,
                        help="of DFT, 1/Å with 2 pi")  # fmt: skip
    parser.add_argument("--smearing", type=float, default=BandSettings.smearing_eV,
                        help="of DFT, eV")  # fmt: skip
    parser.add_argument("--work", type=Path, default=Path("outputs/kgrid"))
    parser.add_argument("--set", type=Path, help="folder of a set to write")
    parser.add_argument(
        "--predictions", type=Path, nargs="+", help="folders of networks trained on it"
    )
    parser.add_argument("--jobs", type=int, default=-1, help="processes; -1: all cores")
    parser.add_argument("--json", type=Path, help="file to write")
    options = parser.parse_args()
    source = open_source(options.root)
    if source.split is None:
        raise SystemExit(f"{options.root}: there is no split into train, val and test")
    if len(source.header.basis.labels) > 1:
        raise SystemExit(f"{options.root}: expected atoms of one kind")
    systems = {name: source.read(name) for part in source.split.values() for name in part}
    charges = all_charges(systems, source.fingerprint()[:12], options)
    response, errors = fit(systems, charges, source.split)
    tables = [sizes(systems, charges, response), errors]
    if options.set is not None:
        write(systems, charges, response, source.split, options.set)
    if options.predictions is not None:
        tables.append(compare(systems, response, options))
    report(tables, options.json)


def all_charges(
    systems: dict[str, SystemData], fingerprint: str, options: argparse.Namespace
) -> dict[str, Charges]:
    """Return the charges of all structures; read what is kept."""
    stem = f"charges_{fingerprint}_{options.k_spacing:g}_{options.smearing:g}"
    kept = options.work / f"{stem}.npz"
    if kept.is_file():
        with np.load(kept) as file:
            return {
                name: Charges(*(file[f"{name}/{key}"] for key in Charges._fields))
                for name in systems
            }
    tasks = (
        delayed(grid_charges)(system, operators(system)[0], options.k_spacing, options.smearing)
        for system in systems.values()
    )
    found = track(Parallel(options.jobs, return_as="generator")(tasks), total=len(systems))
    charges = dict(zip(systems, found, strict=True))
    with new_file(kept) as path, path.open("wb") as file:
        np.savez(
            file,
            **{
                f"{name}/{key}": value
                for name, found in charges.items()
                for key, value in found._asdict().items()
            },
        )
    return charges


def operators(system: SystemData) -> tuple[Operator, Operator]:
    """Return H and S."""
    assert system.H is not None
    assert system.S is not None
    return system.H, system.S


def grid_charges(system: SystemData, H: Operator, spacing: float, smearing: float) -> Charges:
    """Return populations of a grid less those of a finer one."""
    solved = electronic_system(replace(system, H=H))
    atoms, pairs, S = system.atoms, H.pairs, operators(system)[1].on_pairs(H.pairs)

    def densities(k_spacing: float) -> Density:
        grid = grid_size(atoms, k_spacing, is_periodic=solved.is_periodic)
        return density(solved, grid_levels(solved, grid, smearing), smearing)

    coarse, fine = densities(spacing), densities(spacing / FINER)
    change = (coarse.rho.values - fine.rho.values) * S.values
    vectors = pairs.vectors(atoms)
    is_bond = ~pairs.is_onsite & (np.linalg.norm(vectors, axis=1) < BOND)
    return Charges(
        coarse.populations - fine.populations,
        np.add.reduceat(change, H.offsets[:-1])[is_bond],
        atoms.positions[pairs.i[is_bond]] + 0.5 * vectors[is_bond],
    )


def fit(
    systems: dict[str, SystemData], charges: dict[str, Charges], split: dict[str, list[str]]
) -> tuple[Response, Table]:
    """Fit onsite blocks with and without the charges."""
    first = next(iter(systems.values()))
    shells = first.basis.shells[first.basis.labels[0]]
    coupling = BlockCoupling(shells, shells, onsite=True)
    M = coupling.node_matrix.numpy()
    parts = {
        name: onsite(operators(s)[0]).reshape(len(s.atoms), -1) @ M.T
        for name, s in systems.items()
    }
    l_max = coupling.layout.l_max
    local = {name: features(s.atoms, l_max) for name, s in systems.items()}
    added = {name: potentials(s.atoms, charges[name], l_max) for name, s in systems.items()}
    by_size = sorted({len(systems[name].atoms) for name in split["test"]})
    groups = {"train": split["train"]} | {
        f"test, {n} atoms": [name for name in split["test"] if len(systems[name].atoms) == n]
        for n in by_size
    }
    header = ["degree L", *groups, *(f"with charges: {group}" for group in groups)]
    table = Table("Components of onsite blocks, rms error of linear models (meV)", header)
    response = Response(coupling, {})
    for L, count, where in sections(coupling):
        y = {name: value[:, where].reshape(-1, count) for name, value in parts.items()}
        row = [str(L)]
        for is_charged in (False, True):
            X = {
                name: np.hstack((local[name][L], is_charged * added[name][L]))
                for name in systems
            }
            both = [
                np.concatenate([values[name] for name in split[part]])
                for part in ("train", "val")
                for values in (X, y)
            ]
            model = ridge(*both, is_scalar=L == 0)
            row += [rms([model(X[n]) - y[n] for n in names]) for names in groups.values()]
        n_local, n_column = local[first.name][L].shape[1], added[first.name][L].shape[1]
        unit = np.hstack((np.zeros((n_column, n_local)), np.eye(n_column)))
        response.weights[L] = model(unit) - model(0 * unit)
        table.rows.append(row)
    return response, table


def sections(coupling: BlockCoupling) -> list[tuple[int, int, slice]]:
    """Return degree, number and place of the natural components of onsite blocks."""
    return [
        (L, count, slice(offset, offset + (2 * L + 1) * count))
        for parity, L, count, offset in coupling.sections
        if parity == "natural"
    ]


def features(atoms: Atoms, l_max: int) -> list[Array]:
    """Return tensors of the neighbourhood for each degree L, ``((2L+1) A, n)``."""
    i, j, r, D = neighbor_list("ijdD", atoms, R_PAIR)
    Y = harmonics(D, l_max)
    to_atom = (np.arange(len(atoms))[:, None] == i).astype(float)

    def summed(angular: Array, radial: Array) -> Array:
        terms = (angular[:, :, None] * radial[:, None]).reshape(len(r), -1)
        return np.asarray((to_atom @ terms).reshape(len(atoms), angular.shape[1], -1))

    near = density_functions(r) * (r < R_POWER)[:, None]
    moments = [summed(Y[l], near) for l in range(PRODUCT_L_MAX + 1)]
    spectra = power(atoms)
    charges = spectra - spectra.mean(axis=0)
    fine = pair_functions(r)
    found = []
    for L in range(l_max + 1):
        own = spectra[:, None] if L == 0 else products(moments, L)
        parts = [summed(Y[L], fine), own]
        parts += [
            summed(Y[L], shell_weight(r, s)[:, None] * charges[j]) for s in ATOM_SHELLS[:2]
        ]
        found.append(np.concatenate(parts, axis=2).reshape((2 * L + 1) * len(atoms), -1))
    return found


def products(moments: list[Array], L: int) -> Array:
    """Couple moments of the density of neighbours in twos to degree L, ``(A, 2L+1, n)``."""
    found = []
    for l1, left in enumerate(moments):
        for l2 in range(max(l1, abs(L - l1)), min(L + l1, len(moments) - 1) + 1):
            if (l1 + l2 + L) % 2 == 0:
                C = o3.wigner_3j(l1, l2, L, dtype=torch.float64).numpy()
                value = np.einsum("axn,ayk,xyz->aznk", left, moments[l2], C)
                found.append(value.reshape(*value.shape[:2], -1))
    return np.concatenate(found, axis=2)


def potentials(atoms: Atoms, charges: Charges, l_max: int) -> list[Array]:
    """Return what charges do to components of each degree L, ``((2L+1) A, columns)``."""
    n, normal = len(atoms), harmonics(NORMAL, l_max)
    places = np.concatenate((atoms.positions, charges.places))
    sites = Atoms(np.zeros(len(places)), places, cell=atoms.cell, pbc=atoms.pbc)
    values = np.concatenate((charges.atoms, charges.bonds))
    i, j, r, D = neighbor_list("ijdD", sites, max(ATOM_SHELLS) + 4 * SHELL_WIDTH)
    acts = [(shell, j < n) for shell in ATOM_SHELLS] + [(s, j >= n) for s in BOND_SHELLS]
    Y, found = harmonics(D, l_max), []
    for L in range(l_max + 1):
        columns = []
        for shell, is_source in acts:
            which = is_source & (i < n)
            weight = shell_weight(r[which], shell) * values[j[which]]
            total = np.zeros((n, 2 * L + 1))
            np.add.at(total, i[which], Y[L][which] * weight[:, None])
            columns.append(total)
        if L % 2 == 0:
            columns.append(charges.atoms[:, None] * normal[L])
        found.append(np.stack([column.ravel() for column in columns], axis=1))
    return found


def shell_weight(r: Array, shell: float) -> Array:
    """Return how much pairs belong to a shell of neighbours, ``(P,)``."""
    return np.asarray(np.exp(-(((r - shell) / SHELL_WIDTH) ** 2)))


def harmonics(vectors: Array, l_max: int) -> list[Array]:
    """Return real harmonics of directions, each ``(n, 2l+1)``."""
    rotations = frame_rotations(torch.from_numpy(vectors))
    values = real_harmonics_from_blocks(wigner_blocks(rotations, l_max))
    return [value.numpy() for value in values]


def sizes(
    systems: dict[str, SystemData], charges: dict[str, Charges], response: Response
) -> Table:
    """Tell how large charges and their effect on H are."""
    header = ["atoms", "structures", "charge of atoms, rms (0.001 e)", "of bonds"]
    header += ["onsite, mean (meV)", "hopping, mean (meV)"]
    table = Table("What the k-grid leaves in H", header)
    for n in sorted({len(system.atoms) for system in systems.values()}):
        names = [name for name, system in systems.items() if len(system.atoms) == n]
        errors = Report(BandSettings(n_orb_max=0))
        for name in names:
            added = response.operator(systems[name], charges[name])
            errors.add(Prediction(systems[name], plus(operators(systems[name])[0], added)))
        found = errors.column(names)
        size = [
            rms([1e3 * getattr(charges[name], key) for name in names])
            for key in ("atoms", "bonds")
        ]
        row = [f"{found[key]:.3f}" for key in ("H_onsite_mae_meV", "H_hopping_mae_meV")]
        table.rows.append([str(n), str(len(names)), *size, *row])
    return table


def write(
    systems: dict[str, SystemData],
    charges: dict[str, Charges],
    response: Response,
    split: dict[str, list[str]],
    folder: Path,
) -> None:
    """Write all structures without what the grid leaves."""
    for name, system in track(systems.items()):
        H, added = operators(system)[0], response.operator(system, charges[name])
        H = H.replace(values=H.values - added.values)
        write_structure_folder(replace(system, H=H), folder / name)
    write_json(folder / "split.json", split)


def plus(H: Operator, added: Operator) -> Operator:
    """Add operators of the same pairs."""
    return H.replace(values=H.values + added.values)


def compare(
    systems: dict[str, SystemData], response: Response, options: argparse.Namespace
) -> Table:
    """Add the response to predictions, and compare with DFT."""
    folders = [open_source(folder) for folder in options.predictions]
    reports = {"as predicted": Report(BandSettings()), "with the grid": Report(BandSettings())}
    for name in track(folders[0].names):
        system, pairs = systems[name], operators(systems[name])[0].pairs
        every = [hamiltonian(folder, name).on_pairs(pairs) for folder in folders]
        H = every[0].replace(values=np.mean([one.values for one in every], axis=0))
        reports["as predicted"].add(Prediction(system, H))
        with_grid = H
        for _ in range(N_CYCLE):
            charges = grid_charges(system, with_grid, options.k_spacing, options.smearing)
            with_grid = plus(H, response.operator(system, charges))
        reports["with the grid"].add(Prediction(system, with_grid))
    header = ["", "H", "H_onsite", "H_hopping", "bands", "bands, max"]
    keys = [*(f"{name}_mae_meV" for name in header[1:-1]), "bands_max_meV"]
    table = Table("Test part: errors against DFT with its grid (meV)", header)
    for label, found in reports.items():
        for size, column in found.columns().items():
            table.rows.append([f"{label}, {size}", *(f"{column[key]:.3g}" for key in keys)])
    return table


if __name__ == "__main__":
    main()
