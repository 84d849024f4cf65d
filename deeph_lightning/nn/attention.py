"""Attention over neighbours whose weights vanish smoothly at the cut-off."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deeph_lightning.nn.layout import Layout
from deeph_lightning.nn.scatter import Segments

#: Bound of the logits, so that no maximum must be subtracted (which would not be smooth).
_MAX_LOGIT = 6.0
#: Constant in the denominator: a lone neighbour leaves without a jump.
_EPS = 0.1


class SmoothAttention(nn.Module):
    """Smooth multi-head attention weights of directed edges.

    ``alpha = u exp(s) / (eps + sum_k u_k exp(s_k))`` with the envelope u, multiplied by the
    root of the number of neighbours felt.

    Parameters
    ----------
    layout
        Channels of the messages; heads are contiguous groups of the channels of each degree.
    n_heads
        Heads; 0 weights by the envelope alone.
    """

    def __init__(self, layout: Layout, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        columns: list[int] = []
        position: dict[tuple[str, int], int] = {}
        for slab in layout.slabs:
            for l in range(slab.l_first, slab.l_last + 1):
                heads: list[int] = []
                for n, _ in slab.towers:
                    parity, first_degree, _, channels = layout.towers[n]
                    if l < first_degree:  # rows of zeros
                        heads += [0] * channels
                        continue
                    first, count = position.get((parity, l), 0), getattr(layout, parity)[l]
                    heads += [(first + c) * n_heads // count for c in range(channels)]
                    position[parity, l] = first + channels
                columns += heads * (2 * l + 1)
        self.register_buffer("head", torch.tensor(columns), persistent=False)

    def gather(
        self,
        message: Tensor,
        logit: Tensor,
        envelope: Tensor,
        segments: Segments,
        into: list[Tensor] | None = None,
    ) -> list[Tensor]:
        """Sum over neighbours what `finish` needs, or add it to the sums of other edges.

        Wide messages ``(2P, W)``, logits ``(2, P, heads)``, envelope ``(P,)``.
        """
        into = into or [None, None, None]
        envelope = envelope.repeat(2)[:, None]
        if not self.n_heads:
            return [segments.sum(message * envelope, into[0])]
        bounded = _MAX_LOGIT * torch.tanh(logit.flatten(0, 1) / _MAX_LOGIT)
        score = bounded.exp() * envelope  # (2P, heads)
        return [
            segments.sum(message * score.index_select(1, self.head), into[0]),
            segments.sum(score, into[1]),
            segments.sum(envelope, into[2]),
        ]

    def finish(self, sums: list[Tensor]) -> Tensor:
        """Return the normalised sum of messages, wide ``(A, W)``."""
        if not self.n_heads:
            return sums[0]
        weighted, total, degree = sums
        norm = degree.sqrt() / (_EPS + total)
        return weighted * norm.index_select(1, self.head)
