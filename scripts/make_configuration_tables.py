"""Write the tables of ``docs/configuration.md`` from the comments of the files in ``conf/``.

python scripts/make_configuration_tables.py           write
python scripts/make_configuration_tables.py --check   exit status 1 if they are out of date
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "conf"
PAGE = ROOT / "docs" / "configuration.md"
MARK = "<!-- tables: made by scripts/make_configuration_tables.py -->\n"
#: Groups in the order of the page.
GROUPS = ("data", "model", "loss", "optimizer", "scheduler", "trainer", "callbacks", "logger",
          "report", "paths", "experiment", "debug", "engine", "sampler",
          "cluster")  # fmt: skip
#: Groups whose options have keys of one name with other values: a table for each option.
SEPARATE = ("engine",)
#: Entries with groups of their own.
COMPOSED = ("train", "generate")
ENTRIES = ("train", "predict", "evaluate", "solve", "convert", "inspect", "build", "generate")
KEY = re.compile(r"^( *)([\w.]+):(.*?)(?:\s+# (.*))?$")


def main() -> int:
    """Write or compare the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare only")
    only_check = parser.parse_args().check
    there = PAGE.read_text(encoding="utf-8")
    text = there.split(MARK)[0] + MARK + tables()
    if only_check:
        return int(text != there)
    PAGE.write_text(text, encoding="utf-8")
    return 0


def tables() -> str:
    """Return the tables of all groups and entry points, Markdown."""
    parts = []
    defaults = "".join((CONF / f"{entry}.yaml").read_text("utf-8") for entry in COMPOSED)
    for group in GROUPS:
        found = re.search(rf"- {group}: (\w+)", defaults)
        default = found[1] if found else None
        names = sorted(file.stem for file in (CONF / group).glob("*.yaml"))
        names.sort(key=lambda name: name != default)
        files = [CONF / group / f"{name}.yaml" for name in names]
        parts += [f"\n## {group}\n\n", "| option | |\n|---|---|\n"]
        parts += [f"| `{group}={file.stem}` | {purpose(file)} |\n" for file in files]
        if group in SEPARATE:
            for file in files:
                parts += [f"\n`{group}={file.stem}`:\n", table(keys(file, f"{group}."))]
        elif group not in ("experiment", "debug"):  # those only change keys of other groups
            rows: dict[str, tuple[str, str]] = {}
            for file in files:
                for key, row in keys(file, f"{group}.").items():
                    rows.setdefault(key, row)
            parts.append(table(rows))
    for entry in ENTRIES:
        parts += [f"\n## Keys of {entry} itself\n", table(keys(CONF / f"{entry}.yaml", ""))]
    return "".join(parts)


def purpose(file: Path) -> str:
    """Return the first comment of a file that is not a package line, without its command."""
    lines = file.read_text(encoding="utf-8").splitlines()
    first = next(line for line in lines if not line.startswith("# @package"))
    return escaped(
        re.sub(r":? [\w/.]+=\S+( \(.*\))?$", "", first.removeprefix("# ")).rstrip(":")
    )


def keys(file: Path, prefix: str) -> dict[str, tuple[str, str]]:
    """Return value and comment of every key that has a comment, nested keys joined by dots."""
    rows: dict[str, tuple[str, str]] = {}
    parents: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        match = KEY.match(line)
        if match is None:
            continue
        indent, name, value, comment = match.groups()
        parents = [*parents[: len(indent) // 2], name]
        if comment and parents[0] not in ("defaults", "hydra"):
            rows[prefix + ".".join(parents)] = (value.strip(), comment)
    return rows


def table(rows: dict[str, tuple[str, str]]) -> str:
    """Return a table of keys; nothing without rows."""
    if not rows:
        return ""
    lines = [
        f"| `{key}` | {f'`{escaped(value)}`' if value else ''} | {escaped(text)} |"
        for key, (value, text) in rows.items()
    ]
    return "\n| key | value | |\n|---|---|---|\n" + "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Escape what would end a cell of a table."""
    return text.replace("|", "\\|")


if __name__ == "__main__":
    raise SystemExit(main())
