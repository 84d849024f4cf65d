"""Sparse matrices of ABACUS in text form, of both generations.

Both list, for each lattice vector R, values, column indices and row pointers. The older one
starts with ``Matrix Dimension of H(R)`` (or ``STEP:`` before it); the newer one, of the files
``*_nao.csr`` since 2026, with ``--- Ionic Step``. The content decides, not the name of the
file. Values are in rydberg, complex ones as ``(re,im)``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from deeph_lightning.errors import FormatError
from deeph_lightning.io.elements import Elements
from deeph_lightning.io.files import first_line, open_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

#: What begins a file or an ionic step of each generation.
OLD_START = ("STEP:", "Matrix Dimension of")
NEW_START = "--- Ionic Step"
_PARENTHESES = str.maketrans("(,)", "   ")


class CsrMatrix(NamedTuple):
    """Content of a file: what it says of itself, and its elements as they are.

    Attributes
    ----------
    symbol
        "H", "S", "DM" as the header names it, or "".
    n_row
        Dimension of the matrix; of a non-collinear calculation with spin.
    n_spin
        Spin channels that the header states (1 where it states none).
    elements
        Rows and columns in the order of the file.
    """

    symbol: str
    n_row: int
    n_spin: int
    elements: Elements


def is_csr(path: Path) -> bool:
    """Whether a file begins as one of ABACUS."""
    return first_line(path).startswith((*OLD_START, NEW_START))


def read_csr(path: Path, structure: str, *, header_only: bool = False) -> CsrMatrix:
    """Read a file of either generation.

    Parameters
    ----------
    path
        File, plain or compressed.
    structure
        Name, for messages.
    header_only
        Leave the elements out.

    Raises
    ------
    FormatError
        The file is of another kind, truncated, damaged, or holds several ionic steps.
    """
    with open_text(path, structure) as file:
        reader = _Reader(file, path, structure)
        try:
            return reader.matrix(header_only=header_only)
        except FormatError:
            raise
        except (ValueError, OverflowError) as error:  # a word is no number
            raise reader.damaged(str(error)) from None


class _Reader:
    """Reads a file by its lines, counting them for messages."""

    def __init__(self, lines: Iterator[str], path: Path, structure: str) -> None:
        self.lines, self.path, self.structure = lines, path, structure
        self.n_line = 0

    def damaged(self, what: str) -> FormatError:
        msg = (
            f"{self.path}: structure '{self.structure}', line {self.n_line}: {what}. The file "
            f"is truncated, damaged or of another kind: make or copy it again."
        )
        return FormatError(msg, path=self.path, structure=self.structure)

    def line(self) -> str:
        """Return the next line that is not empty; "" at the end."""
        for line in self.lines:
            self.n_line += 1
            if line.strip():
                return line.strip()
        return ""

    def matrix(self, *, header_only: bool) -> CsrMatrix:
        """Read header and elements."""
        line = self.line()
        if line.startswith(NEW_START):
            self._check_step(line.split()[3], first=1)
            symbol, n_spin, n_row, n_R = self._new_header()
        else:
            symbol, n_row, n_R = self._old_header(line)
            n_spin = 1
        if header_only:
            return CsrMatrix(symbol, n_row, n_spin, _no_elements())
        parts = [self._cell(n_row) for _ in range(n_R)]
        rest = self.line()
        if rest.startswith((*OLD_START, NEW_START)):
            msg = (
                f"{self.path}: structure '{self.structure}', line {self.n_line}: a second "
                f"ionic step begins; expected one, as of calculation scf. Compute the matrices "
                f"of each structure in a folder of its own."
            )
            raise FormatError(msg, path=self.path, structure=self.structure)
        if rest:
            raise self.damaged(f"found '{rest[:40]}' after the last of {n_R} lattice vectors")
        columns = [np.concatenate(part) for part in zip(*parts, strict=True)]
        return CsrMatrix(symbol, n_row, n_spin, Elements(*columns))

    def _old_header(self, line: str) -> tuple[str, int, int]:
        if line.startswith("STEP:"):
            self._check_step(line.split()[1], first=0)
            line = self.line()
        match = re.match(r"Matrix Dimension of (\w+)\(R\):\s*(\d+)$", line)
        if match is None:
            raise self.damaged(f"found '{line[:60]}', expected 'Matrix Dimension of ...'")
        symbol, n_row = match[1], int(match[2])
        line = self.line()
        match = re.match(r"Matrix number of \w+\(R\):\s*(\d+)$", line)
        if match is None:
            raise self.damaged(f"found '{line[:60]}', expected 'Matrix number of ...'")
        return symbol, n_row, self._count(int(match[1]), "lattice vectors")

    def _new_header(self) -> tuple[str, int, int, int]:
        found: dict[str, int] = {}
        symbol = ""
        wanted = {
            "number of spin directions": "n_spin",
            "number of localized basis": "n_row",
            "number of Bravais lattice vector R": "n_R",
        }
        for line in iter(self.line, ""):
            if line.startswith("#---"):
                break
            match = re.match(r"# print .*\b(\w+)\(R\)", line)
            if match is not None:
                symbol = match[1]
            for text, key in wanted.items():
                if line.endswith(f"# {text}"):
                    found[key] = int(line.split()[0])
        missing = [text for text, key in wanted.items() if key not in found]
        if missing:
            raise self.damaged(f"the header lacks '{missing[0]}'")
        n_R = self._count(found["n_R"], "lattice vectors")
        return symbol, found["n_spin"], found["n_row"], n_R

    def _check_step(self, number: str, first: int) -> None:
        """Refuse matrices of moved atoms: the log has the first structure."""
        if int(number) > first:
            msg = (
                f"{self.path}: structure '{self.structure}', the matrix is of ionic step "
                f"{number}, expected {first}: the log states the structure of the first step "
                f"only. Compute this structure with calculation scf."
            )
            raise FormatError(msg, path=self.path, structure=self.structure)

    def _count(self, number: int, what: str) -> int:
        if number < 1:
            raise self.damaged(f"the header says {number} {what}")
        return number

    def _cell(self, n_row: int) -> Elements:
        """Read the matrix of one R."""
        line = self.line()
        while line.startswith("#"):
            line = self.line()
        words = line.split()
        if len(words) != 4:
            raise self.damaged(f"found '{line[:40]}', expected R1 R2 R3 and a count")
        *R, n_value = (int(word) for word in words)
        if not 0 <= n_value <= n_row**2:
            raise self.damaged(f"{n_value} elements in a matrix of {n_row} rows")
        if n_value == 0:
            return _no_elements()
        values = self._numbers(n_value)
        columns = self._integers(n_value)
        pointers = self._integers(n_row + 1)
        lengths = np.diff(pointers)
        if pointers[0] != 0 or pointers[-1] != n_value or np.any(lengths < 0):
            raise self.damaged(f"row pointers of R={tuple(R)} do not count {n_value} elements")
        if columns.min() < 0 or columns.max() >= n_row:
            raise self.damaged(f"column {columns.max()} in a matrix of {n_row} columns")
        rows = np.repeat(np.arange(n_row), lengths)
        cells = np.tile(np.array(R, dtype=np.int64), (n_value, 1))
        return Elements(cells, rows, columns, values)

    def _words(self, count: int) -> list[str]:
        """Read so many words over lines, comments left out."""
        words: list[str] = []
        while len(words) < count:
            line = self.line()
            if not line:
                raise self.damaged(f"the file ends after {len(words)} of {count} numbers")
            if not line.startswith("#"):
                words += line.split()
        if len(words) > count:
            raise self.damaged(f"found {len(words)} numbers, expected {count}")
        return words

    def _numbers(self, count: int) -> NDArray[np.float64]:
        words = self._words(count)
        if not words[0].startswith("("):
            return np.array([float(word) for word in words])  # faster than by NumPy
        parts = " ".join(words).translate(_PARENTHESES).split()
        if len(parts) != 2 * count:
            raise self.damaged("a complex number is not written as (re,im)")
        return np.array([float(part) for part in parts]).view(np.complex128)

    def _integers(self, count: int) -> NDArray[np.int64]:
        return np.array([int(word) for word in self._words(count)], dtype=np.int64)


def _no_elements() -> Elements:
    zero = np.zeros(0, dtype=np.int64)
    return Elements(zero.reshape(0, 3), zero, zero, np.zeros(0))
