"""Messages of Lightning that say nothing to a user of this package, each with its reason."""

from __future__ import annotations

import logging
import warnings

_WARNINGS = (
    # graphs are preprocessed: a worker would cost more than it saves; data.num_workers is a key
    r"The '.*_dataloader' does not have many workers",
    # small sets are normal here; trainer.log_every_n_steps is a key
    r"The number of training batches \(\d+\) is smaller than the logging interval",
    # the log goes to the run folder, which Hydra has filled before
    r"Experiment logs directory .* exists and is not empty",
    # the checkpoint callbacks name their files; a resumed run takes best.ckpt over
    r"Checkpoint directory .* exists and is not empty",
    # metrics reduce themselves over ranks; losses and times are those of the first rank
    r"It is recommended to use `self.log\(.*sync_dist=True\)`",
    # Lightning's own use of torch's tree utilities
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    # the test of a finished run uses one device on purpose (samplers pad with several)
    r"Using `DistributedSampler` with the dataloaders",
)
_LOGGERS = (
    # "GPU available: False, used: False", advertisements of services, seeds
    "lightning.pytorch.utilities.rank_zero",
    "lightning.fabric.utilities.seed",
)


def hush() -> None:
    """Silence them in this process."""
    for pattern in _WARNINGS:
        warnings.filterwarnings("ignore", message=pattern)
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
