"""Structures and commands of the tests of inference."""

from __future__ import annotations

import os

from ase import Atoms
from ase.build import graphene
from omegaconf import OmegaConf

from deeph_lightning.config.paths import CONF_DIR
from deeph_lightning.predict import run


def sheet(seed: int = 0) -> Atoms:
    atoms = graphene(vacuum=5.0)
    atoms.pbc = True
    atoms.rattle(0.05, seed=seed)
    return atoms


def ribbon(n: int = 16):
    """A long cell with more atoms than a part sees, with H atoms on some."""
    atoms = graphene(size=(n, 3, 1), vacuum=5.0)
    for k in (3, 2 * n, 5 * n):
        atoms.append("H")
        atoms.positions[-1] = atoms.positions[k] + [0.1, 0.0, 1.1]
    atoms.pbc = True
    atoms.rattle(0.05, seed=1)
    atoms.info["name"] = "ribbon"
    return atoms


def predict(checkpoint, structure, output, **options):
    cfg = OmegaConf.load(CONF_DIR / "predict.yaml")
    del cfg["hydra"], cfg["defaults"]
    structure = str(structure) if isinstance(structure, os.PathLike) else structure
    checkpoint = checkpoint if isinstance(checkpoint, list) else str(checkpoint)
    given = {"checkpoint": checkpoint, "structure": structure, "output": str(output)}
    return run(OmegaConf.merge(cfg, given, {"device": "cpu", "num_threads": 1, **options}))
