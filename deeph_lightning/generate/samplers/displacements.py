"""Samplers that displace atoms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deeph_lightning.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from ase import Atoms


class Rattle:
    """Displace every atom independently.

    Parameters
    ----------
    stdev
        Standard deviation along each axis, Å.

    Raises
    ------
    ConfigError
        It is not positive.
    """

    def __init__(self, stdev: float = 0.05) -> None:
        if not stdev > 0:
            msg = f"sampler.rattle.stdev = {stdev}: expected a positive length, Å."
            raise ConfigError(msg, key="sampler.rattle.stdev")
        self.stdev = stdev

    def check(self, structures: Sequence[Atoms]) -> None:
        """Suit every structure."""

    def draw(self, structure: Atoms, rng: np.random.Generator) -> Atoms:
        """Return a displaced copy."""
        atoms = structure.copy()
        atoms.positions += rng.normal(scale=self.stdev, size=atoms.positions.shape)
        return atoms
