"""How far the networks of an ensemble disagree: a number for what is outside their data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from deeph_lightning.core.pairs import PairTable

#: File of the spread of every block, beside the operators.
SPREAD_FILE = "spread.h5"


class Spread:
    """Standard deviation of H among the networks of an ensemble, eV.

    Parameters
    ----------
    pairs
        Pairs of H, one of every Hermitian couple, and the onsite ones.
    n_element
        ``(n_pair,)``, elements of each block.
    n_network
        Networks of the ensemble.

    Attributes
    ----------
    block
        ``(n_pair,)``, mean over the elements of each block.
    """

    def __init__(self, pairs: PairTable, n_element: NDArray[np.int64], n_network: int) -> None:
        self.pairs, self.n_element, self.n_network = pairs, n_element, n_network
        self.block = np.zeros(len(pairs))

    @property
    def mean(self) -> float:
        """Mean over all elements of H, both pairs of every couple, eV."""
        weight = self.n_element * np.where(self.pairs.is_onsite, 1, 2)
        return float(weight @ self.block / weight.sum())

    def __str__(self) -> str:
        """Write as in the log."""
        n = int(np.argmax(self.block))
        return (
            f"{self.n_network} networks differ by {1e3 * self.mean:.3g} meV in the mean, at "
            f"most by {1e3 * self.block[n]:.3g} meV (pair {self.pairs.describe(n)})"
        )

    def summary(self) -> dict[str, Any]:
        """Return what ``info.json`` says of it."""
        n = int(np.argmax(self.block))
        return {
            "n_networks": self.n_network,
            "mean_eV": self.mean,
            "largest_block_eV": float(self.block[n]),
            "largest_block_at": self.pairs.describe(n),
        }

    def write(self, folder: Path) -> None:
        """Write ``spread.h5``: ``atom_pairs`` as in the matrix files, and ``std_eV``."""
        pairs = np.column_stack((self.pairs.R, self.pairs.i, self.pairs.j))
        with h5py.File(folder / SPREAD_FILE, "w") as file:
            file["atom_pairs"], file["std_eV"] = pairs, self.block
