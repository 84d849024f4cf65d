"""What stands at the end of a run: metrics, tables, predictions, figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deeph_lightning.report.run import write_run_report

__all__ = ["write_run_report"]


def __getattr__(name: str) -> Any:
    """Import on first use: the report pulls in torch and matplotlib."""
    if name in __all__:
        from deeph_lightning.report import run

        return getattr(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
