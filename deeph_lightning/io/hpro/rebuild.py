"""H and S of a plane-wave calculation, rebuilt by the package HPRO in the basis of orbitals.

S, the kinetic energy and the projectors are two-centre integrals; the local potential is
integrated over the grid of its file.

Source: X. Gong, S. G. Louie, W. Duan, Y. Xu, Nat. Comput. Sci. 4, 752 (2024).
"""

from __future__ import annotations

import io
import shutil
import tempfile
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree

import numpy as np

from deeph_lightning.core.operator import Operator
from deeph_lightning.errors import DataError, DeepHError, FormatError, MissingDependencyError
from deeph_lightning.io.files import SAME_POSITION
from deeph_lightning.io.hpro.espresso import CONSTANTS, PACKED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deeph_lightning.io.hpro.espresso import Run


class Rebuilt(NamedTuple):
    """H, eV, and S, and the program that made them."""

    H: Operator
    S: Operator
    program: str


def rebuilt(run: Run) -> Rebuilt:
    """Rebuild H and S of a calculation.

    Raises
    ------
    FormatError
        A file is missing, damaged or of another form.
    DataError
        The potential is of another structure than the XML file.
    MissingDependencyError
        HPRO, mpi4py or an MPI library is not installed.
    """
    atoms, basis = run.atoms, run.basis
    with tempfile.TemporaryDirectory(prefix="hpro_") as folder, _running(run):
        for name, path in (run.files | {"VSC": run.potential}).items():
            opener = PACKED.get(path.suffix, open)
            with opener(path, "rb") as packed, (Path(folder) / name).open("wb") as plain:
                shutil.copyfileobj(packed, plain)
        found = _matrices(run, Path(folder))
        H, S = (
            Operator.from_blocks(
                atoms,
                basis,
                matrix.translations,
                matrix.atom_pairs[:, 0],
                matrix.atom_pairs[:, 1],
                [np.asarray(block) * factor for block in matrix.mats],
                unit=unit,
            )
            for matrix, unit, factor in zip(
                found, ("eV", "1"), (CONSTANTS.hartree, 1.0), strict=True
            )
        )
    return Rebuilt(H, S, f"HPRO {version('hpro')}")


def _matrices(run: Run, folder: Path) -> tuple[Any, Any]:
    """Return HPRO's H, hartree, and S: those that its ``run_pw2ao_rs`` writes to files."""
    from HPRO import config
    from HPRO.io.aodata import AOData
    from HPRO.io.hrloader import read_vloc, read_vnloc
    from HPRO.io.struio import from_bgw
    from HPRO.matao.matao import MatAO
    from HPRO.v2h.gridintg import GridIntgWorker
    from HPRO.v2h.twocenter import calc_overlap
    from HPRO.v2h.vkb import calc_vkb

    config.GRIDINTG_ENABLE_TQDM = False
    structure = from_bgw(str(folder / "VSC"))
    _check_same(run, structure)
    for path in sorted(folder.glob("*.upf")):
        _check_pseudopotential(path)
    orbitals = AOData(structure, basis_path_root=str(folder), aocode="siesta")
    orbitals.check_rstart()
    coefficients, _, projectors = read_vnloc(structure, str(folder), interface="qe")
    potential = read_vloc(str(folder / "VSC"), "bgw")
    ecut = run.number("input/basis/ecutwfc")
    for functions in (orbitals, projectors):
        functions.calc_phiQ(1.1 * ecut)
    S = calc_overlap(orbitals, Ecut=ecut)
    kinetic = calc_overlap(orbitals, Ecut=ecut, kind=2)
    projections = calc_overlap(projectors, aodata2=orbitals, Ecut=ecut)
    integrals = GridIntgWorker(structure, potential.shape, orbitals).gridintg(potential)
    local = MatAO.init_mats(S, orbitals, filling_value=0.0, dtype="f8")
    local.fillvalue(integrals.to_matao())
    return kinetic + local + calc_vkb(projections, coefficients), S


def _check_pseudopotential(path: Path) -> None:
    """Refuse pseudopotentials that HPRO would take for others."""
    root: Any = ElementTree.parse(path).getroot()
    if root.find("PP_HEADER").attrib["relativistic"] != "scalar":
        raise ValueError(f"{path.name} is not scalar relativistic")
    r = np.array(root.findtext("PP_MESH/PP_R").split(), dtype=np.float64)
    if np.ptp(np.diff(r)) > 1e-6 * r[-1]:
        raise ValueError(f"the mesh of {path.name} is not uniform")
    functions = [n for n in root.find("PP_NONLOCAL") if n.tag.startswith("PP_BETA")]
    degrees = [int(node.attrib["angular_momentum"]) for node in functions]
    if degrees != sorted(degrees):  # HPRO sorts projectors, but not their coefficients
        raise ValueError(f"projectors of {path.name} are not sorted by l: {degrees}")


def _check_same(run: Run, structure: Any) -> None:
    """Compare the structure of the potential with that of the XML file."""
    same = list(structure.atomic_numbers) == run.atoms.numbers.tolist()
    if same:
        own = np.concatenate((run.atoms.cell.array, run.atoms.positions))
        found = np.concatenate((structure.rprim, structure.atomic_positions_cart))
        same = bool(np.abs(found * CONSTANTS.bohr - own).max() < SAME_POSITION)
    if not same:
        msg = (
            f"{run.potential}: structure '{run.name}', its atoms are not those of {run.xml}. "
            f"Files of two calculations are mixed here: write the potential again."
        )
        raise DataError(msg, path=run.potential, structure=run.name)


@contextmanager
def _running(run: Run) -> Iterator[None]:
    """Silence HPRO, and turn whatever it raises into one error."""
    where = f"{run.potential}: structure '{run.name}',"
    try:
        import HPRO  # noqa: F401
        from mpi4py import MPI  # noqa: F401  # HPRO starts without, and fails later
    except (ImportError, RuntimeError) as error:  # the latter without an MPI library
        msg = (
            f"{where} HPRO rebuilds H and S from this potential, but it, mpi4py or an MPI "
            f'library is not installed ({error}): pip install "deeph-lightning[hpro]"'
        )
        raise MissingDependencyError(msg) from None
    try:
        with redirect_stdout(io.StringIO()):
            yield
    except DeepHError:
        raise
    except Exception as error:
        first = (str(error).strip() or "an assertion failed").splitlines()[0]
        used = ", ".join(str(path) for path in run.files.values())
        msg = (
            f"{where} HPRO cannot rebuild H from it and {used} ({type(error).__name__}: "
            f"{first[:300]}). One is damaged or of another form: expected a potential written "
            f"with real_or_complex = 2, norm-conserving UPF files of version 2 with a uniform "
            f"mesh, and .ion files with 500 points a function."
        )
        raise FormatError(msg, path=run.potential, structure=run.name) from error
