r"""Factorisations of sparse Hermitian matrices: solving, and counting negative eigenvalues.

By Sylvester's law of inertia, ``A = L D L^dagger`` has as many negative eigenvalues as D.
What the libraries give:

pardiso (MKL, by pypardiso)
    Bunch-Kaufman ``L D L^T`` of real symmetric matrices with the inertia; complex Hermitian
    ones are solved as they are, but counted as the real symmetric matrix of twice the size.
    Symbolic analysis is reused over matrices of one pattern.
mumps (by python-mumps)
    The same of real symmetric matrices, complex ones always as real ones of twice the size.
    Symbolic analysis is reused.
superlu (scipy, always there)
    ``L U`` with diagonal pivots in a symmetric ordering, so that ``U = D L^dagger`` and the
    signs on the diagonal of U are those of D. The ordering, found once on the graph of
    atoms, is reused; there are no 2x2 pivots, so that a bad shift shows as a large residual.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from deeph_lightning.errors import MissingDependencyError, PhysicsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Relative residual of a solve above which a factorisation is not to be trusted.
MAX_RESIDUAL = 1e-7


class Factorisation(Protocol):
    """A factorisation of matrices of one sparsity pattern."""

    def analyse(self, A: Any, row_block: NDArray[np.int64]) -> float:
        """Order a Hermitian csr matrix whose rows fall into blocks; return bytes needed."""

    def factorise(self, A: Any) -> None:
        """Factorise a matrix of the pattern that was analysed."""

    def solve(self, b: NDArray[Any]) -> NDArray[Any]:
        """Solve with the last matrix, ``(n,)`` or ``(n, m)``."""

    def n_negative(self) -> int:
        """Return the number of negative eigenvalues of the last matrix."""


class Pardiso:
    """MKL PARDISO, for real symmetric or complex Hermitian matrices."""

    # numbers of MKL's manual, counted from zero
    _PEAK, _PERMANENT, _NUMERICAL, _PERTURBED, _N_NEGATIVE = 14, 15, 16, 13, 22

    def __init__(self, is_complex: bool) -> None:
        from pypardiso import PyPardisoSolver

        self._solver = PyPardisoSolver(mtype=-4 if is_complex else -2)
        # it searches all of the environment for the library each time, unless told
        os.environ.setdefault("PYPARDISO_MKL_RT", self._solver.libmkl._name)
        settings = {0: 1, 1: 2, 7: 2, 9: 8, 20: 1}  # METIS, refinement, pivots 2x2
        for place, value in settings.items():
            self._solver.iparm[place] = value
        self._upper: Any = None

    def _run(self, phase: int, b: NDArray[Any]) -> NDArray[Any]:
        # its public methods accept real unsymmetric matrices only
        self._solver.set_phase(phase)
        return np.asarray(self._solver._call_pardiso(self._upper, b))

    def analyse(self, A: Any, row_block: NDArray[np.int64]) -> float:  # noqa: ARG002
        """See `Factorisation`."""
        self._upper = sparse.triu(A, format="csr")
        self._run(11, np.zeros(A.shape[0], dtype=A.dtype))
        memory = self._solver.iparm.astype(float) * 1024
        return max(memory[self._PEAK], memory[self._PERMANENT] + memory[self._NUMERICAL])

    def factorise(self, A: Any) -> None:
        """See `Factorisation`."""
        self._upper = sparse.triu(A, format="csr")
        self._run(22, np.zeros(A.shape[0], dtype=A.dtype))

    def solve(self, b: NDArray[Any]) -> NDArray[Any]:
        """See `Factorisation`."""
        return self._run(33, np.asfortranarray(b, dtype=self._upper.dtype))

    def n_negative(self) -> int:
        """See `Factorisation`."""
        if self._solver.iparm[self._PERTURBED]:
            raise PhysicsError("a pivot vanished")
        return int(self._solver.iparm[self._N_NEGATIVE])

    def __del__(self) -> None:
        if self._upper is not None and not sys.is_finalizing():
            self._run(-1, np.zeros(self._upper.shape[0], dtype=self._upper.dtype))


class Mumps:
    """MUMPS, for real symmetric matrices."""

    def __init__(self) -> None:
        import mumps

        self._context = mumps.Context()

    def analyse(self, A: Any, row_block: NDArray[np.int64]) -> float:  # noqa: ARG002
        """See `Factorisation`."""
        self._context.set_matrix(A, symmetric=True)
        self._context.mumps_instance.icntl[13] = 1  # count the pivots of the root, too
        self._context.analyze()
        return float(self._context.analysis_stats.est_mem_incore) * 1e6

    def factorise(self, A: Any) -> None:
        """See `Factorisation`."""
        self._context.set_matrix(A, symmetric=True)
        self._context.factor(reuse_analysis=True)

    def solve(self, b: NDArray[Any]) -> NDArray[Any]:
        """See `Factorisation`."""
        return np.asarray(self._context.solve(np.asfortranarray(b)))

    def n_negative(self) -> int:
        """See `Factorisation`."""
        return int(self._context.mumps_instance.infog[12])


class SuperLU:
    """SuperLU with diagonal pivots, for real symmetric or complex Hermitian matrices."""

    def __init__(self) -> None:
        self._order: Any = None
        self._lu: Any = None
        self._A: Any = None

    def analyse(self, A: Any, row_block: NDArray[np.int64]) -> float:
        """See `Factorisation`; orders blocks, which is as good and much faster than rows."""
        coo = A.tocoo()
        n = int(row_block.max()) + 1
        rows, columns = row_block[coo.row], row_block[coo.col]
        graph = sparse.csc_array((np.ones(len(rows)), (rows, columns)), shape=(n, n))
        graph.data[:] = 1.0
        graph = (graph + sparse.diags_array(np.full(n, 2.0 * n))).tocsc()
        lu = splu(graph, "MMD_AT_PLUS_A", 0.0, options={"SymmetricMode": True})
        place = lu.perm_c[row_block]
        self._order = np.argsort(place, kind="stable")
        size = np.bincount(place).astype(float)
        below = lu.L.tocoo()
        fill = float(size[below.row] @ size[below.col])
        # both factors, their indices, and the copies that give the diagonal of U
        return 2 * fill * (A.dtype.itemsize + 4) * 2

    def factorise(self, A: Any) -> None:
        """See `Factorisation`."""
        self._A = A
        ordered = A[self._order][:, self._order].tocsc()
        self._lu = splu(ordered, "NATURAL", 0.0, options={"SymmetricMode": True})

    def solve(self, b: NDArray[Any]) -> NDArray[Any]:
        """See `Factorisation`."""
        x = np.empty(b.shape, dtype=np.result_type(b, self._A))
        x[self._order] = self._lu.solve(b[self._order].astype(x.dtype))
        return x

    def n_negative(self) -> int:
        """See `Factorisation`."""
        if not np.array_equal(self._lu.perm_r, self._lu.perm_c):
            raise PhysicsError("a pivot on the diagonal vanished")
        return int((self._lu.U.diagonal().real < 0).sum())


class Doubled:
    """A complex Hermitian matrix A + iB as the real symmetric [[A, -B], [B, A]].

    Parameters
    ----------
    real
        Factorises real matrices. Every eigenvalue comes twice.
    """

    def __init__(self, real: Factorisation) -> None:
        self._real = real

    def analyse(self, A: Any, row_block: NDArray[np.int64]) -> float:
        """See `Factorisation`."""
        return self._real.analyse(_doubled(A), np.tile(row_block, 2))

    def factorise(self, A: Any) -> None:
        """See `Factorisation`."""
        self._real.factorise(_doubled(A))

    def solve(self, b: NDArray[Any]) -> NDArray[Any]:
        """See `Factorisation`."""
        x = self._real.solve(np.concatenate((b.real, b.imag)))
        return np.asarray(x[: len(b)] + 1j * x[len(b) :])

    def n_negative(self) -> int:
        """See `Factorisation`."""
        return self._real.n_negative() // 2


def _doubled(A: Any) -> Any:
    matrix = sparse.block_array([[A.real, -A.imag], [A.imag, A.real]], format="csr")
    matrix.sort_indices()
    return matrix


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


def factorisation(name: str, *, is_complex: bool, counts: bool) -> Factorisation:
    """Return a factorisation of one kind of matrix.

    Parameters
    ----------
    name
        See `library`.
    is_complex
        Matrices are complex Hermitian, not real symmetric.
    counts
        `n_negative` will be asked for.
    """
    name = library(name)
    if name == "superlu":
        return SuperLU()
    if name == "mumps":
        return Doubled(Mumps()) if is_complex else Mumps()
    return Doubled(Pardiso(False)) if is_complex and counts else Pardiso(is_complex)


def residual(factors: Factorisation, A: Any) -> float:
    """Return the relative residual of one solve with a random right-hand side."""
    b = np.random.default_rng(0).normal(size=A.shape[0]).astype(A.dtype)
    x = factors.solve(b)
    return float(np.linalg.norm(A @ x - b) / np.linalg.norm(b))
