"""Who imports whom: layers, a core without torch; only tests look beside the repository."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import deeph_lightning

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "deeph_lightning"
TORCH_FREE = ["", ".errors", ".units", ".core", ".io", ".solve"]


def modules_of(name: str) -> list[str]:
    """Return a module of the package by its suffix, with all modules inside."""
    path = PACKAGE.joinpath(*name.split(".")[1:])
    full = f"deeph_lightning{name}"
    if not name or not path.is_dir():
        return [full]
    return [full, *(f"{full}.{file.stem}" for file in path.glob("[!_]*.py"))]


def test_import_direction() -> None:
    command = Path(sys.executable).with_name("lint-imports")
    if not command.exists():
        pytest.skip("import-linter is not installed (make test installs it)")
    done = subprocess.run([command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_core_works_without_torch() -> None:
    names = [module for name in TORCH_FREE for module in modules_of(name)]
    code = f"""
import importlib, sys
for name in ("torch", "lightning", "hydra", "omegaconf", "e3nn", "wandb"):
    sys.modules[name] = None  # importing it raises
for name in {names}:
    importlib.import_module(name)
import deeph_lightning
deeph_lightning.Operator, deeph_lightning.open_source
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_public_names_exist() -> None:
    for name in deeph_lightning.__all__:
        assert getattr(deeph_lightning, name) is not None
    assert set(deeph_lightning.__all__) <= set(dir(deeph_lightning))
    with pytest.raises(AttributeError, match="no attribute 'Hamiltonain'"):
        deeph_lightning.Hamiltonain  # noqa: B018


def test_only_tests_look_beside_the_repository() -> None:
    files = [
        file
        for folder in ("deeph_lightning", "conf", "scripts", "data/graphene")
        for file in (ROOT / folder).rglob("*")
        if file.suffix in {".py", ".yaml", ".md"}
    ]
    assert files
    guilty = [str(f) for f in files if "../shared" in f.read_text(encoding="utf-8")]
    assert not guilty
