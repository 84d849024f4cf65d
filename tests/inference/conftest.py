"""Checkpoints of small networks."""

from __future__ import annotations

import pytest
import torch
from omegaconf import OmegaConf

from deeph_lightning.config.paths import CONF_DIR
from deeph_lightning.data.build import graph_from_structure
from deeph_lightning.training.checkpoint import load_model
from deeph_lightning.training.module import HamiltonianModule
from tests.inference.systems import sheet

TINY = {
    "channels": [4, 2, 2, 2, 2], "unnatural_channels": [0, 1, 1, 1, 1],
    "pair_channels": [4, 2, 2, 2, 2], "unnatural_pair_channels": [0, 1, 1, 1, 1],
    "head_channels": [4, 2, 2, 2, 2], "unnatural_head_channels": [0, 1, 1, 1, 1],
    "n_blocks": 1, "n_heads": 1, "n_radial": 4, "baseline_spacing": 0.5, "r_message": 2.0,
}  # fmt: skip


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A checkpoint of an untrained small ELCT for C and H."""
    torch.manual_seed(0)
    node = OmegaConf.to_container(OmegaConf.load(CONF_DIR / "model" / "elct.yaml"))
    node |= {name: value for name, value in TINY.items() if name in node}
    node |= {
        "basis": {"C": [0, 1], "H": [0]},
        "r_target": {"C-C": 3.0, "C-H": 2.5, "H-H": 2.0},
    }
    loss = {"_target_": "deeph_lightning.training.losses.HamiltonianLoss", "terms": {"mae": 1}}
    about = {"n_electrons": {"C": 4.0, "H": 1.0}}
    module = HamiltonianModule(model=node, loss=loss, about=about)
    path = tmp_path_factory.mktemp("run") / "checkpoints" / "best.ckpt"
    path.parent.mkdir()
    content = {
        "state_dict": module.state_dict(),
        "hyper_parameters": dict(module.hparams),
        "deeph": dict(module.record()),
    }
    torch.save(content, path)
    return path


@pytest.fixture(scope="session")
def with_overlaps(checkpoint, tmp_path_factory):
    """The same network with overlaps and a domain fitted to two sheets."""
    module, _ = load_model(checkpoint)
    content = torch.load(checkpoint, weights_only=True)
    network = module.model
    ranges = {key: float(r) for key, r in network.r_target.items()}

    def labelled(seed):
        graph = graph_from_structure(sheet(seed), network.basis, network.r_message, ranges)
        graph.S_hopping = 0.01 * torch.ones(int(graph.hopping_offsets[-1]))
        graph.S_onsite = torch.eye(4).repeat(graph.n_atom, 1).flatten()
        return graph

    graphs = [labelled(seed) for seed in range(5)]
    network.overlap.fit(lambda: graphs, lambda graph: {})
    network.domain.fit(lambda: graphs)
    content["state_dict"] = module.state_dict()
    path = tmp_path_factory.mktemp("overlaps") / "best.ckpt"
    torch.save(content, path)
    return path
