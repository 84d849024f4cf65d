"""The record of where a run took place, and settings of the process."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from deeph_lightning.training.checkpoint import version_of

_PACKAGES = ("deeph_lightning", "torch", "lightning", "numpy", "hydra-core", "h5py", "ase")
# parameters of mallopt(3)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def environment_record(**more: Any) -> dict[str, Any]:
    """Return versions, commit, device and threads, with further plain entries."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version_of(name) for name in _PACKAGES},
        "git": _commit(),
        "device": _devices(),
        "threads": torch.get_num_threads(),
        "command": sys.argv,
        **more,
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file under a temporary name, then rename it."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def set_threads(num_threads: int | None) -> None:
    """Set the CPU threads; null takes all cores unless OMP_NUM_THREADS says otherwise."""
    if num_threads is None and "OMP_NUM_THREADS" not in os.environ:
        has_affinity = hasattr(os, "sched_getaffinity")
        num_threads = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count()
    if num_threads is not None:
        torch.set_num_threads(num_threads)


def keep_freed_memory() -> None:
    """Let glibc keep what is freed for the next step, where there is a glibc.

    By default it returns the large tensors of a step to the system, and the next step waits for
    the same pages to be mapped and cleared again: a tenth of a training step.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, 2**25)  # the largest that it takes
    libc.mallopt(_M_TRIM_THRESHOLD, 2**30)


def _devices() -> list[str]:
    if torch.cuda.is_available():
        return [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    return [f"{_cpu_name()}, {os.cpu_count()} CPUs"]


def _cpu_name() -> str:
    """Return what Linux calls the processor, elsewhere its architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> dict[str, Any]:
    """Return commit and state of the checkout that the package runs from, if it is one."""
    root = Path(__file__).resolve().parent.parent.parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(root), *arguments],
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    if not (root / ".git").exists():
        return {"commit": None, "is_dirty": None}
    status = git("status", "--porcelain")
    is_dirty = None if status is None else bool(status)
    return {"commit": git("rev-parse", "HEAD"), "is_dirty": is_dirty}
