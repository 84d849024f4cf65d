"""Spatial parts and several processes give what one process gives at once."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import ase.io
import h5py
import numpy as np
import pytest
from ase.build import graphene

from deeph_lightning.config.paths import PACKAGE_DIR
from deeph_lightning.inference.overlaps import Overlaps
from deeph_lightning.inference.parts import divide_atoms
from deeph_lightning.inference.predict import Predictor
from deeph_lightning.inference.write import PartedStructure
from deeph_lightning.io.formats import read_structure_folder
from tests.inference.systems import predict, ribbon, sheet
from tests.tolerances import CHUNKS_FLOAT32, PARTS_FLOAT64


def largest_difference(a, b) -> float:
    assert a.pairs == b.pairs
    return np.abs(a.values - b.values).max() / np.abs(b.values).max()


@pytest.mark.parametrize("n_part", [1, 2, 5])
@pytest.mark.parametrize("n_atom", [7, 32])
def test_parts_are_equal_and_compact(n_atom, n_part):
    atoms = graphene(size=(4, 4, 1), vacuum=5.0)[:n_atom]
    counts = np.bincount(divide_atoms(atoms, n_part), minlength=n_part)
    assert counts.sum() == n_atom
    assert counts.max() - counts.min() <= 1


def test_a_part_sees_less_than_the_whole_and_says_the_same(with_overlaps):
    atoms = ribbon()
    predictor = Predictor(with_overlaps, "fp64", "cpu", chunk=500)
    structure = PartedStructure(predictor, atoms, Overlaps.choose(None, predictor), 6)
    expected = predictor.operators(atoms, ("H", "S"))
    for n in range(6):
        assert len(structure.part(n).atoms) < 0.8 * len(atoms)
        R, i, j = structure.rows(n)
        pieces = sorted(structure.pieces(n), key=lambda piece: piece.start)
        for name, op in expected.items():
            own = [piece for piece in pieces if piece.name == name]
            assert [piece.start for piece in own[1:]] == [piece.stop for piece in own[:-1]]
            values = np.concatenate([piece.values for piece in own])
            part = op.from_flat(atoms, op.basis, R, i, j, values, is_half=True)
            whole = op.on_pairs(part.pairs)
            assert largest_difference(part, whole) < PARTS_FLOAT64


@pytest.mark.parametrize(
    ("precision", "tol"), [("fp32", CHUNKS_FLOAT32), ("fp64", PARTS_FLOAT64)]
)
def test_the_files_of_parts(with_overlaps, tmp_path, precision, tol):
    ase.io.write(tmp_path / "a.extxyz", [ribbon(4), sheet()])
    options = {"precision": precision}
    whole = predict(with_overlaps, tmp_path / "a.extxyz", tmp_path / "whole", **options)
    parts = predict(with_overlaps, tmp_path / "a.extxyz", tmp_path / "b", parts=5, **options)
    for a, b in zip(whole, parts, strict=True):
        first, second = read_structure_folder(a), read_structure_folder(b)
        assert largest_difference(second.H, first.H) < tol
        np.testing.assert_allclose(second.S.values, first.S.values, atol=1e-14)
        second.H.check_hermitian(0.0)
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == ["a_0", "a_1"]


def start(checkpoint, cwd, *options: str) -> list[subprocess.CompletedProcess]:
    """Run the command in two processes, as torchrun does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "deeph_lightning.predict", f"checkpoint={checkpoint}"]
    command += ["device=cpu", "num_threads=1", *options]
    ranks = [
        subprocess.Popen(
            command,
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": str(PACKAGE_DIR.parent),
                "OMP_NUM_THREADS": "1",
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
            },
        )
        for rank in range(2)
    ]
    return [
        subprocess.CompletedProcess(command, rank.returncode, out, err)
        for rank, (out, err) in [(rank, rank.communicate(timeout=240)) for rank in ranks]
    ]


@pytest.mark.ddp
def test_two_processes_share_one_structure(with_overlaps, tmp_path):
    ase.io.write(tmp_path / "POSCAR", ribbon(5), sort=True, direct=True)
    (alone,) = predict(with_overlaps, tmp_path / "POSCAR", tmp_path / "alone", precision="fp64")
    done = start(
        with_overlaps,
        tmp_path,
        "structure=POSCAR",
        "output=shared",
        "precision=fp64",
        "parts=3",
    )
    assert [rank.returncode for rank in done] == [0, 0], done
    first, second = read_structure_folder(alone), read_structure_folder(tmp_path / "shared")
    assert largest_difference(second.H, first.H) < PARTS_FLOAT64
    np.testing.assert_allclose(second.S.values, first.S.values, atol=1e-14)
    assert second.info["prediction"] == first.info["prediction"]
    # one report, and no file of the exchange is left
    assert [rank.stdout.count("wrote 1 structures") for rank in done] == [1, 0]
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["POSCAR", "alone", "shared"]


@pytest.mark.ddp
def test_two_processes_share_structures(with_overlaps, tmp_path):
    ase.io.write(tmp_path / "a.extxyz", [sheet(n) for n in range(3)])
    done = start(with_overlaps, tmp_path, "structure=a.extxyz", "output=out")
    assert [rank.returncode for rank in done] == [0, 0], done
    assert [rank.stdout.count("wrote 3 structures") for rank in done] == [1, 0]
    folders = predict(with_overlaps, tmp_path / "a.extxyz", tmp_path / "alone")
    for folder in folders:
        first, second = (
            h5py.File(root / folder.name / "hamiltonian.h5")
            for root in (tmp_path / "out", tmp_path / "alone")
        )
        with first, second:
            np.testing.assert_array_equal(first["entries"], second["entries"])
    # a bad one stops both before anything is written
    bad = sheet()
    bad.symbols[0] = "N"
    ase.io.write(tmp_path / "b.extxyz", [sheet(), bad])
    done = start(with_overlaps, tmp_path, "structure=b.extxyz", "output=none")
    assert [rank.returncode for rank in done] == [2, 2]
    assert sum("b_1" in rank.stderr for rank in done) == 1
    assert sum("BasisMismatchError" in rank.stderr for rank in done) == 1
    assert not (tmp_path / "none").exists()
