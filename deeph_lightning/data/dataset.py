"""The map-style dataset over a graph store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.utils.data import Dataset

from deeph_lightning.data.build import graph_from_record
from deeph_lightning.data.graph import Graph

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from ase import Atoms
    from numpy.typing import NDArray

    from deeph_lightning.core.basis import OrbitalBasis
    from deeph_lightning.data.store import GraphStore


class GraphDataset(Dataset[Graph]):
    """Graphs of some structures of a store; each is read from the file when it is asked for.

    Parameters
    ----------
    store
        Where the structures lie.
    names
        Which of them, in this order.
    r_message
        Cut-off of message edges, Å.
    basis
        Basis that numbers the species; without it that of the store.
    dtype
        Of the labels.

    Attributes
    ----------
    sizes
        ``(n,)``, target pairs of each structure.

    Raises
    ------
    DataError
        The store lacks a name.
    """

    def __init__(
        self,
        store: GraphStore,
        names: Sequence[str],
        r_message: float,
        *,
        basis: OrbitalBasis | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.store, self.names = store, list(names)
        self.r_message, self.dtype = float(r_message), dtype
        self.basis = store.basis if basis is None else basis
        index = [store.index(name) for name in self.names]
        self.sizes: NDArray[np.int64] = store.n_pair[index]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, number: int) -> Graph:
        record = self.store.read(self.names[number])
        return graph_from_record(record, self.basis, self.r_message, dtype=self.dtype)

    def atoms(self, number: int) -> Atoms:
        """Return the structure itself, with its name."""
        return self.store.read(self.names[number]).atoms()
