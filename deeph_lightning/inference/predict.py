"""Predict the Hamiltonian of bare structures with the network of a checkpoint."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from torch import Tensor

from deeph_lightning.core.basis import OrbitalBasis, species_labels
from deeph_lightning.core.operator import Operator
from deeph_lightning.data.build import graph_from_structure, operator_from_blocks
from deeph_lightning.data.graph import Graph
from deeph_lightning.errors import ConfigError
from deeph_lightning.inference.overlaps import Overlaps
from deeph_lightning.models.base import HamiltonianModel
from deeph_lightning.nn.domain import Departure
from deeph_lightning.training.checkpoint import load_model

#: Pairs that the network works on at a time: large enough for fast matrix products.
CHUNK = 4096


class Piece(NamedTuple):
    """Predicted blocks of consecutive rows: atoms are the first rows, target pairs follow.

    Attributes
    ----------
    name
        "H", eV, or "S".
    start, stop
        Rows.
    values
        Flat blocks.
    spread
        ``(stop - start,)``, standard deviation among the networks of an ensemble, eV, the mean
        over the elements of each block; empty of one network, and of S.
    """

    name: str
    start: int
    stop: int
    values: NDArray[np.floating[Any]]
    spread: NDArray[np.float64]


class Predictor:
    """A trained network, ready to predict; or several, whose mean is taken.

    Parameters
    ----------
    checkpoint
        Checkpoint file or run folder; the averaged weights are used. Of several, an ensemble,
        overlaps and electrons are those of the first.
    precision
        ``fp32`` or ``fp64``.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
    chunk
        Pairs that the network works on at a time; None takes all at once.

    Attributes
    ----------
    basis
        Orbitals of every species that the network knows.
    r_message, r_target
        Cut-offs of message edges and of H, Å.
    networks
        One for each checkpoint.
    record
        What the (first) checkpoint says of itself.

    Raises
    ------
    CheckpointError
        The checkpoint cannot be read.
    ConfigError
        There is no such device, or the networks have other bases or cut-offs.
    """

    def __init__(
        self,
        checkpoint: str | Path | Sequence[str | Path],
        precision: str = "fp32",
        device: str = "auto",
        chunk: int | None = CHUNK,
    ) -> None:
        self.device = find_device(device)
        self.precision, self.chunk = precision, chunk
        paths = [checkpoint] if isinstance(checkpoint, str | Path) else list(checkpoint)
        if not paths:
            raise ConfigError("checkpoint = []: no checkpoint is given", key="checkpoint")
        loaded = [load_model(path, is_double=precision == "fp64") for path in paths]
        self.networks = [module.model.to(self.device) for module, _ in loaded]
        self.record = loaded[0][1]
        self.paths = [str(record["path"]) for _, record in loaded]
        for _, record in loaded[1:]:
            for key in ("basis", "r_target", "r_message"):
                if record[key] != self.record[key]:
                    raise ConfigError(
                        f"checkpoint: {key} of {record['path']} is {record[key]}, of "
                        f"{self.record['path']} {self.record[key]}.\n  The networks of an "
                        "ensemble are trained on the same data, with the same cut-offs: train "
                        "them with seed=1, seed=2, ...",
                        key="checkpoint",
                    )
        self.basis: OrbitalBasis = self.network.basis
        self._last: tuple[Atoms, Graph] | None = None
        self.r_message = float(self.record["r_message"])
        self.r_target: dict[str, float] = dict(self.record["r_target"])

    @property
    def network(self) -> HamiltonianModel:
        """The network, or the first of an ensemble."""
        return self.networks[0]

    @cached_property
    def fingerprint(self) -> str:
        """Short hash of weights and precision: equal ones predict equal numbers."""
        digest = hashlib.sha256(self.precision.encode())
        for network in self.networks:
            for name, value in network.state_dict().items():
                digest.update(name.encode())
                digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def graph(self, atoms: Atoms) -> Graph:
        """Return the graph of a structure, pairs from the cut-offs of the checkpoint.

        Raises
        ------
        BasisMismatchError
            The network does not know a species.
        PhysicsError
            Two atoms are closer than 0.3 Å.
        """
        last = self._last  # a large one takes seconds
        if (
            last is None
            or last[0] != atoms
            or np.any(species_labels(last[0]) != species_labels(atoms))
        ):
            graph = graph_from_structure(atoms, self.basis, self.r_message, self.r_target)
            last = self._last = (atoms.copy(), graph)
        return last[1]

    def predict(self, atoms: Atoms) -> Operator:
        """Predict H of one structure, eV, both halves of every Hermitian couple."""
        return self.operators(atoms)["H"].complete()

    def overlap(self, atoms: Atoms) -> Operator:
        """Return the learned overlap on the pairs of H, both halves of every couple.

        Raises
        ------
        CheckpointError
            The checkpoint has no learned overlaps.
        """
        Overlaps.choose("learned", self)
        return self.operators(atoms, ("S",))["S"].complete()

    def operators(self, atoms: Atoms, names: Sequence[str] = ("H",)) -> dict[str, Operator]:
        """Predict one pair of every Hermitian couple of H (eV) and learned S, as asked for."""
        graph = self.graph(atoms)
        found = {}
        for name in names:
            *hopping, onsite = (piece.values for piece in self.stream(graph, name))
            found[name] = operator_from_blocks(
                graph,
                {
                    f"{name}_onsite": onsite,
                    f"{name}_hopping": np.concatenate([onsite[:0], *hopping]),
                },
                self.basis,
                atoms,
                name=name,
                is_half=True,
            )
        return found

    @torch.inference_mode()
    def stream(self, graph: Graph, name: str) -> Iterator[Piece]:
        """Yield the blocks of H (of an ensemble the mean) or of the learned S of a graph.

        Target pairs come in their order, `chunk` of them at a time; atoms come last.
        """
        n_atom = graph.n_atom
        sizes = torch.cat((graph.onsite_offsets.diff(), graph.hopping_offsets.diff()))
        offsets = np.concatenate(([0], np.cumsum(sizes.numpy())))
        n_row, start = len(sizes), n_atom
        for tensors in self._tensors(graph.to(self.device), name):
            if not len(tensors[0]):  # pairs that carry messages only
                continue
            if start == n_row:
                start = 0
            values, deviation = _statistics(tensors)
            stop = int(np.searchsorted(offsets, offsets[start] + len(values)))
            spread = np.zeros(0)
            if deviation is not None:
                where = offsets[start : stop + 1] - offsets[start]
                spread = np.add.reduceat(deviation, where[:-1]) / np.diff(where)
            yield Piece(name, start, stop, values, spread)
            start = stop

    def _tensors(self, graph: Graph, name: str) -> Iterator[tuple[Tensor, ...]]:
        """Yield what every network says of the same blocks."""
        if name == "H":
            streams = (network.stream(graph, self.chunk) for network in self.networks)
            yield from zip(*streams, strict=True)
            return
        for part in self.network.parts(graph, self.chunk):
            yield (self.network.overlap_hopping(part),)
        yield (self.network.overlap.onsite(graph),)

    def departures(self, atoms: Atoms) -> list[Departure]:
        """Return in which respects a structure leaves the training set; none if unknown."""
        domain = self.network.domain
        return domain.departures(self.graph(atoms).to(self.device)) if domain.is_fitted else []

    def n_electrons(self, atoms: Atoms) -> float | None:
        """Return the number of valence electrons, if the training set told it by species."""
        per_species: Mapping[str, float] = self.record.get("n_electrons") or {}
        labels = species_labels(atoms).tolist()
        if not labels or any(label not in per_species for label in labels):
            return None
        return float(sum(per_species[label] for label in labels))

    def origin(self, atoms: Atoms) -> dict[str, Any]:
        """Return what a prediction's ``info.json`` says of how it was made."""
        digest = hashlib.sha256("".join(species_labels(atoms).tolist()).encode())
        for values in (atoms.get_positions(), atoms.cell.array, atoms.pbc):
            digest.update(values.tobytes())
        return {
            "by": f"deeph_lightning {self.record['versions']['deeph_lightning']}",
            "checkpoint": self.paths[0] if len(self.paths) == 1 else self.paths,
            "network": self.fingerprint,
            "precision": self.precision,
            "structure": digest.hexdigest()[:16],
        }


def _statistics(
    tensors: Sequence[Tensor],
) -> tuple[NDArray[np.floating[Any]], NDArray[np.float64] | None]:
    """Return the mean and, of several, the standard deviation of each element."""
    if len(tensors) == 1:
        return tensors[0].cpu().numpy(), None
    every = torch.stack([values.cpu().double() for values in tensors])
    return every.mean(0).numpy(), every.std(0).numpy()


def find_device(name: str) -> torch.device:
    """Return a device by name; ``auto`` is the GPU where there is one, each process its own.

    Raises
    ------
    ConfigError
        The name means nothing to torch, or the device is not there.
    """
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))  # torchrun's
        return torch.device("cuda", local_rank % torch.cuda.device_count())
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device = {name}: not usable here ({reason}).\n  Use device=auto or device=cpu.",
            key="device",
        ) from None
    return device
