"""A network and a data module of a few numbers, for tests of training itself."""

from __future__ import annotations

import os
import time

import torch
from lightning.pytorch import LightningDataModule
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

from deeph_lightning.core.basis import OrbitalBasis
from deeph_lightning.data.graph import Graph, collate
from deeph_lightning.models.base import HamiltonianModel

BASIS = {"A": [0], "B": [0, 1]}
R_TARGET = {"A-A": 4.0, "A-B": 4.0, "B-B": 4.0}


def tiny_graph(seed: int, *, has_overlap: bool = True) -> Graph:
    """One structure A, B, B with target pairs A-B (0, 1) and B-B (1, 2)."""
    g = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=g, dtype=torch.float64)

    position = rand(3, 3) * 3
    pair_i, pair_j = torch.tensor([0, 1]), torch.tensor([1, 2])
    n_onsite, n_hopping = 1 + 16 + 16, 4 + 16
    return Graph(
        species=torch.tensor([0, 1, 1]),
        position=position,
        cell=10 * torch.eye(3, dtype=torch.float64)[None],
        batch=torch.zeros(3, dtype=torch.int64),
        n_graph=1,
        pair_i=pair_i,
        pair_j=pair_j,
        pair_R=torch.zeros(2, 3, dtype=torch.int64),
        pair_vector=position[pair_j] - position[pair_i],
        pair_type=torch.tensor([1, 2]),
        type_ptr=[0, 0, 1, 2],
        n_orb=[1, 4],
        n_target=2,
        edge_pair=torch.tensor([0, 1]),
        H_onsite=rand(n_onsite),
        H_hopping=rand(n_hopping),
        H_hopping_mask=torch.tensor([True, True]),
        S_onsite=rand(n_onsite) if has_overlap else None,
        S_hopping=rand(n_hopping) if has_overlap else None,
        name=[f"tiny_{seed}"],
    )


class TinyModel(HamiltonianModel):
    """Blocks from the distance and the species through one hidden layer."""

    def __init__(
        self,
        basis: dict[str, list[int]],
        r_target: dict[str, float],
        r_message: float,
        width: int = 8,
        dropout: float = 0.0,
    ) -> None:
        nn.Module.__init__(self)
        self.basis = OrbitalBasis({k: tuple(v) for k, v in basis.items()})
        self.r_message, self.r_target = r_message, r_target
        self.hidden = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Dropout(dropout))
        self.hopping = nn.Linear(width, 4 + 16)
        self.onsite = nn.Linear(width, 1 + 16 + 16)
        self.register_buffer("mean", torch.zeros(1))

    def fit_statistics(self, graphs, overlap_graphs) -> None:
        """Take the mean of all onsite entries."""
        values = torch.cat([graph.H_onsite for graph in graphs()])
        self.mean = values.mean().reshape(1).to(self.mean.dtype)

    def forward(self, graph: Graph) -> dict[str, torch.Tensor]:
        """Predict structure by structure; every structure has the shape of `tiny_graph`."""
        distance = graph.pair_vector.norm(dim=-1).to(self.mean.dtype)
        hidden = self.hidden(distance.reshape(-1, 1))
        # collation sorts pairs by type: the first half is A-B, the second B-B
        n = graph.n_graph
        a_b = self.hopping(hidden[:n])[:, :4].reshape(-1)
        b_b = self.hopping(hidden[n:])[:, 4:].reshape(-1)
        onsite = self.onsite(hidden[:n]).reshape(-1) + self.mean
        return {"H_onsite": onsite, "H_hopping": torch.cat([a_b, b_b])}


class EpochSampler(Sampler[int]):
    """Order from (seed, epoch)."""

    def __init__(self, n: int, seed: int) -> None:
        self.n, self.seed, self.epoch = n, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n

    def __iter__(self):
        g = torch.Generator().manual_seed(1000 * self.seed + self.epoch)
        return iter(torch.randperm(self.n, generator=g).tolist())


class _Graphs(Dataset):
    def __init__(self, seeds: range, delay_s: float) -> None:
        self.graphs, self.delay_s = [tiny_graph(s) for s in seeds], delay_s

    def __len__(self) -> int:
        return len(self.graphs)

    def __getitem__(self, n: int) -> Graph:
        time.sleep(self.delay_s)
        return self.graphs[n]


class TinyData(LightningDataModule):
    """A few structures in memory."""

    def __init__(self, n_train: int = 4, seed: int = 0) -> None:
        super().__init__()
        self.basis = OrbitalBasis({k: tuple(v) for k, v in BASIS.items()})
        self.r_target, self.fingerprint, self.n_electrons = R_TARGET, "tiny", None
        self.n_train, self.seed, self.is_spinful = n_train, seed, False

    def overlap_graphs(self):
        """Iterate over the same."""
        return self.train_graphs()

    def train_graphs(self):
        """Iterate over the training set."""
        return iter([tiny_graph(s) for s in range(self.n_train)])

    def prepare_with(self, prepare) -> None:
        """Nothing depends on the positions alone here."""

    def _loader(self, seeds: range, sampler: Sampler | None = None) -> DataLoader:
        delay_s = float(os.environ.get("STANDIN_DELAY_S", "0")) if sampler is not None else 0.0
        return DataLoader(_Graphs(seeds, delay_s), sampler=sampler, collate_fn=collate)

    def train_dataloader(self) -> DataLoader:
        """Shuffled by seed and epoch."""
        return self._loader(range(self.n_train), EpochSampler(self.n_train, self.seed))

    def val_dataloader(self) -> DataLoader:
        """Two structures."""
        return self._loader(range(100, 102))

    def test_dataloader(self) -> DataLoader:
        """Two structures."""
        return self._loader(range(200, 202))
