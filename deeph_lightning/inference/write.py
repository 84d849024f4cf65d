"""Predict a structure part by part, in one process or several, into a DeepH folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray

from deeph_lightning.core.basis import species_labels
from deeph_lightning.core.pairs import PairTable
from deeph_lightning.core.ragged import block_offsets
from deeph_lightning.data.graph import Graph
from deeph_lightning.inference.overlaps import Overlaps
from deeph_lightning.inference.parts import Part, cut_out, divide_atoms
from deeph_lightning.inference.predict import Piece, Predictor
from deeph_lightning.inference.ranks import Ranks
from deeph_lightning.inference.spread import Spread
from deeph_lightning.io import deeph
from deeph_lightning.io.block_file import BlockFile
from deeph_lightning.io.system import SystemData


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
        self.names = ("H", "S") if overlaps.kind == "learned" else ("H",)

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

    def pieces(self, n: int) -> Iterator[Piece]:
        """Predict the rows of a part (see `rows`), some at a time."""
        part = self.part(n)
        is_own = part.is_own.numpy()
        wanted = np.repeat(is_own, np.diff(part.graph.onsite_offsets.numpy()))
        n_halo = len(is_own) - int(is_own.sum())
        for name in self.names:
            for piece in self.predictor.stream(part.graph, name):
                if piece.start > 0:  # pairs
                    yield piece._replace(start=piece.start - n_halo, stop=piece.stop - n_halo)
                else:
                    spread = piece.spread[is_own] if len(piece.spread) else piece.spread
                    values, stop = piece.values[wanted], piece.stop - n_halo
                    yield piece._replace(stop=stop, values=values, spread=spread)

    def rows(self, n: int) -> tuple[NDArray[np.int64], ...]:
        """Return R, i, j of the rows of a part: own atoms, then target pairs."""
        part = self.part(n, halo=False)
        return _rows(part.graph, part.atoms, part.atoms[part.is_own])

    def pairs(self) -> PairTable:
        """Return all pairs of H, one of every couple, and the onsite ones."""
        everything = torch.arange(self.graph.n_atom)
        return PairTable.from_arrays(*_rows(self.graph, everything, everything))[0]

    def write(
        self,
        folder: Path,
        info: Mapping[str, Any],
        ranks: Ranks,
        advance: Callable[[float], object] | None = None,
    ) -> Spread | None:
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
        advance
            Told which share of the blocks has been written since the last call.

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
                for k, piece in enumerate(self.pieces(n)):
                    np.savez(exchange / f"{n}_{k}.npz", **piece._asdict())
            ranks.wait()
            return None
        try:
            return self._write(folder, info, exchange, ranks, advance)
        finally:
            shutil.rmtree(exchange, ignore_errors=True)

    def _write(
        self,
        folder: Path,
        info: Mapping[str, Any],
        exchange: Path,
        ranks: Ranks,
        advance: Callable[[float], object] | None,
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
                for name in self.names
            }
            for n, pieces in self._parts(exchange, ranks):
                rows = self.rows(n)
                place = files["H"].pairs.locate_rows(*rows)
                if spread is not None:
                    row = pairs.locate_rows(*rows)
                for name, start, stop, values, deviation in pieces:
                    files[name].put(place[start:stop], values)
                    if spread is not None and len(deviation):
                        spread.block[row[start:stop]] = deviation
                    if advance is not None:
                        advance((stop - start) / (len(self.names) * len(pairs)))
            self._write_other_overlap(partial)
            mark = dict(info)
            if spread is not None:
                spread.write(partial)
                mark["spread"] = spread.summary()
            system.info = {"prediction": mark}
        return spread

    def _parts(self, exchange: Path, ranks: Ranks) -> Iterator[tuple[int, Iterator[Piece]]]:
        """Yield the parts of this process, then those that the others have left."""
        for n in range(0, self.n_part, ranks.size):
            yield n, self.pieces(n)
        ranks.wait()
        for n in range(self.n_part):
            if n % ranks.size:
                yield n, _left(exchange, n)

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


def _left(exchange: Path, n: int) -> Iterator[Piece]:
    """Yield the pieces of a part that another process has left, and remove them."""
    for path in sorted(exchange.glob(f"{n}_*.npz")):
        with np.load(path, allow_pickle=False) as arrays:
            name, start, stop, values, spread = (arrays[key] for key in Piece._fields)
        path.unlink()
        yield Piece(str(name), int(start), int(stop), values, spread)
