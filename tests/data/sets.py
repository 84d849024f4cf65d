"""Small sets of structures in memory, for tests of the graph pipeline."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from deeph_lightning.core.basis import OrbitalBasis
from deeph_lightning.io.system import Header, SystemData
from tests.systems import BASIS, random_atoms, random_operator

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from deeph_lightning.core.operator import Operator


def random_system(
    seed: int, *, n_atom: int | None = None, is_spinful: bool = False, r_overlap: float = 4.0
) -> SystemData:
    """Make a structure of two species; H reaches further than S."""
    rng = np.random.default_rng(seed)
    atoms = random_atoms(rng, n_atom or int(rng.integers(2, 7)))
    atoms.info["name"] = f"toy_{seed}"
    H = random_operator(rng, atoms, r_cut=5.0, is_spinful=is_spinful)
    S = random_operator(rng, atoms, r_cut=r_overlap)
    symbols = atoms.get_chemical_symbols()
    return SystemData(
        name=atoms.info["name"],
        atoms=atoms,
        basis=BASIS,
        is_spinful=is_spinful,
        H=H,
        S=S.replace(unit="1"),
        fermi_energy=0.1 * seed,
        n_electrons=4.0 * symbols.count("C") + 3.0 * symbols.count("B"),
    )


class ToySource:
    """A set of `random_system`; every read is noted in a file, so that processes share it."""

    def __init__(
        self,
        n: int = 6,
        *,
        version: str = "1",
        delay_s: float = 0.0,
        journal: Path | None = None,
        is_spinful: bool = False,
    ) -> None:
        self.names = [f"toy_{seed}" for seed in range(n)]
        self.split: dict[str, list[str]] | None = None
        self.header = Header(BASIS, is_spinful)
        self.version, self.delay_s, self.journal = version, delay_s, journal

    def read(self, name: str, operators: Sequence[str] = ("H", "S")) -> SystemData:
        """Make the structure."""
        assert tuple(operators) == ("H", "S")
        time.sleep(self.delay_s)
        if self.journal is not None:
            with self.journal.open("a") as stream:
                stream.write(f"{name}\n")
        return random_system(int(name.split("_")[1]), is_spinful=self.header.is_spinful)

    def fingerprint(self) -> str:
        """Return the version."""
        return self.version


def same_blocks(first: Operator, second: Operator) -> bool:
    """Whether two operators agree bit for bit, on the pairs of either."""
    pairs = first.pairs.union(second.pairs)
    return bool(np.array_equal(first.on_pairs(pairs).values, second.on_pairs(pairs).values))


#: Labels that sort in between, so that species get other numbers.
LARGER_BASIS = OrbitalBasis({**BASIS.shells, "A": (0,), "Be": (0, 1)})
