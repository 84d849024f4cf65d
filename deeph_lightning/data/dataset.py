"""The map-style dataset over a graph store."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset

from deeph_lightning.data.build import graph_from_record
from deeph_lightning.data.graph import Graph

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from ase import Atoms
    from numpy.typing import NDArray

    from deeph_lightning.core.basis import OrbitalBasis
    from deeph_lightning.data.store import GraphStore


class GraphDataset(Dataset[Graph]):
    """Graphs of some structures of a store; each is read from the file when it is asked for.

    What a model works out of the positions alone (`prepare`) is kept with the graphs used
    last, as far as the cache allows.

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
    cache_mb
        Memory for prepared graphs, MB; 0 keeps none.

    Attributes
    ----------
    prepare
        Applied to each graph that is read, or None; see `HamiltonianModel.prepare`.
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
        cache_mb: float = 0.0,
    ) -> None:
        self.store, self.names = store, list(names)
        self.r_message, self.dtype = float(r_message), dtype
        self.basis = store.basis if basis is None else basis
        index = [store.index(name) for name in self.names]
        self.sizes: NDArray[np.int64] = store.n_pair[index]
        self.prepare: Callable[[Graph], Graph] | None = None
        self._cache: OrderedDict[int, Graph] = OrderedDict()
        self._free_bytes = cache_mb * 1e6

    def __len__(self) -> int:
        return len(self.names)

    def __getstate__(self) -> dict[str, Any]:
        # a worker process reads only: preparing takes the model, which stays with the trainer
        return self.__dict__ | {"prepare": None, "_cache": OrderedDict()}

    def __getitem__(self, number: int) -> Graph:
        if number in self._cache:
            self._cache.move_to_end(number)
            return self._cache[number]
        graph = self._read(number)
        if self.prepare is not None:
            graph = self.prepare(graph)
            self._keep(number, graph)
        return graph

    def _keep(self, number: int, graph: Graph) -> None:
        size = _size_bytes(graph)
        while self._cache and size > self._free_bytes:
            self._free_bytes += _size_bytes(self._cache.popitem(last=False)[1])
        if size <= self._free_bytes:
            self._free_bytes -= size
            self._cache[number] = graph

    def _read(self, number: int) -> Graph:
        record = self.store.read(self.names[number])
        return graph_from_record(record, self.basis, self.r_message, dtype=self.dtype)

    def atoms(self, number: int) -> Atoms:
        """Return the structure itself, with its name."""
        return self.store.read(self.names[number]).atoms()


def _size_bytes(graph: Graph) -> int:
    values = (getattr(graph, field.name) for field in fields(graph))
    return sum(value.nbytes for value in values if isinstance(value, torch.Tensor))
