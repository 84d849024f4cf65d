"""Errors of matrix elements against sums over every element by hand."""

from __future__ import annotations

import numpy as np
import pytest

from deeph_lightning.errors import ShapeError
from deeph_lightning.report.errors import BIN_WIDTH, ErrorStatistics


@pytest.mark.parametrize("is_spinful", [False, True])
def test_metrics_are_over_every_element_of_every_block(random_operator, is_spinful) -> None:
    H, noise = (random_operator(n, is_spinful=is_spinful) for n in (0, 1))
    predicted = H.replace(values=H.values + 1e-3 * noise.values)
    statistics = ErrorStatistics()
    statistics.add("a", H, predicted)
    error = np.abs(noise.values)  # meV
    is_onsite = np.repeat(H.pairs.is_onsite, np.diff(H.offsets))
    expected = {
        "H_mae_meV": error.mean(),
        "H_rmse_meV": np.sqrt((error**2).mean()),
        "H_max_meV": error.max(),
        "H_onsite_mae_meV": error[is_onsite].mean(),
        "H_hopping_mae_meV": error[~is_onsite].mean(),
    }
    assert statistics.total().metrics() == pytest.approx(expected, rel=1e-9)
    assert statistics.total().count == H.values.size
    n_real = H.values.size * (2 if is_spinful else 1)
    assert statistics.parity.counts.sum() == n_real
    assert statistics.magnitude_counts.sum() == H.values.size


def test_structures_add_up_to_the_sums_of_all(random_operator) -> None:
    statistics, errors = ErrorStatistics(), []
    for n in range(3):
        H, noise = random_operator(n), random_operator(10 + n, scale=0.1 * (n + 1))
        statistics.add(str(n), H, H.replace(values=H.values + noise.values))
        errors.append(1e3 * np.abs(noise.values))
    total = statistics.total().metrics()
    assert total["H_mae_meV"] == pytest.approx(np.concatenate(errors).mean())
    assert statistics.total(["1"]).metrics()["H_mae_meV"] == pytest.approx(errors[1].mean())


def test_orbital_pairs_fold_the_other_half_as_its_adjoint(random_operator) -> None:
    H, noise = random_operator(0), random_operator(1)
    statistics = ErrorStatistics()
    statistics.add("a", H, H.replace(values=H.values + 1e-3 * noise.values))
    mae = statistics.orbital_mae()
    assert set(mae) == {
        ("B", "B", True), ("B", "B", False), ("B", "N", False), ("N", "N", True),
        ("N", "N", False),
    }  # fmt: skip
    _, blocks = noise.blocks_of("B", "N")
    _, partners = noise.blocks_of("N", "B")
    both = np.concatenate([np.abs(blocks), np.abs(partners).transpose(0, 2, 1)])
    assert mae["B", "N", False] == pytest.approx(both.mean(0))
    assert mae["B", "B", False] == pytest.approx(mae["B", "B", False].T)


def test_errors_by_distance(random_operator) -> None:
    H, noise = random_operator(0), random_operator(1)
    statistics = ErrorStatistics()
    statistics.add("a", H, H.replace(values=H.values + 1e-3 * noise.values))
    found = statistics.by_distance()
    length = np.repeat(H.pairs.distances(H.atoms), np.diff(H.offsets))
    for n, centre in enumerate(found.distance):
        inside = np.floor(length / BIN_WIDTH) == n
        inside &= length > 0
        if not inside.any():
            assert np.isnan(found.mae[n])
            continue
        assert abs(centre - length[inside]).max() <= BIN_WIDTH / 2 + 1e-9
        assert found.mae[n] == pytest.approx(np.abs(noise.values[inside]).mean())
        assert found.typical[n] == pytest.approx(1e3 * np.abs(H.values[inside]).mean())
    assert found.onsite["mae"] == pytest.approx(np.abs(noise.values[length == 0]).mean())
    assert found.onsite["quantile"] > found.onsite["mae"]


def test_operators_on_different_pairs_are_refused(random_operator) -> None:
    H = random_operator(0)
    with pytest.raises(ShapeError, match="structure 'a'"):
        ErrorStatistics().add("a", H, H.half())
