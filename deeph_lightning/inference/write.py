"""Predict a structure part by part, in one process or several, into a DeepH folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray

from deeph_lightning.core.basis import species_labels
from deeph_lightning.core.operator import Operator
from deeph_lightning.core.pairs import PairTable
from deeph_lightning.core.ragged import block_offsets
from deeph_lightning.data.graph import Graph
from deeph_lightning.inference.overlaps import Overlaps
from deeph_lightning.inference.parts import Part, cut_out, divide_atoms
from deeph_lightning.inference.predict import Predictor
from deeph_lightning.inference.ranks import Ranks
from deeph_lightning.inference.spread import Spread
from deeph_lightning.io import deeph
from deeph_lightning.io.block_file import BlockFile
from deeph_lightning.io.system import UNITS, SystemData

#: Flat blocks of a part, and the spread of each of its blocks.
Arrays = Mapping[str, NDArray[np.floating[Any]]]


class PartedStructure:
    """A structure whose blocks are predicted part by part.

    Parameters
    ----------
    predictor
        The network, or several.
    atoms
        Structure.
    overlaps
        Where S comes from.
    n_part
        Spatial parts; more take less memory, and time for their halos.
    """

    def __init__(
        self, predictor: Predictor, atoms: Atoms, overlaps: Overlaps, n_part: int
    ) -> None:
        self.predictor, self.atoms, self.overlaps = predictor, atoms, overlaps
        self.graph: Graph = predictor.graph(atoms)
        self.n_part = min(n_part, len(atoms))
        self.owner = torch.from_numpy(divide_atoms(atoms, self.n_part))

    def part(self, n: int, *, halo: bool = True) -> Part:
        """Return a part, without its halo where only its pairs are asked for."""
        network = self.predictor.network
        if self.n_part == 1:
            everything = torch.arange(self.graph.n_atom)
            return Part(self.graph, everything, torch.ones_like(everything, dtype=torch.bool))
        r_near = max(network.r_message, network.baseline.r_onsite)
        n_hops = network.n_hops
        return cut_out(
            self.graph, self.owner == n, n_hops if halo else 0, r_near if halo else 0.0
        )

    def predict(self, n: int) -> dict[str, Any]:
        """Return the blocks of a part: those of its own atoms and target pairs, flat."""
        part = self.part(n)
        graph = part.graph.to(self.predictor.device)
        is_own = part.is_own.numpy()
        sizes = np.diff(part.graph.onsite_offsets.numpy())
        names = ("H", "S") if self.overlaps.kind == "learned" else ("H",)
        found: dict[str, Any] = {}
        for name in names:
            with torch.inference_mode():
                blocks = self.predictor.blocks(graph, name)
            arrays = {key: value.cpu().numpy() for key, value in blocks.items()}
            onsite = arrays[f"{name}_onsite"][np.repeat(is_own, sizes)]
            found[name] = np.concatenate((onsite, arrays[f"{name}_hopping"]))
            if name == "H" and "spread_onsite" in arrays:
                onsite = arrays["spread_onsite"][is_own]
                found["spread"] = np.concatenate((onsite, arrays["spread_hopping"]))
        return found

    def rows(self, n: int) -> tuple[NDArray[np.int64], ...]:
        """Return R, i, j of the blocks of a part, in the order of `predict`."""
        part = self.part(n, halo=False)
        return _rows(part.graph, part.atoms, part.atoms[part.is_own])

    def pairs(self) -> PairTable:
        """Return all pairs of H, one of every couple, and the onsite ones."""
        everything = torch.arange(self.graph.n_atom)
        return PairTable.from_arrays(*_rows(self.graph, everything, everything))[0]

    def write(self, folder: Path, info: Mapping[str, Any], ranks: Ranks) -> Spread | None:
        """Predict all parts and write the folder; every process must call it.

        Each process predicts every ``ranks.size``-th part. All but the first leave theirs in
        files, from which the first takes them one by one.

        Parameters
        ----------
        folder
            DeepH folder to write.
        info
            The mark of the prediction, for ``info.json``.
        ranks
            The processes that share the structure.

        Returns
        -------
        Spread of an ensemble, in the first process; else None.
        """
        exchange = folder.with_name(f".{folder.name}.parts")
        if ranks.is_first:
            shutil.rmtree(exchange, ignore_errors=True)  # of a run that was killed
        ranks.wait()
        if not ranks.is_first:
            exchange.mkdir(parents=True, exist_ok=True)
            for n in range(ranks.rank, self.n_part, ranks.size):
                np.savez(exchange / f"{n}.npz", **self.predict(n))
            ranks.wait()
            return None
        try:
            return self._write(folder, info, exchange, ranks)
        finally:
            shutil.rmtree(exchange, ignore_errors=True)

    def _write(
        self, folder: Path, info: Mapping[str, Any], exchange: Path, ranks: Ranks
    ) -> Spread | None:
        basis, atoms = self.predictor.basis, self.atoms
        system = SystemData(
            name=str(atoms.info["name"]),
            atoms=atoms,
            basis=basis,
            n_electrons=self.predictor.n_electrons(atoms),
        )
        names = ["H"] if self.overlaps.kind == "none" else ["H", "S"]
        pairs = self.pairs()
        spread = self._empty_spread(pairs)
        with (
            deeph.structure_folder(system, folder, names) as partial,
            ExitStack() as stack,
        ):
            files = {
                name: stack.enter_context(
                    BlockFile(partial / deeph.FILES[name][0], atoms, basis, pairs)
                )
                for name in (["H", "S"] if self.overlaps.kind == "learned" else ["H"])
            }
            for n, arrays in self._arrays(exchange, ranks):
                R, i, j = self.rows(n)
                for name, file in files.items():
                    file.add(
                        Operator.from_flat(
                            atoms, basis, R, i, j, arrays[name], unit=UNITS[name], is_half=True
                        )
                    )
                if spread is not None:
                    table, order = PairTable.from_arrays(R, i, j)
                    spread.block[pairs.locate(table)] = arrays["spread"][order]
            self._write_other_overlap(partial)
            mark = dict(info)
            if spread is not None:
                spread.write(partial)
                mark["spread"] = spread.summary()
            system.info = {"prediction": mark}
        return spread

    def _arrays(self, exchange: Path, ranks: Ranks) -> Iterator[tuple[int, Arrays]]:
        """Yield the parts of this process, then those that the others have left."""
        for n in range(0, self.n_part, ranks.size):
            yield n, self.predict(n)
        ranks.wait()
        for n in range(self.n_part):
            if n % ranks.size:
                with np.load(exchange / f"{n}.npz", allow_pickle=False) as arrays:
                    yield n, arrays
                (exchange / f"{n}.npz").unlink()

    def _write_other_overlap(self, partial: Path) -> None:
        """Write overlaps that do not come from the network."""
        path, basis = partial / deeph.FILES["S"][0], self.predictor.basis
        if self.overlaps.kind == "file":
            S = self.overlaps.read(self.atoms, self.predictor).half()
            with BlockFile(path, self.atoms, basis, S.pairs) as file:
                file.add(S)
        elif self.overlaps.integrals is not None:
            integrals = self.overlaps.integrals
            pairs, owner = integrals.pairs(self.atoms), self.owner.numpy()
            with BlockFile(path, self.atoms, basis, pairs) as file:
                for n in range(self.n_part):
                    own = pairs.select(owner[pairs.i] == n)
                    file.add(integrals.operator(self.atoms, own))

    def _empty_spread(self, pairs: PairTable) -> Spread | None:
        n_network = len(self.predictor.networks)
        if n_network == 1:
            return None
        counts = self.predictor.basis.orbital_counts(species_labels(self.atoms))
        shapes = np.column_stack((counts[pairs.i], counts[pairs.j]))
        return Spread(pairs, np.diff(block_offsets(shapes)), n_network)


def _rows(
    graph: Graph, atoms: torch.Tensor, own: torch.Tensor
) -> tuple[NDArray[np.int64], ...]:
    """Return R, i, j of onsite pairs of `own`, then of target pairs; `atoms` numbers those."""
    n = graph.n_target
    R = torch.cat([graph.pair_R.new_zeros(len(own), 3), graph.pair_R[:n]])
    i, j = (torch.cat([own, atoms[ends[:n]]]) for ends in (graph.pair_i, graph.pair_j))
    return R.numpy(), i.numpy(), j.numpy()
