"""Configuration: where it lives, what may be written in it, and how a node becomes an object.

Only `suggest`, `entry` and `sweep_table` import Hydra; `targets` and `validate` work on plain
containers, so that training and checkpoints use the same checks without it.
"""
