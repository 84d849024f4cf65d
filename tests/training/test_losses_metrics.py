"""Losses and metrics against numbers computed by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from standin import BASIS, tiny_graph

from deeph_lightning.data.graph import Graph, collate
from deeph_lightning.errors import ConfigError, DataError
from deeph_lightning.training.losses import HamiltonianLoss
from deeph_lightning.training.metrics import HamiltonianMetrics

ONE_S = {"X": [0]}


def dimer(h_onsite: list[float], h_hopping: float, *, s: float | None = None) -> Graph:
    """Two atoms with one s orbital each and one stored pair."""
    base = tiny_graph(0)
    return replace(
        base,
        species=torch.tensor([0, 0]),
        batch=torch.tensor([0, 0]),
        pair_i=torch.tensor([0]),
        pair_j=torch.tensor([1]),
        pair_type=torch.tensor([0]),
        pair_R=torch.zeros(1, 3, dtype=torch.int64),
        pair_vector=base.pair_vector[:1],
        type_ptr=[0, 1],
        n_target=1,
        edge_pair=torch.tensor([0]),
        n_orb=[1],
        H_onsite=torch.tensor(h_onsite, dtype=torch.float64),
        H_hopping=torch.tensor([h_hopping], dtype=torch.float64),
        H_hopping_mask=torch.tensor([True]),
        S_onsite=None if s is None else torch.ones(2, dtype=torch.float64),
        S_hopping=None if s is None else torch.tensor([s], dtype=torch.float64),
    )


def predicted(onsite: list[float], hopping: float) -> dict[str, torch.Tensor]:
    return {
        "H_onsite": torch.tensor(onsite, dtype=torch.float64, requires_grad=True),
        "H_hopping": torch.tensor([hopping], dtype=torch.float64, requires_grad=True),
    }


def loss_of(graph: Graph, prediction: dict[str, torch.Tensor], **options) -> float:
    loss, _ = HamiltonianLoss(ONE_S, **options)(prediction, graph)
    return float(loss.detach())


# errors in meV: onsite 1 and 3, hopping 2, which counts twice: entries 1, 3, 2, 2
GRAPH = dimer([0.0, 0.0], 0.0)
WRONG = predicted([1e-3, -3e-3], 2e-3)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"terms": {"mae": 1.0}}, (1 + 3 + 2 + 2) / 4),
        ({"terms": {"mse": 1.0}}, (1 + 9 + 4 + 4) / 4),
        ({"terms": {"rmse": 1.0}}, math.sqrt(18 / 4)),
        ({"terms": {"mae": 1.0, "rmse": 0.3}}, 2.0 + 0.3 * math.sqrt(4.5)),
        ({"terms": {"huber": 1.0}, "huber_delta_meV": 2.0}, (0.25 + 2.0 + 1.0 + 1.0) / 4),
        ({"terms": {"mae": 1.0}, "onsite_weight": 10.0}, (10 + 30 + 2 + 2) / 4),
        ({"terms": {"mae": 1.0}, "weights": {"X": 2.0, "X-X": 0.5}}, (2 + 6 + 1 + 1) / 4),
    ],
)
def test_loss_by_hand(options, expected):
    assert loss_of(GRAPH, WRONG, **options) == pytest.approx(expected, rel=1e-6)


def test_root_mean_square_has_the_gradient_of_a_root():
    prediction = predicted([1e-3, -3e-3], 2e-3)
    loss, _ = HamiltonianLoss(ONE_S, terms={"rmse": 1.0})(prediction, GRAPH)
    loss.backward()
    # d sqrt(mean x^2) / dx = x / (n rms), x in meV and the derivative per eV
    expected = torch.tensor([1.0, -3.0], dtype=torch.float64) / (4 * math.sqrt(4.5)) * 1e3
    torch.testing.assert_close(prediction["H_onsite"].grad, expected, rtol=1e-6, atol=0)


def test_gauge_free_loss_does_not_see_a_shift_along_s():
    graph = dimer([0.1, -0.2], 0.3, s=0.25)
    shift = 0.7
    prediction = predicted([0.1 + shift, -0.2 + shift], 0.3 + 0.25 * shift)
    assert loss_of(graph, prediction, terms={"mae": 1.0}) > 100
    assert loss_of(graph, prediction, terms={"mae": 1.0}, gauge_free=True) < 1e-9
    # mu by hand: (1 * 1 + 1 * 3) / (1 + 1 + 2 * 0.25^2) for errors 1, 3 and 0 meV
    prediction = predicted([0.1 + 1e-3, -0.2 + 3e-3], 0.3)
    mu = 4 / 2.125
    expected = (abs(1 - mu) + abs(3 - mu) + 2 * 0.25 * mu) / 4
    value = loss_of(graph, prediction, terms={"mae": 1.0}, gauge_free=True)
    assert value == pytest.approx(expected, rel=1e-6)


def test_gauge_free_gradient_has_no_part_along_s():
    graph = dimer([0.0, 0.0], 0.0, s=0.25)
    prediction = predicted([1e-3, -5e-3], 2e-3)
    loss, _ = HamiltonianLoss(ONE_S, terms={"mae": 1.0}, gauge_free=True)(prediction, graph)
    loss.backward()
    along = prediction["H_onsite"].grad.sum() + 0.25 * prediction["H_hopping"].grad.sum()
    assert abs(float(along)) < 1e-9


def test_gauge_free_without_overlap_names_the_structure():
    with pytest.raises(DataError, match=r"tiny_0.*\n.*no overlap"):
        loss_of(GRAPH, WRONG, terms={"mae": 1.0}, gauge_free=True)


def test_unknown_terms_and_weights_are_refused():
    with pytest.raises(ConfigError, match="Nearest: rmse"):
        HamiltonianLoss(ONE_S, terms={"rms": 1.0})
    with pytest.raises(ConfigError, match=r"loss.weights.Y"):
        HamiltonianLoss(ONE_S, terms={"mae": 1.0}, weights={"Y": 2.0})
    with pytest.raises(ConfigError, match="no term"):
        HamiltonianLoss(ONE_S, terms={"mae": 0.0})


def test_a_batch_is_one_mean_over_all_entries():
    graphs = [tiny_graph(1), tiny_graph(2)]
    zero = [
        {"H_onsite": torch.zeros_like(g.H_onsite), "H_hopping": torch.zeros_like(g.H_hopping)}
        for g in graphs
    ]
    batch = collate(graphs)
    whole = {
        "H_onsite": torch.zeros_like(batch.H_onsite),
        "H_hopping": torch.zeros_like(batch.H_hopping),
    }
    loss = HamiltonianLoss(BASIS, terms={"mae": 1.0}, onsite_weight=3.0)
    parts = [float(loss(p, g)[0]) for p, g in zip(zero, graphs, strict=True)]
    assert float(loss(whole, batch)[0]) == pytest.approx(sum(parts) / 2, rel=1e-12)

    one, two = HamiltonianMetrics(), HamiltonianMetrics()
    one.update(whole, batch)
    for prediction, graph in zip(zero, graphs, strict=True):
        two.update(prediction, graph)
    for name, value in one.compute().items():
        assert float(two.compute()[name]) == pytest.approx(float(value), rel=1e-12), name


def test_metrics_by_hand():
    metrics = HamiltonianMetrics()
    metrics.update(WRONG, GRAPH)
    values = {name: float(value) for name, value in metrics.compute().items()}
    assert values == pytest.approx(
        {
            "H_mae_meV": 2.0,
            "H_rmse_meV": math.sqrt(4.5),
            "H_max_meV": 3.0,
            "H_onsite_mae_meV": 2.0,
            "H_hopping_mae_meV": 2.0,
        }
    )


def test_a_pair_that_the_dft_file_lacks_does_not_count():
    graph = replace(GRAPH, H_hopping_mask=torch.tensor([False]))
    metrics = HamiltonianMetrics()
    metrics.update(predicted([1e-3, -3e-3], 99.0), graph)
    metrics.update(WRONG, GRAPH)
    values = metrics.compute()
    assert float(values["H_mae_meV"]) == pytest.approx((1 + 3 + 1 + 3 + 2 + 2) / 6)
    assert float(values["H_max_meV"]) == pytest.approx(3.0)


def test_gauge_free_metric_by_hand():
    metrics = HamiltonianMetrics()
    metrics.update(predicted([0.1 + 1e-3, -0.2 + 3e-3], 0.3), dimer([0.1, -0.2], 0.3, s=0.25))
    mu = 4 / 2.125
    expected = (abs(1 - mu) + abs(3 - mu) + 2 * 0.25 * mu) / 4
    assert float(metrics.compute()["H_gauge_free_mae_meV"]) == pytest.approx(expected)
    metrics.update(WRONG, GRAPH)  # one structure without overlap: no such number any more
    assert "H_gauge_free_mae_meV" not in metrics.compute()


def test_a_prediction_that_is_not_a_number_is_seen():
    metrics = HamiltonianMetrics()
    metrics.update(predicted([float("nan"), 0.0], 0.0), GRAPH)
    assert math.isnan(float(metrics.compute()["H_mae_meV"]))
    assert math.isnan(float(metrics.compute()["H_max_meV"]))
