"""What the benchmarks share: their data, their clock, their tables and files.

A benchmark prints its tables and writes one JSON file: its numbers by name, the environment,
and the tables, from which `make_benchmark_tables.py` writes ``docs/benchmarks.md``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table as RichTable

from deeph_lightning.config.paths import CONF_DIR, shipped
from deeph_lightning.config.targets import build
from deeph_lightning.data.datamodule import HamiltonianDataModule
from deeph_lightning.data.graph import Graph, collate
from deeph_lightning.models.base import HamiltonianModel
from deeph_lightning.training.environment import (
    environment_record,
    keep_freed_memory,
    write_json,
)

WARMUP = 1
#: Columns of output that is no terminal: tables take their natural width.
WIDTH = 1000


@dataclass
class Table:
    """A table of text, printed and written."""

    title: str
    header: list[str]
    rows: list[list[str]] = field(default_factory=list)
    note: str = ""


def report(tables: list[Table], json: Path | None, **numbers: Any) -> None:
    """Print the tables; write them with the numbers and the environment."""
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    for table in tables:
        shown = RichTable(*table.header, title=table.title, caption=table.note or None)
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)
    if json is not None:
        json.parent.mkdir(parents=True, exist_ok=True)
        write_json(
            json, numbers | environment_record() | {"tables": [asdict(t) for t in tables]}
        )
        console.print(f"wrote {json}")


def in_turns(
    calls: Mapping[str, Callable[[], object]], repeat: int, device: torch.device
) -> dict[str, list[float]]:
    """Time every call `repeat` times, one after the other, after warm-up; s.

    What else the machine does strikes all of them. A call that is not timed comes before each
    that is, so that caches and memory are those of a process that does nothing else.
    """

    def once(call: Callable[[], object]) -> float:
        call()
        return seconds(call, device)

    return take_turns({name: partial(once, call) for name, call in calls.items()}, repeat)


def take_turns(
    clocks: Mapping[str, Callable[[], float]], repeat: int
) -> dict[str, list[float]]:
    """Read clocks `repeat` times, one after the other, after warm-up; s."""
    times: dict[str, list[float]] = {name: [] for name in clocks}
    for n in range(WARMUP + repeat):
        for name, clock in clocks.items():
            span = clock()
            if n >= WARMUP:
                times[name].append(span)
    return times


def seconds(step: Callable[[], object], device: torch.device) -> float:
    """Time one call, s; waits for the device before and after."""
    _wait(device)
    start = time.perf_counter()
    step()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def shipped_batch(option: str, n_structure: int) -> tuple[HamiltonianModel, list[Graph]]:
    """Build a network of ``conf/model`` and prepare shipped training structures for it."""
    node = OmegaConf.to_container(OmegaConf.load(CONF_DIR / "model" / f"{option}.yaml"))
    assert isinstance(node, dict)
    data = HamiltonianDataModule(shipped("data/graphene/graphene.h5"), node["r_message"])
    data.prepare_data()
    data.setup("fit")
    torch.manual_seed(0)
    model = build(
        node | {"basis": data.basis.to_dict(), "r_target": data.r_target}, key="model"
    )
    graphs = [data.dataset("train")[n] for n in range(n_structure)]
    model.fit_statistics(lambda: iter(graphs))
    return model, [model.prepare(graph) for graph in graphs]


def training_step(
    model: HamiltonianModel, graphs: list[Graph], device: torch.device, *, is_mixed: bool
) -> Callable[[], object]:
    """Return a call that does forward, mean absolute error, backward and AdamW once.

    AdamW, as the peers have it, is fused into one kernel for every network.
    """
    keep_freed_memory()  # as the training command does
    model.to(device)
    graph = collate(graphs).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=is_mixed):
            found = model(graph)
        loss = sum((found[k].float() - getattr(graph, k)).abs().mean() for k in found)
        loss.backward()
        optimizer.step()

    return step
