"""Places: the configuration folder, the repository (if there is one), writable outputs."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from deeph_lightning.errors import ConfigError

PACKAGE_DIR = Path(__file__).resolve().parent.parent


def conf_dir() -> Path:
    """Return the folder of configuration files, absolute.

    An installed wheel carries it as ``deeph_lightning/_conf``; a checkout has ``conf/``.
    Hydra needs it absolute: it reads a relative path as a module name when the program is
    started by its console script.
    """
    installed = PACKAGE_DIR / "_conf"
    return installed if installed.is_dir() else PACKAGE_DIR.parent / "conf"


CONF_DIR = conf_dir()


def shipped(relative: str) -> str:
    """Return the path of a file that the repository ships; resolver ``${shipped:PATH}``.

    Outside a checkout the path is taken from the current folder, where the user may have put
    the file; whether it exists is checked when the data are opened.
    """
    in_repository = PACKAGE_DIR.parent / relative
    return str(in_repository if in_repository.exists() else Path.cwd() / relative)


def check_writable(folder: str | Path, *, key: str, create: bool = False) -> Path:
    """Check that files can be written to a folder that may not exist yet.

    Parameters
    ----------
    folder
        The folder to write to. Its nearest existing parent is tried.
    key
        The configuration key that chose it, for the message.
    create
        Make the folder as well.

    Raises
    ------
    ConfigError
        A part of the path is a file, or the file system refuses.
    """
    folder = Path(folder).expanduser()
    parent = folder
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    try:
        if not parent.is_dir():
            raise NotADirectoryError(f"{parent} is not a folder")
        with tempfile.TemporaryFile(dir=parent):
            pass
        if create:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise ConfigError(
            f"{key}: the folder {folder} cannot be written to ({reason}, at {parent}).\n"
            f"  Choose another one on the command line: {key}=/a/writable/folder",
            key=key,
        ) from None
    return folder
