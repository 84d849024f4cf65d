"""Counts that stream hold what counts of everything at once would."""

from __future__ import annotations

import numpy as np

from deeph_lightning.report.histograms import LogBins, ParityCounts


def test_parity_counts_double_their_range_without_losing_a_value() -> None:
    rng = np.random.default_rng(0)
    parity = ParityCounts(n_bin=64, half_width=1.0)
    parts = [rng.normal(scale=scale, size=(2, 500)) for scale in (0.1, 3.0, 40.0)]
    for x, y in parts:
        parity.add(x, y)
    x, y = np.concatenate(parts, axis=1)
    edges = np.linspace(-parity.half_width, parity.half_width, 65)
    expected, _, _ = np.histogram2d(x, y, [edges, edges])
    assert parity.half_width > np.abs([x, y]).max()
    assert np.array_equal(parity.counts, expected)


def test_log_bins_read_quantiles_off_counts() -> None:
    rng = np.random.default_rng(1)
    values = 10 ** rng.normal(size=20_000)
    bins = LogBins(1e-6, 1e6, 20)
    counts = np.bincount(bins.index(values), minlength=bins.n_bin)
    for fraction in (0.05, 0.5, 0.95):
        found = bins.quantile(counts, fraction)
        assert abs(np.log10(found / np.quantile(values, fraction))) < 1 / 20


def test_log_bins_take_zero_and_what_is_outside() -> None:
    bins = LogBins(1e-2, 1e2, 5)
    assert bins.index(np.array([0.0, 1e-9, 1e9])).tolist() == [0, 0, bins.n_bin - 1]
    assert np.isnan(bins.quantile(np.zeros((3, bins.n_bin)), 0.5)).all()
