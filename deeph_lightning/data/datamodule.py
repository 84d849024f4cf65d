"""The data module: from a set on disk to batches of graphs."""

from __future__ import annotations

import hashlib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningDataModule

from deeph_lightning.data.dataset import GraphDataset
from deeph_lightning.data.loader import GraphLoader
from deeph_lightning.data.prepare import prepare_store
from deeph_lightning.data.sampler import EdgeBudgetSampler
from deeph_lightning.data.split import PARTS, limited, resolve_split
from deeph_lightning.data.store import GraphStore
from deeph_lightning.errors import BasisMismatchError, ConfigError, DataError
from deeph_lightning.io.source import Source, open_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import torch

    from deeph_lightning.core.basis import OrbitalBasis
    from deeph_lightning.data.graph import Graph


class HamiltonianDataModule(LightningDataModule):
    """Graphs of a set, read from a store that is made on first use.

    Parameters
    ----------
    root
        Archive, or folder of DeepH folders at any depth.
    r_message
        Cut-off of message edges, Å.
    max_pairs
        Target pairs of a training or validation batch. Test batches have one structure.
    num_workers
        Processes that read graphs; 0 reads in the training process, which is fastest where a
        structure takes little longer to read (about 2 ms) than to send between processes.
    seed
        Of the order of training structures.
    split
        See `split.resolve_split`.
    limit_train
        Train on that many structures only; None takes all.
    repeat
        ``{pattern of names: n}``: training structures that come n times in an epoch.
    shuffle
        Take training structures in an order of their own in every epoch.
    cache_dir
        Folder of graph stores.
    cache_mb
        Memory for structures with what the model has worked out of their positions, MB for each
        of the parts train, val and test; 0 reads and prepares every time.
    r_target_max
        Longest pair to learn, Å; None takes all. What that drops is reported.
    overlap_root
        Set of the same basis whose overlaps the learned ones are fitted to, where that trained
        on has none; None takes those trained on.
    progress
        Show a bar while the store is made.

    Raises
    ------
    ConfigError
        An argument is out of range.
    """

    def __init__(
        self,
        root: str | Path,
        r_message: float,
        *,
        max_pairs: int = 1500,
        num_workers: int = 0,
        seed: int = 0,
        split: str | Path | Mapping[str, Any] | None = None,
        limit_train: int | None = None,
        repeat: Mapping[str, int] | None = None,
        shuffle: bool = True,
        cache_dir: str | Path = "data/cache",
        cache_mb: float = 256.0,
        r_target_max: float | None = None,
        overlap_root: str | Path | None = None,
        progress: bool = True,
    ) -> None:
        super().__init__()
        for key, value, is_valid, expected in (
            ("r_message", r_message, r_message > 0, "a positive length in Å"),
            ("num_workers", num_workers, num_workers >= 0, "a number of processes, 0 or more"),
        ):
            if not is_valid:
                msg = f"data.{key} is {value}, expected {expected}."
                raise ConfigError(msg, key=f"data.{key}")
        self.root, self.r_message = Path(root).expanduser(), float(r_message)
        self.max_pairs, self.num_workers, self.seed = max_pairs, num_workers, seed
        self.shuffle, self.limit_train = shuffle, limit_train
        self.repeat = dict(repeat or {})
        for pattern, times in self.repeat.items():
            if times < 1:
                msg = f"data.repeat has {pattern!r}: {times}, expected a number of 1 or more."
                raise ConfigError(msg, key="data.repeat")
        self._wanted_split, self.r_target_max = split, r_target_max
        self.progress, self.cache_mb = progress, cache_mb
        place, stem = f"{self.root.resolve()} {r_target_max}", self.root.resolve().stem
        code = hashlib.sha256(place.encode()).hexdigest()[:8]
        self.store_path = Path(cache_dir).expanduser() / f"{stem}-{code}.h5"
        self._overlaps = None
        if overlap_root is not None:
            self._overlaps = HamiltonianDataModule(
                overlap_root, r_message, cache_dir=cache_dir, cache_mb=0.0, progress=progress
            )
        self._source: Source | None = None
        self._datasets: dict[str, GraphDataset] | None = None

    # ------------------------------------------------------------------ the set

    def prepare_data(self) -> None:
        """Make the graph store if it is missing or stale (see `prepare.prepare_store`)."""
        prepare_store(
            self._open_source(),
            self.store_path,
            r_target_max=self.r_target_max,
            progress=self.progress,
        )
        if self._overlaps is not None:
            self._overlaps.prepare_data()

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002
        """Open the store and find out which structures train, validate and test.

        Raises
        ------
        DataError, ConfigError
            The split does not fit the set (see `split.resolve_split`).
        """
        if self._datasets is not None:
            return
        store = GraphStore(self.store_path)
        split = resolve_split(self._wanted_split, self._open_source().split, store.names)
        for pattern in self.repeat:
            if not any(fnmatchcase(name, pattern) for name in split["train"]):
                msg = (
                    f"data.repeat: no training structure is called {pattern!r}; the first is "
                    f"{split['train'][0]!r}. Give a pattern of names, or data.repeat=null."
                )
                raise ConfigError(msg, key="data.repeat")
        split["train"] = limited(split["train"], self.limit_train)
        self._datasets = {
            part: GraphDataset(store, split[part], self.r_message, cache_mb=self.cache_mb)
            for part in PARTS
        }

    def _open_source(self) -> Source:
        if self._source is None:
            self._source = open_source(self.root)
        return self._source

    def dataset(self, part: str) -> GraphDataset:
        """Return the graphs of "train", "val" or "test"; call `setup` first."""
        if self._datasets is None:
            raise RuntimeError("call prepare_data() and setup() first")
        return self._datasets[part]

    def prepare_with(self, prepare: Callable[[Graph], Graph]) -> None:
        """Let a model work out, once a structure, what depends on the positions alone."""
        for part in PARTS:
            self.dataset(part).prepare = prepare

    def train_graphs(self) -> Iterator[Graph]:
        """Iterate over the training structures one by one, in a fixed order."""
        dataset = self.dataset("train")
        return (dataset[number] for number in range(len(dataset)))

    def overlap_graphs(self) -> Iterator[Graph]:
        """Iterate over the structures whose overlaps are to be learned.

        Raises
        ------
        BasisMismatchError
            ``overlap_root`` has another basis than the set.
        DataError
            It has no overlaps.
        """
        if self._overlaps is None:
            return self.train_graphs()
        store = GraphStore(self._overlaps.store_path)
        if store.basis != self.basis:
            raise BasisMismatchError(
                f"data.overlap_root = {self._overlaps.root}: its basis is "
                f"{store.basis.to_dict()}, that of {self.root} is {self.basis.to_dict()}.\n  "
                "Give a set of the same orbitals.",
                path=self._overlaps.root,
            )
        if not store.report["n_with_overlap"]:
            raise DataError(
                f"data.overlap_root = {self._overlaps.root}: has no overlaps.\n  Give a set "
                "with overlap.h5, or none.",
                path=self._overlaps.root,
            )
        dataset = GraphDataset(store, store.names, self.r_message, cache_mb=0.0)
        return (dataset[number] for number in range(len(dataset)))

    @property
    def store(self) -> GraphStore:
        """The graph store; call `setup` first."""
        return self.dataset("train").store

    @property
    def report(self) -> dict[str, Any]:
        """Summary of the whole set (see `prepare.summarise`)."""
        return self.store.report

    @property
    def basis(self) -> OrbitalBasis:
        """Shells of all species of the set."""
        return self.store.basis

    @property
    def r_target(self) -> dict[str, float]:
        """Longest target pair of every pair of species, ``{"A-B": Å}``."""
        return dict(self.report["r_target"])

    @property
    def n_electrons(self) -> dict[str, float] | None:
        """Electrons of an atom of every species, None if the data do not tell."""
        electrons: dict[str, float] | None = self.report["n_electrons"]
        return electrons

    @property
    def is_spinful(self) -> bool:
        """Whether H has spin."""
        return self.store.is_spinful

    @property
    def fingerprint(self) -> str:
        """Hash of structures, labels and split, the same wherever the data lie."""
        state = hashlib.sha256(self.store.fingerprint.encode())
        for part in PARTS:
            state.update(f"\n{part}:{','.join(self.dataset(part).names)}".encode())
        return state.hexdigest()[:16]

    # ------------------------------------------------------------------ batches

    def train_dataloader(self) -> GraphLoader:
        """Return batches of training structures, within the budget."""
        return self._loader("train", self.max_pairs, shuffle=self.shuffle, is_even=True)

    def val_dataloader(self) -> GraphLoader:
        """Return batches of validation structures, in a fixed order."""
        return self._loader("val", self.max_pairs, shuffle=False, is_even=False)

    def test_dataloader(self) -> GraphLoader:
        """Return test structures one by one, in the order of the split."""
        return self._loader("test", 1, shuffle=False, is_even=False)

    def _times(self, names: Sequence[str]) -> list[int]:
        """Return how often each structure comes in an epoch."""
        return [
            max(
                n
                for pattern, n in (("*", 1), *self.repeat.items())
                if fnmatchcase(name, pattern)
            )
            for name in names
        ]

    def _loader(
        self, part: str, max_pairs: int, *, shuffle: bool, is_even: bool
    ) -> GraphLoader:
        dataset, trainer = self.dataset(part), self.trainer

        def sample(rank: int, world_size: int) -> EdgeBudgetSampler:
            return EdgeBudgetSampler(
                dataset.sizes,
                max_pairs,
                seed=self.seed,
                shuffle=shuffle,
                rank=rank,
                world_size=world_size,
                is_even=is_even,
                repeat=self._times(dataset.names) if part == "train" else None,
            )

        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        sampler = sample(rank, world_size)
        if not is_even and len(sample(0, 1)) < world_size:
            # Lightning skips the validation of a rank without batches, and the others wait for
            # it; where every rank validates all, the means over the set are the same
            sampler = sample(0, 1)
        on_gpu = trainer is not None and trainer.strategy.root_device.type == "cuda"
        return GraphLoader(dataset, sampler, num_workers=self.num_workers, pin_memory=on_gpu)

    def transfer_batch_to_device(
        self,
        batch: Graph,
        device: torch.device,
        dataloader_idx: int,  # noqa: ARG002
    ) -> Graph:
        """Copy a batch; from page-locked memory that goes on while the GPU computes."""
        return batch.to(device, non_blocking=device.type == "cuda")
