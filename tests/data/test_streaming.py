"""An epoch over a store that does not fit into the memory that may be used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def test_epoch_in_less_memory_than_the_store() -> None:
    result = subprocess.run(
        [
            sys.executable,
            REPOSITORY / "scripts" / "prove_streaming.py",
            *("--store-MB", "130", "--bound-MB", "90", "--max-pairs", "1500"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "streamed: yes" in result.stdout
