"""Prove that training data are streamed: a store larger than the memory that may be used.

python scripts/prove_streaming.py                     1500 MB of graphs in 200 MB
python scripts/prove_streaming.py --store-MB 20000 --bound-MB 300 --workers 2

Random operators of graphene cells go through `prepare_store`. A new process then iterates over
one epoch of shuffled batches; it may not allocate more than the bound beyond what it had after
the imports (the system enforces it), and reports its peak. Exit status 1 if that fails.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase.build import graphene

from deeph_lightning.core.basis import OrbitalBasis
from deeph_lightning.core.operator import Operator
from deeph_lightning.core.pairs import PairTable, neighbour_pairs
from deeph_lightning.data.prepare import prepare_store
from deeph_lightning.data.store import GraphStore
from deeph_lightning.io.system import Header, SystemData

if TYPE_CHECKING:
    from collections.abc import Sequence

MB = 1e6
BASIS = OrbitalBasis({"C": (0, 0, 1, 1, 2)})


class RandomSource:
    """Graphene cells of 18 to 50 atoms with random H and S of range 7 Å."""

    def __init__(self, n: int) -> None:
        self.names = [f"random_{number:06d}" for number in range(n)]
        self.split: dict[str, list[str]] | None = None
        self.header = Header(BASIS, is_spinful=False)

    def read(self, name: str, operators: Sequence[str] = ("H", "S")) -> SystemData:
        """Make the structure."""
        rng = np.random.default_rng(int(name.split("_")[1]))
        atoms = graphene(a=2.466, size=(rng.integers(3, 6), rng.integers(3, 6), 1), vacuum=6.0)
        atoms.pbc = True
        atoms.rattle(0.05, rng=rng)
        atoms.info["name"] = name
        pairs = neighbour_pairs(atoms, 7.0)
        atom = np.arange(len(atoms))
        onsite = PairTable(np.zeros((len(atoms), 3)), atom, atom)
        pairs = pairs.select(pairs.is_canonical).union(onsite)
        n_orb = BASIS.n_orb("C")
        made = {}
        for key in operators:
            blocks = rng.normal(size=(len(pairs), n_orb, n_orb))
            blocks[pairs.is_onsite] += blocks[pairs.is_onsite].transpose(0, 2, 1)
            made[key] = Operator(atoms, BASIS, pairs, blocks.ravel(), is_half=True)
        return SystemData(name=name, atoms=atoms, basis=BASIS, **made)

    def fingerprint(self) -> str:
        """Return what the numbers depend on."""
        return f"random {len(self.names)}"


def main() -> int:
    """Build, measure in a new process, print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store-MB", type=float, default=1500, help="size of the store")
    parser.add_argument("--bound-MB", type=float, default=200, help="memory for the epoch")
    parser.add_argument("--max-pairs", type=int, default=3000, help="budget of a batch")
    parser.add_argument("--workers", type=int, default=0, help="processes that read")
    parser.add_argument("--folder", type=Path, help="where to put the store; kept if given")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options)))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        path = folder / "random.h5"
        n_structure = max(8, round(options.store_MB * MB / _mean_size()))
        start = time.perf_counter()
        prepare_store(RandomSource(n_structure), path, progress=sys.stderr.isatty())
        build_s = time.perf_counter() - start
        command = [sys.executable, __file__, *sys.argv[1:], "--measure", str(path)]
        result = json.loads(subprocess.run(command, check=True, stdout=-1, text=True).stdout)
    is_proven = (
        result["growth_MB"] <= options.bound_MB < result["store_MB"]
        and result["n_seen"] == n_structure
    )
    print(f"store                 {result['store_MB']:10.0f} MB, {n_structure} structures")
    print(f"built in              {build_s:10.1f} s")
    print(f"memory allowed        {options.bound_MB:10.0f} MB beyond imports (RLIMIT_DATA)")
    print(f"growth of peak memory {result['growth_MB']:10.0f} MB (resident)")
    print(f"epoch                 {result['epoch_s']:10.1f} s, {result['n_batch']} batches")
    print(f"read                  {result['n_seen'] / result['epoch_s']:10.1f} structures/s")
    print(f"streamed: {'yes' if is_proven else 'NO'}")
    return 0 if is_proven else 1


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Iterate over one epoch under the bound."""
    import torch

    from deeph_lightning.data.dataset import GraphDataset
    from deeph_lightning.data.loader import GraphLoader
    from deeph_lightning.data.sampler import EdgeBudgetSampler

    torch.set_num_threads(1)
    store = GraphStore(options.measure)
    dataset = GraphDataset(store, store.names, r_message=5.0)
    sampler = EdgeBudgetSampler(dataset.sizes, options.max_pairs, seed=1)
    loader = GraphLoader(dataset, sampler, num_workers=options.workers)
    before = _memory("VmRSS")
    limit = int(_memory("VmData") + options.bound_MB * MB)
    if not options.workers:  # a worker process needs its own imports
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    start, n_seen, n_batch, peak = time.perf_counter(), 0, 0, before
    for graph in loader:
        n_seen += graph.n_graph
        n_batch += 1
        peak = max(peak, _memory("VmRSS"))
    return {
        "store_MB": options.measure.stat().st_size / MB,
        "growth_MB": (max(peak, _memory("VmRSS")) - before) / MB,
        "epoch_s": time.perf_counter() - start,
        "n_seen": n_seen,
        "n_batch": n_batch,
    }


def _memory(key: str) -> float:
    """Return a line of this process's status, bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return 1024.0 * float(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {key}")


def _mean_size() -> float:
    """Return the mean size of a structure's labels, bytes: of an atom's, times 32 atoms."""
    system = RandomSource(1).read("random_000000")
    n_value = sum(op.values.size for _, op in system.operators())
    return 8.0 * n_value / len(system.atoms) * 32


if __name__ == "__main__":
    sys.exit(main())
