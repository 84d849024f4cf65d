"""What readers of codes share: facts of a calculation, its eigenvalues, species, files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from deeph_lightning.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


class Eigenvalues(NamedTuple):
    """Eigenvalues that a code wrote beside its matrices.

    Attributes
    ----------
    k
        ``(n_k, 3)``, fractional.
    energies
        ``(n_channel, n_k, n_band)``, eV, the lowest ones: two channels of a collinear
        calculation, up and down, else one.
    """

    k: NDArray[np.float64]
    energies: NDArray[np.float64]


def facts(
    *,
    code: str,
    code_version: str | None = None,
    functional: str | None = None,
    spin: str | None = None,
    is_converged: bool | None = None,
) -> dict[str, Any]:
    """Return what `SystemData.info` says of a calculation, without what is not known.

    Parameters
    ----------
    code, code_version, functional
        In the words of the code.
    spin
        "none", "collinear" (nothing couples up and down) or "spinor".
    is_converged
        Whether the density is self-consistent.
    """
    known = {
        "code": code,
        "code_version": code_version,
        "functional": functional,
        "spin": spin,
        "is_converged": is_converged,
    }
    return {key: value for key, value in known.items() if value is not None}


def label_species(symbols: Sequence[str], code_labels: Sequence[str]) -> list[str]:
    """Return the species label of each atom: its element, or the code's label.

    Where a code distinguishes species of one element (other orbitals, another
    pseudopotential, a sublattice), its labels are kept; else labels are elements.

    Parameters
    ----------
    symbols
        ``(A,)``, element of each atom.
    code_labels
        ``(A,)``, what the code calls its species.
    """
    kinds: dict[str, set[str]] = {}
    for symbol, label in zip(symbols, code_labels, strict=True):
        kinds.setdefault(symbol, set()).add(label)
    return [
        symbol if len(kinds[symbol]) == 1 else label
        for symbol, label in zip(symbols, code_labels, strict=True)
    ]


def single_file(folder: Path, patterns: Sequence[str], structure: str) -> Path | None:
    """Return the one file of a folder that matches, or None.

    Raises
    ------
    FormatError
        Several files match.
    """
    found = sorted({path for p in patterns for path in folder.glob(p) if path.is_file()})
    if len(found) > 1:
        msg = (
            f"{folder}: structure '{structure}', found {', '.join(p.name for p in found[:4])}; "
            f"expected one of them. Keep one calculation in a folder."
        )
        raise FormatError(msg, path=folder, structure=structure)
    return found[0] if found else None
