"""Convert structures between formats: ``python -m deeph_lightning.convert --help``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeph_lightning.config.entry import start
from deeph_lightning.config.paths import check_writable
from deeph_lightning.config.targets import listed, nearest
from deeph_lightning.config.validate import resolve
from deeph_lightning.errors import ConfigError, DataError
from deeph_lightning.io.formats import WRITERS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omegaconf import DictConfig

log = logging.getLogger(__name__)

#: Keys of ``conf/convert.yaml`` and the types of their values.
KEYS = {"input": str, "output": str, "format": str, "check_overlap": bool, "reraise": bool}


def check_convert(config: Mapping[str, Any]) -> None:
    """Check a resolved configuration.

    Raises
    ------
    ConfigError
        A key is unknown or its value of the wrong type, or there is no such format.
    """
    for key, value in config.items():
        if key not in KEYS:
            msg = f"{key} is not a key of this configuration. Known: {', '.join(KEYS)}."
            raise ConfigError(msg, key=key)
        if not isinstance(value, KEYS[key]):
            msg = (
                f"{key} = {value!r}: expected a value of type {KEYS[key].__name__}. Correct it "
                f"on the command line: {key}=VALUE"
            )
            raise ConfigError(msg, key=key)
    found = config["format"]
    if found not in WRITERS:
        guess = nearest(found, WRITERS)
        msg = (
            f"format={found}: there is no such format.\n"
            + (f"  Did you mean format={guess[0]}? " if guess else "  ")
            + f"Formats: {', '.join(WRITERS)}."
        )
        raise ConfigError(msg, key="format")


def run(cfg: DictConfig) -> list[Path]:
    """Convert every structure of the input.

    Parameters
    ----------
    cfg
        Composed from ``conf/convert.yaml``.

    Returns
    -------
    list of Path
        The folder of each structure.

    Raises
    ------
    ConfigError
        The output cannot be written, or lies in the input.
    DataError
        There is no structure, or some could not be converted; the others are.
    """
    config = resolve(cfg)
    check_convert(config)

    from rich.console import Console
    from rich.progress import track

    from deeph_lightning.io.conversion import Conversion

    source, output = Path(config["input"]).expanduser(), Path(config["output"]).expanduser()
    conversion = Conversion(
        source, output, config["format"], check_overlap=config["check_overlap"]
    )
    check_writable(output, key="output")
    console = Console(stderr=True)
    for name in track(conversion.names, description="converting", console=console):
        conversion.convert(name)
    conversion.write_split()
    log.info("%s", conversion.summary())
    if conversion.failures:
        lines = [f"  {name}: {text}" for name, text in list(conversion.failures.items())[:20]]
        msg = (
            f"{len(conversion.failures)} of {len(conversion.names)} structures of {source} "
            f"were not converted ({listed(conversion.failures)}).\n" + "\n".join(lines) + "\n"
            "  Repair them and repeat the command; what is converted already is skipped."
        )
        raise DataError(msg, path=source)
    return list(conversion.folders.values())


def main() -> None:
    """Start from the command line."""
    start(run, "convert", check_convert)


if __name__ == "__main__":
    main()
