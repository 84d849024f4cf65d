"""The interactive page of a result: one HTML file that needs nothing else."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import atomic_numbers, covalent_radii
from ase.data.colors import jmol_colors

from deeph_lightning.core.pairs import neighbour_pairs
from deeph_lightning.viz.bands import GROUP_COLOURS, broken
from deeph_lightning.viz.style import BLACK, DFT_COLOUR, PREDICTION_COLOUR

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import plotly.graph_objects as go
    from ase import Atoms

    from deeph_lightning.solve.bands import Bands
    from deeph_lightning.solve.dos import DensityOfStates

#: Bonds are pairs closer than this many times the sum of covalent radii.
BOND = 1.2
#: Structures with more atoms are drawn without bonds.
MAX_BONDED = 3000

_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>
 body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; }}
 h1 {{ font-size: 1.4em; }} h2 {{ font-size: 1.1em; margin-top: 2em; }}
 table {{ border-collapse: collapse; }} td {{ padding: .15em 1.2em .15em 0; }}
 td:last-child {{ font-variant-numeric: tabular-nums; }}
</style>
<script>{script}</script></head>
<body><h1>{title}</h1>
{sections}
</body></html>
"""


def page(
    title: str,
    facts: Mapping[str, Any],
    atoms: Atoms,
    *,
    bands: Sequence[Bands] = (),
    dos: Sequence[DensityOfStates] = (),
    labels: tuple[str, str],
    window_eV: tuple[float, float],
) -> str:
    """Return the HTML text of a result.

    Parameters
    ----------
    title
        Heading.
    facts
        Numbers for the table.
    atoms
        Structure to show.
    bands, dos
        None, one or two of each.
    labels
        Names of the two.
    window_eV
        Energies shown at first, relative to the Fermi level.
    """
    from plotly.offline import get_plotlyjs

    figures = {}
    if bands:
        figures["Bands"] = _bands_figure(bands, labels, window_eV)
    if dos:
        figures["Density of states"] = _dos_figure(dos, labels)
    figures["Structure"] = _structure_figure(atoms)
    parts = [f"<h2>{name}</h2>\n{_embed(figure)}" for name, figure in figures.items()]
    parts.append(f"<h2>Numbers</h2>\n{_table(facts)}")
    return _TEMPLATE.format(
        title=html.escape(title), script=get_plotlyjs(), sections="\n".join(parts)
    )


def _embed(figure: go.Figure) -> str:
    config = {"scrollZoom": True, "displaylogo": False, "responsive": True}
    return str(figure.to_html(full_html=False, include_plotlyjs=False, config=config))


def _layout(figure: go.Figure, **settings: Any) -> go.Figure:
    figure.update_layout(
        template="simple_white", height=560, margin={"l": 70, "r": 20, "t": 20, "b": 50},
        **settings,
    )  # fmt: skip
    return figure


def _bands_figure(
    bands: Sequence[Bands], labels: tuple[str, str], window_eV: tuple[float, float]
) -> go.Figure:
    """Draw one line for each band, named in the text that follows the pointer."""
    import plotly.graph_objects as go

    figure, path = go.Figure(), bands[0].path
    for item, label, colour, dash in zip(
        bands, labels, (DFT_COLOUR, PREDICTION_COLOUR), ("solid", "dash"), strict=False
    ):
        for channel, energies in enumerate(item.relative):
            spin = f" spin {'down' if channel else 'up'}" if len(item.relative) > 1 else ""
            name = (label if len(bands) > 1 else "bands") + spin
            lone = len(bands) == 1
            line = {
                "color": (PREDICTION_COLOUR if channel else BLACK) if lone else colour,
                "width": 1.2 if lone else 2, "dash": dash,
            }  # fmt: skip
            x, y = broken(path.x, energies)
            first = True
            for n in range(y.shape[1]):
                if not np.any((y[:, n] > 3 * window_eV[0]) & (y[:, n] < 3 * window_eV[1])):
                    continue
                text = f"{name}<br>band {item.first_band + n}"
                figure.add_scatter(
                    x=x, y=y[:, n], mode="lines", line=line, name=name, legendgroup=name,
                    showlegend=first, hovertemplate=f"{text}<br>%{{y:.4f}} eV<extra></extra>",
                )  # fmt: skip
                first = False
    _add_weights(figure, bands[0], window_eV)
    figure.add_hline(0.0, line={"color": BLACK, "width": 0.7, "dash": "dot"})
    for at in path.tick[1:-1]:
        figure.add_vline(at, line={"color": "#999999", "width": 0.7})
    figure.update_xaxes(tickvals=path.tick, ticktext=path.labels, range=[path.x[0], path.x[-1]])
    figure.update_yaxes(title="E − E<sub>F</sub> (eV)", range=list(window_eV))
    # the size of a disc is that of its first state otherwise
    return _layout(figure, hovermode="closest", legend={"itemsizing": "constant"})


def _add_weights(figure: go.Figure, bands: Bands, window_eV: tuple[float, float]) -> None:
    """Draw a disc for each group of orbitals on each state in the window."""
    energies = bands.relative
    where = (energies >= window_eV[0]) & (energies <= window_eV[1])
    x = np.broadcast_to(bands.path.x[None, :, None], energies.shape)[where]
    order = sorted(bands.weights, key=lambda name: -bands.weights[name][where].sum())
    for name, colour in zip(order, GROUP_COLOURS, strict=False):
        weight = np.clip(bands.weights[name][where], 0, 1)
        figure.add_scattergl(
            x=x, y=energies[where], mode="markers", name=name, customdata=weight,
            marker={"size": 9 * np.sqrt(weight), "color": colour, "opacity": 0.6,
                    "line": {"width": 0}},
            hovertemplate=f"{name}: %{{customdata:.2f}}<br>%{{y:.4f}} eV<extra></extra>",
        )  # fmt: skip


def _dos_figure(dos: Sequence[DensityOfStates], labels: tuple[str, str]) -> go.Figure:
    import plotly.graph_objects as go

    figure = go.Figure()
    for item, label, colour, dash in zip(
        dos, labels, (BLACK, PREDICTION_COLOUR), ("solid", "dash"), strict=False
    ):
        x = item.energies - item.e_fermi
        name = label if len(dos) > 1 else "total"
        curves = [(name, item.total, colour)]
        if len(dos) == 1:
            order = sorted(item.projected, key=lambda key: -item.projected[key].sum())
            curves += [
                (key, item.projected[key], c)
                for key, c in zip(order, GROUP_COLOURS, strict=False)
            ]
        for text, curve, tint in curves:
            for channel, values in enumerate(curve):
                figure.add_scatter(
                    x=x, y=-values if channel else values, mode="lines", name=text,
                    legendgroup=text, showlegend=not channel,
                    line={"color": tint, "width": 1.3, "dash": dash},
                )  # fmt: skip
    figure.add_vline(0.0, line={"color": BLACK, "width": 0.7, "dash": "dot"})
    figure.update_xaxes(title="E − E<sub>F</sub> (eV)")
    figure.update_yaxes(title="DOS (electrons/eV)")
    return _layout(figure, hovermode="x unified")


def _structure_figure(atoms: Atoms) -> go.Figure:
    """Draw atoms, bonds inside the cell and its edges."""
    import plotly.graph_objects as go

    figure, positions = go.Figure(), atoms.get_positions()
    if np.asarray(atoms.cell.array).any():
        figure.add_scatter3d(**_lines(*_cell_edges(atoms.cell.array)), line_color="#999999",
                             line_width=2, name="cell")  # fmt: skip
    if len(atoms) <= MAX_BONDED:
        figure.add_scatter3d(**_lines(*_bonds(atoms)), line_color="#666666", line_width=5,
                             name="bonds")  # fmt: skip
    symbols = np.array(atoms.get_chemical_symbols())
    for symbol in dict.fromkeys(symbols.tolist()):
        index = np.flatnonzero(symbols == symbol)
        number = atomic_numbers[symbol]
        r, g, b = (255 * jmol_colors[number]).astype(int)
        size = 12 * covalent_radii[number] / max(1.0, len(atoms) ** (1 / 3) / 3)
        x, y, z = positions[index].T
        figure.add_scatter3d(
            x=x, y=y, z=z, mode="markers", name=symbol, customdata=index,
            marker={"size": size, "color": f"rgb({r},{g},{b})",
                    "line": {"color": "#333333", "width": 1}},
            hovertemplate=f"{symbol} %{{customdata}}<br>(%{{x:.3f}}, %{{y:.3f}}, %{{z:.3f}}) Å"
            "<extra></extra>",
        )  # fmt: skip
    hidden = {"visible": False}
    scene = {"xaxis": hidden, "yaxis": hidden, "zaxis": hidden, "aspectmode": "data"}
    return _layout(figure, scene=scene)


def _lines(start: np.ndarray, end: np.ndarray) -> dict[str, Any]:
    """Return segments as one trace, separated by gaps."""
    points = np.stack((start, end, np.full_like(start, np.nan)), axis=1).reshape(-1, 3)
    x, y, z = points.T
    return {"x": x, "y": y, "z": z, "mode": "lines", "hoverinfo": "skip"}


def _bonds(atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
    radius = covalent_radii[atoms.numbers]
    pairs = neighbour_pairs(atoms, 2 * BOND * float(radius.max()))
    near = pairs.distances(atoms) < BOND * (radius[pairs.i] + radius[pairs.j])
    inside = near & ~pairs.R.any(axis=1) & (pairs.i < pairs.j)
    positions = atoms.get_positions()
    return positions[pairs.i[inside]], positions[pairs.j[inside]]


def _cell_edges(cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    corners = np.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)])
    ends = [
        (corner, corner + axis) for corner in corners for axis in np.eye(3, dtype=int)
        if corner @ axis == 0
    ]  # fmt: skip
    return np.array([a for a, _ in ends]) @ cell, np.array([b for _, b in ends]) @ cell


def _table(facts: Mapping[str, Any], prefix: str = "") -> str:
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(text)}</td></tr>"
        for name, text in _rows(facts, prefix)
    )
    return f"<table>{rows}</table>"


def _rows(facts: Mapping[str, Any], prefix: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in facts.items():
        key = prefix + name.replace("_", " ")
        if isinstance(value, dict):
            found += _rows(value, f"{key}: ")
        else:
            text = f"{value:.6g}" if isinstance(value, float) else str(value)
            found.append((key, "" if value is None else text))
    return found
