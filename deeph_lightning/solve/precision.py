"""Factorisations that fit into memory: in double precision, or else in single precision."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from deeph_lightning.errors import ConfigError
from deeph_lightning.solve.factorisation import Factorisation, Refined, factorisation, library
from deeph_lightning.solve.memory import GB, available_memory, check_memory

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from deeph_lightning.solve.pencil import Hermitian

log = logging.getLogger(__name__)

#: Vectors as long as the matrix that iterations keep beside the factors.
N_VECTORS = 400


def ordered(
    A: Hermitian,
    row_block: NDArray[np.int64],
    what: str,
    remedy: str,
    *,
    name: str = "auto",
    precision: str = "auto",
    limit: float | None = None,
    counts: bool = False,
    is_overlap: bool = False,
) -> Factorisation:
    """Order a matrix for a factorisation that fits into memory.

    Parameters
    ----------
    A
        A matrix of the pattern.
    row_block
        ``(n,)``, atom of each row.
    what, remedy
        For the messages.
    name
        See `factorisation.library`.
    precision
        Of the factors: "double", "single" (PARDISO only), or "auto" for double where it fits.
    limit
        Bytes that may be used; without it what is available.
    counts
        `Factorisation.n_negative` will be asked for.
    is_overlap
        The matrix is positive definite, and solutions with factors in single precision stay as
        they are: they are those of a matrix that differs by rounding.

    Raises
    ------
    ConfigError
        The library has no single precision.
    ResourceError
        More memory is needed than there is.
    """
    name = library(name)
    if precision == "single" and name != "pardiso":
        msg = (
            f"factor_precision=single: {name} factorises in double precision. Take "
            f"factorisation=pardiso, or factor_precision=auto"
        )
        raise ConfigError(msg)
    there = available_memory() if limit is None else limit
    kinds = ["double", "single"] if precision == "auto" else [precision]
    if name != "pardiso":
        kinds = ["double"]

    def analysed(kind: str) -> tuple[Factorisation, float]:
        factors = factorisation(
            name, is_complex=A.is_complex, counts=counts, is_single=kind == "single",
            is_definite=is_overlap,
        )  # fmt: skip
        # beside the factors: vectors, and the next matrix while the factors hold the last one
        needed = factors.analyse(A, row_block) + A.upper.data.nbytes
        return factors, needed + N_VECTORS * A.shape[0] * A.dtype.itemsize

    kind = kinds.pop(0)
    found, needed = analysed(kind)
    if needed > there and kinds:
        kind = kinds.pop()
        del found  # its memory counts
        found, needed = analysed(kind)
    check_memory(needed, f"{what} with {name} in {kind} precision", remedy, there)
    log.info("%s: factors in %s precision, %.3g GB", what, kind, needed / GB)
    return Refined(found) if kind == "single" and not is_overlap else found
