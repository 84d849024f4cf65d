"""The folder that a report leaves: numbers, tables, predictions, figures."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from deeph_lightning.errors import DataError
from deeph_lightning.io import deeph
from deeph_lightning.io.system import SystemData
from deeph_lightning.report import run
from deeph_lightning.report.bands import BandSettings
from deeph_lightning.report.figures import curve_figure
from deeph_lightning.report.history import History, read_history
from deeph_lightning.report.predictions import Prediction
from deeph_lightning.report.run import write_report
from deeph_lightning.report.tables import MetricTable

if TYPE_CHECKING:
    from collections.abc import Callable

    from deeph_lightning.core.operator import Operator

COARSE = BandSettings(n_k_min=2, k_spacing=2.0)
KEYS = (
    "H_mae_meV", "H_rmse_meV", "H_max_meV", "H_onsite_mae_meV", "H_hopping_mae_meV",
    "bands_mae_meV", "bands_max_meV", "e_fermi_mae_meV",
)  # fmt: skip


def overlap_of(op: Operator) -> Operator:
    """A little overlap between neighbours."""
    values = 0.01 * op.values
    for n in np.flatnonzero(op.pairs.is_onsite):
        values[op.offsets[n] : op.offsets[n + 1]] = np.eye(op.block_shapes[n, 0]).ravel()
    return op.replace(values=values, unit="1")


def noisy(op: Operator, noise: Operator, scale: float) -> Operator:
    return op.replace(values=op.values + scale * noise.values)


@pytest.fixture
def no_figures(monkeypatch) -> None:
    """Leave out what takes most of the time."""
    monkeypatch.setattr(run, "draw_all", lambda *_: [])


@pytest.fixture
def slab(random_operator) -> Callable[..., Prediction]:
    """Factory of predictions that are 1 meV off, by name and seed."""

    def make(name: str, seed: int, **changes) -> Prediction:
        H = random_operator(seed)
        H.atoms.info["name"] = name
        known = {"S": overlap_of(random_operator(seed + 50)), "n_electrons": 6.0} | changes
        system = SystemData(name=name, atoms=H.atoms, basis=H.basis, H=H, **known)
        return Prediction(system, noisy(H, random_operator(seed + 100), 1e-3))

    return make


def test_report_of_two_cell_sizes(tmp_path, slab, random_operator, capsys) -> None:
    small = slab("small", 0)
    H = small.system.H.repeated((2, 1, 1))
    large_system = SystemData(
        name="set/large",
        atoms=H.atoms,
        basis=H.basis,
        H=H,
        S=small.system.S.repeated((2, 1, 1)),
        n_electrons=12.0,
    )
    large = Prediction(large_system, small.H.repeated((2, 1, 1)))
    metrics = {"time/train_s": 12.0, "perf/edges_per_s": 3.4e4, "model/parameters": 1e6}
    values = write_report(tmp_path, [small, large], settings=COARSE, metrics=metrics)

    assert json.loads((tmp_path / "metrics.json").read_text()) == values
    assert metrics.items() <= values.items()
    expected = {f"test/{part}{key}" for part in ("", "B2N/", "B4N2/") for key in KEYS}
    assert expected <= values.keys()
    # a repeated cell has the same blocks, so the same errors
    assert values["test/B2N/H_mae_meV"] == pytest.approx(values["test/B4N2/H_mae_meV"])
    error = 1e3 * np.abs(small.H.values - small.system.H.values)
    assert values["test/H_mae_meV"] == pytest.approx(error.mean())

    for suffix in ("png", "pdf"):
        found = {path.stem for path in (tmp_path / "figures").glob(f"*.{suffix}")}
        assert found == {
            "parity", "error_distance", "orbital_pairs_B-B", "orbital_pairs_B-N",
            "orbital_pairs_N-N", "bands_B2N", "bands_B4N2",
        }  # fmt: skip
    printed = capsys.readouterr().out
    for text in ("B2N", "B4N2", "meV", "12 s of training", "H onsite, MAE"):
        assert text in printed
    assert "| H, MAE | meV |" in (tmp_path / "metrics_table.md").read_text()
    with (tmp_path / "metrics_structures.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["structure"] for row in rows] == ["small", "set/large"]
    assert float(rows[0]["H_mae_meV"]) == pytest.approx(error.mean())
    assert not list(tmp_path.rglob("*partial*"))


@pytest.mark.usefixtures("no_figures")
def test_predictions_are_deeph_folders_on_the_pairs_of_dft(tmp_path, slab) -> None:
    prediction = slab("a", 0)
    write_report(tmp_path, [prediction], settings=COARSE)
    found = deeph.read(tmp_path / "predictions" / "a")
    assert found.H.pairs == prediction.system.H.pairs
    assert np.array_equal(found.H.values, prediction.H.values)
    assert np.array_equal(found.S.values, prediction.system.S.values)
    assert found.fermi_energy is not None


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize(
    ("missing", "words"),
    [({"S": None}, "no overlap"), ({"n_electrons": None}, "number of electrons")],
)
def test_bands_without_what_they_need_are_left_out_and_it_is_said(
    tmp_path, slab, capsys, missing, words
) -> None:
    values = write_report(tmp_path, [slab("a", 0, **missing)], settings=COARSE)
    assert "test/H_mae_meV" in values
    assert not [key for key in values if "bands" in key or "fermi" in key]
    assert words in capsys.readouterr().out


@pytest.mark.usefixtures("no_figures")
def test_a_bad_overlap_loses_the_bands_of_its_structure_only(tmp_path, slab, capsys) -> None:
    bad = slab("bad", 1)
    bad.system.S = bad.system.S.replace(values=-bad.system.S.values)
    values = write_report(tmp_path, [slab("good", 0), bad], settings=COARSE)
    assert "test/bands_mae_meV" in values
    assert "bands of bad left out: OverlapNotPositiveError" in capsys.readouterr().out


@pytest.mark.usefixtures("no_figures")
def test_spinful_operators_are_reported(tmp_path, random_operator) -> None:
    H = random_operator(0, is_spinful=True)
    H.atoms.info["name"] = "soc"
    S = overlap_of(random_operator(1))
    system = SystemData("soc", H.atoms, H.basis, is_spinful=True, H=H, S=S, n_electrons=6.0)
    prediction = Prediction(system, noisy(H, random_operator(2, is_spinful=True), 1e-3))
    values = write_report(tmp_path, [prediction], settings=COARSE)
    assert values["test/bands_mae_meV"] > 0


def test_an_empty_split_is_refused(tmp_path) -> None:
    with pytest.raises(DataError, match="test split"):
        write_report(tmp_path, [], settings=COARSE)


def test_structures_without_h_are_refused(tmp_path, slab) -> None:
    prediction = slab("a", 0)
    prediction.system.H = None
    with pytest.raises(DataError, match="structure 'a'"):
        write_report(tmp_path, [prediction], settings=COARSE)


def test_training_curve_is_drawn_from_the_log(tmp_path) -> None:
    log = tmp_path / "metrics.csv"
    log.write_text(
        "epoch,step,time/elapsed_s,train/loss,val/H_mae_meV\n"
        "0,9,,0.5,\n0,9,1.0,,2.0\n1,19,,0.25,\n1,19,2.0,,1.0\n1,2"
    )
    history = read_history(log)
    assert [list(part) for part in history.series("val/H_mae_meV")] == [[9, 19], [2, 1]]
    assert [list(part) for part in history.series("train/loss")] == [[9, 19], [0.5, 0.25]]
    figure = curve_figure(history)
    upper, lower = figure.axes
    assert upper.lines[0].get_xydata().tolist() == [[9, 2], [19, 1]]
    assert lower.lines[0].get_ydata().tolist() == [0.5, 0.25]
    assert len(upper.child_axes) == 1  # wall time


def test_a_run_without_a_log_has_no_history(tmp_path) -> None:
    assert read_history(tmp_path / "none.csv") == History()
    (tmp_path / "empty.csv").write_text("")
    assert read_history(tmp_path / "empty.csv") == History()


def test_table_marks_what_is_missing() -> None:
    columns = {"C18": {"n_structure": 1200, "H_mae_meV": 0.123456}, "all": {"n_structure": 2}}
    cells = MetricTable(columns, "title").cells()
    assert cells == [
        ["quantity", "unit", "C18", "all"],
        ["structures", "", "1 200", "2"],
        ["H, MAE", "meV", "0.1235", "-"],
    ]
