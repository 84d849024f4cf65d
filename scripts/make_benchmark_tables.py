"""Write the tables of ``docs/benchmarks.md`` from the files of ``docs/measured``.

python scripts/make_benchmark_tables.py
"""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
MEASURED = ROOT / "docs" / "measured"
MARK = "<!-- tables: made by scripts/make_benchmark_tables.py -->\n"


def main() -> None:
    """Write tables and figures of every file found, in the order of their names."""
    head = PAGE.read_text(encoding="utf-8").split(MARK)[0]
    files = sorted(MEASURED.glob("*.json"))
    PAGE.write_text(head + MARK + "".join(section(file) for file in files), encoding="utf-8")


def section(file: Path) -> str:
    """Return the tables of one file, Markdown, and where they were measured."""
    record = json.loads(file.read_text(encoding="utf-8"))
    commit = (record["git"]["commit"] or "unknown")[:10]
    where = (
        f"{', '.join(record['device'])}, {record['threads']} threads, "
        f"torch {record['packages']['torch']}, commit {commit}."
    )
    parts = [f"\n## {file.stem.capitalize()}\n\n{where}\n"]
    for table in record["tables"]:
        parts.append(f"\n**{table['title']}**\n\n" + _markdown([table["header"]]))
        parts.append("|" + "---|" * len(table["header"]) + "\n" + _markdown(table["rows"]))
        if table["note"]:
            parts.append(f"\n{table['note']}\n")
    figures = sorted(MEASURED.glob(f"{file.stem}*.png"))
    parts += [f"\n![{figure.stem}](measured/{figure.name})\n" for figure in figures]
    return "".join(parts)


def _markdown(rows: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    main()
