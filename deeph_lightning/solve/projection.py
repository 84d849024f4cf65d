"""What states are made of: Mulliken weights by element, shell or atom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from deeph_lightning.core.basis import species_labels
from deeph_lightning.core.conventions import SHELL_LETTERS
from deeph_lightning.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deeph_lightning.core.operator import Operator

#: Ways to group orbitals.
GROUPINGS = ("element", "orbital", "atom", "magnetic")
#: Name of a group of "magnetic".
MAGNETIC = "{label} {atom} l{l} m{m}"


def orbital_groups(H: Operator, by: str) -> tuple[list[str], NDArray[np.int64]]:
    """Return the names of groups of orbitals and the group of each row of H(k).

    Parameters
    ----------
    H
        Operator whose orbitals are meant.
    by
        "element" ("C"), "orbital" ("C p"), "atom" ("C 0", atoms from 0), or "magnetic"
        ("C 0 l1 m-1": shells of one degree together).

    Returns
    -------
    names, group
        List of g names, and ``(n_orb,)`` in 0..g-1; both spins of an orbital are in one group.

    Raises
    ------
    ConfigError
        There is no such way to group.
    """
    if by not in GROUPINGS:
        raise ConfigError(
            f"project = {by}: expected one of {', '.join(GROUPINGS)}", key="project"
        )
    names: dict[str, int] = {}
    rows: list[int] = []
    for n, label in enumerate(map(str, species_labels(H.atoms))):
        for l, m in zip(H.basis.orbital_l(label), H.basis.orbital_m(label), strict=True):
            name = {
                "element": label,
                "orbital": f"{label} {SHELL_LETTERS[l]}",
                "atom": f"{label} {n}",
                "magnetic": MAGNETIC.format(label=label, atom=n, l=l, m=m),
            }[by]
            rows.append(names.setdefault(name, len(names)))
    return list(names), np.tile(np.array(rows, dtype=np.int64), H.n_spin)


def mulliken_weights(
    C: NDArray[Any], SC: NDArray[Any], group: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the Mulliken weight of every group in every state.

    Parameters
    ----------
    C, SC
        ``(n_orb, n_band)``, coefficients and S(k) times them.
    group
        ``(n_orb,)``, see `orbital_groups`.

    Returns
    -------
    ``(n_group, n_band)``: ``sum_mu Re[C*_mu (SC)_mu]``; sums to one over all groups. Small
    negative values are possible.

    Notes
    -----
    Source: R. S. Mulliken, J. Chem. Phys. 23, 1833 (1955).
    """
    each = (C.conj() * SC).real
    weights = np.zeros((int(group.max()) + 1, C.shape[1]))
    np.add.at(weights, group, each)
    return weights
