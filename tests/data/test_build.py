"""Graphs hold the whole operator, and an operator comes back from their blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from ase import Atoms
from hypothesis import given
from hypothesis import strategies as st

from deeph_lightning.core.basis import OrbitalBasis
from deeph_lightning.core.pairs import neighbour_pairs
from deeph_lightning.data.build import (
    graph_from_record,
    graph_from_structure,
    operator_from_blocks,
)
from deeph_lightning.data.graph import collate
from deeph_lightning.data.records import record_from_system
from deeph_lightning.errors import BasisMismatchError, DataError, PhysicsError, ShapeError
from deeph_lightning.io.formats import read_structure_folder
from deeph_lightning.io.system import SystemData
from tests.data.sets import LARGER_BASIS, random_system, same_blocks
from tests.systems import BASIS

if TYPE_CHECKING:
    from pathlib import Path

seeds = st.integers(0, 10_000)
GRAPHENE = OrbitalBasis({"C": (0, 0, 1, 1, 2)})


@pytest.fixture(scope="module")
def graphene(shared_dir: Path) -> SystemData:
    """One structure of the shared set."""
    return read_structure_folder(shared_dir / "data" / "graphene" / "000")


@given(seeds, st.booleans(), st.booleans())
def test_round_trip_of_random_operators(seed: int, is_half: bool, is_larger: bool) -> None:
    system = random_system(seed)
    assert system.H is not None
    original = system.H
    if is_half:
        system.H = original.half()
    record, _ = record_from_system(system)
    basis = LARGER_BASIS if is_larger else BASIS
    graph = graph_from_record(record, basis, 4.0, dtype=torch.float64)
    blocks = {"H_onsite": graph.H_onsite, "H_hopping": graph.H_hopping}
    back = operator_from_blocks(graph, blocks, basis)
    assert same_blocks(back, original)
    assert back.atoms == original.atoms
    overlap = {"H_onsite": graph.S_onsite, "H_hopping": graph.S_hopping}
    assert same_blocks(operator_from_blocks(graph, overlap, basis, system.atoms), system.S)


@given(seeds)
def test_masks_tell_which_operator_has_a_pair(seed: int) -> None:
    system = random_system(seed)
    system.H, system.S = system.S.replace(unit="eV"), system.H.replace(unit="1")
    record, summary = record_from_system(system)
    assert record.has_S.all()
    assert summary.n_S_only == int((~record.has_H).sum())
    assert len(record.has_H) == summary.n_pair
    sizes = np.diff(graph_from_record(record, BASIS, 4.0).hopping_offsets.numpy())
    assert not record.H_hopping[np.repeat(~record.has_H, sizes)].any()
    assert 2 * int(record.has_H.sum()) + len(system.atoms) == len(system.H.pairs)


def test_graphene_round_trip(graphene: SystemData) -> None:
    record, _ = record_from_system(graphene)
    graph = graph_from_record(record, GRAPHENE, 5.0, dtype=torch.float64)
    blocks = {"H_onsite": graph.H_onsite, "H_hopping": graph.H_hopping}
    back = operator_from_blocks(graph, blocks, GRAPHENE, graphene.atoms)
    assert np.array_equal(back.on_pairs(graphene.H.pairs).values, graphene.H.values)
    assert back.pairs == graphene.H.pairs.union(graphene.S.pairs)
    assert not back.hermiticity_residual()[0]


def test_graphene_pairs_without_overlap_are_kept(graphene: SystemData) -> None:
    record, summary = record_from_system(graphene)
    H_only = record.has_H & ~record.has_S
    in_files = (graphene.S.pairs.locate(graphene.H.pairs) < 0).sum()
    assert 2 * H_only.sum() == 2 * summary.n_H_only == in_files
    assert 100 < in_files < 160
    assert 0.1 < summary.H_only_max_meV < 1.5
    missing = graphene.H.pairs.select(graphene.S.pairs.locate(graphene.H.pairs) < 0)
    largest = 1e3 * np.abs(graphene.H.on_pairs(missing).values).max()
    assert summary.H_only_max_meV == pytest.approx(largest)


def test_cap_is_reported(graphene: SystemData) -> None:
    r_max = 6.0
    record, summary = record_from_system(graphene, r_target_max=r_max)
    far = graphene.H.pairs.select(graphene.H.pairs.distances(graphene.atoms) > r_max)
    assert summary.dropped_max_meV == pytest.approx(
        1e3 * np.abs(graphene.H.on_pairs(far).values).max()
    )
    assert 2 * summary.n_dropped == len(graphene.H.pairs.union(graphene.S.pairs)) - len(
        record.species
    ) - 2 * len(record.has_H)
    assert summary.r_target["C-C"] <= r_max
    assert record.r_complete <= r_max


def test_bare_structure_has_the_pairs_of_the_set(graphene: SystemData) -> None:
    record, summary = record_from_system(graphene)
    bare = graph_from_structure(graphene.atoms, GRAPHENE, 5.0, summary.r_target)
    stored = graph_from_record(record, GRAPHENE, 5.0)
    keys = [
        set(map(tuple, np.column_stack((g.pair_i, g.pair_j, g.pair_R))[: g.n_target].tolist()))
        for g in (stored, bare)
    ]
    assert keys[0] <= keys[1]
    assert len(stored.edge_pair) == len(bare.edge_pair)
    assert bare.H_hopping is None


@pytest.mark.parametrize("r_message", [3.0, 4.9, 5.5, 7.0])
def test_message_edges_are_all_short_pairs(r_message: float) -> None:
    system = random_system(5, n_atom=5)
    record, _ = record_from_system(system)
    graph = graph_from_record(record, BASIS, r_message)
    edges = graph.edge_pair
    distances = neighbour_pairs(system.atoms, r_message).distances(system.atoms)
    found = graph.pair_vector[edges].norm(dim=-1).sort().values.repeat_interleave(2)
    np.testing.assert_allclose(found, np.sort(distances))
    assert (graph.pair_type[graph.n_target :] == -1).all()
    assert (graph.n_pair > graph.n_target) == (r_message > 5.0)


def test_bare_structure_sees_messages_beyond_targets() -> None:
    system = random_system(5, n_atom=5)
    ranges = {"B-B": 3.0, "B-C": 4.0, "C-C": 5.0}
    graph = graph_from_structure(system.atoms, BASIS, 6.0, ranges)
    labels = np.array(BASIS.labels)
    limit = [
        ranges[f"{a}-{b}"]
        for a, b in zip(
            labels[graph.species[graph.pair_i]],
            labels[graph.species[graph.pair_j]],
            strict=True,
        )
    ]
    distance = graph.pair_vector.norm(dim=-1).numpy()
    is_target = np.arange(graph.n_pair) < graph.n_target
    assert np.array_equal(distance <= np.array(limit), is_target)
    assert (2 * graph.n_pair) == len(neighbour_pairs(system.atoms, 6.0))


def test_unknown_element() -> None:
    atoms = Atoms("CO", positions=[[0, 0, 0], [0, 0, 1.1]], cell=[9, 9, 9], pbc=True)
    atoms.info["name"] = "monoxide"
    with pytest.raises(
        BasisMismatchError, match=r"monoxide.*holds O, but the model knows C only"
    ):
        graph_from_structure(atoms, GRAPHENE, 5.0, {"C-C": 9.0})


def test_unseen_pair_of_species() -> None:
    atoms = Atoms("CB", positions=[[0, 0, 0], [0, 0, 1.5]], cell=[9, 9, 9], pbc=True)
    with pytest.raises(DataError, match=r"B and C are 1.50 Å apart.*seen no such pair"):
        graph_from_structure(atoms, BASIS, 5.0, {"C-C": 5.0, "B-B": 5.0})
    atoms.positions[1, 2] = 4.5
    assert graph_from_structure(atoms, BASIS, 4.0, {"C-C": 4.0, "B-B": 4.0}).n_target == 0


def test_atoms_too_close() -> None:
    atoms = Atoms("C2", positions=[[0, 0, 0], [0, 0, 0.2]], cell=[9, 9, 9], pbc=True)
    with pytest.raises(PhysicsError, match=r"C2.*0.200 Å apart"):
        graph_from_structure(atoms, GRAPHENE, 5.0, {"C-C": 9.0})


def test_batch_is_no_operator() -> None:
    record, _ = record_from_system(random_system(0))
    graph = graph_from_record(record, BASIS, 4.0)
    batch = collate([graph, graph])
    blocks = {"H_onsite": batch.H_onsite, "H_hopping": batch.H_hopping}
    with pytest.raises(ShapeError, match="2 structures"):
        operator_from_blocks(batch, blocks, BASIS)


def test_label_without_element() -> None:
    system = random_system(0, n_atom=2)
    system.atoms.set_array("species", np.array(["C_a", "?b"]))
    basis = OrbitalBasis({"C_a": (0,), "?b": (0,)})
    ranges = {"?b-?b": 4.0, "?b-C_a": 4.0, "C_a-C_a": 4.0}
    graph = graph_from_structure(system.atoms, basis, 4.0, ranges)
    blocks = {"H_onsite": np.ones(2), "H_hopping": np.ones(graph.n_target)}
    with pytest.raises(DataError, match=r"'\?b' does not begin with"):
        operator_from_blocks(graph, blocks, basis)
    assert len(operator_from_blocks(graph, blocks, basis, system.atoms).pairs) > 2


def test_no_hamiltonian() -> None:
    system = random_system(0)
    system.H = None
    with pytest.raises(DataError, match=r"toy_0.*no Hamiltonian"):
        record_from_system(system)


def test_missing_onsite_block() -> None:
    system = random_system(0)
    keep = ~system.H.pairs.is_onsite
    keep[0] = True
    pairs = system.H.pairs.select(keep)
    system.H = system.H.on_pairs(pairs)
    with pytest.raises(DataError, match=r"toy_0.*no onsite block of atom"):
        record_from_system(system)


def test_spinful_blocks_are_kept() -> None:
    system = random_system(3, is_spinful=True)
    record, _ = record_from_system(system)
    assert record.H_hopping.dtype == record.H_onsite.dtype == np.complex128
    n_orb = {"B": 9, "C": 5}
    sizes = [n_orb[s] for s in system.atoms.get_chemical_symbols()]
    assert len(record.H_onsite) == 4 * sum(n * n for n in sizes)
    assert len(record.S_onsite) == sum(n * n for n in sizes)
