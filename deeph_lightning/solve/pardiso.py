"""PARDISO of MKL, by pypardiso, for symmetric and Hermitian matrices."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from deeph_lightning.errors import PhysicsError, ResourceError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deeph_lightning.solve.pencil import Hermitian


class Pardiso:
    """MKL PARDISO, for real symmetric or complex Hermitian matrices.

    Parameters
    ----------
    is_complex
        Matrices are complex Hermitian.
    is_single
        Factorise and solve in single precision: half of the memory.
    is_definite
        Matrices are positive definite (Cholesky).
    """

    # numbers of MKL's manual, counted from zero
    _PEAK, _PERMANENT, _NUMERICAL, _ENTRIES = 14, 15, 16, 17
    _PERTURBED, _N_NEGATIVE = 13, 22
    _OUT_OF_MEMORY, _ZERO_PIVOT = -2, -4

    def __init__(
        self, is_complex: bool, is_single: bool = False, is_definite: bool = False
    ) -> None:
        # Bunch-Kaufman pivots, perturbed by 1e-8 where they vanish; no refinement
        settings = {9: 8, 20: 1, 27: int(is_single)}
        kind = 4 if is_complex else 2
        self._run = _PardisoCall(kind if is_definite else -kind, settings)
        double, single = ("c16", "c8") if is_complex else ("f8", "f4")
        self._dtype = np.dtype(single if is_single else double)
        self._upper: Any = None

    def analyse(self, A: Hermitian, row_block: NDArray[np.int64]) -> float:
        """See `Factorisation`."""
        order = _nested_dissection(A.block_graph(row_block))
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        self._run.order = np.argsort(place[row_block], kind="stable").astype(np.int32)
        self._upper = A.upper  # of which the pattern counts only
        self._run(11, self._upper)
        memory = self._run.iparm.astype(float) * 1024
        own = A.upper.nnz * self._dtype.itemsize if self._dtype != A.dtype else 0
        return own + max(memory[self._PEAK], memory[self._PERMANENT] + memory[self._NUMERICAL])

    def factorise(self, A: Hermitian) -> None:
        """See `Factorisation`."""
        self._upper = A.with_values(A.upper.data.astype(self._dtype, copy=False)).upper
        self._run(22, self._upper)

    def solve(self, b: NDArray[Any]) -> NDArray[Any]:
        """See `Factorisation`."""
        return self._run(33, self._upper, np.asfortranarray(b, dtype=self._dtype))

    def solve_half(self, b: NDArray[Any]) -> NDArray[Any]:
        """Solve with the adjoint of the Cholesky factor alone.

        Random b of covariance one become vectors whose covariance is the inverse matrix.
        """
        return self._run(333, self._upper, np.asfortranarray(b, dtype=self._dtype))

    def n_negative(self) -> int:
        """See `Factorisation`."""
        if self._run.iparm[self._PERTURBED]:
            raise PhysicsError("a pivot vanished")
        return int(self._run.iparm[self._N_NEGATIVE])

    def n_entries(self) -> float:
        """See `Factorisation`."""
        return float(self._run.iparm[self._ENTRIES])

    def __del__(self) -> None:
        if self._upper is not None and not sys.is_finalizing():
            self._run(-1, self._upper)


class _PardisoCall:
    """The handle of one matrix: pypardiso's own methods take real unsymmetric ones only.

    Parameters
    ----------
    mtype
        Kind of the matrix, of MKL's manual.
    settings
        Elements of ``iparm``, counted from zero.
    """

    def __init__(self, mtype: int, settings: dict[int, int]) -> None:
        from pypardiso import PyPardisoSolver

        self._solver = PyPardisoSolver(mtype=mtype)
        # it searches all of the environment for the library each time, unless told
        os.environ.setdefault("PYPARDISO_MKL_RT", self._solver.libmkl._name)
        self.iparm: NDArray[np.int32] = self._solver.iparm
        # no defaults, nested dissection, count entries, indices from zero
        for place, value in ({0: 1, 1: 2, 17: -1, 34: 1} | settings).items():
            self.iparm[place] = value
        #: Row at each place of the order to use, or the one that was found.
        self.order: NDArray[np.int32] | None = None

    def __call__(self, phase: int, upper: Any, b: NDArray[Any] | None = None) -> NDArray[Any]:
        """Run a phase with a right-hand side, in Fortran order."""
        n = upper.shape[0]
        if upper.nnz > np.iinfo(np.int32).max:
            msg = (
                f"PARDISO numbers elements by 32 bits, the matrix has {upper.nnz:.3g}. Take "
                f"another library: factorisation=mumps"
            )
            raise ResourceError(msg)
        b = np.zeros(n, dtype=upper.dtype) if b is None else b
        x = np.zeros_like(b)
        if self.order is not None and self.iparm[4] == 0:
            self.iparm[4] = 1
        order = np.zeros(n, dtype=np.int32) if self.order is None else self.order
        error = ctypes.c_int32(0)
        indptr, indices = (np.asarray(x, np.int32) for x in (upper.indptr, upper.indices))
        integers = [1, 1, self._solver.mtype, phase, n]
        columns = 1 if b.ndim == 1 else b.shape[1]
        int_pointer, float_pointer = (
            ctypes.POINTER(kind) for kind in (ctypes.c_int32, ctypes.c_double)
        )  # values of any kind are passed as the type that the binding states
        self._solver._mkl_pardiso(
            self._solver.pt.ctypes.data_as(ctypes.POINTER(self._solver._pt_type[0])),
            *(ctypes.byref(ctypes.c_int32(value)) for value in integers),
            upper.data.ctypes.data_as(float_pointer),
            indptr.ctypes.data_as(int_pointer),
            indices.ctypes.data_as(int_pointer),
            order.ctypes.data_as(int_pointer),
            ctypes.byref(ctypes.c_int32(columns)),
            self.iparm.ctypes.data_as(int_pointer),
            ctypes.byref(ctypes.c_int32(0)),
            b.ctypes.data_as(float_pointer),
            x.ctypes.data_as(float_pointer),
            ctypes.byref(error),
        )
        if error.value == Pardiso._OUT_OF_MEMORY:
            raise ResourceError("PARDISO: there is not enough memory for the factors")
        if error.value == Pardiso._ZERO_PIVOT and self._solver.mtype > 0:
            raise PhysicsError("the matrix is not positive definite")
        if error.value:
            raise PhysicsError(f"PARDISO failed with error {error.value}")
        self.order = order
        return x


def _nested_dissection(graph: Any) -> NDArray[np.int32]:
    """Return the block at each place of an order of small fill (METIS, inside PARDISO)."""
    run = _PardisoCall(2, {4: 2})
    run(11, graph)
    order = run.order
    run(-1, graph)
    assert order is not None
    return order
