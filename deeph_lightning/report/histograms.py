"""Counts that stream: fixed memory whatever the number of values."""

from __future__ import annotations

import numpy as np


class LogBins:
    """Bins spaced evenly in the logarithm; what lies outside goes to the outermost bins.

    Parameters
    ----------
    low, high
        First and last edge, positive.
    per_decade
        Bins in a decade.
    """

    def __init__(self, low: float, high: float, per_decade: int) -> None:
        self._log_low = np.log10(low)
        self._per_decade = per_decade
        self.n_bin = round((np.log10(high) - self._log_low) * per_decade)
        exponent = self._log_low + np.arange(self.n_bin + 1) / per_decade
        self.edges = 10.0**exponent
        self.centres = np.sqrt(self.edges[1:] * self.edges[:-1])

    def index(self, values: np.ndarray) -> np.ndarray:
        """Return the bin of each value that is not negative; zero goes to the first."""
        with np.errstate(divide="ignore"):
            position = (np.log10(values) - self._log_low) * self._per_decade
        index: np.ndarray = np.clip(position, 0, self.n_bin - 1).astype(np.int64)
        return index

    def quantile(self, counts: np.ndarray, fraction: float) -> np.ndarray:
        """Read a quantile off counts, interpolating inside the bin.

        Parameters
        ----------
        counts
            ``(..., n_bin)``.
        fraction
            Between 0 and 1.

        Returns
        -------
        ndarray, ``(...)``
            NaN where nothing was counted. Exact to one part in ``10**(1 / per_decade)``.
        """
        total = counts.sum(-1)
        wanted = fraction * total
        cumulative = np.cumsum(counts, -1)
        bin_index = np.argmax(cumulative >= wanted[..., None], -1)
        inside = np.take_along_axis(counts, bin_index[..., None], -1)[..., 0]
        above = np.take_along_axis(cumulative, bin_index[..., None], -1)[..., 0]
        part = 1.0 - (above - wanted) / np.maximum(inside, 1)
        value = 10.0 ** (self._log_low + (bin_index + part) / self._per_decade)
        return np.where(total > 0, value, np.nan)


class ParityCounts:
    """Square 2-D counts about zero whose range doubles as larger values come.

    When a value lies outside, neighbouring bins are merged two by two, so the number of bins
    stays and no value is ever clipped.

    Parameters
    ----------
    n_bin
        Bins along each axis, a multiple of four.
    half_width
        First range is minus to plus this.
    """

    def __init__(self, n_bin: int = 512, half_width: float = 1.0) -> None:
        self.n_bin, self.half_width = n_bin, half_width
        self.counts = np.zeros((n_bin, n_bin), dtype=np.int64)

    @property
    def centres(self) -> np.ndarray:
        """Centres of the bins, ``(n_bin,)``."""
        step = 2 * self.half_width / self.n_bin
        return (np.arange(self.n_bin) + 0.5) * step - self.half_width

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        """Count points of finite coordinates, ``(n,)`` each."""
        if x.size == 0:
            return
        largest = max(np.abs(x).max(), np.abs(y).max())
        while largest >= self.half_width:
            self._double()
        scale = self.n_bin / (2 * self.half_width)
        row = ((x + self.half_width) * scale).astype(np.int64)
        column = ((y + self.half_width) * scale).astype(np.int64)
        flat = np.bincount(row * self.n_bin + column, minlength=self.n_bin**2)
        self.counts += flat.reshape(self.counts.shape)

    def _double(self) -> None:
        """Merge bins two by two and pad outwards."""
        half, quarter = self.n_bin // 2, self.n_bin // 4
        merged = self.counts.reshape(half, 2, half, 2).sum((1, 3))
        self.counts = np.pad(merged, quarter)
        self.half_width *= 2
