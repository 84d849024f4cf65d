"""Binary files without record marks, read piece by piece, with errors that say where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeph_lightning.errors import FormatError

#: Bytes of what text output never holds.
_NUL = 0


class BinaryStream:
    """A little-endian file of int32, float64 and bytes.

    Parameters
    ----------
    path
        File; it is mapped, not read.
    structure
        Name for messages.

    Attributes
    ----------
    position
        Byte at which the next piece begins.
    """

    def __init__(self, path: Path, structure: str) -> None:
        self.path, self.structure = path, structure
        self.size = path.stat().st_size
        if not self.size:
            raise self.error("the file is empty. Make or copy it again")
        self._data: NDArray[np.uint8] = np.memmap(path, dtype=np.uint8, mode="r")
        self.position = 0

    def error(self, text: str) -> FormatError:
        """Return the error of a file that is not as it should be."""
        msg = f"{self.path}: structure '{self.structure}', {text}."
        return FormatError(msg, path=self.path, structure=self.structure)

    def _take(self, count: int, dtype: str, what: str) -> NDArray[Any]:
        start = self.position
        self._advance(count * np.dtype(dtype).itemsize, what)
        return np.frombuffer(self._data, dtype=dtype, count=count, offset=start)

    def _advance(self, n_byte: int, what: str) -> None:
        end = self.position + n_byte
        if end > self.size:
            raise self.error(
                f"the file ends at byte {self.size}, in '{what}', which reaches to byte {end}. "
                f"It is truncated or damaged: make or copy it again"
            )
        self.position = end

    def integers(self, count: int, what: str) -> NDArray[np.int64]:
        """Read integers of four bytes."""
        return self._take(count, "<i4", what).astype(np.int64)

    def numbers(self, count: int, what: str) -> NDArray[np.float64]:
        """Read numbers of eight bytes."""
        return self._take(count, "<f8", what).astype(np.float64)

    def bytes(self, count: int, what: str) -> NDArray[np.uint8]:
        """Read bytes."""
        return self._take(count, "|u1", what)

    def skip(self, count: int, what: str) -> None:
        """Pass over numbers of eight bytes."""
        self._advance(8 * count, what)

    def numbers_at(self, position: int, count: int) -> NDArray[np.float64]:
        """Read numbers that were passed over."""
        found = np.frombuffer(self._data, dtype="<f8", count=count, offset=position)
        return found.astype(np.float64)

    def rest_as_text(self) -> str:
        """Read what is left, which must be text.

        Raises
        ------
        FormatError
            It is not: the stream did not end where it should.
        """
        rest = self.bytes(self.size - self.position, "text at the end")
        if np.any(rest == _NUL):
            raise self.error(
                f"{len(rest)} bytes are left after the last field, and they are no text. The "
                f"file is damaged, or of another version: make or copy it again"
            )
        return bytes(rest).decode("utf-8", "replace")
