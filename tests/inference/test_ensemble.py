"""Ensembles: mean, spread, and where both are written."""

from __future__ import annotations

import ase.io
import h5py
import numpy as np
import pytest
import torch

from deeph_lightning.errors import ConfigError
from deeph_lightning.inference.predict import Predictor
from deeph_lightning.io.formats import read_structure_folder
from tests.inference.systems import predict, sheet


@pytest.fixture(scope="module")
def others(with_overlaps, tmp_path_factory):
    """Three networks of the same data with weights of their own."""
    paths = []
    for seed in range(3):
        content = torch.load(with_overlaps, weights_only=True)
        generator = torch.Generator().manual_seed(seed)
        state = content["state_dict"]
        for key, value in state.items():
            if "readouts" in key and value.is_floating_point():
                noise = torch.randn(value.shape, generator=generator, dtype=value.dtype)
                state[key] = value + 0.05 * noise
        paths.append(tmp_path_factory.mktemp("network") / "best.ckpt")
        torch.save(content, paths[-1])
    return [str(path) for path in paths]


def test_mean_and_spread(others, tmp_path, caplog):
    caplog.set_level("INFO")
    ase.io.write(tmp_path / "POSCAR", sheet(), direct=True)
    (folder,) = predict(others, tmp_path / "POSCAR", tmp_path / "out", parts=2)
    system = read_structure_folder(folder)
    single = [Predictor(path, device="cpu").predict(system.atoms) for path in others]
    values = np.array([op.values for op in single])
    np.testing.assert_allclose(system.H.values, values.mean(0), atol=1e-6)

    deviation = values.std(0, ddof=1)
    summary = system.info["prediction"]["spread"]
    assert summary["n_networks"] == 3
    assert summary["mean_eV"] == pytest.approx(deviation.mean(), rel=1e-5)
    blocks = np.add.reduceat(deviation, system.H.offsets[:-1]) / np.diff(system.H.offsets)
    assert summary["largest_block_eV"] == pytest.approx(blocks.max(), rel=1e-5)
    assert deviation.mean() > 1e-3
    with h5py.File(folder / "spread.h5") as file:
        rows, std = file["atom_pairs"][()], file["std_eV"][()]
    found = {tuple(row): value for row, value in zip(rows.tolist(), std, strict=True)}
    pairs = system.H.pairs
    for n in np.flatnonzero(pairs.is_canonical):
        R, i, j = pairs.R[n].tolist(), int(pairs.i[n]), int(pairs.j[n])
        assert found[*R, i, j] == pytest.approx(blocks[n], rel=1e-4, abs=1e-9)
    assert len(found) == pairs.is_canonical.sum()
    assert "3 networks differ by" in caplog.text
    # what is there is known by all of its networks
    predict(others, tmp_path / "POSCAR", tmp_path / "out")
    assert "1 of 1 structures are there already" in caplog.text


def test_networks_of_other_data_are_refused(others, tmp_path):
    content = torch.load(others[0], weights_only=True)
    content["deeph"]["r_message"] += 1
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(ConfigError, match=r"r_message of .*other\.ckpt"):
        Predictor([others[0], tmp_path / "other.ckpt"], device="cpu")
    with pytest.raises(ConfigError, match="no checkpoint"):
        Predictor([], device="cpu")
