"""The one seam through which sums over neighbours go.

torch-scatter's ``segment_csr`` where it is installed (extra ``scatter``), native torch
otherwise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from deeph_lightning.errors import MissingDependencyError

try:
    from torch_scatter import segment_csr
except ImportError:
    segment_csr = None


class Segments:
    """Edges grouped by the node that receives them.

    Parameters
    ----------
    receiver
        ``(E,)`` receiving node of each edge, any order.
    n_node
        Number of nodes.
    backend
        ``"torch"``, ``"torch_scatter"``; None takes torch-scatter where it is installed.

    Raises
    ------
    MissingDependencyError
        torch-scatter is asked for and not installed.
    """

    def __init__(self, receiver: Tensor, n_node: int, backend: str | None = None) -> None:
        self.receiver, self.n_node = receiver, n_node
        self.backend = backend or ("torch" if segment_csr is None else "torch_scatter")
        if self.backend == "torch_scatter":
            if segment_csr is None:
                raise MissingDependencyError(
                    "torch-scatter is not installed. Build it: make scatter, or leave "
                    "the backend at its default."
                )
            self.order = torch.argsort(receiver, stable=True)
            count = torch.bincount(receiver, minlength=n_node)
            self.pointer = torch.cat([count.new_zeros(1), count.cumsum(0)])

    def sum(self, values: Tensor, into: Tensor | None = None) -> Tensor:
        """Sum ``(E, ...)`` values per receiving node: ``(n_node, ...)``.

        With `into`, add to that sum over other edges in place: costs nothing per node.
        """
        if into is not None:
            return into.index_add_(0, self.receiver, values)
        if self.backend == "torch_scatter":
            return segment_csr(values[self.order].contiguous(), self.pointer, reduce="sum")
        out = values.new_zeros(self.n_node, *values.shape[1:])
        return out.index_add(0, self.receiver, values)
