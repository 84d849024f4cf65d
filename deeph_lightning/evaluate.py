"""Compare a network with DFT on any set: ``python -m deeph_lightning.evaluate --help``."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from deeph_lightning.config.entry import start
from deeph_lightning.config.paths import check_writable
from deeph_lightning.config.validate import check_evaluate, resolve
from deeph_lightning.errors import DataError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from deeph_lightning.io.source import Source

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> dict[str, float]:
    """Predict every structure of a set and write the report that a training run ends with.

    Parameters
    ----------
    cfg
        Composed from ``conf/evaluate.yaml``.

    Returns
    -------
    dict
        The numbers of ``metrics.json``.

    Raises
    ------
    DeepHError
        Anything a user can act on.
    """
    config = resolve(cfg)
    check_evaluate(config)
    output = check_writable(config["output"], key="output", create=True)

    # heavy imports only after the configuration is known to be good
    from deeph_lightning.inference.predict import Predictor
    from deeph_lightning.io.source import open_source
    from deeph_lightning.report.predictions import predict_systems
    from deeph_lightning.report.run import band_settings, write_report
    from deeph_lightning.training.environment import set_threads

    set_threads(config["num_threads"])
    root = config["data"]["root"]
    source = open_source(root)
    names = _names(source, root, config["split"])
    network = Predictor(config["checkpoint"], config["precision"], config["device"]).network
    metrics = write_report(
        output,
        predict_systems(network, map(source.read, names)),
        settings=band_settings(config),
        n_structure=len(names),
        metrics={"model/parameters": float(sum(p.numel() for p in network.parameters()))},
    )
    log.info("wrote the report on %d structures to %s", len(names), output)
    return metrics


def _names(source: Source, root: str, part: str | None) -> list[str]:
    """Return the structures of a part of the set, or all."""
    if part is None:
        return source.names
    if source.split is None:
        raise DataError(
            f"{root}: there is no split.json, so the part split={part} is not known.\n  Leave "
            "split away to evaluate all structures, or add a split.json.",
            path=root,
        )
    return source.split[part]


def main() -> None:
    """Start from the command line."""
    start(run, "evaluate", check_evaluate)


if __name__ == "__main__":
    main()
