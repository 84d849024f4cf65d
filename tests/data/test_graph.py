"""Collation: a batch holds what its graphs hold, in the order that the module states."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deeph_lightning.data.build import graph_from_record
from deeph_lightning.data.graph import Graph, collate
from deeph_lightning.data.records import record_from_system
from tests.data.sets import LARGER_BASIS, random_system
from tests.systems import BASIS

LABELS = ("H_hopping", "H_onsite", "H_hopping_mask", "S_hopping", "S_onsite")


def toy_graph(seed: int, r_message: float = 6.0) -> Graph:
    record, _ = record_from_system(random_system(seed))
    return graph_from_record(record, LARGER_BASIS, r_message, dtype=torch.float64)


def blocks_by_pair(graph: Graph) -> list[dict[tuple[int, ...], tuple[torch.Tensor, ...]]]:
    """For each structure: pairs by atoms and cell, with vector, mask and blocks."""
    out: list[dict[tuple[int, ...], tuple[torch.Tensor, ...]]] = [
        {} for _ in range(graph.n_graph)
    ]
    first_atom = torch.searchsorted(graph.batch, torch.arange(graph.n_graph)).tolist()
    structure = graph.batch[graph.pair_i].tolist()
    offsets = graph.hopping_offsets.tolist()
    on_edges = torch.zeros(graph.n_pair, dtype=torch.bool)
    on_edges[graph.edge_pair] = True
    for n, s in enumerate(structure):
        start = first_atom[s]
        key = (int(graph.pair_i[n]) - start, int(graph.pair_j[n]) - start)
        parts = [graph.pair_vector[n], graph.pair_type[n], on_edges[n]]
        if n < graph.n_target:
            place = slice(offsets[n], offsets[n + 1])
            parts += [graph.H_hopping[place], graph.S_hopping[place], graph.H_hopping_mask[n]]
        out[s][(*key, *graph.pair_R[n].tolist())] = tuple(parts)
    return out


@given(st.lists(st.integers(0, 200), min_size=2, max_size=4))
def test_batch_equals_its_graphs(seeds: list[int]) -> None:
    graphs = [toy_graph(seed) for seed in seeds]
    batch = collate(graphs)
    for graph, found in zip(graphs, blocks_by_pair(batch), strict=True):
        (expected,) = blocks_by_pair(graph)
        assert expected.keys() == found.keys()
        for key, values in expected.items():
            assert len(values) == len(found[key])
            assert all(torch.equal(a, b) for a, b in zip(values, found[key], strict=True))
    for key in ("species", "position", "cell", "H_onsite", "S_onsite"):
        assert torch.equal(getattr(batch, key), torch.cat([getattr(g, key) for g in graphs]))
    assert batch.name == [name for g in graphs for name in g.name]
    assert batch.n_target == sum(g.n_target for g in graphs)


@given(st.lists(st.integers(0, 200), min_size=1, max_size=4))
def test_order_of_pairs(seeds: list[int]) -> None:
    batch = collate([toy_graph(seed) for seed in seeds])
    n = batch.n_target
    types = batch.pair_type[:n].tolist()
    assert types == sorted(types)
    assert (batch.pair_type[n:] == -1).all()
    assert [types.index(t) for t in sorted(set(types))] == [
        batch.type_ptr[t] for t in sorted(set(types))
    ]
    assert batch.type_ptr[-1] == n
    first, second = batch.species[batch.pair_i], batch.species[batch.pair_j]
    assert (first <= second).all()
    n_species = len(LARGER_BASIS.labels)
    couples = [(a, b) for a in range(n_species) for b in range(a, n_species)]
    assert [couples[t] for t in types] == list(
        zip(first[:n].tolist(), second[:n].tolist(), strict=True)
    )
    assert batch.hopping_ptr[-1] == len(batch.H_hopping) == int(batch.hopping_offsets[-1])
    assert int(batch.onsite_offsets[-1]) == len(batch.H_onsite)
    assert (batch.edge_pair.diff() > 0).all()
    distance = batch.pair_vector.norm(dim=-1)
    assert torch.equal(torch.nonzero(distance < 6.0).flatten(), batch.edge_pair)
    image = batch.pair_R.double()[:, :, None] * batch.cell[batch.batch[batch.pair_i]]
    vector = batch.position[batch.pair_j] + image.sum(1) - batch.position[batch.pair_i]
    torch.testing.assert_close(vector, batch.pair_vector)


def test_missing_labels_are_none() -> None:
    first, second = toy_graph(0), toy_graph(1)
    second.S_hopping = second.S_onsite = None
    batch = collate([first, second])
    assert batch.S_hopping is None
    assert batch.S_onsite is None
    assert batch.H_hopping is not None


def test_one_graph_is_its_batch() -> None:
    graph = toy_graph(0)
    assert collate([graph]) is graph


def test_to_moves_every_tensor() -> None:
    graph = collate([toy_graph(0), toy_graph(1)])
    moved = graph.to("meta")
    for field in fields(Graph):
        value, before = getattr(moved, field.name), getattr(graph, field.name)
        if isinstance(before, torch.Tensor):
            assert value.device.type == "meta", field.name
        else:
            assert value == before, field.name
    assert graph.species.device.type == "cpu"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_pinned_copy_to_gpu() -> None:
    graph = toy_graph(0)
    pinned = graph.pin_memory()
    assert pinned.H_hopping.is_pinned()
    on_gpu = pinned.to("cuda", non_blocking=True)
    torch.cuda.synchronize()
    assert all(
        torch.equal(getattr(on_gpu, k).cpu(), getattr(graph, k)) for k in (*LABELS, "pair_R")
    )


def test_types_of_labels() -> None:
    record, _ = record_from_system(random_system(0))
    graph = graph_from_record(record, BASIS, 5.0)
    assert graph.H_hopping.dtype == graph.S_onsite.dtype == torch.float32
    assert graph.position.dtype == graph.pair_vector.dtype == torch.float64
    for key in ("species", "batch", "pair_i", "pair_j", "pair_R", "pair_type", "edge_pair"):
        assert getattr(graph, key).dtype == torch.int64, key
