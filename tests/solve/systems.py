"""Crystals with a well-conditioned overlap, metallic or gapped, of every kind of spin."""

from __future__ import annotations

import numpy as np

from deeph_lightning.core.operator import Operator
from deeph_lightning.io.system import SystemData
from tests.systems import BASIS, random_atoms, random_operator, slater_koster


def toy(
    rng: np.random.Generator, *, spin: str = "none", n_atom: int = 2, gap: float = 0.0
) -> SystemData:
    """Make a crystal of species B and C.

    Parameters
    ----------
    spin
        "none", "collinear" (spinful, blocks between the spins zero) or "spinful".
    gap
        Onsite distance of the two species, eV: opens a gap.
    """
    atoms = random_atoms(rng, n_atom)
    is_spinful = spin != "none"
    H = slater_koster(atoms, is_spinful=is_spinful)
    S = random_operator(rng, atoms)
    values = 0.02 * S.values
    S = S.replace(values=values, unit="1")
    for n in np.flatnonzero(S.pairs.is_onsite):
        S.block(n)[:] += np.eye(len(S.block(n)))
        sign = 1.0 if atoms[int(S.pairs.i[n])].symbol == "C" else -1.0
        m = int(H.pairs.locate(S.pairs)[n])
        H.block(m)[:] += 0.5 * sign * gap * np.eye(len(H.block(m)))
    if spin == "collinear":
        split = {}
        for _, _, index, blocks in H.iterate_blocks():
            n, m = blocks.shape[1] // 2, blocks.shape[2] // 2
            for at, block in zip(index.tolist(), blocks.real.copy(), strict=True):
                block[:n, m:] = block[n:, :m] = 0
                block[n:, m:] *= 0.9
                split[at] = block
        flat = np.concatenate([split[n].ravel() for n in range(len(H.pairs))])
        H = Operator(H.atoms, H.basis, H.pairs, flat, is_spinful=True)
    return SystemData(
        name="toy", atoms=atoms, basis=BASIS, is_spinful=is_spinful, H=H, S=S,
        n_electrons=8.0 if spin == "none" else 9.0,
    )  # fmt: skip
