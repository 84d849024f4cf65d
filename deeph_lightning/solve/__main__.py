"""Physics from Hamiltonians: ``python -m deeph_lightning.solve --help``."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from deeph_lightning.config.entry import start
from deeph_lightning.config.paths import check_writable
from deeph_lightning.config.validate import check_solve, resolve

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> dict[str, Any]:
    """Solve one task for one structure and write numbers, arrays and figures.

    Parameters
    ----------
    cfg
        Composed from ``conf/solve.yaml``.

    Returns
    -------
    dict
        The numbers of ``TASK.json``.

    Raises
    ------
    DeepHError
        Anything a user can act on.
    """
    config = resolve(cfg)
    check_solve(config)
    output = check_writable(config["output"], key="output", create=True)

    from rich.console import Console
    from rich.progress import track

    from deeph_lightning.analysis.case import Case, read_system
    from deeph_lightning.analysis.tasks import TASKS
    from deeph_lightning.analysis.write import write_result

    console = Console(stderr=True)

    def shown(steps: Any, total: int) -> Any:
        return track(steps, description="solving", total=total, console=console)

    case = Case(config, read_system(config, config["input"], is_reference=True), shown)
    other = None
    if config["compare"] is not None:
        other = Case(config, read_system(config, config["compare"], is_reference=False), shown)
    result = TASKS[config["task"]](case, other)
    files = write_result(output, result, case)
    log.info("wrote %s to %s", ", ".join(path.name for path in files), output)
    return result.facts


def main() -> None:
    """Start from the command line."""
    start(run, "solve", check_solve)


if __name__ == "__main__":
    main()
