"""DeepH-E3: its size, and the flaws of the published network as options."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from omegaconf import OmegaConf

from deeph_lightning.config.targets import build
from deeph_lightning.errors import ConfigError
from deeph_lightning.models.deeph_e3 import DeepHE3
from tests.models.test_contract import (
    CONF,
    R_TARGET,
    STRUCTURES,
    assert_same,
    make_model,
    predict,
    random_rotation,
)
from tests.tolerances import MODEL_FLOAT64

FILE = CONF / "deeph_e3.yaml"
EXPERIMENT = OmegaConf.load(CONF.parent / "experiment" / "deeph_e3_published.yaml")
PUBLISHED = dict(EXPERIMENT.model) | {"r_message": 3.4}


def test_default_size_is_the_published_one() -> None:
    node = OmegaConf.to_container(OmegaConf.load(FILE))
    assert isinstance(node, dict)
    basis = {"basis": {"C": [0, 0, 1, 1, 2]}, "r_target": {"C-C": 9.0}}
    model = build(node | basis, key="model")
    size = sum(p.numel() for p in model.parameters())
    assert abs(size / 0.628e6 - 1.0) < 0.05  # of the published code, same basis


def test_published_network_is_equivariant_and_hermitian() -> None:
    model = make_model(FILE, **PUBLISHED)
    H = predict(model, STRUCTURES[0])
    H.check_hermitian(1e-12)
    for Q in (random_rotation(), -random_rotation(2)):
        expected = H.rotated(Q)
        assert_same(predict(model, expected.atoms), expected, MODEL_FLOAT64)


def test_published_network_gives_H_itself() -> None:
    """Nothing is fitted: scales are 1 eV, means and baseline zero."""
    model = make_model(FILE, **PUBLISHED)
    assert isinstance(model, DeepHE3)
    assert not model.baseline.is_fitted
    scale = model.baseline.pairs["0_0"].distance_scale(torch.tensor([2.0]))
    torch.testing.assert_close(scale, torch.ones(1).double())
    with pytest.raises(ConfigError, match="statistics"):
        make_model(FILE, **(PUBLISHED | {"baseline": True}))


def jump_at_cutoff(**options: object) -> float:
    """Change of an onsite block as a neighbour crosses the message cut-off."""
    model = make_model(FILE, **({"r_message": 3.4} | options))
    sides = []
    for r in (3.4 - 1e-6, 3.4 + 1e-6):
        atoms = Atoms("CCC", [(0, 0, 0), (1.5, 0, 0), (0, 0, r)], cell=[30] * 3, pbc=True)
        H = predict(model, atoms)
        n = np.flatnonzero((H.pairs.i == 0) & (H.pairs.j == 0))[0]
        sides.append(H.block(n))
    return float(np.abs(sides[1] - sides[0]).max())


def test_an_envelope_takes_the_jump_away() -> None:
    assert max(R_TARGET.values()) > 3.4
    assert jump_at_cutoff() < 1e-5
    assert jump_at_cutoff(envelope=False) > 1e-3


def far_atom_changes_the_block(**options: object) -> float:
    """Change of an onsite block when an atom 20 Å away is another one."""
    model = make_model(FILE, **options)
    blocks = []
    for far in "CB":
        atoms = Atoms(f"CC{far}", [(0, 0, 0), (1.5, 0, 0), (0, 0, 20)], cell=[50] * 3, pbc=True)
        H = predict(model, atoms)
        n = np.flatnonzero((H.pairs.i == 0) & (H.pairs.j == 0))[0]
        blocks.append(H.block(n))
    return float(np.abs(blocks[1] - blocks[0]).max())


def test_row_wise_normalisation_is_local() -> None:
    assert far_atom_changes_the_block() == 0.0
    assert far_atom_changes_the_block(graph_norm=True) > 1e-6
