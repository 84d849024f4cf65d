"""The training command, with the stand-ins of this folder allowed."""

from __future__ import annotations

from deeph_lightning.config.targets import register_prefix
from deeph_lightning.train import main

register_prefix("standin.")

if __name__ == "__main__":
    main()
