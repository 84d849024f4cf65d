"""Bare structures for prediction: a DeepH folder, folders of structures, any file ASE reads."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

import ase.io
from ase import Atoms

from deeph_lightning.errors import DataError, FormatError
from deeph_lightning.io.formats import detect_format, read_structure_folder

#: How files with a structure look in a folder that is searched.
_PATTERNS = ("POSCAR*", "CONTCAR*", "*.vasp", "*.cif", "*.xyz", "*.extxyz", "*.xsf", "*.traj")


def read_structures(path: str | Path | Sequence[str | Path]) -> list[Atoms]:
    """Read every structure that a path means.

    Parameters
    ----------
    path
        A file that ASE reads (all its frames), a DeepH folder of either generation, a folder
        that holds such files or folders at any depth, a glob of these, or several of these.

    Returns
    -------
    list of Atoms
        In sorted order, each with a unique ``atoms.info["name"]``: the path below `path`,
        without suffix, and the number of the frame if there are several. Of several paths and
        of a glob, the path below the folder that they share.

    Raises
    ------
    DataError
        There is no structure.
    FormatError
        A file cannot be read.
    """
    roots = [root for part in _listed(path) for root in _matches(part)]
    folder = Path(os.path.commonpath([root.resolve().parent for root in roots]))
    found: dict[str, Atoms] = {}
    sources = [(source, root) for root in roots for source in _sources(root)]
    for source, root in sources:
        base = _name(source, root) if len(roots) == 1 else _name(source.resolve(), folder)
        frames = _read(source)
        for n, atoms in enumerate(frames):
            name = base if len(frames) == 1 else f"{base}_{n:0{len(str(len(frames) - 1))}d}"
            if name in found:
                raise DataError(
                    f"{source}: a second structure would be named '{name}'. Rename the file.",
                    path=source,
                    structure=name,
                )
            atoms.info["name"] = name
            found[name] = atoms
    if not found:
        raise DataError(
            f"structure={roots[0]}: the folder holds no structure (looked for "
            f"{', '.join(_PATTERNS)} and DeepH folders at any depth).",
            path=roots[0],
        )
    return list(found.values())


def _listed(path: str | Path | Sequence[str | Path]) -> list[str | Path]:
    return [path] if isinstance(path, str | Path) else list(path)


def _matches(path: str | Path) -> list[Path]:
    """Return a path that exists, or what a glob matches, sorted."""
    path = Path(path).expanduser()
    if path.exists():
        return [path]
    anchor = Path(path.anchor or ".")
    pattern = str(path.relative_to(path.anchor)) if path.anchor else str(path)
    found = sorted(anchor.glob(pattern)) if glob.has_magic(pattern) else []
    if not found:
        raise DataError(
            f"structure={path}: there is no such file or folder. Give a file that ASE reads, a "
            f"DeepH folder, a folder of either, or a glob that matches some.",
            path=path,
        )
    return found


def _sources(path: Path) -> list[Path]:
    """Return files and one-structure folders at or below a path, sorted."""
    if path.is_file():
        return [path]
    if (path / "POSCAR").is_file() or detect_format(path) is not None:
        return [path]
    files = {file for pattern in _PATTERNS for file in path.glob(pattern) if file.is_file()}
    folders = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    return sorted(files) + [source for folder in folders for source in _sources(folder)]


def _name(source: Path, root: Path) -> str:
    """Return the path below the root without suffix; a lone file or folder has its own name."""
    below = source.relative_to(root) if source != root else Path(source.resolve().name)
    known = {pattern.lstrip("*") for pattern in _PATTERNS if pattern.startswith("*.")}
    return str(below.with_suffix("")) if below.suffix in known else str(below)


def _read(source: Path) -> list[Atoms]:
    if source.is_dir():
        if (source / "POSCAR").is_file() and not (source / "info.json").is_file():
            return _read(source / "POSCAR")
        return [read_structure_folder(source, operators=()).atoms]
    is_poscar = source.name.startswith(("POSCAR", "CONTCAR")) or source.suffix == ".vasp"
    try:
        frames = ase.io.read(source, index=":", format="vasp" if is_poscar else None)
    except Exception as error:  # noqa: BLE001  # ASE's parsers raise whatever they meet
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FormatError(
            f"{source}: ASE cannot read a structure ({type(error).__name__}: {reason}). "
            f"Correct the file, or give one of another format.",
            path=source,
        ) from None
    empty = [n for n, atoms in enumerate(frames) if len(atoms) == 0]
    if empty or not frames:
        raise FormatError(f"{source}: frame {empty or 0} has no atoms.", path=source)
    return list(frames)
