"""The interactive page in a real browser: it draws, without a network and without errors."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

from deeph_lightning.analysis.page import page
from deeph_lightning.solve.bands import band_structure
from deeph_lightning.solve.dos import DensityOfStates
from deeph_lightning.solve.kpath import band_path
from deeph_lightning.solve.system import electronic_system
from tests.solve.systems import toy

if TYPE_CHECKING:
    from pathlib import Path

CHROMIUM = next(
    (
        p
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (p := shutil.which(name))
    ),
    None,
)


@pytest.fixture
def html(tmp_path: Path, rng: np.random.Generator) -> Path:
    system = electronic_system(toy(rng, gap=6.0))
    path = band_path(system.atoms, 60)
    first = band_structure(system, path, 0.0, project="orbital")
    second = band_structure(system, path, 0.01)
    energies = np.linspace(-3, 3, 50)
    dos = DensityOfStates(energies, np.ones((1, 50)), 0.0, {"C p": 0.5 * np.ones((1, 50))})
    text = page(
        "Bands of <BC>", {"e_fermi_eV": 0.5, "overlap": {"n": 1}}, system.atoms,
        bands=(first, second), dos=(dos,), labels=("DFT", "predicted"), window_eV=(-6.0, 6.0),
    )  # fmt: skip
    file = tmp_path / "bands.html"
    file.write_text(text, encoding="utf-8")
    return file


def test_page_is_one_file(html: Path) -> None:
    text = html.read_text(encoding="utf-8")
    head = text[: text.index("<script>")] + text[text.rindex("<h2>Numbers") :]
    assert "http" not in head
    assert "src=" not in head
    assert "Bands of &lt;BC&gt;" in head
    assert "overlap: n" in head
    assert len(text) < 8e6


def test_page_in_a_browser(html: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed (apt-get install chromium)")
    with playwright.sync_playwright() as drivers:
        browser = drivers.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--enable-unsafe-swiftshader"],  # 3-D without a GPU
        )
        tab = browser.new_page(viewport={"width": 1200, "height": 1900})
        errors, requests = [], []
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(html.as_uri(), timeout=180_000)  # five megabytes of script
        tab.wait_for_selector(".js-plotly-plot .main-svg", timeout=180_000)
        assert tab.locator(".js-plotly-plot").count() == 3
        lines = tab.locator(".js-plotly-plot").first.locator(".scatterlayer .trace")
        assert lines.count() >= 28  # fourteen bands of each Hamiltonian
        legend = tab.locator(".js-plotly-plot").first.locator(".legendtext").all_text_contents()
        assert {"DFT", "predicted", "C p", "B d"} <= set(legend)
        ticks = tab.locator(".js-plotly-plot").first.locator(".xtick text").all_text_contents()
        assert any("Γ" in tick for tick in ticks)
        _hover_and_zoom(tab)
        tab.screenshot(path=html.with_suffix(".png"))
        browser.close()
    assert not errors
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []


def _hover_and_zoom(tab) -> None:
    plot = tab.locator(".js-plotly-plot").first
    box = plot.locator(".nsewdrag").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    for step in range(0, 200, 4):  # until the pointer meets a band
        tab.mouse.move(x, y - 100 + step)
        if plot.locator(".hoverlayer text").count():
            break
    assert "eV" in plot.locator(".hoverlayer").first.text_content()
    before = tab.evaluate(
        "document.querySelector('.js-plotly-plot').layout.yaxis.range.slice()"
    )
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.mouse.move(x + 150, y + 100, steps=5)
    tab.mouse.up()
    tab.wait_for_timeout(500)
    after = tab.evaluate("document.querySelector('.js-plotly-plot').layout.yaxis.range.slice()")
    assert after[1] - after[0] < 0.6 * (before[1] - before[0])
