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
from deeph_lightning.io.gates import GATES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omegaconf import DictConfig

log = logging.getLogger(__name__)

#: Keys of ``conf/convert.yaml`` and the types of their values.
KEYS: dict[str, tuple[type, ...]] = {
    "input": (str,),
    "output": (str,),
    "format": (str,),
    "skip_checks": (list,),
    "n_worker": (int, type(None)),
    "reraise": (bool,),
}


def check_convert(config: Mapping[str, Any]) -> None:
    """Check a resolved configuration.

    Raises
    ------
    ConfigError
        A key is unknown or its value of the wrong type, or there is no such format or check.
    """
    for key, value in config.items():
        if key not in KEYS:
            msg = f"{key} is not a key of this configuration. Known: {', '.join(KEYS)}."
            raise ConfigError(msg, key=key)
        is_flag = isinstance(value, bool) and bool not in KEYS[key]
        if is_flag or not isinstance(value, KEYS[key]):
            names = " or ".join(
                "null" if kind is type(None) else kind.__name__ for kind in KEYS[key]
            )
            msg = (
                f"{key} = {value!r}: expected a value of type {names}. Correct it on the "
                f"command line: {key}=VALUE"
            )
            raise ConfigError(msg, key=key)
    for check in config["skip_checks"]:
        if check not in GATES:
            msg = (
                f"skip_checks=[{check}]: there is no such check. Checks that can be left out: "
                f"{', '.join(GATES)}."
            )
            raise ConfigError(msg, key="skip_checks")
    if config["n_worker"] is not None and config["n_worker"] < 1:
        msg = f"n_worker = {config['n_worker']}: expected at least one process, or null."
        raise ConfigError(msg, key="n_worker")
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

    from deeph_lightning.io.conversion import Conversion

    output = Path(config["output"]).expanduser()
    conversion = Conversion(
        config["input"], output, config["format"], skip_checks=config["skip_checks"]
    )
    check_writable(output, key="output")
    conversion.run(config["n_worker"])
    log.info("%s", conversion.summary())
    if conversion.failures:
        lines = [f"  {name}: {text}" for name, text in conversion.failures.items()]
        msg = (
            f"{len(conversion.failures)} of {len(conversion.names)} structures of "
            f"{config['input']} were not converted ({listed(conversion.failures)}).\n"
            + "\n".join(lines)
            + "\n  Repair them and repeat the command; what is converted already is skipped."
        )
        raise DataError(msg, path=config["input"])
    return list(conversion.folders.values())


def main() -> None:
    """Start from the command line."""
    start(run, "convert", check_convert)


if __name__ == "__main__":
    main()
