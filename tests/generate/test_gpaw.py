"""GPAW as an engine. Needs GPAW with its data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from ase.build import bulk, molecule

from deeph_lightning.errors import ConfigError, NotConvergedError
from deeph_lightning.generate.engines.gpaw import GPAW

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_silicon(tmp_path: Path) -> None:
    pytest.importorskip("gpaw", reason="GPAW is not installed (extra gpaw)")
    atoms = bulk("Si")
    atoms.info["name"] = "si"
    engine = GPAW(basis="sz(dzp)", h=0.35, kmesh=(2, 2, 2), density=1e-4)
    assert engine.check([atoms])["code"] == "GPAW"
    system = engine.run(atoms, tmp_path, 0)
    assert system.H is not None
    assert system.info["is_converged"]
    assert system.basis.shells == {"Si": (0, 1)}
    np.testing.assert_allclose(system.atoms.positions, atoms.positions, atol=1e-12)
    few = GPAW(basis="sz(dzp)", h=0.35, max_cycle=2)
    with pytest.raises(NotConvergedError, match="not self-consistent after 2 cycles"):
        few.run(atoms, tmp_path, 1)


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"engine\.xc = 'PBE0': expected a functional"):
        GPAW(xc="PBE0")
    pytest.importorskip("gpaw", reason="GPAW is not installed (extra gpaw)")
    water = molecule("H2O")
    water.info["name"] = "water"
    with pytest.raises(ConfigError, match="'water' has no box"):
        GPAW().check([water])
