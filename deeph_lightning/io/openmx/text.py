"""The input and the text output of OpenMX: species, their orbitals, version, functional."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase.data import atomic_numbers

from deeph_lightning.core.conventions import SHELL_LETTERS
from deeph_lightning.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

SPECIES_BLOCK = "Definition.of.Atomic.Species"
ATOMS_BLOCK = "Atoms.SpeciesAndCoordinates"
#: k-points are printed to this, and lie off their grid by this.
K_DIGITS = 2e-5
K_SHIFT = np.array([1e-6, -1e-6, 2e-6])
#: Default of scf.criterion, hartree.
CRITERION = 1e-6
_BAND = re.compile(r"k1= *(\S+) *k2= *(\S+) *k3= *(\S+)\s*\n((?:[ \t]*\d+ +\S+ +\S+[ \t]*\n)+)")
#: One kind of shells of a basis name: letter, number, and number after contraction.
_SHELLS = re.compile(r"([a-z])(\d+)(?:>(\d+))?")


@dataclass(frozen=True)
class RunText:
    """The input of a calculation, from wherever it was found.

    Attributes
    ----------
    path
        File of the text, for messages.
    text
        Input, or output with a copy of it.
    output
        Text of the output if there is any: it tells the version.
    """

    path: Path
    text: str
    output: str

    def definitions(self) -> dict[str, tuple[str, list[tuple[int, ...]]]]:
        """Return element and possible shells of every species.

        A name such as ``s4p4`` says the shells; ``s4>2p4>2`` says primitive and contracted
        ones, and which of the two the matrices have is known from their size.

        Raises
        ------
        FormatError
            A line is not of this form.
        """
        species = {}
        for line in self._block(SPECIES_BLOCK):
            label, *rest = line.split()
            name = rest[0] if rest else ""
            symbol = re.match(r"[A-Z][a-z]?", name)
            orbitals = name.partition("-")[2]
            parts = _SHELLS.findall(orbitals)
            rebuilt = "".join(f"{a}{n}" + (f">{c}" if c else "") for a, n, c in parts)
            if (
                symbol is None
                or symbol[0] not in atomic_numbers
                or not parts
                or rebuilt != orbitals
                or any(a not in SHELL_LETTERS or int(n) > 50 for a, n, _ in parts)
            ):
                raise self._error(
                    f"{SPECIES_BLOCK} has the line '{line.strip()}', expected a label and a "
                    f"basis such as C6.0-s2p2d1"
                )
            species[label] = (
                symbol[0],
                [_degrees((a, c or n) for a, n, c in parts),
                 _degrees((a, n) for a, n, _ in parts)],
            )  # fmt: skip
        return species

    def species_of_atoms(self, n_atom: int) -> list[str]:
        """Return the species of every atom.

        Raises
        ------
        FormatError
            The text has another number of atoms.
        """
        lines = [line.split() for line in self._block(ATOMS_BLOCK)]
        if len(lines) != n_atom or any(len(words) < 2 for words in lines):
            raise self._error(
                f"{ATOMS_BLOCK} has {len(lines)} lines, the .scfout file {n_atom} atoms. They "
                f"are of two calculations"
            )
        return [words[1] for words in lines]

    @property
    def version(self) -> str:
        """Version, from the output; without one all that is known is 3.9."""
        found = re.search(r"OpenMX Ver\. *(\S+)", self.output)
        return found[1] if found else "3.9"

    @property
    def functional(self) -> str | None:
        """Functional, or None."""
        found = re.search(r"^\s*scf\.XcType\s+(\S+)", self.text, re.MULTILINE | re.IGNORECASE)
        return found[1] if found else None

    @property
    def is_converged(self) -> bool | None:
        """Whether the last change of the band energy is below the criterion; None if unknown.

        OpenMX ends where it is, or after the last allowed cycle, and says nothing of it.
        """
        energies = re.findall(r"^ *SCF= *\d+ .*Uele= *(\S+)", self.output, re.MULTILINE)
        if len(energies) < 2:
            return None
        given = re.search(
            r"^\s*scf\.criterion\s+(\S+)", self.text, re.MULTILINE | re.IGNORECASE
        )
        try:
            change = abs(float(energies[-1]) - float(energies[-2]))
            return change < (float(given[1]) if given else CRITERION)
        except ValueError:
            return None

    def eigenvalues(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Return k, ``(n_k, 3)``, and energies of both spins, ``(2, n_k, n_band)``, hartree.

        They are in the output of band calculations without or with collinear spin. k has five
        digits there: it is set to the point of the grid (scf.Kgrid) that it is, and moved off
        it as the code does.
        """
        runs = _BAND.findall(self.output)
        grid = re.search(
            r"^\s*scf\.Kgrid\s+(\d+)\s+(\d+)\s+(\d+)", self.text, re.M | re.IGNORECASE
        )
        sizes = {len(run[3].split()) for run in runs}
        if not runs or len(sizes) != 1 or grid is None or min(sizes) % 3:
            return None
        try:
            printed = np.array([run[:3] for run in runs], dtype=np.float64)
            table = np.array([run[3].split() for run in runs], dtype=np.float64)
        except ValueError as error:
            raise self._error(f"the eigenvalues are no numbers ({error})") from None
        size = 2 * np.maximum([int(n) for n in grid.groups()], 1)
        points = np.rint(printed * size) / size
        k = np.where(np.abs(points - printed) < K_DIGITS, points + K_SHIFT, printed)
        return k, table.reshape(len(runs), -1, 3)[:, :, 1:].transpose(2, 0, 1)

    def _block(self, key: str) -> list[str]:
        """Return the lines between <key and key>, without comments."""
        body = _block_body(self.text, key)
        if body is None:
            raise self._error(f"the block <{key} is missing")
        lines = (line.partition("#")[0] for line in body.splitlines())
        return [line for line in lines if line.strip()]

    def _error(self, text: str) -> FormatError:
        msg = (
            f"{self.path}: {text}. Give the .scfout file with the text output of the same "
            f"calculation beside it (*.out)."
        )
        return FormatError(msg, path=self.path)


def find_text(copy: str, appended: str, folder: Path, path: Path) -> RunText:
    """Find the input: the copy in the file, output appended to it, or output beside it.

    Raises
    ------
    FormatError
        It is nowhere.
    """
    beside = [file for file in sorted(folder.glob("*.out")) if file.is_file()]
    outputs = [file.read_text(encoding="utf-8", errors="replace") for file in beside]
    candidates = [(path, appended), *zip(beside, outputs, strict=True)]
    output = next((text for _, text in candidates if "OpenMX Ver." in text), "")
    for file, text in [(path, copy), *candidates]:
        if _block_body(text, SPECIES_BLOCK) and _block_body(text, ATOMS_BLOCK):
            return RunText(file, text, output)
    msg = (
        f"{path}: neither its copy of the input nor a text output says which orbitals the "
        f"species have (<{SPECIES_BLOCK}). Put the output of the same calculation beside it "
        f"(*.out), or append it to the file."
    )
    raise FormatError(msg, path=path)


def _block_body(text: str, key: str) -> str | None:
    found = re.search(
        rf"^\s*<{re.escape(key)}\b[^\n]*\n(.*?)^\s*{re.escape(key)}>",
        text,
        re.MULTILINE | re.DOTALL | re.IGNORECASE,
    )
    return found[1] if found else None


def _degrees(parts: Iterable[tuple[str, str]]) -> tuple[int, ...]:
    """Return the degree of every shell."""
    return tuple(SHELL_LETTERS.index(a) for a, n in parts for _ in range(int(n)))
