"""Files of results: JSON for numbers, HDF5 for arrays, units in both."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np

from deeph_lightning.io.files import new_file
from deeph_lightning.units import VELOCITY_PER_SLOPE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import ArrayLike

    from deeph_lightning.solve.derivatives import EffectiveMass
    from deeph_lightning.solve.levels import BandEdge, BandEdges


class Array(NamedTuple):
    """An array as it is stored: values, unit ("1" without), and the meaning of its axes."""

    values: ArrayLike
    unit: str
    axes: str


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> Path:
    """Write arrays to HDF5, each with the attributes ``unit`` and ``axes``."""
    with new_file(path) as partial, h5py.File(partial, "w") as file:
        for name, array in arrays.items():
            values = np.asarray(array.values)
            if values.dtype.kind == "U":
                values = values.astype(h5py.string_dtype())
            file[name] = values
            file[name].attrs["unit"], file[name].attrs["axes"] = array.unit, array.axes
    return path


def write_facts(path: Path, facts: Mapping[str, Any]) -> Path:
    """Write numbers as JSON; names end with the unit, what is not finite is null."""
    with new_file(path) as partial:
        text = json.dumps(_plain(facts), indent=1, allow_nan=False, ensure_ascii=False)
        partial.write_text(text + "\n", encoding="utf-8")
    return path


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def edge_facts(edges: BandEdges) -> dict[str, Any]:
    """Return gap and edges as they are written."""
    return {
        "is_metal": edges.is_metal,
        "gap_eV": edges.gap,
        "direct_gap_eV": edges.direct_gap,
        "vbm": _edge(edges.vbm),
        "cbm": _edge(edges.cbm),
    }


def _edge(edge: BandEdge | None) -> dict[str, Any] | None:
    if edge is None:
        return None
    return {
        "energy_eV": edge.energy,
        "k_fractional": list(edge.k),
        "spin_channel": edge.channel,
        "band": edge.band,
    }


def mass_facts(mass: EffectiveMass, channel: int, band: int) -> dict[str, Any]:
    """Return slope and curvature of a band as they are written."""
    masses, axes = mass.principal()
    return {
        "energy_eV": mass.energy,
        "k_fractional": mass.k,
        "spin_channel": channel,
        "band": band,
        "velocity_m_per_s": VELOCITY_PER_SLOPE * mass.slope,
        "inverse_mass_tensor_per_electron_mass": mass.inverse_tensor,
        "principal_masses_electron_mass": masses,
        "principal_axes_cartesian": axes.T,
    }
