"""Some eigenvalues of large systems: counted by inertia, found by shift-invert Lanczos.

Sources: R. B. Lehoucq, D. C. Sorensen, C. Yang, ARPACK Users' Guide (1998); inertia for
slicing spectra: T. Ericsson, A. Ruhe, Math. Comput. 35, 1251 (1980).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import linalg
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from deeph_lightning.errors import OverlapNotPositiveError, PhysicsError
from deeph_lightning.solve.factorisation import (
    MAX_RESIDUAL,
    Factorisation,
    library,
    residual,
)
from deeph_lightning.solve.pencil import Pencil, PencilAtK
from deeph_lightning.solve.precision import ordered

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from deeph_lightning.core.operator import Operator

#: States found from one shift at most; a wider window is cut.
MAX_STATES = 300
#: Relative accuracy of what Lanczos returns; energies are accurate to about its square.
LANCZOS_TOLERANCE = 1e-10
#: Steps by which a shift is moved when a factorisation fails there, eV.
NUDGES_EV = (0.0, 1e-7, -1.1e-7, 1.3e-6, -1.7e-6)


class States(NamedTuple):
    """States at one k-point.

    Attributes
    ----------
    first
        Number of the lowest state, from 0, counted by inertia; -1 if it was not.
    energies
        ``(m,)``, eV, ascending.
    coefficients
        ``(n_orb, m)``, with ``C^dagger S C = 1``.
    residual
        Largest ``|H C - E S C|`` of a state, eV.
    """

    first: int
    energies: NDArray[np.float64]
    coefficients: NDArray[Any]
    residual: float


class SparseSolver:
    """Eigenvalues of one spin channel by factorising H(k) - E S(k).

    Parameters
    ----------
    H, S
        Operators, see `Pencil`.
    library_name
        Factorisation library, see `factorisation.library`.
    precision
        Of the factors, see `precision.ordered`.
    memory_limit
        Bytes that a factorisation may take; without it what is available.

    Attributes
    ----------
    n_factorised
        Factorisations so far, in this process.

    Notes
    -----
    The ordering is kept as long as matrices are of one kind (real at points like Gamma, else
    complex), so that a list of k-points should be solved by one object.
    """

    def __init__(
        self,
        H: Operator,
        S: Operator | None,
        library_name: str = "auto",
        precision: str = "auto",
        memory_limit: float | None = None,
    ) -> None:
        self.pencil = Pencil(H, S)
        self.library = library(library_name)
        self._precision, self._memory_limit = precision, memory_limit
        self._factors: dict[tuple[bool, bool], Factorisation] = {}
        self._at: tuple[tuple[float, ...], PencilAtK] | None = None
        self.n_factorised = 0

    def __getstate__(self) -> dict[str, Any]:
        # libraries hold memory of their own, which no other process can use
        return self.__dict__ | {"_factors": {}, "_at": None}

    def n_below(self, k: ArrayLike, energy: float) -> int:
        """Return the number of eigenvalues below an energy, eV, at one k-point.

        Raises
        ------
        PhysicsError
            The factorisation fails there, and a little above and below, too.
        ResourceError
            It does not fit into memory.
        """
        return self._factorise(self._matrices(k), energy, counts=True)[1]

    def check_overlap(self, k: ArrayLike) -> None:
        """Check by inertia that S(k) is positive definite.

        Raises
        ------
        OverlapNotPositiveError
            It has a negative eigenvalue.
        """
        pencil = self._matrices(k)
        _, count, _ = self._factorise(PencilAtK(pencil.S, pencil.S), 0.0, counts=True)
        if count:
            msg = (
                f"structure '{self.pencil.name}', k = {_text(k)}: S(k) has "
                f"{count} negative eigenvalues. Check that the overlap belongs to the "
                f"structure, the orbital order, and that no pair is missing."
            )
            raise OverlapNotPositiveError(msg, structure=self.pencil.name)

    def nearest(self, k: ArrayLike, energy: float, n_state: int) -> States:
        """Return the states nearest to an energy, and how many lie below them.

        Parameters
        ----------
        k
            ``(3,)``, fractional.
        energy
            eV.
        n_state
            How many.

        Raises
        ------
        PhysicsError
            The iteration does not converge, or misses states between those that it finds.
        """
        pencil = self._matrices(k)
        n_orb = self.pencil.n_orb
        if n_state >= n_orb - 1:
            return self._dense_states(pencil, 0, n_orb, -np.inf, np.inf)
        factors, below, shift = self._factorise(pencil, energy, counts=True)
        found = self._lanczos(pencil, factors, shift, n_state)
        n_found = int((found.energies < shift).sum())
        return found._replace(first=below - n_found)

    def window(self, k: ArrayLike, low: float, high: float) -> States:
        """Return all states between two energies; their number is checked by inertia.

        Parameters
        ----------
        k
            ``(3,)``, fractional.
        low, high
            eV.

        Raises
        ------
        PhysicsError
            Lanczos finds another number of states than there are.
        """
        n_low, n_high = self.n_below(k, low), self.n_below(k, high)
        return self._slice(k, low, high, n_low, n_high)

    def _slice(self, k: ArrayLike, low: float, high: float, n_low: int, n_high: int) -> States:
        pencil, n = self._matrices(k), n_high - n_low
        n_orb = self.pencil.n_orb
        if n == 0:
            return States(n_low, np.zeros(0), np.zeros((n_orb, 0)), 0.0)
        if n + 2 >= n_orb - 1:
            return self._dense_states(pencil, n_low, n_high, low, high)
        middle = 0.5 * (low + high)
        if n > MAX_STATES:
            n_middle = self.n_below(k, middle)
            lower = self._slice(k, low, middle, n_low, n_middle)
            upper = self._slice(k, middle, high, n_middle, n_high)
            return States(
                n_low,
                np.concatenate((lower.energies, upper.energies)),
                np.concatenate((lower.coefficients, upper.coefficients), axis=1),
                max(lower.residual, upper.residual),
            )
        factors, _, shift = self._factorise(pencil, middle, counts=False)
        wanted = n + 2
        while True:
            found = self._lanczos(pencil, factors, shift, wanted)
            inside = (found.energies >= low) & (found.energies < high)
            if inside.sum() == n or wanted == min(4 * (n + 2), n_orb - 2):
                break
            wanted = min(2 * wanted, n_orb - 2)  # states outside lie nearer to the middle
        if inside.sum() != n:
            msg = (
                f"structure '{self.pencil.name}', k = {_text(k)}: "
                f"{int(inside.sum())} states were found between {low:.4f} and {high:.4f} eV, "
                f"but there are {n}. Move the window a little: window_eV"
            )
            raise PhysicsError(msg, structure=self.pencil.name)
        return States(
            n_low, found.energies[inside], found.coefficients[:, inside], found.residual
        )

    def _matrices(self, k: ArrayLike) -> PencilAtK:
        point = tuple(np.asarray(k, dtype=np.float64).tolist())
        if self._at is None or self._at[0] != point:
            self._at = (point, self.pencil.at(point))
        return self._at[1]

    def _factorise(
        self, pencil: PencilAtK, energy: float, *, counts: bool
    ) -> tuple[Factorisation, int, float]:
        """Factorise at an energy or very near; return factors, count, and where."""
        factors = self._analysed(pencil, energy, counts=counts)
        for nudge in NUDGES_EV:
            A = pencil.shifted(energy + nudge)
            self.n_factorised += 1
            try:
                factors.factorise(A)
                count = factors.n_negative() if counts else -1
                if residual(factors, A) < MAX_RESIDUAL:
                    return factors, count, energy + nudge
            except (PhysicsError, RuntimeError):  # a library found the matrix singular
                continue
        msg = (
            f"structure '{self.pencil.name}': H - E S cannot be factorised by {self.library} "
            f"at E = {energy:.6f} eV. Move the energy a little, or take another library: "
            f"factorisation=..., or factor_precision=double"
        )
        raise PhysicsError(msg, structure=self.pencil.name)

    def _analysed(self, pencil: PencilAtK, energy: float, *, counts: bool) -> Factorisation:
        """Return a factorisation of this kind of matrix, ordered, if it fits into memory."""
        is_complex = pencil.H.is_complex
        key = (is_complex, counts and is_complex)  # real ones count anyway
        if key not in self._factors:
            self._factors.clear()  # their memory counts
            self._factors[key] = ordered(
                pencil.shifted(energy), self.pencil.row_block,
                f"structure '{self.pencil.name}': factorising H - E S of "
                f"{self.pencil.n_orb} orbitals",
                "Use fewer processes (n_jobs), a machine with more memory, or ask for the "
                "density of states by Chebyshev polynomials: task=dos method=kpm",
                name=self.library, precision=self._precision, limit=self._memory_limit,
                counts=counts,
            )  # fmt: skip
        return self._factors[key]

    def _lanczos(
        self, pencil: PencilAtK, factors: Factorisation, shift: float, n_state: int
    ) -> States:
        try:
            found = nearest_states(pencil, factors, shift, n_state)
        except ArpackNoConvergence as error:
            msg = (
                f"structure '{self.pencil.name}': of {n_state} states at {shift:.4f} eV, "
                f"{len(error.eigenvalues)} converged. Ask for fewer, or another energy."
            )
            raise PhysicsError(msg, structure=self.pencil.name) from None
        return found._replace(coefficients=self.pencil.to_orbitals(found.coefficients))

    def _dense_states(
        self, pencil: PencilAtK, n_low: int, n_high: int, low: float, high: float
    ) -> States:
        """Solve a matrix that is too small for Lanczos."""
        H, S = pencil.H, pencil.S
        energies, states = linalg.eigh(H.full().toarray(), S.full().toarray())
        energies, states = energies[n_low:n_high], states[:, n_low:n_high]
        if np.isfinite(low) and not np.all((energies >= low) & (energies < high)):
            raise PhysicsError("the inertia disagrees with the dense eigenvalues")
        error = H @ states - (S @ states) * energies
        largest = float(np.linalg.norm(error, axis=0).max(initial=0.0))
        return States(n_low, energies, self.pencil.to_orbitals(states), largest)


def _text(k: ArrayLike) -> str:
    return str(np.round(np.asarray(k, dtype=np.float64), 6).tolist())


def nearest_states(
    pencil: PencilAtK, factors: Factorisation, shift: float, n_state: int
) -> States:
    """Find the states nearest to the energy of a factorisation by Lanczos' method.

    Parameters
    ----------
    pencil
        H and S.
    factors
        Of H - shift S.
    shift
        eV.
    n_state
        How many.

    Returns
    -------
    States
        Not numbered; coefficients in the rows of the pencil.

    Raises
    ------
    scipy.sparse.linalg.ArpackNoConvergence
        It does not converge.
    """
    n, dtype = pencil.H.shape[0], pencil.H.dtype
    inverse, overlap = (
        LinearOperator((n, n), matvec=apply, dtype=dtype)
        for apply in (factors.solve, pencil.S.__matmul__)
    )
    start = np.random.default_rng(0).normal(size=n).astype(dtype)
    _, vectors = eigsh(
        inverse, n_state, M=overlap, sigma=shift, OPinv=inverse, v0=start,
        ncv=min(n, max(2 * n_state + 1, 40)), tol=LANCZOS_TOLERANCE,
    )  # fmt: skip
    return _rayleigh_ritz(pencil.H, pencil.S, vectors)


def _rayleigh_ritz(H: Any, S: Any, vectors: NDArray[Any]) -> States:
    """Make vectors of degenerate states orthonormal, energies accurate to second order."""
    basis, _ = np.linalg.qr(vectors)
    small_H, small_S = basis.conj().T @ (H @ basis), basis.conj().T @ (S @ basis)
    energies, turn = linalg.eigh(
        0.5 * (small_H + small_H.conj().T), 0.5 * (small_S + small_S.conj().T)
    )
    states = basis @ turn
    error = H @ states - (S @ states) * energies
    return States(-1, energies, states, float(np.linalg.norm(error, axis=0).max(initial=0.0)))
