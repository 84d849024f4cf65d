"""What a user means by an input: a folder, a file in it, an archive, or a pattern of these."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import NamedTuple

from deeph_lightning.errors import DataError
from deeph_lightning.io.archive import Archive, is_archive
from deeph_lightning.io.formats import CODES, detect_format, structure_files
from deeph_lightning.io.source import find_archive, structure_folders
from deeph_lightning.io.split import Split, read_split


class Inputs(NamedTuple):
    """Structures of an input.

    Attributes
    ----------
    origins
        Folder, or archive, of every structure, by its name; and the name it has there.
    split
        Which are for training, validation and test, or None.
    roots
        Paths that were searched.
    is_single
        Whether the input is the folder of one structure.
    """

    origins: dict[str, tuple[Path, str]]
    split: Split | None
    roots: list[Path]
    is_single: bool


def find_inputs(text: str, output: Path) -> Inputs:
    """Find the structures that a path or pattern means.

    Parameters
    ----------
    text
        Folder of a structure, folder with such at any depth, a file of a structure, an archive;
        or a pattern (``*``, ``?``, ``[...]``, ``**`` for any depth) of these.
    output
        Where results go: not searched.

    Raises
    ------
    DataError
        There is nothing there, or two structures would have one name.
    FormatError
        An archive or split is damaged.
    """
    path = Path(text).expanduser()
    if path.exists() or not glob.has_magic(text):
        return _one_input(path)
    target = output.resolve()
    base = _base(path)
    matches = sorted(base.glob(path.relative_to(base).as_posix()))
    roots = [
        p
        for p in matches
        if target not in (p.resolve(), *p.resolve().parents)
        and not any(part.startswith(".") for part in p.relative_to(base).parts)
    ]
    if not roots:
        msg = f"input={text}: nothing matches this pattern. Correct it; quote it in the shell."
        raise DataError(msg, path=text)
    origins: dict[str, tuple[Path, str]] = {}
    for root in dict.fromkeys(_structure_root(p) for p in roots):
        if root.is_file() and not is_archive(root):
            continue  # such as a README beside the folders that are meant
        prefix = root.relative_to(base).as_posix()
        if root.is_file():
            prefix = prefix.removesuffix(root.suffix)
        found = _one_input(root, is_required=False)
        for name, origin in found.origins.items():
            own = prefix if found.is_single else f"{prefix}/{name}"
            own = own.removeprefix("./") if own != "." else name
            known = origins.setdefault(own, origin)
            if known != origin and known[0].resolve() != origin[0].resolve():
                msg = (
                    f"input={text}: {known[0]} and {origin[0]} would both have the name "
                    f"'{own}'. Convert them one after the other."
                )
                raise DataError(msg, path=origin[0], structure=own)
    if not origins:
        raise _nothing(Path(text))
    return Inputs(origins, None, roots, False)


def _one_input(path: Path, *, is_required: bool = True) -> Inputs:
    """Return the structures of a path without wildcards."""
    root = _structure_root(path)
    archive_path = find_archive(root)
    if archive_path is not None:
        archive = Archive(archive_path)
        origins = {name: (archive_path, name) for name in archive.names}
        split = archive.split
    else:
        origins = {name: (folder, name) for name, folder in structure_folders(root).items()}
        split = read_split(root / "split.json", origins)
    if not origins and is_required:
        raise _nothing(root)
    is_single = archive_path is None and [f for f, _ in origins.values()] == [root]
    return Inputs(origins, split, [root], is_single)


def _structure_root(path: Path) -> Path:
    """Return the folder of the structure that a file belongs to; other paths as they are."""
    if path.is_file():
        found = detect_format(path.parent)
        if found is not None and path in structure_files(path.parent, found):
            return path.parent
    return path


def _base(pattern: Path) -> Path:
    """Return the part of a pattern before its first wildcard."""
    parts = pattern.parts
    n = next(k for k, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:n])


def _nothing(path: Path) -> DataError:
    msg = (
        f"{path}: no structure was found in it. Expected DeepH folders, new or legacy, or "
        f"calculations ({', '.join(CODES)}), at any depth, or an archive."
    )
    return DataError(msg, path=path)
