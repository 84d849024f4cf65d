"""What a prediction will take: time, memory and disk space, before it starts."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from deeph_lightning.errors import ResourceError

if TYPE_CHECKING:
    from deeph_lightning.data.graph import Graph
    from deeph_lightning.inference.predict import Predictor
    from deeph_lightning.inference.write import PartedStructure

#: Memory of program and libraries, bytes.
_PROGRAM = 6e8
#: Bytes a second at which blocks are sorted, completed and written.
_WRITING = 1.5e8
#: Bytes of a pair in tables of indices, both directions, sorting included.
_PAIR = 600


class Estimate(NamedTuple):
    """Size and expected cost of one structure: s, bytes."""

    n_atom: int
    n_pair: int
    seconds: float
    memory: float
    disk: float

    def __str__(self) -> str:
        """Write with units; pairs are counted once a couple."""
        return (
            f"{self.n_atom} atoms, {self.n_pair} pairs: about {self.seconds:.0f} s, "
            f"{self.memory / 1e9:.1f} GB of memory, {self.disk / 1e9:.2f} GB on disk"
        )


def disk_bytes(graph: Graph, n_operator: int) -> float:
    """Size of the files of a prediction: both halves of every couple, float64."""
    hopping, onsite = int(graph.hopping_offsets[-1]), int(graph.onsite_offsets[-1])
    return n_operator * (8.0 * (2 * hopping + onsite) + 64.0 * (2 * graph.n_target))


def estimate(structure: PartedStructure) -> Estimate:
    """Time one chunk of pairs of the first part of a structure and extrapolate."""
    predictor, whole = structure.predictor, structure.graph
    graph = structure.part(0).graph
    size = min(predictor.chunk or graph.n_pair, graph.n_pair)
    nodes, both = (_seconds(predictor, graph.part(0, n), structure.names) for n in (0, size))
    share = graph.n_pair / max(size, 1)
    seconds = structure.n_part * (nodes + max(both - nodes, 0.0) * share)
    n_operator = 1 if structure.overlaps.kind == "none" else 2
    disk = disk_bytes(whole, n_operator)
    features = predictor.network.bytes_per_edge * len(graph.edge_pair)
    whole_S = structure.overlaps.kind in ("file", "orbitals")  # in memory at once, and its half
    return Estimate(
        n_atom=whole.n_atom,
        n_pair=whole.n_pair,
        seconds=seconds + disk / _WRITING,
        memory=(
            _PROGRAM
            + len(predictor.networks) * features
            + _PAIR * whole.n_pair
            + whole_S * 1.5 * disk / n_operator
        ),
        disk=disk,
    )


def check_disk(folder: Path, needed: float) -> None:
    """Check that there is room for the files.

    Raises
    ------
    ResourceError
        There is not.
    """
    place = folder.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        raise ResourceError(
            f"output={folder}: the predictions need {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB "
            "are free.\n  Choose a folder on another disk: output=DIR",
        )


def _seconds(predictor: Predictor, part: Graph, names: Sequence[str]) -> float:
    """Time a part of a graph, after a first pass that sets up what is kept."""
    start = 0.0
    for _ in range(2):
        start = time.perf_counter()
        for name in names:
            for _ in predictor.stream(part, name):
                pass
    return time.perf_counter() - start
