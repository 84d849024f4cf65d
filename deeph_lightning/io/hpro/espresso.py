"""A calculation of Quantum ESPRESSO: its XML file, and the files that lie around it."""

from __future__ import annotations

import gzip
import lzma
import re
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
from ase import Atoms
from ase.io.espresso import label_to_symbol

from deeph_lightning.core.basis import OrbitalBasis
from deeph_lightning.errors import FormatError
from deeph_lightning.io.code_output import Eigenvalues, facts, single_file
from deeph_lightning.io.files import open_text
from deeph_lightning.io.orbitals import read_orbitals
from deeph_lightning.units import CODE_CONSTANTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: How files are opened by their endings; compressed ones are read as they are.
PACKED: dict[str, Any] = {"": open, ".xz": lzma.open, ".gz": gzip.open}
#: First record of the potential: its length, 96 bytes, and the beginning of its title.
MAGIC = b"\x60\0\0\0VSC"
#: Functionals whose kinetic-energy density acts on the states beside the potential.
META = re.compile(r"TPSS|M06|TB09|MBJ|SCAN|SX6|META|MGGA", re.IGNORECASE)
#: Those of Quantum ESPRESSO 6.6 and newer.
CONSTANTS = CODE_CONSTANTS["codata"]


@dataclass(frozen=True)
class Run:
    """A calculation, without the content of its potential.

    Attributes
    ----------
    name
        Of the structure.
    folder, potential, xml
        Where it lies, its ``VSC`` and its XML file.
    root
        Content of the XML file, in hartree and bohr.
    """

    name: str
    folder: Path
    potential: Path
    xml: Path
    root: ElementTree.Element

    @classmethod
    def open(cls, folder: Path, name: str) -> Run:
        """Read the XML file, and refuse what HPRO does not rebuild.

        Raises
        ------
        FormatError
            A file is missing or damaged, or the calculation is of another kind.
        """
        potential = next(filter(is_potential, sorted(folder.glob("VSC*"))), None)
        if potential is None:
            raise _lacks(folder, name, "VSC, which pw2bgw.x writes (vscg_flag = .true.)")
        # pw.x writes the file twice
        for pattern in ("*.save/data-file-schema.xml", "*.xml"):
            xml = single_file(folder, [pattern + end for end in PACKED], name)
            if xml is not None:
                break
        else:
            raise _lacks(folder, name, "*.save/data-file-schema.xml or *.xml of pw.x")
        with open_text(xml, name) as file:
            text = file.read()
        try:
            root = ElementTree.fromstring(text)
        except ElementTree.ParseError as error:
            msg = (
                f"{xml}: structure '{name}', this is no XML ({error}). It is cut off or "
                f"damaged: copy it again."
            )
            raise FormatError(msg, path=xml, structure=name) from None
        run = cls(name, folder, potential, xml, root)
        run._refuse_others()
        return run

    def number(self, key: str) -> float:
        """Return the number of an element that must be there."""
        return float(self._numbers(key, (1,))[0])

    @cached_property
    def atoms(self) -> Atoms:
        """The structure at the end of the calculation, Å."""
        where = "output/atomic_structure/"
        nodes = self.root.findall(f"{where}atomic_positions/atom")
        if not nodes:
            raise self._wrong(f"lacks '{where}atomic_positions'")
        positions = self._numbers(f"{where}atomic_positions/atom", (len(nodes), 3))
        cell = [self._numbers(f"{where}cell/a{n}", (3,)) for n in (1, 2, 3)]
        atoms = Atoms(
            [self._symbol(node) for node in nodes],
            positions * CONSTANTS.bohr,
            cell=np.array(cell) * CONSTANTS.bohr,
            pbc=True,
        )
        atoms.info["name"] = self.name
        return atoms

    @cached_property
    def basis(self) -> OrbitalBasis:
        """Shells of the ``.ion`` files, in the order of HPRO: sorted by l."""
        shells = {}
        for symbol in dict.fromkeys(self.atoms.get_chemical_symbols()):
            functions = read_orbitals(self.files[f"{symbol}.ion"]).functions
            shells[symbol] = tuple(sorted(f.l for f in functions))
        return OrbitalBasis(shells)

    @cached_property
    def files(self) -> dict[str, Path]:
        """Orbitals and pseudopotentials by the names that HPRO wants: Mo.ion, Mo.upf."""
        symbols = dict.fromkeys(self.atoms.get_chemical_symbols())
        wanted = {f"{symbol}.ion": f"{symbol}.ion" for symbol in symbols}
        for node in self.root.findall("output/atomic_species/species"):
            key = f"{self._symbol(node)}.upf"
            upf = (node.findtext("pseudo_file") or "").strip()
            if wanted.setdefault(key, upf) != upf:
                raise self._wrong(
                    f"names two pseudopotentials of one element, {wanted[key]} and {upf}, "
                    f"which HPRO does not tell apart"
                )
        return self._find(wanted)

    def facts(self) -> dict[str, Any]:
        """Return what is known of the calculation (see `code_output.facts`)."""
        creator = self.root.find("general_info/creator")
        is_scf = self._text("input/control_variables/calculation") == "scf"
        converged = self._text("output/convergence_info/scf_conv/convergence_achieved")
        return facts(
            code="Quantum ESPRESSO",
            code_version=None if creator is None else creator.get("VERSION"),
            functional=self._text("output/dft/functional"),
            spin="none",
            is_converged=converged == "true" if is_scf and converged else None,
        )

    def fermi_energy(self) -> float | None:
        """Return E_F, eV: in the gap where the file has both edges, else as it is stated."""
        bands = "output/band_structure/"
        edges = [f"{bands}highestOccupiedLevel", f"{bands}lowestUnoccupiedLevel"]
        for keys in (edges, [f"{bands}fermi_energy"], edges[:1]):
            if all(map(self._text, keys)):
                return float(np.mean([self.number(key) for key in keys])) * CONSTANTS.hartree
        return None

    def eigenvalues(self) -> Eigenvalues | None:
        """Return k-points and energies of the file."""
        where = "output/band_structure/ks_energies"
        n_k = len(self.root.findall(where))
        if not n_k:
            return None
        k = self._numbers(f"{where}/k_point", (n_k, 3))  # Cartesian, 2π/alat
        energies = self._numbers(f"{where}/eigenvalues", (n_k, -1)) * CONSTANTS.hartree
        alat = self.root.find("output/atomic_structure[@alat]")
        if alat is None:
            raise self._wrong("lacks 'alat' of 'output/atomic_structure'")
        vectors = self.atoms.cell.array / (float(alat.attrib["alat"]) * CONSTANTS.bohr)
        return Eigenvalues(k @ vectors.T, energies[None])

    def _text(self, key: str) -> str:
        return (self.root.findtext(key) or "").strip()

    def _numbers(self, key: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Return the numbers of all elements with a key."""
        nodes = self.root.findall(key)
        try:
            words = [(node.text or "").split() for node in nodes]
            return np.array(words, dtype=np.float64).reshape(shape)
        except ValueError:
            what = "has other numbers than expected in" if nodes else "lacks"
            raise self._wrong(f"{what} '{key}'") from None

    def _symbol(self, node: ElementTree.Element) -> str:
        """Return the element of a label such as Fe1."""
        label = node.get("name", "")
        try:
            return str(label_to_symbol(label))
        except (KeyError, ValueError):
            raise self._wrong(f"has the species '{label}', which is no element") from None

    def _wrong(self, what: str) -> FormatError:
        msg = (
            f"{self.xml}: structure '{self.name}', the file {what}. Expected the XML file of a "
            f"run of pw.x that has ended: copy it again."
        )
        return FormatError(msg, path=self.xml, structure=self.name)

    def _refuse_others(self) -> None:
        """Refuse what a potential without spin does not describe."""
        flags = {
            "input/spin/lsda": "is collinear",
            "input/spin/noncolin": "is non-collinear",
            "output/algorithmic_info/uspp": "has ultrasoft pseudopotentials",
            "output/algorithmic_info/paw": "has PAW data sets",
            "input/basis/gamma_only": "has half of the plane waves (K_POINTS gamma)",
        }
        what = next((text for key, text in flags.items() if self._text(key) == "true"), None)
        functional = self._text("output/dft/functional")
        if self.root.find("output/dft/hybrid") is not None:
            what = "has a Fock operator, which is not in the potential"
        elif self.root.find("output/dft/dftU") is not None:
            what = "has Hubbard terms, which are not in the potential"
        elif META.search(functional):
            what = f"is of {functional}, whose kinetic-energy term is not in the potential"
        if what is not None:
            msg = (
                f"{self.xml}: structure '{self.name}', the calculation {what}. HPRO rebuilds "
                f"those without spin, with norm-conserving pseudopotentials and an LDA or GGA "
                f"functional: repeat it so, or leave it out."
            )
            raise FormatError(msg, path=self.xml, structure=self.name)

    def _find(self, wanted: dict[str, str]) -> dict[str, Path]:
        """Return the nearest file of each name."""
        species = self.root.find("output/atomic_species[@pseudo_dir]")
        stated = self.folder / ("." if species is None else species.attrib["pseudo_dir"])
        parent = self.folder.resolve().parent
        nearer = ([self.folder, *_folders(self.folder)], [stated], [parent, *_folders(parent)])
        found: dict[str, Path] = {}
        for key, file_name in wanted.items():
            names = [file_name + end for end in PACKED]
            for places in nearer:
                paths = [p for place in places for n in names if (p := place / n).is_file()]
                if len({path.read_bytes() for path in paths}) > 1:
                    msg = (
                        f"{self.folder}: structure '{self.name}', {paths[0]} and {paths[1]} "
                        f"differ, and which is meant is not known. Copy it into the folder."
                    )
                    raise FormatError(msg, path=self.folder, structure=self.name)
                if paths:
                    found[key] = paths[0]
                    break
        missing = [file_name for key, file_name in wanted.items() if key not in found]
        if missing:
            what = (
                f"{', '.join(missing)} (sought here, in {stated}, in the parent folder and in "
                f"folders of these): pseudopotentials of the calculation, and orbitals that "
                f"SIESTA wrote for them"
            )
            raise _lacks(self.folder, self.name, what)
        return found


def is_potential(path: Path) -> bool:
    """Whether a file is a potential of ``pw2bgw.x``, by its first bytes."""
    try:
        with PACKED.get(path.suffix, open)(path, "rb") as file:
            return bool(file.read(len(MAGIC)) == MAGIC)
    except (OSError, EOFError, lzma.LZMAError, zlib.error):
        return False


def _folders(place: Path) -> list[Path]:
    return sorted(path for path in place.iterdir() if path.is_dir())


def _lacks(folder: Path, name: str, what: str) -> FormatError:
    msg = f"{folder}: structure '{name}' lacks {what}. Copy the files here."
    return FormatError(msg, path=folder, structure=name)
