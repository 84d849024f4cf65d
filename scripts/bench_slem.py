"""Train SLEM of DeePTB on the shipped graphene set for given minutes, and test it.

    python scripts/bench_slem.py --python ENVIRONMENT/bin/python --minutes 30
    ... --size published --schedule plateau --json docs/measured/slem.json

`dptb` needs an environment of its own (see docs/benchmarks.md); `--python` is its Python. The
set is written as folders of DeePTB and compared with what is read back. Errors are those of
`deeph_lightning.training.metrics`: all real elements of all stored blocks, both Hermitian
halves, onsite included. Of the weights kept during training those of the least error of the
validation part are tested. Minutes are those of the CPU for each thread; nothing but training
steps counts.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
from pathlib import Path

import h5py
import numpy as np
import torch
from ase.neighborlist import neighbor_list
from bench_report import Table, report

from deeph_lightning.config.paths import shipped
from deeph_lightning.core.conventions import SHELL_LETTERS
from deeph_lightning.core.operator import Operator
from deeph_lightning.io.formats import read_structure_folder
from deeph_lightning.io.source import Source, open_source
from deeph_lightning.io.system import SystemData
from deeph_lightning.solve.dense import eigenvalues
from deeph_lightning.training.entries import MEV_PER_EV

#: Hidden features: as many weights as ELCT has by default; DeePTB's tutorial for 2s2p1d.
IRREPS = {
    "elct": "32x0e+32x1o+16x2e+8x3o+8x4e",
    "published": "32x0e+32x1o+16x2e+8x3o+8x4e+4x5o",
}
K_CHECK = (0.11, 0.23, 0.0)
#: Above the longest pair, Å, so that its envelope is not zero.
MARGIN = 0.1


def main() -> None:
    """Write the set, train, test, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", type=Path, required=True, help="Python that has dptb")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", choices=tuple(IRREPS), default="elct")
    parser.add_argument("--schedule", choices=("cosine", "plateau"), default="cosine")
    parser.add_argument("--lr", type=float, default=5e-3)
    parser.add_argument("--snapshots", type=int, default=10, help="points of the curve")
    parser.add_argument("--work", type=Path, default=Path("outputs/slem"))
    parser.add_argument("--json", type=Path, help="file to write")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)  # what the record says

    source = open_source(shipped("data/graphene/graphene.h5"))
    folders = write_set(source, options.work.absolute() / "set")
    result = train(options, source, folders)
    parts = {name: part for part in ("val", "test") for name in source.split[part]}
    systems = {name: source.read(name, ("H",)) for name in parts}
    for n, snapshot in enumerate(result["snapshots"]):
        with np.load(options.work / f"{n}.npz") as arrays:
            errors = {name: error(systems[name], arrays) for name in parts}
        for part in ("val", "test"):
            snapshot[part] = summary([errors[m] for m in parts if parts[m] == part])
    best = min(result["snapshots"], key=lambda at: at["val"]["H_mae_meV"])
    settings = {key: getattr(options, key) for key in ("minutes", "size", "lr", "schedule")}
    report(tables(result, best, options), options.json, **result, best=best, **settings)


def write_set(source: Source, root: Path) -> dict[str, Path]:
    """Write every structure as a folder of DeePTB, once; return the folders by name."""
    folders = {
        name: root / f"{part}.{name}" for part, names in source.split.items() for name in names
    }
    if root.exists():
        return folders
    partial = root.with_name(f"{root.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    about = {"nframes": 1, "natoms": -1, "pos_type": "cart", "pbc": True}
    (partial / "info.json").write_text(json.dumps(about))
    checked = [names[0] for names in source.split.values()]
    for name, folder in folders.items():
        # SLEM learns H alone; S is for the bands of the check
        system = source.read(name, ("H", "S") if name in checked else ("H",))
        write_folder(system, partial / folder.name)
        if name in checked:
            check(system, partial / folder.name)
    partial.rename(root)
    return folders


def write_folder(system: SystemData, folder: Path) -> None:
    """Write one structure; harmonics and signs of the common convention are DeePTB's."""
    folder.mkdir()
    np.savetxt(folder / "atomic_numbers.dat", system.atoms.numbers, fmt="%d")
    np.savetxt(folder / "positions.dat", system.atoms.positions, fmt="%.17g")
    np.savetxt(folder / "cell.dat", system.atoms.cell.array, fmt="%.17g")
    np.savetxt(folder / "pbc.dat", np.ones(3), fmt="%d")
    (folder / "basis.dat").write_text(str(shell_words(system)))
    for name, op in (("hamiltonians", system.H), ("overlaps", system.S)):
        if op is None:
            continue
        with h5py.File(folder / f"{name}.h5", "w") as file:
            group = file.create_group("0")
            values = op.to_convention("deeptb")
            for n, row in enumerate(op.pairs.rows.tolist()):
                group["_".join(map(str, row))] = values.block(n)


def shell_words(system: SystemData) -> dict[str, str]:
    """Return the shells as ``{'C': '2s2p1d'}``, which has them by degree."""
    words = {}
    for label, shells in system.basis.shells.items():
        assert list(shells) == sorted(shells), shells
        words[label] = "".join(
            f"{shells.count(l)}{SHELL_LETTERS[l]}" for l in dict.fromkeys(shells)
        )
    return words


def check(system: SystemData, folder: Path) -> None:
    """Compare bands with those of what the reader of DeePTB folders finds."""
    found = read_structure_folder(folder)
    bands = [eigenvalues(s.H, s.S, [K_CHECK]) for s in (system, found)]
    np.testing.assert_allclose(*bands, atol=1e-9)


def train(options: argparse.Namespace, source: Source, folders: dict[str, Path]) -> dict:
    """Let the other Python train and predict; what it found."""
    plan = {
        "input": dptb_input(options, source, folders),
        "seconds": 60 * options.minutes,
        "threads": options.threads,
        "snapshots": options.snapshots,
        "is_cosine": options.schedule == "cosine",
        "output": str(options.work.absolute()),
        "predict": {n: str(folders[n]) for p in ("val", "test") for n in source.split[p]},
    }
    path = options.work / "plan.json"
    path.write_text(json.dumps(plan, indent=1))
    worker = Path(__file__).with_name("slem_worker.py")
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
    subprocess.run([options.python, worker, path], check=True, env=environment)
    return json.loads((options.work / "result.json").read_text())


def dptb_input(options: argparse.Namespace, source: Source, folders: dict[str, Path]) -> dict:
    """Return the input of `dptb train`: DeePTB's example for 2s2p1d, with this cut-off."""
    r_max = round(max(longest_pair(source.read(name, ("H",))) for name in folders) + MARGIN, 2)
    system = source.read(source.names[0], ("H",))
    words, atoms = shell_words(system), system.atoms
    rate = {"type": "exp", "gamma": 1.0}
    if options.schedule == "plateau":
        rate = {"type": "rop", "factor": 0.8, "patience": 50, "min_lr": 1e-6}
    return {
        "common_options": {
            "basis": words, "device": "cpu", "dtype": "float32", "overlap": False, "seed": 0,
        },
        "model_options": {
            "embedding": {
                "method": "slem",
                "r_max": dict.fromkeys(words, r_max),
                "irreps_hidden": IRREPS[options.size],
                "n_layers": 3,
                "n_radial_basis": 18,
                "env_embed_multiplicity": 10,
                "avg_num_neighbors": len(neighbor_list("i", atoms, r_max)) / len(atoms),
                "latent_dim": 64,
                "latent_channels": [32],
                "tp_radial_emb": True,
                "tp_radial_channels": [32],
            },
            "prediction": {"method": "e3tb", "neurons": [64, 64]},
        },
        "train_options": {
            "num_epoch": 10**6,
            "batch_size": 1,
            "optimizer": {"type": "Adam", "lr": options.lr},
            "lr_scheduler": rate,
            "loss_options": {"train": {"method": "hamil_abs"}},
        },
        "data_options": {
            "train": {
                "root": str(next(iter(folders.values())).parent),
                "prefix": "train",
                "get_Hamiltonian": True,
            }
        },
    }  # fmt: skip


def longest_pair(system: SystemData) -> float:
    """Return the length of the longest pair of H, Å."""
    pairs, positions = system.H.pairs, system.atoms.positions
    vectors = positions[pairs.j] + pairs.R @ system.atoms.cell.array - positions[pairs.i]
    return float(np.linalg.norm(vectors, axis=1).max())


def error(system: SystemData, arrays: np.lib.npyio.NpzFile) -> dict[str, float]:
    """Return sums of absolute errors, meV, over onsite and over all elements, and counts."""
    pairs, blocks = (arrays[f"{system.name}/{what}"] for what in ("pairs", "blocks"))
    found = Operator.from_blocks(
        system.atoms, system.basis, pairs[:, 2:], pairs[:, 0], pairs[:, 1],
        list(blocks.astype(float)), is_half=True,
    ).complete().from_convention("deeptb")  # fmt: skip
    assert (found.pairs.locate(system.H.pairs) >= 0).all(), "SLEM lacks a pair of DFT"
    difference = np.abs(found.on_pairs(system.H.pairs).values - system.H.values)
    is_onsite = np.repeat(system.H.pairs.is_onsite, np.diff(system.H.offsets))
    return {
        "atoms": len(system.atoms),
        "all_abs": MEV_PER_EV * difference.sum(),
        "all_count": difference.size,
        "onsite_abs": MEV_PER_EV * difference[is_onsite].sum(),
        "onsite_count": int(is_onsite.sum()),
    }


def summary(errors: list[dict[str, float]]) -> dict[str, float]:
    """Return means over structures together, and over those of each number of atoms."""

    def mean(of: list[dict[str, float]], kind: str) -> float:
        return sum(e[f"{kind}_abs"] for e in of) / sum(e[f"{kind}_count"] for e in of)

    sizes = sorted({e["atoms"] for e in errors})
    by_size = {
        f"H_mae_meV_{size}_atoms": mean([e for e in errors if e["atoms"] == size], "all")
        for size in sizes
    }
    return {
        "H_mae_meV": mean(errors, "all"),
        "H_onsite_mae_meV": mean(errors, "onsite"),
    } | by_size


def tables(result: dict, best: dict, options: argparse.Namespace) -> list[Table]:
    """Lay out the test and the curve."""
    test = best["test"]
    sizes = [key for key in test if key.endswith("_atoms")]
    title = (
        f"SLEM, {result['parameters']:,} parameters, {options.minutes:g} CPU minutes, "
        f"{options.threads} threads, {options.schedule} schedule"
    )
    last = result["snapshots"][-1]
    header = ["step (ms)", "steps", "MAE of H (meV)",
              *(f"{key.split('_')[3]} atoms" for key in sizes), "onsite"]  # fmt: skip
    errors = [test["H_mae_meV"], *(test[key] for key in sizes), test["H_onsite_mae_meV"]]
    row = [f"{1e3 * result['step_s']:.0f}", str(last["steps"]), *(f"{e:.3f}" for e in errors)]
    curve = Table(
        "Error against time",
        ["CPU (s)", "wall (s)", "steps", "validation MAE (meV)", "test MAE (meV)"],
    )
    for at in result["snapshots"]:
        maes = (at[part]["H_mae_meV"] for part in ("val", "test"))
        times = (f"{at['cpu_s']:.0f}", f"{at['wall_s']:.0f}", str(at["steps"]))
        curve.rows.append([*times, *(f"{mae:.3f}" for mae in maes)])
    note = "step: 18 atoms, batch of one; test: weights of the least validation error"
    return [Table(title, header, [row], note), curve]


if __name__ == "__main__":
    main()
