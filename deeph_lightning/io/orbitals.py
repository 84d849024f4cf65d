"""Radial functions of numerical atomic orbitals: ABACUS, SIESTA and OpenMX.

===========================  ========  ====================================================
``*.orb``                    ABACUS    R(r) on an equidistant grid
``*.ion``, ``*.ion.xml``     SIESTA    R(r) / r^l on an equidistant grid
``*.pao``                    OpenMX    R(r) on a logarithmic grid; more functions than a basis
                                       takes: "s3p2" means the first three of s and two of p
===========================  ========  ====================================================

Lengths are in bohr of the code, as are those of its other files. All may be compressed
(``.xz``, ``.gz``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
from ase.data import chemical_symbols

from deeph_lightning.core.basis import shell_text
from deeph_lightning.core.two_centre_integrals import RadialFunction
from deeph_lightning.errors import BasisMismatchError, ConfigError, DataError, FormatError
from deeph_lightning.io.files import open_text
from deeph_lightning.units import CODE_CONSTANTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from deeph_lightning.core.basis import OrbitalBasis

#: Folder in a converted set that keeps the orbital files of its calculations.
KEPT = "orbitals"


@dataclass(frozen=True)
class OrbitalFile:
    """Radial functions of one species.

    Attributes
    ----------
    path
        File.
    label
        Species label, or symbol of the element.
    functions
        In the order of the file.
    is_pool
        Whether a basis takes the first functions of each degree only.
    """

    path: Path
    label: str
    functions: tuple[RadialFunction, ...]
    is_pool: bool = False

    def of_shells(self, shells: Sequence[int]) -> list[RadialFunction]:
        """Return the functions of a basis, one for each of its shells.

        Raises
        ------
        BasisMismatchError
            The file has other shells.
        """
        there = [f.l for f in self.functions]
        fits = there == list(shells)
        if self.is_pool:
            fits = all(shells.count(l) <= there.count(l) for l in set(shells))
        if not fits:
            msg = (
                f"{self.path}: its orbitals are {shell_text(there)} (l = {there}), those of "
                f"{self.label} in the checkpoint {shell_text(shells)} (l = {list(shells)}). "
                f"Give the file of the calculations that the network was trained with."
            )
            raise BasisMismatchError(msg, path=self.path)
        pools = {l: iter([f for f in self.functions if f.l == l]) for l in set(shells)}
        return [next(pools[l]) for l in shells]


def find_orbitals(paths: str | Path | Sequence[str | Path]) -> dict[str, OrbitalFile]:
    """Read orbital files.

    Parameters
    ----------
    paths
        A file, a folder that holds some, a converted set that keeps some, or several of these.

    Returns
    -------
    dict
        By species label.

    Raises
    ------
    ConfigError
        There is no such file, or a folder has none.
    DataError
        Two files are of one species.
    FormatError
        A file is damaged.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    found: dict[str, OrbitalFile] = {}
    for path in (file for place in given for file in _files(Path(place).expanduser())):
        orbitals = read_orbitals(path)
        if orbitals.label in found:
            msg = (
                f"{path}: a second file of species {orbitals.label}, beside "
                f"{found[orbitals.label].path}. Name the right ones: orbitals=[FILE,FILE]"
            )
            raise DataError(msg, path=path)
        found[orbitals.label] = orbitals
    return found


def files_in(folder: Path) -> list[Path]:
    """Return the orbital files in a folder; of those with one content, text and XML, one."""
    files = sorted(p for p in folder.iterdir() if _suffix(p)) if folder.is_dir() else []
    # SIESTA writes the same as text and as XML
    twins = {p.name.replace(".ion.xml", ".ion") for p in files if _suffix(p) == ".ion.xml"}
    return [p for p in files if p.name not in twins]


def orbitals_of_basis(files: Sequence[Path], basis: OrbitalBasis) -> dict[str, Path]:
    """Return the one file that has the shells of a species, by its label.

    Files that are damaged or of other shells are passed over, and so are several of one
    species: which of them a calculation had is not known.
    """
    found: dict[str, list[Path]] = {}
    for path in files:
        try:
            orbitals = read_orbitals(path)
            orbitals.of_shells(basis.shells.get(orbitals.label, ()))
        except DataError:
            continue
        found.setdefault(orbitals.label, []).append(path)
    return {label: paths[0] for label, paths in found.items() if len(paths) == 1}


def read_orbitals(path: str | Path) -> OrbitalFile:
    """Read an orbital file; its name tells the format.

    Raises
    ------
    ConfigError
        The name ends otherwise than those of orbital files.
    FormatError
        The file is damaged.
    """
    path = Path(path)
    suffix = _suffix(path)
    if suffix is None:
        msg = (
            f"{path}: it is no orbital file by its name: expected one that ends in "
            f"{', '.join(_READERS)}."
        )
        raise ConfigError(msg, key="orbitals")
    with open_text(path, "") as file:
        text = file.read()
    try:
        found = _READERS[suffix](path, text)
        for f in found.functions:
            if len(f.r) < 4 or np.any(np.diff(f.r) <= 0) or not np.isfinite(f.value).all():
                raise ValueError("a radial grid does not increase, or values are not finite")
        if not found.functions:
            raise ValueError("no radial function")
    except (ValueError, IndexError, KeyError, ElementTree.ParseError) as error:
        msg = (
            f"{path}: cannot be read as orbitals, {suffix} ({error}). It is cut off, damaged "
            f"or of another kind: copy it again."
        )
        raise FormatError(msg, path=path) from None
    return found


def _files(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    files = files_in(place) or files_in(place / KEPT)
    if not files:
        msg = (
            f"orbitals = {place}: there is no such file, or the folder holds none of "
            f"{', '.join(f'*{suffix}' for suffix in _READERS)}. Give the orbital files of the "
            f"calculations that the network was trained with."
        )
        raise ConfigError(msg, key="orbitals")
    return files


def _suffix(path: Path) -> str | None:
    name = re.sub(r"\.(xz|gz)$", "", path.name)
    return next((suffix for suffix in _READERS if name.endswith(suffix)), None)


def _function(l: int, r: np.ndarray, value: np.ndarray, bohr: float) -> RadialFunction:
    """Convert to Å and cut off the zeros at the end."""
    last = min(int(np.flatnonzero(value)[-1]) + 2, len(r)) if value.any() else 0
    return RadialFunction(l, r[:last] * bohr, value[:last] * bohr**-1.5)


def _abacus(path: Path, text: str) -> OrbitalFile:
    head, _, body = text.partition("SUMMARY  END")
    symbol = _entry(r"Element\s+(\S+)", head)
    n, step = int(_entry(r"Mesh\s+(\d+)", body)), float(_entry(r"dr\s+(\S+)", body))
    bohr = CODE_CONSTANTS["abacus"].bohr
    parts = re.split(r"Type\s+L\s+N", body)[1:]
    functions = []
    for part in parts:
        words = part.split()
        value = np.array(words[3:], dtype=np.float64)
        if len(value) != n:
            raise ValueError(f"{len(value)} of {n} values of a function")
        functions.append(_function(int(words[1]), step * np.arange(n), value, bohr))
    expected = sum(map(int, re.findall(r"Number of \w+orbital-->\s+(\d+)", head)))
    if len(functions) != expected:
        raise ValueError(f"{len(functions)} of {expected} functions")
    return OrbitalFile(path, symbol, tuple(functions))


def _siesta_xml(path: Path, text: str) -> OrbitalFile:
    root = ElementTree.fromstring(text)
    label = (root.findtext("label") or "").strip()
    functions = []
    for node in root.iterfind("paos/orbital"):
        table = np.array((node.findtext("radfunc/data") or "").split(), dtype=np.float64)
        _check_count(len(table) // 2, int(node.findtext("radfunc/npts") or 0))
        functions.append(_siesta_function(int(node.attrib["l"]), table.reshape(-1, 2)))
    _check_count(len(functions), int(root.findtext("norbs_nl") or 0))
    return OrbitalFile(path, label, tuple(functions))


def _siesta_text(path: Path, text: str) -> OrbitalFile:
    lines = iter(text.partition("</preamble>")[2].splitlines())
    header: dict[str, str] = {}
    for line in lines:
        if line.startswith("# PAOs"):
            break
        value, _, name = line.partition("#")
        header[name.strip()] = value.strip()
    n = int(header["Lmax for basis, no. of nl orbitals"].split()[1])
    functions = []
    for _ in range(n):
        l = int(_next(lines).split()[0])
        n_point = int(_next(lines).split()[0])
        rows = [_next(lines).split() for _ in range(n_point)]
        functions.append(_siesta_function(l, np.array(rows, dtype=np.float64)))
    return OrbitalFile(path, header["Label"], tuple(functions))


def _siesta_function(l: int, table: np.ndarray) -> RadialFunction:
    r, value = table.T
    return _function(l, r, value * r**l, CODE_CONSTANTS["siesta"].bohr)


def _openmx(path: Path, text: str) -> OrbitalFile:
    symbol = chemical_symbols[int(_entry(r"^\s*AtomSpecies\s+(\d+)", text))]
    functions = []
    pattern = r"<pseudo\.atomic\.orbitals\.L=(\d+)\s(.*?)pseudo\.atomic\.orbitals\.L=\1>"
    for match in re.finditer(pattern, text, re.DOTALL):
        rows = [line.split() for line in match[2].strip().splitlines()]
        table = np.array(rows, dtype=np.float64).T
        bohr = CODE_CONSTANTS["openmx"].bohr
        functions += [_function(int(match[1]), table[1], value, bohr) for value in table[2:]]
    _check_count(
        len({f.l for f in functions}), 1 + int(_entry(r"(?:maxL\.pao|PAO\.Lmax)\s+(\d+)", text))
    )
    return OrbitalFile(path, symbol, tuple(functions), is_pool=True)


def _entry(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        raise ValueError(f"no entry '{pattern}'")
    return match[1]


def _next(lines: Iterator[str]) -> str:
    line = next(lines, None)
    if line is None:
        raise ValueError("it ends early")
    return line


def _check_count(found: int, expected: int) -> None:
    if found != expected:
        raise ValueError(f"{found} of {expected} functions or points")


_READERS: dict[str, Callable[[Path, str], OrbitalFile]] = {
    ".orb": _abacus,
    ".ion.xml": _siesta_xml,
    ".ion": _siesta_text,
    ".pao": _openmx,
}
