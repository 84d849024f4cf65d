"""Learned overlaps against those of DFT, on structures that the fit has not seen."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms

from deeph_lightning.config.paths import shipped
from deeph_lightning.core.operator import Operator
from deeph_lightning.data.build import (
    graph_from_record,
    graph_from_structure,
    operator_from_blocks,
)
from deeph_lightning.data.graph import Graph
from deeph_lightning.data.records import record_from_system
from deeph_lightning.io.source import Source, open_source
from deeph_lightning.io.system import SystemData
from deeph_lightning.models.base import HamiltonianModel
from deeph_lightning.nn.overlap import TwoCentreOverlap
from deeph_lightning.solve.dense import eigenvalues
from tests.tolerances import LEARNED_OVERLAP, LEARNED_OVERLAP_EIGENVALUE, MODEL_FLOAT64

R_TARGET = {"C-C": 9.0}
#: States whose energies must agree, eV from the Fermi level.
WINDOW = 5.0


class Bare(HamiltonianModel):
    """What all networks share, without a trunk."""

    def __init__(self) -> None:
        super().__init__({"C": [0, 0, 1, 1, 2]}, R_TARGET, 3.0, l_max=1, n_hops=1, o3=True,
                         baseline=False, r_onsite=2.0, baseline_spacing=1.0,
                         component_power=0.0)  # fmt: skip
        layout = self.make_layout("channels", [1, 1], [0, 0])
        self.build_heads(layout, layout, layout)


def labelled(system: SystemData) -> Graph:
    record, _ = record_from_system(system)
    return graph_from_record(record, system.basis, 3.0, dtype=torch.float64)


@pytest.fixture(scope="module")
def source() -> Source:
    return open_source(shipped("data/graphene/graphene.h5"))


@pytest.fixture(scope="module")
def model(source: Source) -> HamiltonianModel:
    model = Bare()
    graphs = [labelled(source.read(name)) for name in source.split["train"]]
    model.fit_statistics(lambda: iter(graphs))
    return model


@torch.no_grad()
def overlap(model: HamiltonianModel, atoms: Atoms) -> Operator:
    graph = graph_from_structure(atoms, model.basis, model.r_message, R_TARGET)
    blocks = {
        "S_onsite": model.overlap.onsite(graph),
        "S_hopping": model.overlap_hopping(graph),
    }
    return operator_from_blocks(graph, blocks, model.basis, atoms, name="S")


def largest_error(model: HamiltonianModel, system: SystemData) -> float:
    found = overlap(model, system.atoms)
    pairs = found.pairs.union(system.S.complete().pairs)
    return np.abs(found.on_pairs(pairs).values - system.S.on_pairs(pairs).values).max()


def test_unseen_structures(source: Source, model: HamiltonianModel) -> None:
    assert model.overlap.is_fitted
    assert model.overlap.residual < LEARNED_OVERLAP
    for name in source.split["test"][::4]:
        assert largest_error(model, source.read(name)) < LEARNED_OVERLAP


def test_distances_between_those_of_the_training_set(
    model: HamiltonianModel, shared_dir: Path
) -> None:
    # no two atoms of a sheet are 3.0 to 3.6 Å apart, those of two layers are
    bilayers = open_source(shared_dir / "data" / "bilayer_graphene")
    assert largest_error(model, bilayers.read("023")) < LEARNED_OVERLAP
    twisted = open_source(shared_dir / "data" / "tbg")
    assert largest_error(model, twisted.read(twisted.names[0])) < LEARNED_OVERLAP


def test_eigenvalues_near_the_fermi_level(source: Source, model: HamiltonianModel) -> None:
    system = source.read(next(n for n in source.split["test"] if not n.startswith("4x4")))
    k = [[0.0, 0.0, 0.0], [0.137, 0.291, 0.0], [1 / 3, 1 / 3, 0.0]]
    expected = eigenvalues(system.H, system.S, k)
    found = eigenvalues(system.H, overlap(model, system.atoms), k)
    is_near = np.abs(expected - system.fermi_energy) < WINDOW
    assert is_near.sum() > 40
    assert np.abs(found - expected)[is_near].max() < LEARNED_OVERLAP_EIGENVALUE


def test_rotation_and_inversion(source: Source, model: HamiltonianModel) -> None:
    S = overlap(model, source.read(source.split["test"][0]).atoms)
    S.check_hermitian(MODEL_FLOAT64)
    Q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    for turn in (Q, -Q):
        expected = S.rotated(turn)
        found = overlap(model, expected.atoms)
        assert found.pairs == expected.pairs
        assert np.abs(found.values - expected.values).max() < MODEL_FLOAT64


def test_tables_stay_in_float64_and_in_the_checkpoint(model: HamiltonianModel) -> None:
    state = model.float().state_dict()
    assert state["overlap.table_0_0"].dtype == torch.float64
    fresh = Bare()
    fresh.load_state_dict(state)
    assert fresh.overlap.is_fitted
    old = {key: value for key, value in state.items() if not key.startswith("overlap.")}
    fresh.load_state_dict(old)  # of a run from before overlaps were learnt
    assert not fresh.overlap.is_fitted


def test_a_set_without_overlaps_fits_nothing(source: Source) -> None:
    graph = labelled(source.read(source.names[0]))
    graph = dataclasses.replace(graph, S_hopping=None, S_onsite=None)
    model = Bare()
    model.fit_statistics(lambda: iter([graph]))
    assert not model.overlap.is_fitted


def test_overlaps_that_differ_from_atom_to_atom_are_found_out(source: Source) -> None:
    graph = labelled(source.read(source.names[0]))
    graph.S_onsite[: 13 * 13] *= 1.01
    found: TwoCentreOverlap = Bare().overlap
    found.fit(lambda: iter([graph]), lambda graph: {})
    assert found.residual > 100 * LEARNED_OVERLAP
