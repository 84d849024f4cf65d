"""Errors of matrix elements, accumulated structure by structure in bounded memory.

An element is one entry of one stored block, both Hermitian halves and onsite blocks included;
the error of a complex element is the modulus of the difference. Everything is float64.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from deeph_lightning.core.ragged import chunks, take_blocks
from deeph_lightning.errors import ShapeError
from deeph_lightning.report.histograms import LogBins, ParityCounts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deeph_lightning.core.operator import Operator

MEV = 1e3
BIN_WIDTH = 0.2  # Å, of pair lengths
ERROR_BINS = LogBins(1e-6, 1e5, 20)  # meV
MAGNITUDE_BINS = LogBins(1e-6, 1e3, 20)  # eV


@dataclass
class ErrorSums:
    """Count, sums and largest of abs errors, in the unit they come in."""

    count: int = 0
    total: float = 0.0
    total_square: float = 0.0
    largest: float = 0.0

    def add(self, error: np.ndarray) -> None:
        """Take in abs errors of any shape."""
        if error.size:
            self.count += error.size
            self.total += float(error.sum())
            self.total_square += float(np.square(error).sum())
            self.largest = max(self.largest, float(error.max()))

    def merge(self, other: ErrorSums) -> None:
        """Take in what another has seen."""
        self.count += other.count
        self.total += other.total
        self.total_square += other.total_square
        self.largest = max(self.largest, other.largest)

    @property
    def mae(self) -> float:
        """Mean abs error; NaN of nothing."""
        return self.total / self.count if self.count else float("nan")

    @property
    def rmse(self) -> float:
        """Root mean square error; NaN of nothing."""
        return float(np.sqrt(self.total_square / self.count)) if self.count else float("nan")


@dataclass
class StructureErrors:
    """Errors of one structure or of several, meV."""

    onsite: ErrorSums = field(default_factory=ErrorSums)
    hopping: ErrorSums = field(default_factory=ErrorSums)

    def merge(self, other: StructureErrors) -> None:
        """Take in what another has seen."""
        self.onsite.merge(other.onsite)
        self.hopping.merge(other.hopping)

    @property
    def count(self) -> int:
        """Number of elements."""
        return self.onsite.count + self.hopping.count

    def metrics(self) -> dict[str, float]:
        """Return the numbers of the metric table, meV; those of no element are left out."""
        every = ErrorSums()
        every.merge(self.onsite)
        every.merge(self.hopping)
        values = {
            "H_mae_meV": every.mae,
            "H_rmse_meV": every.rmse,
            "H_max_meV": every.largest,
            "H_onsite_mae_meV": self.onsite.mae,
            "H_hopping_mae_meV": self.hopping.mae,
        }
        return {key: value for key, value in values.items() if np.isfinite(value)}


@dataclass(frozen=True)
class DistanceErrors:
    """Errors by pair length; arrays are ``(n,)``, NaN in an empty bin.

    Attributes
    ----------
    distance
        Centres of the bins, Å.
    mae, quantile, typical
        Mean abs error, its 95 % quantile and mean abs H of the reference, meV.
    onsite
        The same three of the onsite blocks, by name.
    """

    distance: np.ndarray
    mae: np.ndarray
    quantile: np.ndarray
    typical: np.ndarray
    onsite: dict[str, float]


class ErrorStatistics:
    """Compare operators structure by structure; of each, only sums are kept.

    Attributes
    ----------
    by_structure
        Errors of each structure, by name.
    shells
        Degrees of the shells of every species that was seen.
    parity
        Counts of elements, predicted over reference, eV.
    magnitude_counts
        Counts of elements by abs reference (`MAGNITUDE_BINS`) and abs error (`ERROR_BINS`).
    """

    def __init__(self) -> None:
        self.by_structure: dict[str, StructureErrors] = {}
        self.shells: dict[str, tuple[int, ...]] = {}
        self.parity = ParityCounts()
        shape = (MAGNITUDE_BINS.n_bin, ERROR_BINS.n_bin)
        self.magnitude_counts = np.zeros(shape, dtype=np.int64)
        # row 0 is onsite, row 1 + n holds hopping pairs of length in bin n
        self._error_counts = np.zeros((1, ERROR_BINS.n_bin), dtype=np.int64)
        self._distance_sums = np.zeros((1, 3))  # elements, sum of error, sum of abs H
        self._orbital_sums: dict[tuple[str, str, bool], tuple[int, np.ndarray]] = {}

    def add(self, name: str, reference: Operator, prediction: Operator) -> None:
        """Take in one structure.

        Parameters
        ----------
        name
            Of the structure.
        reference, prediction
            Operators in eV on the same pairs, both Hermitian halves present.

        Raises
        ------
        ShapeError
            The operators are not on the same pairs or not of the same spin.
        """
        if (
            reference.pairs != prediction.pairs
            or reference.values.shape != prediction.values.shape
        ):
            msg = (
                f"structure '{name}': the operators to compare have {len(reference.pairs)} and "
                f"{len(prediction.pairs)} pairs, {reference.values.size} and "
                f"{prediction.values.size} elements, which are not the same ones. Put both on "
                f"the pairs of the reference (Operator.complete, Operator.on_pairs)."
            )
            raise ShapeError(msg)
        errors = StructureErrors()
        distance = reference.pairs.distances(reference.atoms)
        is_onsite = reference.pairs.is_onsite
        for a, b, index in reference.groups:
            shape = reference.shape_of(a, b)
            for part in chunks(len(index), shape[0] * shape[1]):
                which = index[part]
                blocks, predicted = (
                    take_blocks(op.values, op.offsets[which], shape)
                    for op in (reference, prediction)
                )
                error = np.abs(predicted - blocks) * MEV  # (k, n_a, n_b)
                onsite = is_onsite[which]
                errors.onsite.add(error[onsite])
                errors.hopping.add(error[~onsite])
                self.parity.add(_real_parts(blocks), _real_parts(predicted))
                length = 1 + (distance[which] / BIN_WIDTH).astype(np.int64)
                self._add_distances(np.where(onsite, 0, length), error, np.abs(blocks))
                for flag in (True, False):
                    self._add_orbitals(a, b, flag, error[onsite == flag])
        self.by_structure[name] = errors
        self.shells.update(reference.basis.shells)

    def total(self, names: Iterable[str] | None = None) -> StructureErrors:
        """Return the errors of some structures together, or of all."""
        errors = StructureErrors()
        for name in self.by_structure if names is None else names:
            errors.merge(self.by_structure[name])
        return errors

    def _add_distances(self, rows: np.ndarray, error: np.ndarray, size: np.ndarray) -> None:
        """Count errors (meV) by row and by abs H (eV); rows ``(k,)``, blocks ``(k, n, m)``."""
        missing = int(rows.max()) + 1 - len(self._distance_sums)
        if missing > 0:
            self._distance_sums = np.pad(self._distance_sums, ((0, missing), (0, 0)))
            self._error_counts = np.pad(self._error_counts, ((0, missing), (0, 0)))
        n_row, n_bin = self._error_counts.shape
        per_block = error.shape[1] * error.shape[2]
        for column, weight in enumerate(
            (np.full(len(rows), per_block), error.sum((1, 2)), size.sum((1, 2)))
        ):
            self._distance_sums[:, column] += np.bincount(rows, weight, n_row)
        bins = ERROR_BINS.index(error).reshape(len(rows), per_block)
        flat = np.bincount((rows[:, None] * n_bin + bins).ravel(), minlength=n_row * n_bin)
        self._error_counts += flat.reshape(n_row, n_bin)
        magnitude = MAGNITUDE_BINS.index(size).ravel() * n_bin + bins.ravel()
        flat = np.bincount(magnitude, minlength=self.magnitude_counts.size)
        self.magnitude_counts += flat.reshape(self.magnitude_counts.shape)

    def _add_orbitals(self, a: str, b: str, is_onsite: bool, error: np.ndarray) -> None:
        """Sum errors by orbital pair; (b, a) is folded onto (a, b), a <= b, as its adjoint."""
        if len(error) == 0:
            return
        key = (min(a, b), max(a, b), is_onsite)
        total = error.sum(0) if a <= b else error.sum(0).T
        count, before = self._orbital_sums.get(key, (0, np.zeros_like(total)))
        self._orbital_sums[key] = (count + len(error), before + total)

    def orbital_mae(self) -> dict[tuple[str, str, bool], np.ndarray]:
        """Return MAE by orbital pair: (species, species, is onsite) -> ``(n_a, n_b)``, meV."""
        return {key: total / count for key, (count, total) in self._orbital_sums.items()}

    def by_distance(self) -> DistanceErrors:
        """Return errors by pair length."""
        n_bin = len(self._distance_sums) - 1
        with np.errstate(invalid="ignore", divide="ignore"):
            mae = self._distance_sums[:, 1] / self._distance_sums[:, 0]
            typical = MEV * self._distance_sums[:, 2] / self._distance_sums[:, 0]
        quantile = ERROR_BINS.quantile(self._error_counts, 0.95)
        onsite = {"mae": mae[0], "quantile": quantile[0], "typical": typical[0]}
        return DistanceErrors(
            distance=(np.arange(n_bin) + 0.5) * BIN_WIDTH,
            mae=mae[1:],
            quantile=quantile[1:],
            typical=typical[1:],
            onsite={key: float(value) for key, value in onsite.items()},
        )

    def error_counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Return counts of abs errors in `ERROR_BINS`, onsite and hopping, ``(m,)`` each."""
        return self._error_counts[0], self._error_counts[1:].sum(0)


def _real_parts(blocks: np.ndarray) -> np.ndarray:
    """Flatten, real and imaginary parts as separate numbers."""
    flat = np.ascontiguousarray(blocks).ravel()
    return flat.view(np.float64) if np.iscomplexobj(flat) else flat
