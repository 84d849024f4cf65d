"""Learn DFT Hamiltonians with equivariant networks.

Names are imported on first use, so that the physics core works, and loads fast, without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from deeph_lightning.core.basis import OrbitalBasis
    from deeph_lightning.core.operator import Operator
    from deeph_lightning.core.pairs import PairTable
    from deeph_lightning.data.graph import Graph
    from deeph_lightning.errors import DeepHError
    from deeph_lightning.inference.calculator import HamiltonianCalculator
    from deeph_lightning.inference.predict import Predictor
    from deeph_lightning.io.formats import read_structure_folder, write_structure_folder
    from deeph_lightning.io.source import open_source
    from deeph_lightning.io.system import SystemData
    from deeph_lightning.models.base import HamiltonianModel

_HOME = {
    "DeepHError": "errors",
    "Graph": "data.graph",
    "HamiltonianCalculator": "inference.calculator",
    "HamiltonianModel": "models.base",
    "Operator": "core.operator",
    "OrbitalBasis": "core.basis",
    "PairTable": "core.pairs",
    "Predictor": "inference.predict",
    "SystemData": "io.system",
    "open_source": "io.source",
    "read_structure_folder": "io.formats",
    "write_structure_folder": "io.formats",
}

__all__ = [
    "DeepHError",
    "Graph",
    "HamiltonianCalculator",
    "HamiltonianModel",
    "Operator",
    "OrbitalBasis",
    "PairTable",
    "Predictor",
    "SystemData",
    "__version__",
    "open_source",
    "read_structure_folder",
    "write_structure_folder",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
