"""Exceptions of the package.

A message has three parts, in this order: where (file, key, structure, pair), what was found
and what was expected, what to do. Entry points catch `DeepHError` only, print it without a
traceback and exit with status 2; anything else is a bug and shows its traceback.
"""

from __future__ import annotations

from pathlib import Path


class DeepHError(Exception):
    """Base of every error that a user can act on."""


class ConfigError(DeepHError, ValueError):
    """A configuration key or value is wrong."""

    def __init__(self, message: str, *, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


class DataError(DeepHError, ValueError):
    """A file or a data set cannot be used."""

    def __init__(
        self, message: str, *, path: str | Path | None = None, structure: str | None = None
    ) -> None:
        super().__init__(message)
        self.path = path
        self.structure = structure


class FormatError(DataError):
    """A file is not what its format says."""


class SchemaError(DataError):
    """A store has another version or lacks a field."""


class BasisMismatchError(DataError):
    """The orbital shells of two parties differ."""


class PhysicsError(DeepHError, ValueError):
    """Numbers that cannot be physical."""

    def __init__(self, message: str, *, structure: str | None = None) -> None:
        super().__init__(message)
        self.structure = structure


class HermiticityError(PhysicsError):
    """A block and its Hermitian partner disagree."""


class OverlapNotPositiveError(PhysicsError):
    """An overlap matrix is not positive definite."""


class ConventionError(PhysicsError):
    """Blocks do not have the form that the conventions of orbitals, R and atoms give."""


class ShapeError(DeepHError, ValueError):
    """An array has the wrong shape."""


class CheckpointError(DeepHError, RuntimeError):
    """A checkpoint cannot be read or does not fit."""

    def __init__(self, message: str, *, path: str | Path | None = None) -> None:
        super().__init__(message)
        self.path = path


class MissingDependencyError(DeepHError, ImportError):
    """An optional package is not installed."""


class NotConvergedError(DeepHError, RuntimeError):
    """A calculation ended without self-consistency; other settings may reach it."""


class ProgramError(DeepHError, RuntimeError):
    """A program that was started ended with an error."""


class ResourceError(DeepHError, RuntimeError):
    """Memory or disk do not suffice; raised before the work begins, or nothing is kept."""
