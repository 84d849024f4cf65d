"""Make ``data/graphene/graphene.h5`` from the folders of the calculations.

    python scripts/make_graphene_archive.py SOURCE_FOLDER [OUTPUT_FILE]

prints the size of the file and the largest loss of an element of H and S.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from pathlib import Path

from deeph_lightning.errors import DeepHError
from deeph_lightning.io.archive import write_archive
from deeph_lightning.io.source import open_source

OUTPUT = Path(__file__).resolve().parent.parent / "data" / "graphene" / "graphene.h5"
PROVENANCE = (
    "Graphene, snapshots of Langevin dynamics at 300 K; ABACUS 3.8, PBE, ONCV PBE-1.0, "
    "C 2s2p1d (8 au, 100 Ry), 100 Ry. See README.md beside this file."
)


def main() -> int:
    """Write the archive and print what is in it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder of DeepH folders with split.json")
    parser.add_argument("output", type=Path, nargs="?", default=OUTPUT)
    args = parser.parse_args()
    begin = time.perf_counter()
    try:
        source = open_source(args.source)
        loss = write_archive(
            args.output,
            (source.read(name) for name in source.names),
            source.split,
            attributes={"title": "graphene, 300 K", "provenance": PROVENANCE},
        )
    except DeepHError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 2
    digest = hashlib.sha256(args.output.read_bytes()).hexdigest()
    parts = {part: len(names) for part, names in (source.split or {}).items()}
    lines = [
        f"{args.output}: {args.output.stat().st_size / 1e6:.2f} MB",
        f"{len(source.names)} structures {parts}, {time.perf_counter() - begin:.0f} s",
        *(f"largest loss of an element of {key}: {value:.2e}" for key, value in loss.items()),
        f"sha256 {digest}",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
