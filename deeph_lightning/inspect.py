"""Look into structures of any format: ``python -m deeph_lightning.inspect --help``."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeph_lightning.config.entry import start
from deeph_lightning.config.paths import check_writable
from deeph_lightning.config.validate import resolve
from deeph_lightning.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omegaconf import DictConfig

    from deeph_lightning.report.inspection import Inspection

log = logging.getLogger(__name__)

#: Keys of ``conf/inspect.yaml`` and the types of their values.
KEYS: dict[str, type | tuple[type, ...]] = {
    "input": str,
    "output": (str, type(None)),
    "n": int,
    "max_k": int,
    "max_orbitals": int,
    "reraise": bool,
}


def check_inspect(config: Mapping[str, Any]) -> None:
    """Check a resolved configuration.

    Raises
    ------
    ConfigError
        A key is unknown, or its value of the wrong type or not positive.
    """
    for key, value in config.items():
        if key not in KEYS:
            msg = f"{key} is not a key of this configuration. Known: {', '.join(KEYS)}."
            raise ConfigError(msg, key=key)
        is_number = KEYS[key] is int
        is_right = isinstance(value, KEYS[key]) and not (is_number and isinstance(value, bool))
        if not is_right or (is_number and value < 1):
            expected = "a positive integer" if is_number else str(KEYS[key])
            msg = f"{key} = {value!r}: expected {expected}. Correct it: {key}=VALUE"
            raise ConfigError(msg, key=key)


def run(cfg: DictConfig) -> list[Inspection]:
    """Look into the structures of the input and print what is found.

    Parameters
    ----------
    cfg
        Composed from ``conf/inspect.yaml``.

    Returns
    -------
    list of Inspection
        Of the structures that were looked into.

    Raises
    ------
    ConfigError
        The output cannot be written.
    DeepHError
        There is no structure, or one cannot be read.
    """
    config = resolve(cfg)
    check_inspect(config)

    import numpy as np

    from deeph_lightning.io.formats import read_eigenvalues
    from deeph_lightning.io.source import FolderSource, open_source
    from deeph_lightning.io.system import UNITS
    from deeph_lightning.report.decay import decay_figure
    from deeph_lightning.report.inspection import inspect_system
    from deeph_lightning.viz.style import paper_style, save_figure

    output = None if config["output"] is None else Path(config["output"]).expanduser()
    if output is not None:
        check_writable(output, key="output")
    source = open_source(config["input"])
    n_chosen = min(config["n"], len(source.names))
    chosen = np.unique(np.linspace(0, len(source.names) - 1, n_chosen).round().astype(int))
    found = []
    for name in (source.names[n] for n in chosen):
        system = source.read(name, tuple(UNITS))
        reference = None
        if isinstance(source, FolderSource):
            reference = read_eigenvalues(source.folder(name), name)
        limits = {key: config[key] for key in ("max_k", "max_orbitals")}
        found.append(inspect_system(system, reference, **limits))
        log.info("%s", found[-1].text())
        if output is not None and (system.H is not None or system.S is not None):
            with paper_style():
                path = save_figure(decay_figure(system), output / f"{name}.png", pdf=False)
            log.info("  figure           %s\n", path)
    if len(chosen) < len(source.names):
        log.info("%d of %d structures; n=NUMBER for more", len(chosen), len(source.names))
    return found


def main() -> None:
    """Start from the command line; the first word may be the input itself."""
    words = sys.argv[1:]
    if words and "=" not in words[0] and not words[0].startswith("-"):
        sys.argv[1] = f"input='{words[0]}'" if "'" not in words[0] else f"input={words[0]}"
    start(run, "inspect", check_inspect)


if __name__ == "__main__":
    main()
