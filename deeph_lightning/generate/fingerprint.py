r"""A fingerprint of a structure that motions, renumbering and another cell leave alone.

For every pair of elements, distances r of all their pairs are counted with weights that go
smoothly to zero at the cut-off:

.. math:: f_{ab}(c) = \sum_{i \in a, j \in b} w(r_{ij})\,e^{-(r_{ij} - c)^2 / 2 d^2}.

Equal structures have equal numbers; others may have too (mirror images do, and the few that
share all distances), which costs no more than another draw.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.distance import pdist

from deeph_lightning.core.pairs import neighbour_pairs

if TYPE_CHECKING:
    from ase import Atoms
    from numpy.typing import NDArray

#: Numbers that differ by less are the same: displacements of about 1e-4 Å.
TOL_FINGERPRINT = 1e-4
#: Cut-off (of molecules at least this), Å, and number of Gaussians up to it.
CUTOFF, N_GAUSSIAN = 6.0, 24


def fingerprint(atoms: Atoms) -> tuple[str, NDArray[np.float64]]:
    """Return the formula of a structure and its numbers.

    Returns
    -------
    formula, vector
        Chemical formula, and ``(elements squared * N_GAUSSIAN,)``.
    """
    cutoff = CUTOFF
    if not atoms.pbc.any() and len(atoms) > 1:
        cutoff = max(CUTOFF, 1.2 * float(pdist(atoms.positions).max()))
    pairs = neighbour_pairs(atoms, cutoff)
    lengths = pairs.distances(atoms)
    weights = 0.5 * (1.0 + np.cos(np.pi * np.minimum(lengths / cutoff, 1.0)))
    centres = np.linspace(0.0, cutoff, N_GAUSSIAN, endpoint=False)
    gaussians = np.exp(-0.5 * ((lengths[:, None] - centres) / centres[1]) ** 2)
    kinds, species = np.unique(atoms.numbers, return_inverse=True)
    code = species[pairs.i] * len(kinds) + species[pairs.j]
    vector = np.zeros((len(kinds) ** 2, N_GAUSSIAN))
    np.add.at(vector, code, weights[:, None] * gaussians)
    return atoms.get_chemical_formula(), vector.ravel()
