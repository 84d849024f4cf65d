"""Errors of predicted Hamiltonians over a whole set, from sums and counts.

The mean is over all real entries of all stored blocks of the DFT set: both Hermitian halves
(a hopping pair is stored once and counts twice), onsite blocks once, no padding, and no pair
that the DFT file does not hold. A mean of batch means would be wrong for ragged blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torchmetrics import Metric

from deeph_lightning.training.entries import MEV_PER_EV, EntryIndex, fit_gauge

if TYPE_CHECKING:
    from deeph_lightning.data.graph import Graph

_KINDS = ("onsite", "hopping")


class HamiltonianMetrics(Metric):
    """MAE, RMSE and largest error of H, in meV, accumulated in float64."""

    full_state_update = False
    higher_is_better = False

    def __init__(self) -> None:
        super().__init__()
        for gauge in ("", "gauge_free_"):
            for kind in _KINDS:
                for sum_of in ("abs", "square", "count"):
                    self._add_sum(f"{gauge}{kind}_{sum_of}")
        zero = torch.zeros((), dtype=torch.float64)
        self.add_state("largest", zero, dist_reduce_fx="max")

    def _add_sum(self, name: str) -> None:
        self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    @torch.no_grad()
    def update(self, prediction: Mapping[str, Tensor], graph: Graph) -> None:
        """Add the errors of one labelled graph or batch; prediction flat, eV."""
        index = EntryIndex.of(graph)
        mask = index.spread_hopping(graph.H_hopping_mask, graph.H_hopping.shape[0])
        onsite = prediction["H_onsite"].double() - graph.H_onsite.double()
        hopping = prediction["H_hopping"].double() - graph.H_hopping.double()
        hopping = torch.where(mask, hopping, 0.0)
        n_hopping = mask.sum()
        self._add("", onsite, hopping, n_hopping)
        largest = torch.cat([onsite.abs().flatten(), hopping.abs().flatten()]).max()
        # torch.maximum keeps a NaN, so that a broken prediction is seen
        self.largest = torch.maximum(self.largest, MEV_PER_EV * largest)
        if graph.S_onsite is not None and graph.S_hopping is not None:
            overlap = torch.where(mask, graph.S_hopping, 0.0)
            onsite, hopping = fit_gauge(
                onsite, hopping, graph.S_onsite, overlap, index, graph.n_graph
            )
            self._add("gauge_free_", onsite, hopping, n_hopping)

    def _add(self, gauge: str, onsite: Tensor, hopping: Tensor, n_hopping: Tensor) -> None:
        counts = {"onsite": onsite.new_tensor(onsite.shape[0]), "hopping": n_hopping}
        for kind, value in (("onsite", onsite), ("hopping", hopping)):
            value = MEV_PER_EV * value
            self._grow(f"{gauge}{kind}_abs", value.abs().sum())
            self._grow(f"{gauge}{kind}_square", value.square().sum())
            self._grow(f"{gauge}{kind}_count", counts[kind])

    def _grow(self, name: str, amount: Tensor) -> None:
        setattr(self, name, getattr(self, name) + amount)

    def compute(self) -> dict[str, Tensor]:
        """Return the errors in meV; gauge-free ones only if all structures have overlaps."""
        values = {
            "H_mae_meV": self._mean("", "abs"),
            "H_rmse_meV": self._mean("", "square").sqrt(),
            "H_max_meV": self.largest,
            "H_onsite_mae_meV": self.onsite_abs / self.onsite_count,
            "H_hopping_mae_meV": self.hopping_abs / self.hopping_count,
        }
        if self.gauge_free_onsite_count == self.onsite_count:
            values["H_gauge_free_mae_meV"] = self._mean("gauge_free_", "abs")
            values["H_gauge_free_rmse_meV"] = self._mean("gauge_free_", "square").sqrt()
        return values

    def _mean(self, gauge: str, sum_of: str) -> Tensor:
        def total(name: str) -> Tensor:
            onsite, hopping = (getattr(self, f"{gauge}{kind}_{name}") for kind in _KINDS)
            whole: Tensor = onsite + 2.0 * hopping
            return whole

        return total(sum_of) / total("count")
