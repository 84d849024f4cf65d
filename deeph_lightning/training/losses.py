"""The training loss: differences of Hamiltonian entries, in meV."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor, nn

from deeph_lightning.config.targets import listed, nearest
from deeph_lightning.errors import ConfigError, DataError
from deeph_lightning.training.entries import MEV_PER_EV, EntryIndex, fit_gauge

if TYPE_CHECKING:
    from deeph_lightning.data.graph import Graph

TERMS = ("mae", "rmse", "mse", "huber")


class HamiltonianLoss(nn.Module):
    """Weighted mean over the entries of all blocks, both Hermitian halves.

    A hopping block stands for its Hermitian partner too and counts twice. Every target pair
    counts, also those where H is zero by its pattern: a network that is asked for such a pair
    must answer zero. A batch is one mean over all its entries, so large structures weigh more.

    Parameters
    ----------
    basis
        ``{species label: [l, l, ...]}``.
    terms
        Weight of each term of the sum: ``mae`` and ``rmse`` in meV, ``mse`` in meV²,
        ``huber`` in meV (square below `huber_delta_meV`, absolute above).
    onsite_weight
        Factor on the entries of onsite blocks.
    weights
        Further factors: ``"A-B"`` on hopping blocks between two species, ``"A"`` on onsite
        blocks. What is not named has 1.
    gauge_free
        Compare up to mu S, with the best mu of each structure; needs overlaps.
    huber_delta_meV
        Where the Huber loss turns from square to absolute.
    """

    onsite_factor: Tensor
    hopping_factor: Tensor

    def __init__(
        self,
        basis: Mapping[str, Sequence[int]],
        terms: Mapping[str, float],
        onsite_weight: float = 1.0,
        weights: Mapping[str, float] | None = None,
        gauge_free: bool = False,
        huber_delta_meV: float = 1.0,
    ) -> None:
        super().__init__()
        self.terms = {name: float(weight) for name, weight in terms.items() if weight}
        for name in terms:
            if name not in TERMS:
                guess = nearest(name, TERMS)
                raise ConfigError(
                    f"loss.terms.{name} is not a term. "
                    + (f"Nearest: {listed(guess)}. " if guess else "")
                    + f"Terms: {listed(TERMS)}.",
                    key=f"loss.terms.{name}",
                )
        if not self.terms:
            raise ConfigError("loss.terms: no term has a weight.", key="loss.terms")
        if huber_delta_meV <= 0.0 or onsite_weight < 0.0:
            raise ConfigError(
                f"loss: huber_delta_meV = {huber_delta_meV} must be positive, onsite_weight = "
                f"{onsite_weight} not negative.",
                key="loss",
            )
        self.huber_delta_meV, self.gauge_free = huber_delta_meV, gauge_free
        labels = sorted(basis)
        onsite, hopping = _factors(labels, weights or {}, onsite_weight)
        self.register_buffer("onsite_factor", onsite, persistent=False)
        self.register_buffer("hopping_factor", hopping, persistent=False)

    def forward(
        self, prediction: Mapping[str, Tensor], graph: Graph
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compare a prediction with the labels of its graph.

        Parameters
        ----------
        prediction
            ``H_onsite`` and ``H_hopping``, flat, eV.
        graph
            A labelled graph.

        Returns
        -------
        loss
            Scalar. In distributed training its average over ranks has the gradient of the mean
            over all ranks' entries.
        parts
            ``H_onsite_mae_meV`` and ``H_hopping_mae_meV`` of this batch, without gradient.

        Raises
        ------
        DataError
            The gauge-free loss meets a structure without overlaps.
        """
        onsite = _difference(prediction["H_onsite"], graph.H_onsite)
        hopping = _difference(prediction["H_hopping"], graph.H_hopping)
        index = EntryIndex.of(graph)
        if self.gauge_free:
            if graph.S_onsite is None or graph.S_hopping is None:
                raise DataError(
                    f"structure {listed(graph.name, 3)}: loss.gauge_free compares H up to mu S,"
                    "\n  but there is no overlap. Give overlap.h5 for every structure, or set "
                    "loss.gauge_free=false.",
                    structure=graph.name[0],
                )
            onsite, hopping = fit_gauge(
                onsite, hopping, graph.S_onsite, graph.S_hopping, index, graph.n_graph
            )
        onsite, hopping = onsite * MEV_PER_EV, hopping * MEV_PER_EV
        # a block counts once or twice, times its factors
        pair_i, pair_j = graph.pair_i[: graph.n_target], graph.pair_j[: graph.n_target]
        w_onsite = self.onsite_factor.to(onsite.dtype)[graph.species]
        kind_i, kind_j = graph.species[pair_i], graph.species[pair_j]
        w_hopping = 2.0 * self.hopping_factor.to(hopping.dtype)[kind_i, kind_j]
        w_onsite = index.spread_onsite(w_onsite, onsite.shape[0])
        w_hopping = index.spread_hopping(w_hopping, hopping.shape[0])
        n_entry = _mean_over_ranks(onsite.new_tensor(onsite.shape[0] + 2 * hopping.shape[0]))

        def mean(function: Callable[[Tensor], Tensor]) -> Tensor:
            total = (w_onsite * function(onsite)).sum() + (w_hopping * function(hopping)).sum()
            return total / n_entry

        loss = onsite.new_zeros(())
        for name, weight in self.terms.items():
            loss = loss + weight * self._term(name, mean)
        parts = {
            "H_onsite_mae_meV": onsite.detach().abs().mean(),
            "H_hopping_mae_meV": hopping.detach().abs().mean(),
        }
        return loss, parts

    def _term(self, name: str, mean: Callable[[Callable[[Tensor], Tensor]], Tensor]) -> Tensor:
        """Return one term from the weighted mean of a function of the entries."""
        if name == "mae":
            return mean(torch.abs)
        if name == "mse":
            return mean(torch.square)
        if name == "rmse":
            return _root(mean(torch.square))
        delta = self.huber_delta_meV

        def huber(x: Tensor) -> Tensor:
            zero = torch.zeros_like(x)
            return nn.functional.huber_loss(x, zero, reduction="none", delta=delta) / delta

        return mean(huber)


def _difference(prediction: Tensor, target: Tensor | None) -> Tensor:
    """Return prediction less label, in single precision or better."""
    if target is None:
        raise DataError("a graph without labels cannot be trained on; it has no Hamiltonian.")
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    return prediction.to(dtype) - target.to(dtype)


def _factors(
    labels: Sequence[str], weights: Mapping[str, float], onsite_weight: float
) -> tuple[Tensor, Tensor]:
    """Return factors by species, ``(species,)`` onsite and ``(species, species)`` hopping."""
    n = len(labels)
    onsite, hopping = torch.full((n,), float(onsite_weight)), torch.ones(n, n)
    known = [*labels, *(f"{a}-{b}" for i, a in enumerate(labels) for b in labels[i:])]
    for name, weight in weights.items():
        parts = sorted(name.split("-")) if name not in labels else [name]
        if any(part not in labels for part in parts) or len(parts) > 2:
            raise ConfigError(
                f"loss.weights.{name}: no such species or pair. Known: {listed(known, 30)}.",
                key=f"loss.weights.{name}",
            )
        place = [labels.index(part) for part in parts]
        if len(place) == 1:
            onsite[place[0]] *= weight
        else:
            hopping[place[0], place[1]] = hopping[place[1], place[0]] = weight
    return onsite, hopping


def _mean_over_ranks(value: Tensor) -> Tensor:
    """Return the mean of a detached number over the ranks of distributed training."""
    if not (dist.is_available() and dist.is_initialized()):
        return value
    value = value.clone()
    dist.all_reduce(value)
    return value / dist.get_world_size()


def _root(mean_square: Tensor) -> Tensor:
    """Return the root of a mean over all ranks, with its exact gradient on each of them.

    A root of each rank's own mean would have another gradient than the root of the whole.
    """
    root = _mean_over_ranks(mean_square.detach()).sqrt()
    slope = 0.5 / root.clamp_min(torch.finfo(root.dtype).tiny ** 0.5)
    return root + slope * (mean_square - mean_square.detach())
