"""Build structures to predict: ``python -m deeph_lightning.build --help``."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from deeph_lightning.config.entry import start
from deeph_lightning.config.paths import check_writable
from deeph_lightning.config.validate import check_build, resolve
from deeph_lightning.errors import DataError

if TYPE_CHECKING:
    from ase import Atoms
    from omegaconf import DictConfig

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> Path:
    """Build a structure and write it.

    Parameters
    ----------
    cfg
        Composed from ``conf/build.yaml``.

    Returns
    -------
    The file.

    Raises
    ------
    DeepHError
        Anything a user can act on.
    """
    config = resolve(cfg)
    check_build(config)
    output = Path(config["output"]).expanduser()
    check_writable(output.parent, key="output")
    if output.exists():
        raise DataError(
            f"output = {output}: is there already; it is not replaced.\n  Choose another file.",
            path=output,
        )

    from deeph_lightning.generate.relax import calculator, relaxed
    from deeph_lightning.generate.twisted import angle_degrees, twisted_bilayer
    from deeph_lightning.io.deeph import write_poscar
    from deeph_lightning.io.files import new_file

    lower, upper = (_layer(config[key]) for key in ("lower", "upper"))
    m, r = config["m"], config["r"]
    lengths = {key: float(config[key]) for key in ("spacing", "vacuum", "max_strain")}
    calc = None
    if config["calculator"] is not None:
        calc = calculator(config["calculator"], config["calculator_options"])
    atoms = twisted_bilayer(m, r, lower, upper, **lengths)
    if calc is not None:
        atoms = relaxed(atoms, calc, config["fmax"], config["n_steps"])
    with new_file(output) as partial:
        write_poscar(partial, atoms)
    log.info("%d atoms, %.4f degrees, wrote %s", len(atoms), angle_degrees(m, r), output)
    return output


def _layer(path: str | None) -> Atoms | None:
    """Read one layer from a file with one structure."""
    if path is None:
        return None
    from deeph_lightning.io.structures import read_structures

    found = read_structures(path)
    if len(found) > 1:
        raise DataError(
            f"{path}: holds {len(found)} structures, a layer is one.\n  Give a file with one.",
            path=path,
        )
    return found[0]


def main() -> None:
    """Start from the command line; the kind of structure may stand first, by itself."""
    words = sys.argv[1:]
    if words and words[0].isidentifier():
        sys.argv[1] = f"kind={words[0]}"
    start(run, "build", check_build)


if __name__ == "__main__":
    main()
