"""What is drawn: the data on the axes, not pixels; a person looks at the figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import pytest

from deeph_lightning.viz.bands import band_errors, bands, kpath_axis
from deeph_lightning.viz.curve import training_curve, wall_time_axis
from deeph_lightning.viz.distance import error_by_distance
from deeph_lightning.viz.orbital_pairs import orbital_pairs, shell_labels
from deeph_lightning.viz.parity import error_against_magnitude, error_distribution, parity
from deeph_lightning.viz.style import new_figure, paper_style, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@pytest.fixture
def ax() -> Axes:
    return new_figure(85, 60).subplots()


def test_style_leaves_no_global_state() -> None:
    before = dict(mpl.rcParams)
    with paper_style():
        assert mpl.rcParams["font.size"] == 8
    assert dict(mpl.rcParams) == before


def test_figures_are_written_whole_in_the_printed_size(tmp_path, ax) -> None:
    with paper_style():
        path = save_figure(ax.figure, tmp_path / "sub" / "name.png")
    assert sorted(p.name for p in path.parent.iterdir()) == ["name.pdf", "name.png"]
    assert ax.figure.get_size_inches() * 25.4 == pytest.approx([85, 60])


def test_parity_keeps_every_count(ax) -> None:
    centre, counts = np.linspace(-3, 3, 60), np.diag(np.arange(60))
    assert parity(ax, centre, counts) is ax
    assert ax.collections[0].get_array().sum() == counts.sum()
    assert ax.get_xlim() == ax.get_ylim()


def test_error_against_magnitude_keeps_every_count(ax) -> None:
    magnitude, error = np.logspace(-5, 2, 80), np.logspace(-5, 3, 90)
    counts = np.random.default_rng(0).integers(0, 5, (80, 90))
    error_against_magnitude(ax, magnitude, error, counts)
    assert ax.collections[0].get_array().sum() == counts.sum()
    assert ax.get_xscale() == ax.get_yscale() == "log"


def test_no_error_at_all_can_be_drawn() -> None:
    bins, nothing = np.logspace(-5, 2, 10), np.full(3, np.nan)
    first, second, third = new_figure(170, 60).subplots(1, 3)
    error_against_magnitude(first, bins, bins, np.zeros((10, 10), int))
    error_distribution(second, bins, np.zeros(10), np.zeros(10))
    error_by_distance(third, np.arange(3), nothing, nothing, nothing)
    first.figure.draw_without_rendering()
    assert not first.collections
    assert not second.lines


def test_empty_bins_are_left_out_of_error_by_distance(ax) -> None:
    values = np.array([2.0, np.nan, 1.0])
    onsite = {"mae": 3.0, "quantile": 4.0, "typical": 5.0}
    error_by_distance(ax, [1.0, 2.0, 3.0], values, 2 * values, 9 * values, onsite)
    drawn = {line.get_label(): line.get_xydata().tolist() for line in ax.lines}
    assert drawn["|ΔH|, mean"] == [[1.0, 2.0], [3.0, 1.0]]
    marks = [line.get_xydata().tolist() for line in ax.lines if line.get_xdata()[0] == 0]
    assert sorted(marks) == [[[0.0, 3.0]], [[0.0, 4.0]], [[0.0, 5.0]]]


def test_orbital_pairs_label_and_separate_shells(ax) -> None:
    mae = np.arange(1.0, 53.0).reshape(13, 4)
    orbital_pairs(ax, mae, (0, 0, 1, 1, 2), (0, 1), "C", "H")
    assert [t.get_text() for t in ax.get_yticklabels()] == ["s1", "s2", "p1", "p2", "d1"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["s1", "p1"]
    assert [line.get_ydata()[0] for line in ax.lines[:4]] == [0.5, 1.5, 4.5, 7.5]
    assert ax.images[0].get_array().shape == (13, 4)


def test_spin_doubles_the_shells(ax) -> None:
    orbital_pairs(ax, np.ones((8, 8)), (0, 1), (0, 1))
    assert [t.get_text() for t in ax.get_yticklabels()] == ["s1↑", "p1↑", "s1↓", "p1↓"]
    assert shell_labels((0, 1, 0, 3)) == ["s1", "p1", "s2", "f1"]


def test_training_curve_leaves_out_what_a_log_axis_cannot_show(ax) -> None:
    training_curve(ax, [0, 1, 2, 3], [4.0, np.nan, 0.0, 1.0], label="loss")
    assert ax.lines[0].get_xydata().tolist() == [[0, 4], [3, 1]]
    assert ax.get_yscale() == "log"


def test_wall_time_follows_the_log(ax) -> None:
    training_curve(ax, [0, 100, 200], [4.0, 2.0, 1.0], label="loss")
    top = wall_time_axis(ax, [0, 100, 200], [0.0, 600.0, 1800.0])
    to_time, to_step = top._functions
    assert to_time(np.array([50.0, 150.0, 300.0])) == pytest.approx([5.0, 20.0, 45.0])
    assert to_step(to_time(np.array([-20.0, 30.0, 170.0, 250.0]))) == pytest.approx(
        [-20.0, 30.0, 170.0, 250.0]
    )
    assert "min" in top.get_xlabel()


def test_bands_break_where_the_path_jumps(ax) -> None:
    x = np.array([0.0, 1.0, 1.0, 2.0])
    reference = np.array([[0.0, 50.0], [1.0, 51.0], [2.0, 52.0], [3.0, 53.0]])
    bands(ax, x, reference, reference + 0.1)
    dft, predicted = (line for line in ax.lines if len(line.get_xdata()) == 5)
    assert np.isnan(dft.get_ydata()).tolist() == [False, False, True, False, False]
    assert [line.get_linestyle() for line in (dft, predicted)] == ["-", "--"]
    assert predicted.get_ydata()[0] == pytest.approx(0.1)


def test_band_errors_are_of_the_states_in_the_window(ax) -> None:
    reference = np.array([[0.0, 3.0], [1.0, 5.0], [9.0, 9.0]])
    error = np.array([[1.0, 7.0], [-2.0, 7.0], [7.0, 7.0]])
    band_errors(ax, [0, 1, 2], error, reference, within_eV=4.0)
    states, mean = ax.lines
    assert sorted(states.get_ydata()) == [1.0, 2.0, 7.0]
    assert mean.get_ydata()[:2].tolist() == [4.0, 2.0]
    assert np.isnan(mean.get_ydata()[2])


def test_digits_of_special_points_are_subscripts(ax) -> None:
    kpath_axis(ax, [0.0, 0.5, 1.0], ["Γ", "M|X1", "Γ"])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["Γ", "M|X$_1$", "Γ"]
