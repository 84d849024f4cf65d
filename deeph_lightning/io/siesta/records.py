"""Records of Fortran's sequential unformatted files, as SIESTA writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from deeph_lightning.errors import FormatError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

INT = np.dtype("<i4")
SINGLE = np.dtype("<f4")
DOUBLE = np.dtype("<f8")


class Records:
    """The records of a file, read one after another: length, payload, length; little endian.

    Parameters
    ----------
    path
        File.
    structure
        Name, for messages.

    Raises
    ------
    FormatError
        The file cannot be read. Every method raises it too, where a record is missing, damaged
        or of another size than expected.
    """

    def __init__(self, path: Path, structure: str) -> None:
        self.path, self.structure = path, structure
        self.number = 0
        self._place = 0
        try:
            self._bytes = np.fromfile(path, dtype=np.uint8).tobytes()
        except OSError as error:
            raise self.damaged(str(error)) from None

    def damaged(self, what: str) -> FormatError:
        """Return the error of this file."""
        msg = (
            f"{self.path}: structure '{self.structure}', record {self.number}: {what}. The "
            f"file is truncated, damaged or of another kind: make or copy it again."
        )
        return FormatError(msg, path=self.path, structure=self.structure)

    @property
    def next_size(self) -> int:
        """Bytes of the next record; -1 at the end of the file."""
        head = self._bytes[self._place : self._place + 4]
        return int.from_bytes(head, "little", signed=True) if len(head) == 4 else -1

    def take(self) -> bytes:
        """Return the payload of the next record."""
        self.number += 1
        size, start = self.next_size, self._place + 4
        end = start + size
        if size < 0 or end + 4 > len(self._bytes):
            raise self.damaged(f"the file ends inside it, or its length {size} is wrong")
        if self._bytes[end : end + 4] != self._bytes[self._place : start]:
            raise self.damaged("its two length marks differ")
        self._place = end + 4
        return self._bytes[start:end]

    def array(self, dtype: np.dtype[Any], count: int | None = None) -> NDArray[Any]:
        """Return the next record as numbers of one kind."""
        payload = self.take()
        wanted = None if count is None else count * dtype.itemsize
        if len(payload) % dtype.itemsize or wanted not in (None, len(payload)):
            raise self.damaged(f"it has {len(payload)} bytes, expected {wanted}")
        return np.frombuffer(payload, dtype)

    def fields(self, *parts: tuple[np.dtype[Any], int]) -> list[NDArray[Any]]:
        """Return the next record as runs of numbers of given kinds and counts."""
        payload = self.take()
        wanted = sum(dtype.itemsize * count for dtype, count in parts)
        if len(payload) != wanted:
            raise self.damaged(f"it has {len(payload)} bytes, expected {wanted}")
        found, place = [], 0
        for dtype, count in parts:
            found.append(np.frombuffer(payload, dtype, count, place))
            place += dtype.itemsize * count
        return found

    def integers(self, count: int | None = None) -> NDArray[np.int64]:
        """Return the next record as integers."""
        return self.array(INT, count).astype(np.int64)

    def rows(self, dtype: np.dtype[Any], lengths: NDArray[np.int64]) -> NDArray[Any]:
        """Return one record for each row of a sparse matrix, joined."""
        return np.concatenate([self.array(dtype, n) for n in lengths.tolist()])

    def end(self) -> None:
        """Check that nothing follows."""
        if self._place != len(self._bytes):
            raise self.damaged(f"{len(self._bytes) - self._place} bytes follow the last record")
