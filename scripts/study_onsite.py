"""What the potential at an atom depends on: linear models of the mean onsite energy.

    python scripts/study_onsite.py
    python scripts/study_onsite.py --root FOLDER --json FILE
    python scripts/study_onsite.py --predictions RUN/predictions

The mean of the diagonal of H_ii is the potential at atom i. It is fitted by ridge regression to
sums over neighbours (pairs), to power spectra of the density of neighbours (three-body terms),
and to Coulomb potentials of charges that are power spectra themselves: of all charges of the
crystal, smeared so that little but the long range is left, or of those nearer than a cut-off.
If the crystal did better than near charges, networks would lack long-ranged physics. With
``--predictions`` the errors of onsite blocks are taken apart into patterns (singular vectors),
and those of the potential are put beside the linear models'.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list
from bench_report import Table, report
from numpy.typing import NDArray
from scipy import linalg
from scipy.special import sph_harm_y

from deeph_lightning.config.paths import shipped
from deeph_lightning.core.operator import Operator
from deeph_lightning.io.source import Source, open_source

Array = NDArray[np.float64]
TITLE = "Potential at an atom, rms error (meV)"
#: Ranges of pairs and of power spectra, Å; radial functions and degrees of the latter.
R_PAIR, R_POWER, N_RADIAL, L_MAX = 8.0, 5.0, 8, 5
#: Penalties that are tried; the one with the smallest error of validation is taken.
RIDGE = 10.0 ** np.arange(-11.0, 1.5, 0.5)


def main() -> None:
    """Fit all models, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path(shipped("data/graphene")))
    parser.add_argument("--json", type=Path, help="file to write")
    parser.add_argument("--predictions", type=Path, help="folder of predicted structures")
    options = parser.parse_args()
    source = open_source(options.root)
    if options.predictions:
        report(patterns(source, options.predictions), options.json)
        return
    if source.split is None:
        raise SystemExit(f"{options.root}: there is no split into train, val and test")
    hamiltonians = {
        name: hamiltonian(source, name) for part in source.split.values() for name in part
    }
    potentials = {name: potential(onsite(H)) for name, H in hamiltonians.items()}
    sizes = sorted({len(potentials[name]) for name in source.split["test"]})
    header = ["linear model", "parameters", "train", *(f"test, {n} atoms" for n in sizes)]
    table = Table(TITLE, header)
    for label, design in designs({name: H.atoms for name, H in hamiltonians.items()}).items():
        errors, n = fit(design, potentials, source.split)
        row = [rms([errors[name] for name in source.split["train"]])]
        for size in sizes:
            names = [name for name in source.split["test"] if len(errors[name]) == size]
            row.append(rms([errors[name] for name in names]))
        table.rows.append([label, str(n), *row])
    report([table], options.json)


def hamiltonian(source: Source, name: str) -> Operator:
    """Read H of a structure."""
    H = source.read(name, ("H",)).H
    assert H is not None
    return H


def onsite(H: Operator) -> Array:
    """Return the onsite blocks of atoms of one kind, ``(A, n, n)``, meV."""
    return 1e3 * np.stack([H.block(int(n)).real for n in np.flatnonzero(H.pairs.is_onsite)])


def potential(blocks: Array) -> Array:
    """Return the mean of the diagonal of blocks, ``(A,)``."""
    return np.asarray(np.diagonal(blocks, axis1=1, axis2=2).mean(axis=1))


def rms(errors: list[Array]) -> str:
    """Write the root mean square of errors at the atoms of some structures."""
    return f"{np.sqrt(np.mean(np.concatenate(errors) ** 2)):.2f}"


def patterns(source: Source, folder: Path) -> list[Table]:
    """Take errors of predicted onsite blocks apart."""
    predicted = open_source(folder)
    errors = [
        onsite(hamiltonian(predicted, name)) - onsite(hamiltonian(source, name))
        for name in predicted.names
    ]
    every = np.concatenate(errors)
    _, s, modes = linalg.svd(every.reshape(len(every), -1), full_matrices=False)
    header = ["pattern", "share of the squared error", "of it a shift of all orbitals"]
    shares = Table("Errors of onsite blocks", header)
    n = every.shape[1]
    for number, mode in enumerate(modes[:5]):
        shift, share = np.trace(mode.reshape(n, n)) ** 2 / n, s[number] ** 2 / (s**2).sum()
        shares.rows.append([str(number + 1), f"{share:.2f}", f"{shift:.2f}"])
    by_size = Table(TITLE, ["atoms", "error"])
    for size in sorted({len(e) for e in errors}):
        of_size = rms([potential(e) for e in errors if len(e) == size])
        by_size.rows.append([str(size), of_size])
    return [shares, by_size]


def designs(structures: dict[str, Atoms]) -> dict[str, dict[str, Array]]:
    """Return features of each model and structure, ``(A, n)``."""
    pair = {name: pairs(atoms) for name, atoms in structures.items()}
    spectra = {name: power(atoms) for name, atoms in structures.items()}
    both = {name: np.hstack((pair[name], spectra[name])) for name in structures}
    charges = {name: values - values.mean(axis=0) for name, values in spectra.items()}
    found = {"pairs": pair, "pairs, power spectra": both}
    kernels: list[tuple[str, Callable[[Atoms, float], Array], float]] = [
        *((f"charges within {r:g} Å", near, r) for r in (5.0, 8.0)),
        *((f"all charges, smeared by {s:g} Å", crystal, s) for s in (1.0, 1.5, 2.0, 2.5)),
    ]
    for label, kernel, size in kernels:
        found[f"the same, potentials of {label}"] = {
            name: np.hstack((both[name], kernel(atoms, size) @ charges[name]))
            for name, atoms in structures.items()
        }
    return found


def fit(
    design: dict[str, Array], potentials: dict[str, Array], split: dict[str, list[str]]
) -> tuple[dict[str, Array], int]:
    """Return the errors at the atoms of all structures, meV, and the number of parameters."""

    def joined(part: str) -> tuple[Array, Array]:
        names = split[part]
        X = np.concatenate([design[name] for name in names])
        return X, np.concatenate([potentials[name] for name in names])

    predicted = ridge(*joined("train"), *joined("val"))
    errors = {name: predicted(design[name]) - potentials[name] for name in design}
    return errors, next(iter(design.values())).shape[1]


def ridge(
    X: Array, y: Array, X_val: Array, y_val: Array, *, is_scalar: bool = True
) -> Callable[[Array], Array]:
    """Return the linear model ``(n, features) -> (n, ...)`` that fits best to validation.

    Features and labels that are no scalars have no mean.
    """
    mean, offset = (X.mean(0), y.mean(0)) if is_scalar else (0.0, 0.0)
    scale = np.sqrt(np.mean((X - mean) ** 2, axis=0)) + 1e-12
    U, s, Vh = linalg.svd((X - mean) / scale, full_matrices=False)
    moments = (U.T @ (y - offset)).T

    def predicted(values: Array, penalty: float) -> Array:
        weights = Vh.T @ (s / (s**2 + penalty * len(X)) * moments).T
        return np.asarray((values - mean) / scale @ weights + offset)

    best = min(RIDGE, key=lambda penalty: np.mean((predicted(X_val, penalty) - y_val) ** 2))
    return partial(predicted, penalty=best)


def pairs(atoms: Atoms) -> Array:
    """Return Gaussians of the distance, summed over neighbours, ``(A, n)``."""
    i, r = neighbor_list("id", atoms, R_PAIR)
    values = pair_functions(r)
    total = np.zeros((len(atoms), values.shape[1]))
    np.add.at(total, i, values)
    return total


def power(atoms: Atoms) -> Array:
    """Return power spectra of the density of neighbours, ``(A, n)``."""
    i, r, D = neighbor_list("idD", atoms, R_POWER)
    radial = density_functions(r)
    polar, azimuth = np.arccos(np.clip(D[:, 2] / r, -1, 1)), np.arctan2(D[:, 1], D[:, 0])
    upper = np.triu_indices(N_RADIAL)
    spectra = []
    for l in range(L_MAX + 1):
        m = np.arange(-l, l + 1)
        terms = sph_harm_y(l, m, polar[:, None], azimuth[:, None])[:, :, None] * radial[:, None]
        density = np.zeros((len(atoms), 2 * l + 1, N_RADIAL), dtype=complex)
        np.add.at(density, i, terms)
        products = np.einsum("amn,amk->ank", density.conj(), density).real
        spectra.append(products[:, upper[0], upper[1]])
    return np.concatenate(spectra, axis=1)


def pair_functions(r: Array) -> Array:
    """Return radial functions of pairs, ``(P, n)``."""
    return gaussians(r, np.arange(1.0, R_PAIR, 0.15), 0.225, R_PAIR)


def density_functions(r: Array) -> Array:
    """Return radial functions of the density of neighbours within `R_POWER`, ``(P, n)``."""
    centre = np.linspace(1.2, R_POWER - 0.3, N_RADIAL)
    return gaussians(r, centre, centre[1] - centre[0], R_POWER)


def gaussians(r: Array, centre: Array, width: float, r_cut: float) -> Array:
    """Return smoothly cut Gaussians of distances, ``(P, n)``."""
    values = np.exp(-(((r[:, None] - centre) / width) ** 2))
    return np.asarray(0.5 * (1 + np.cos(np.pi * r[:, None] / r_cut)) * values)


def near(atoms: Atoms, r_cut: float) -> Array:
    """Return potentials at atoms of unit charges nearer than a cut-off, ``(A, A)``, 1/Å."""
    i, j, r = neighbor_list("ijd", atoms, r_cut)
    total = np.zeros((len(atoms), len(atoms)))
    np.add.at(total, (i, j), (1 - (r / r_cut) ** 2) ** 2 / r)
    return total


def crystal(atoms: Atoms, smearing: float) -> Array:
    """Return potentials at atoms of all periodic Gaussian charges, ``(A, A)``, 1/Å."""
    k_cut = np.sqrt(2 * np.log(1e6)) / smearing
    n = np.floor(k_cut * atoms.cell.lengths() / (2 * np.pi)).astype(int)
    grid = np.stack(np.meshgrid(*(np.arange(-m, m + 1) for m in n), indexing="ij"), -1)
    k = 2 * np.pi * grid.reshape(-1, 3) @ atoms.cell.reciprocal().array
    square = (k**2).sum(1)
    keep = (square > 0) & (square < k_cut**2)
    weight = 4 * np.pi / square[keep] * np.exp(-0.5 * smearing**2 * square[keep])
    phase = np.exp(1j * atoms.positions @ k[keep].T)
    return np.asarray(((phase * weight) @ phase.conj().T).real / atoms.cell.volume)


if __name__ == "__main__":
    main()
