"""Make a data set from structures: ``python -m deeph_lightning.generate --help``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from deeph_lightning.config.entry import start
from deeph_lightning.config.paths import check_writable
from deeph_lightning.config.targets import build
from deeph_lightning.config.validate import check_generate, resolve
from deeph_lightning.errors import DataError

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = logging.getLogger(__name__)

#: Keys that decide what a structure is, beside those of the engine what is computed of it.
DECISIVE = ("seed", "min_distance", "max_draws", "sampler")


def run(cfg: DictConfig) -> Path:
    """Draw structures, compute them, and write the folders of a data set.

    Parameters
    ----------
    cfg
        Composed from ``conf/generate.yaml``.

    Returns
    -------
    The folder of the data set.

    Raises
    ------
    DeepHError
        Anything a user can act on; of structures that could not be computed, after all others
        were.
    """
    config = resolve(cfg)
    check_generate(config)
    output = Path(config["output"]).expanduser()
    check_writable(output, key="output")

    from deeph_lightning.generate.run import REPORT, Run
    from deeph_lightning.generate.structures import digest, draw_structures
    from deeph_lightning.io.structures import read_structures

    engine = build(config["engine"], key="engine")
    cluster = build(config["cluster"], key="cluster")
    samplers = {
        name: build(node, key=f"sampler.{name}")
        for name, node in config["sampler"].items()
        if node is not None
    }
    starts = read_structures(config["structure"])
    samples = list(
        draw_structures(
            starts,
            samplers,
            config["n"],
            config["seed"],
            min_distance=config["min_distance"],
            max_draws=config["max_draws"],
        )
    )
    work = Run(
        output,
        engine,
        cluster,
        {"structures": {atoms.info["name"]: digest(atoms) for atoms in starts}}
        | {key: config[key] for key in DECISIVE}
        | {"engine": {k: v for k, v in config["engine"].items() if k not in engine.incidental}},
        keep_files=config["keep_files"],
        retry_unconverged=config["retry_unconverged"],
    )
    work.compute(samples)
    log.info("%s", work.summary())
    if work.left_out:
        shown = [f"  {name}: {facts['message']}" for name, facts in work.left_out.items()][:10]
        msg = (
            f"{len(work.left_out)} of {len(samples)} structures have no result:\n"
            + "\n".join(shown)
            + f"\n  All are listed in {output / REPORT}; the others can be trained on. Repeat "
            f"the command to compute the failed ones again (unconverged ones: "
            f"retry_unconverged=true)."
        )
        raise DataError(msg, path=output)
    return output


def main() -> None:
    """Start from the command line."""
    start(run, "generate", check_generate)


if __name__ == "__main__":
    main()
