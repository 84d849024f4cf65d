"""Training: module, losses, metrics, optimisation, checkpoints, and the run that ties them."""
