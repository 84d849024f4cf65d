"""Orbital files with known functions."""

from __future__ import annotations

import numpy as np


def pao(functions: dict[int, list[float]]) -> str:
    """A file of OpenMX with functions r^l exp(-a r^2) on its logarithmic grid, bohr."""
    x = np.linspace(-9.0, 2.0, 500)
    r = np.exp(x)
    text = "   AtomSpecies             6\nmaxL.pao   1\nradial.cutoff.pao 7.0\n"
    for l, exponents in functions.items():
        columns = [x, r] + [r**l * np.exp(-a * r**2) for a in exponents]
        rows = "\n".join(" ".join(f"{v:.15f}" for v in row) for row in np.array(columns).T)
        tag = f"pseudo.atomic.orbitals.L={l}"
        text += f"<{tag}\n{rows}\n{tag}>\n"
    return text
