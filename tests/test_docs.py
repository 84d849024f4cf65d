"""The documentation: tables are current, links lead somewhere, commands compose."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from deeph_lightning.config.suggest import compose_checked

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"^ *python -m deeph_lightning\.(\w+)(.*)$", re.MULTILINE)
COMMANDS = sorted({m.groups() for page in PAGES for m in COMMAND.finditer(page.read_text())})
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def test_configuration_tables_are_current() -> None:
    script = ROOT / "scripts" / "make_configuration_tables.py"
    done = subprocess.run([sys.executable, script, "--check"])
    assert done.returncode == 0, f"run: python scripts/{script.name}"


@every_page
def test_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)", page.read_text())
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert not missing


@pytest.mark.parametrize(("verb", "rest"), COMMANDS, ids=lambda part: part.strip())
def test_commands_compose(verb: str, rest: str) -> None:
    assert importlib.util.find_spec(f"deeph_lightning.{verb}")
    words = shlex.split(re.split(r" {3,}", rest.rstrip())[0])
    if verb == "doctor" or any(word.startswith("--") for word in words):
        return
    if verb == "build":  # the kind stands first, by itself
        words[0] = f"kind={words[0]}"
    overrides = [word for word in words if word != "-m"]
    compose_checked(verb, overrides, is_multirun="-m" in words)
