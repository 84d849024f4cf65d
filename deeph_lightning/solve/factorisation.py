r"""Factorisations of sparse Hermitian matrices: solving, and counting negative eigenvalues.

By Sylvester's law of inertia, ``A = L D L^dagger`` has as many negative eigenvalues as D.
What the libraries give:

pardiso (MKL, by pypardiso)
    Bunch-Kaufman ``L D L^T`` of real symmetric matrices with the inertia. Complex Hermitian
    ones are solved as they are, but counted as the real symmetric matrix of twice the size:
    PARDISO tells the inertia of a complex matrix for diagonal pivots only, which at energies
    inside the spectrum are not accurate.
mumps (by python-mumps)
    Bunch-Kaufman of real symmetric matrices, complex ones always as real ones of twice the
    size.
superlu (scipy, always there)
    ``L U`` with diagonal pivots in a symmetric ordering, so that ``U = D L^dagger`` and the
    signs on the diagonal of U are those of D.

Orderings are found once for a pattern, on the graph of atoms where the library takes one: as
good as on the graph of orbitals, and a hundred times faster. Diagonal pivots show a bad shift
as a large residual.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from deeph_lightning.errors import MissingDependencyError, PhysicsError
from deeph_lightning.solve.pardiso import Pardiso

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deeph_lightning.solve.pencil import Hermitian

#: Relative residual of a solve above which a factorisation is not to be trusted.
MAX_RESIDUAL = 1e-7
#: Relative residual to which solutions with factors in single precision are refined.
REFINED_RESIDUAL = 1e-10
#: Refinement that reduces the residual by less than this has failed.
MAX_REFINEMENT_RATIO = 0.5


class Factorisation(Protocol):
    """A factorisation of matrices of one sparsity pattern."""

    def analyse(self, A: Hermitian, row_block: NDArray[np.int64]) -> float:
        """Order a matrix whose rows fall into blocks; return bytes needed to factorise it."""

    def factorise(self, A: Hermitian) -> None:
        """Factorise a matrix of the pattern that was analysed."""

    def solve(self, b: NDArray[Any]) -> NDArray[Any]:
        """Solve with the last matrix, ``(n,)`` or ``(n, m)``."""

    def n_negative(self) -> int:
        """Return the number of negative eigenvalues of the last matrix."""

    def n_entries(self) -> float:
        """Return the number of elements of the last factor."""


class Mumps:
    """MUMPS, for real symmetric matrices."""

    def __init__(self) -> None:
        import mumps

        self._context = mumps.Context()

    def analyse(self, A: Hermitian, row_block: NDArray[np.int64]) -> float:  # noqa: ARG002
        """See `Factorisation`."""
        self._context.set_matrix(A.upper, symmetric=True)
        self._context.mumps_instance.icntl[13] = 1  # count the pivots of the root, too
        self._context.analyze()
        return float(self._context.analysis_stats.est_mem_incore) * 1e6

    def factorise(self, A: Hermitian) -> None:
        """See `Factorisation`."""
        self._context.set_matrix(A.upper, symmetric=True)
        self._context.factor(reuse_analysis=True)

    def solve(self, b: NDArray[Any]) -> NDArray[Any]:
        """See `Factorisation`."""
        return np.asarray(self._context.solve(np.asfortranarray(b)))

    def n_negative(self) -> int:
        """See `Factorisation`."""
        return int(self._context.mumps_instance.infog[12])

    def n_entries(self) -> float:
        """See `Factorisation`."""
        count = int(self._context.mumps_instance.infog[29])
        return count if count >= 0 else -1e6 * count  # in millions where it is large


class SuperLU:
    """SuperLU with diagonal pivots, for real symmetric or complex Hermitian matrices."""

    def __init__(self) -> None:
        self._order: Any = None
        self._lu: Any = None
        self._dtype: Any = None

    def analyse(self, A: Hermitian, row_block: NDArray[np.int64]) -> float:
        """See `Factorisation`."""
        graph = A.block_graph(row_block)
        graph = sparse.csc_array(graph + sparse.triu(graph, 1).T)
        lu = splu(graph, "MMD_AT_PLUS_A", 0.0, options={"SymmetricMode": True})
        place = lu.perm_c[row_block]
        self._order = np.argsort(place, kind="stable")
        size = np.bincount(place).astype(float)
        below = lu.L.tocoo()
        fill = float(size[below.row] @ size[below.col])
        # both factors, their indices, and the copies that give the diagonal of U
        return 2 * fill * (A.dtype.itemsize + 4) * 2

    def factorise(self, A: Hermitian) -> None:
        """See `Factorisation`."""
        self._dtype = A.dtype
        ordered = A.full()[self._order][:, self._order].tocsc()
        self._lu = splu(ordered, "NATURAL", 0.0, options={"SymmetricMode": True})

    def solve(self, b: NDArray[Any]) -> NDArray[Any]:
        """See `Factorisation`."""
        x = np.empty(b.shape, dtype=np.result_type(b, self._dtype))
        x[self._order] = self._lu.solve(b[self._order].astype(x.dtype))
        return x

    def n_negative(self) -> int:
        """See `Factorisation`."""
        if not np.array_equal(self._lu.perm_r, self._lu.perm_c):
            raise PhysicsError("a pivot on the diagonal vanished")
        return int((self._lu.U.diagonal().real < 0).sum())

    def n_entries(self) -> float:
        """See `Factorisation`."""
        return float(self._lu.nnz)


class Doubled:
    """A complex Hermitian matrix A + iB as the real symmetric [[A, -B], [B, A]].

    Parameters
    ----------
    real
        Factorises real matrices. Every eigenvalue comes twice.
    """

    def __init__(self, real: Factorisation) -> None:
        self._real = real

    def analyse(self, A: Hermitian, row_block: NDArray[np.int64]) -> float:
        """See `Factorisation`."""
        return self._real.analyse(_doubled(A), np.repeat(row_block, 2))

    def factorise(self, A: Hermitian) -> None:
        """See `Factorisation`."""
        self._real.factorise(_doubled(A))

    def solve(self, b: NDArray[Any]) -> NDArray[Any]:
        """See `Factorisation`."""
        pairs = np.stack((b.real, b.imag), axis=1).reshape(2 * len(b), *b.shape[1:])
        x = self._real.solve(pairs)
        return np.asarray(x[::2] + 1j * x[1::2])

    def n_negative(self) -> int:
        """See `Factorisation`."""
        return self._real.n_negative() // 2

    def n_entries(self) -> float:
        """See `Factorisation`."""
        return self._real.n_entries()


class Refined:
    """Factors in single precision, solutions in double precision by iterative refinement.

    Refinement shrinks every residual just where the spectral radius of ``1 - M^-1 A`` is below
    one, M the matrix that the factors multiply to. Then no matrix between A and M is singular,
    so that the signs of the factors count the eigenvalues of A itself.

    Parameters
    ----------
    single
        Factorises and solves in single precision.

    Notes
    -----
    Source: N. J. Higham, Accuracy and Stability of Numerical Algorithms (2002), chapter 12.
    """

    def __init__(self, single: Factorisation) -> None:
        self._single = single
        self._A: Hermitian | None = None

    def analyse(self, A: Hermitian, row_block: NDArray[np.int64]) -> float:
        """See `Factorisation`."""
        return self._single.analyse(A, row_block)

    def factorise(self, A: Hermitian) -> None:
        """See `Factorisation`."""
        self._A = A
        self._single.factorise(A)

    def solve(self, b: NDArray[Any]) -> NDArray[Any]:
        """Solve to a relative residual of `REFINED_RESIDUAL`.

        Raises
        ------
        PhysicsError
            Refinement does not converge: the matrix is too badly conditioned.
        """
        assert self._A is not None
        size = np.linalg.norm(b, axis=0)
        size = np.where(size == 0, 1.0, size)
        x = np.zeros(b.shape, dtype=np.result_type(b, self._A.dtype))
        rest, error = b, np.inf
        while error > REFINED_RESIDUAL:
            # scaled: small residuals leave the range of single precision
            scale = np.linalg.norm(rest, axis=0)
            scale = np.where(scale == 0, 1.0, scale)
            x += scale * self._single.solve(rest / scale)
            rest = b - self._A @ x
            before, error = error, float((np.linalg.norm(rest, axis=0) / size).max(initial=0.0))
            if not error < MAX_REFINEMENT_RATIO * before:
                msg = (
                    f"factors in single precision leave a relative residual of {error:.1e} "
                    f"that refinement does not reduce. Take factor_precision=double"
                )
                raise PhysicsError(msg)
        return x

    def n_negative(self) -> int:
        """See `Factorisation`; of the matrix itself where `solve` converges."""
        return self._single.n_negative()

    def n_entries(self) -> float:
        """See `Factorisation`."""
        return self._single.n_entries()


def _doubled(A: Hermitian) -> Hermitian:
    """Return ``[[a, -b], [b, a]]`` in place of every element ``a + ib``."""
    from deeph_lightning.solve.pencil import Hermitian as Matrix

    upper = A.upper
    re, im = upper.data.real, upper.data.imag
    blocks = np.stack((re, -im, im, re), axis=1).reshape(-1, 2, 2)
    # zeros stay: the pattern must be that of every matrix of a pencil
    matrix = sparse.bsr_array(
        (blocks, upper.indices, upper.indptr), shape=(2 * A.shape[0],) * 2
    )
    return Matrix(sparse.triu(matrix.tocsr(), format="csr"))


#: Python module of each library, fastest first; None is part of scipy.
LIBRARIES: dict[str, str | None] = {"pardiso": "pypardiso", "mumps": "mumps", "superlu": None}


def library(name: str = "auto") -> str:
    """Return the factorisation library to use.

    Parameters
    ----------
    name
        A key of `LIBRARIES`, or "auto" for the first that is installed.

    Raises
    ------
    MissingDependencyError
        That library is not installed.
    """
    found = [
        key
        for key, module in LIBRARIES.items()
        if module is None or importlib.util.find_spec(module) is not None
    ]
    if name == "auto":
        return found[0]
    if name not in found:
        package = {"pardiso": "pypardiso", "mumps": "python-mumps"}[name]
        msg = (
            f"factorisation={name}: {package} is not installed. Install it (pip install "
            f"{package}), or take factorisation={found[0]}"
        )
        raise MissingDependencyError(msg)
    return name


def factorisation(
    name: str,
    *,
    is_complex: bool,
    counts: bool = False,
    is_single: bool = False,
    is_definite: bool = False,
) -> Factorisation:
    """Return a factorisation of one kind of matrix.

    Parameters
    ----------
    name
        See `library`.
    is_complex
        Matrices are complex Hermitian, not real symmetric.
    counts
        `n_negative` will be asked for.
    is_single
        PARDISO factorises and solves in single precision.
    is_definite
        Matrices are positive definite, which PARDISO makes use of.
    """
    name = library(name)
    if name == "superlu":
        return SuperLU()
    if name == "mumps":
        return Doubled(Mumps()) if is_complex else Mumps()
    if is_complex and counts:
        return Doubled(Pardiso(False, is_single))
    return Pardiso(is_complex, is_single, is_definite)


def residual(factors: Factorisation, A: Hermitian) -> float:
    """Return the relative residual of one solve with a random right-hand side."""
    b = np.random.default_rng(0).normal(size=A.shape[0]).astype(A.dtype)
    x = factors.solve(b)
    return float(np.linalg.norm(A @ x - b) / np.linalg.norm(b))
