"""PySCF as an engine: H and S of molecules and of small periodic cells.

Molecules have one matrix, cut into blocks of all pairs of atoms. Periodic cells are in
`pyscf_periodic`. Energies are as PySCF has them, zero at infinity for molecules.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from deeph_lightning.errors import ConfigError, MissingDependencyError, NotConvergedError
from deeph_lightning.io.code_output import facts
from deeph_lightning.io.pyscf.orbitals import (
    all_pairs,
    fermi_level,
    operator_of,
    shells_of,
)
from deeph_lightning.io.system import SystemData
from deeph_lightning.units import BOHR_ANGSTROM, HARTREE_EV

if TYPE_CHECKING:
    from pathlib import Path

    from ase import Atoms

#: Largest change of the energy in the last cycle, hartree; the gradient decides.
CONV_TOL = 1e-9
#: The same with fractional fillings, whose changes are no part of the gradient.
FRACTIONAL_TOL = 1e-12
#: Orbital gradient at which the second-order attempt gives its density to DIIS, hartree.
NEWTON_GRAD = 1e-4
#: Width of the Fermi function in the third attempt, before that of the calculation.
WIDER = 5.0
#: Spin density above which a two-component calculation counts as magnetic.
TOL_MAGNETIC = 1e-3


class PySCF:
    """Settings of a calculation with PySCF (Q. Sun et al., J. Chem. Phys. 153, 024109).

    Attempts at self-consistency: DIIS; DIIS with damping and a level shift; DIIS
    from a density found by a second-order solver, or, with smearing, by a wider Fermi function.

    Parameters
    ----------
    xc
        Functional, in PySCF's words.
    basis, pseudo, ecp
        Names of PySCF, or one for each element.
    method
        "rks"; "uks", collinear spin; "gks", two-component spinors of molecules.
    relativity
        None; "sfx2c1e", scalar; "x2c1e", with spin-orbit coupling, for "gks".
    charge, spin
        Charge, and number of unpaired electrons.
    kmesh
        k-points of self-consistency along each lattice vector.
    smearing_eV
        Width of the Fermi function that fills the states of periodic cells; None: states are
        full or empty.
    ke_cutoff
        Of the plane waves of densities in periodic cells, hartree; None: PySCF's estimate.
    overlap_threshold
        Pairs of atoms of a periodic cell end where their orbitals overlap by less.
    density_fit
        Fit densities of molecules.
    grid_level
        Of the integration grid of molecules, 0 to 9.
    conv_tol_grad
        Largest orbital gradient, hartree: about the error of H. That of the energy is of
        second order and says little.
    max_cycle
        Cycles of an attempt.
    max_memory_MB
        What PySCF may use.
    density_matrix
        Return the density matrix of molecules, too.

    Raises
    ------
    ConfigError
        A value is out of range, or two of them exclude each other.
    """

    n_attempt = 3
    incidental = ("max_memory_MB",)

    def __init__(
        self,
        xc: str = "pbe",
        basis: str | Mapping[str, str] = "def2-svp",
        pseudo: str | Mapping[str, str] | None = None,
        ecp: str | Mapping[str, str] | None = None,
        method: Literal["rks", "uks", "gks"] = "rks",
        relativity: Literal["sfx2c1e", "x2c1e"] | None = None,
        charge: int = 0,
        spin: int = 0,
        kmesh: Sequence[int] = (1, 1, 1),
        smearing_eV: float | None = None,
        ke_cutoff: float | None = None,
        overlap_threshold: float = 1e-8,
        density_fit: bool = False,
        grid_level: int = 4,
        conv_tol_grad: float = 1e-8,
        max_cycle: int = 100,
        max_memory_MB: int = 2000,
        density_matrix: bool = False,
    ) -> None:
        self.xc, self.basis, self.pseudo, self.ecp = xc, basis, pseudo, ecp
        self.method, self.relativity = method, relativity
        self.charge, self.spin, self.kmesh = charge, spin, tuple(kmesh)
        self.smearing_eV, self.ke_cutoff = smearing_eV, ke_cutoff
        self.overlap_threshold, self.density_fit = overlap_threshold, density_fit
        self.grid_level, self.max_cycle = grid_level, max_cycle
        self.conv_tol_grad = conv_tol_grad
        self.max_memory_MB, self.density_matrix = max_memory_MB, density_matrix
        for key, is_right, expected in (
            ("kmesh", len(self.kmesh) == 3 and all(n >= 1 for n in self.kmesh),
             "three positive integers"),
            ("smearing_eV", smearing_eV is None or (smearing_eV > 0 and method == "rks"),
             "a positive width, eV, with method=rks"),
            ("ke_cutoff", ke_cutoff is None or ke_cutoff > 0, "a positive energy, hartree"),
            ("overlap_threshold", 0 < overlap_threshold < 0.1, "a number from 0 to 0.1"),
            ("grid_level", 0 <= grid_level <= 9, "0 to 9"),
            ("conv_tol_grad", conv_tol_grad > 0, "a positive energy, hartree"),
            ("max_cycle", max_cycle >= 1, "at least one"),
            ("spin", spin == 0 or method == "uks", "0, or method=uks"),
            ("relativity", relativity != "x2c1e" or method == "gks",
             "sfx2c1e or null: spin-orbit coupling needs method=gks"),
        ):  # fmt: skip
            if not is_right:
                value = getattr(self, key)
                msg = f"engine.{key} = {value!r}: expected {expected}."
                raise ConfigError(msg, key=f"engine.{key}")

    def check(self, structures: Sequence[Atoms]) -> dict[str, Any]:
        """Check basis, electrons, periodicity and functional (see `engine.Engine`)."""
        pyscf = _imported("pyscf")
        libxc = _imported("pyscf.dft.libxc")
        try:
            libxc.parse_xc(self.xc)
        except (KeyError, ValueError) as error:
            msg = f"engine.xc = {self.xc!r}: PySCF does not know this functional ({error})."
            raise ConfigError(msg, key="engine.xc") from None
        kinds: dict[tuple[Any, ...], Atoms] = {}
        for atoms in structures:
            kinds.setdefault((str(atoms.symbols), tuple(atoms.pbc)), atoms)
        for atoms in kinds.values():
            self._check_structure(atoms)
        return {"code": "PySCF", "version": pyscf.__version__}

    def _check_structure(self, atoms: Atoms) -> None:
        name = atoms.info["name"]
        if atoms.pbc.any() and not atoms.pbc.all():
            msg = (
                f"structure '{name}': periodic along {atoms.pbc.tolist()}; the engine pyscf "
                f"computes molecules, and cells periodic along all three vectors. Give a slab "
                f"a third vector with vacuum, and make it periodic along it."
            )
            raise ConfigError(msg, key="structure")
        if atoms.pbc.all() and (self.method == "gks" or self.relativity is not None):
            msg = (
                f"structure '{name}' is periodic: engine.method = {self.method!r}, relativity "
                f"= {self.relativity!r} are for molecules. Use rks or uks without relativity."
            )
            raise ConfigError(msg, key="engine.method")
        if not atoms.pbc.any() and self.smearing_eV is not None:
            msg = (
                f"structure '{name}' is a molecule: engine.smearing_eV = {self.smearing_eV} is "
                f"for periodic cells. Leave it out."
            )
            raise ConfigError(msg, key="engine.smearing_eV")
        try:
            self.molecule(atoms)
        except Exception as error:  # noqa: BLE001  # PySCF raises whatever it meets
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            msg = (
                f"structure '{name}' ({atoms.get_chemical_formula()}): PySCF cannot set it up "
                f"({reason}). Check engine.basis = {self.basis!r}, pseudo = {self.pseudo!r}, "
                f"ecp, charge = {self.charge} and spin = {self.spin}."
            )
            raise ConfigError(msg, key="engine.basis") from None
        if atoms.pbc.all():
            from deeph_lightning.generate.engines.pyscf_periodic import (
                check_filling,
                check_mesh,
            )

            check_mesh(self, atoms)
            check_filling(self, atoms)

    def molecule(self, atoms: Atoms, *, only_basis: bool = False) -> Any:
        """Return the ``Mole``, or ``Cell`` of a periodic structure, built.

        With `only_basis` it may have any number of electrons.
        """
        is_periodic = bool(atoms.pbc.all())
        module = _imported("pyscf.pbc.gto" if is_periodic else "pyscf.gto")
        mol = module.Cell() if is_periodic else module.Mole()
        mol.atom = list(
            zip(atoms.get_chemical_symbols(), atoms.positions / BOHR_ANGSTROM, strict=True)
        )
        mol.unit = "Bohr"
        mol.basis = self.basis if isinstance(self.basis, str) else dict(self.basis)
        for key, value in (("pseudo", self.pseudo), ("ecp", self.ecp)):
            if value is not None:
                setattr(mol, key, value if isinstance(value, str) else dict(value))
        mol.charge, mol.spin = (0, None) if only_basis else (self.charge, self.spin)
        if self.smearing_eV is not None:
            mol.spin = None  # a cell may have an odd number of electrons
        mol.verbose, mol.max_memory = 0, self.max_memory_MB
        if is_periodic:
            mol.ke_cutoff = self.ke_cutoff
            mol.a = np.asarray(atoms.cell.array) / BOHR_ANGSTROM
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of missing optional parts of PySCF
            mol.build(dump_input=False, parse_arg=False)
        return mol

    def run(self, structure: Atoms, folder: Path, attempt: int) -> SystemData:
        """Compute one structure (see `engine.Engine`)."""
        mol = self.molecule(structure)
        if structure.pbc.all():
            from deeph_lightning.generate.engines.pyscf_periodic import compute

            return compute(self, mol, structure, folder, attempt)
        mf = self._mean_field(mol)
        self.converge(mf, structure, folder, attempt)
        return self._system(mf, mol, structure)

    def _mean_field(self, mol: Any) -> Any:
        """Return the method of a molecule."""
        dft = _imported("pyscf.dft")
        mf = {"rks": dft.RKS, "uks": dft.UKS, "gks": dft.GKS}[self.method](mol, xc=self.xc)
        if self.relativity == "sfx2c1e":
            mf = mf.sfx2c1e()
        elif self.relativity == "x2c1e":
            mf = mf.x2c1e()
        if self.density_fit:
            mf = mf.density_fit()
        mf.grids.level = self.grid_level
        return mf

    def converge(self, mf: Any, structure: Atoms, folder: Path, attempt: int) -> None:
        """Bring a method of PySCF to self-consistency, by one of three ways.

        Raises
        ------
        NotConvergedError
            It does not get there.
        """
        mf.chkfile = str(folder / "scf.chk")
        mf.conv_tol, mf.conv_tol_grad = CONV_TOL, self.conv_tol_grad
        if self.smearing_eV is not None:
            mf.conv_tol = FRACTIONAL_TOL
        mf.max_cycle = self.max_cycle
        density = None
        if attempt == 1:
            mf.level_shift, mf.damp, mf.diis_start_cycle = 0.3, 0.5, 5
        elif attempt == 2 and self.smearing_eV is not None:
            mf.sigma *= WIDER
            mf.kernel()
            density = mf.make_rdm1()
            mf.sigma /= WIDER
        elif attempt == 2:
            solver = mf.newton()
            solver.conv_tol_grad = NEWTON_GRAD
            solver.kernel()
            density = solver.make_rdm1()
        mf.kernel(density)
        if not mf.converged:
            msg = (
                f"structure '{structure.info['name']}': not self-consistent after "
                f"{self.max_cycle} cycles (attempt {attempt + 1} of {self.n_attempt})."
            )
            raise NotConvergedError(msg)
        mf.level_shift = mf.damp = 0  # no part of H

    def _system(self, mf: Any, mol: Any, structure: Atoms) -> SystemData:
        is_spinful = self.method != "rks"
        density = mf.make_rdm1()
        fock = np.asarray(mf.get_fock(dm=density))
        n_orb = mol.nao
        if self.method == "uks":
            fock = np.kron(np.diag([1, 0]), fock[0]) + np.kron(np.diag([0, 1]), fock[1])
            density = density[0] + density[1]
        elif self.method == "gks":
            _refuse_magnetic(density, mf.get_ovlp(), structure.info["name"])
        basis, _ = shells_of(mol._bas, structure.get_chemical_symbols(), structure.info["name"])
        pairs = all_pairs(len(structure))
        which = np.zeros(len(pairs), dtype=np.int64)

        def operator(matrix: Any, unit: str, spin: bool) -> Any:
            return operator_of(
                structure, basis, pairs, matrix[None], which, unit=unit, is_spinful=spin
            )

        rho = None
        if self.density_matrix:
            rho = operator(density, "1", self.method == "gks")
        return SystemData(
            structure.info["name"],
            structure,
            basis,
            is_spinful,
            H=operator(fock, "hartree", is_spinful),
            S=operator(mol.intor("int1e_ovlp").reshape(n_orb, n_orb), "1", False),
            rho=rho,
            fermi_energy=fermi_level(mf.mo_energy, mf.mo_occ) * HARTREE_EV,
            n_electrons=float(mol.nelectron),
            info=self.facts(),
        )

    def facts(self) -> dict[str, Any]:
        """Return what is said of the calculation (see `code_output.facts`)."""
        spin = {"rks": "none", "uks": "collinear", "gks": "spinor"}[self.method]
        return facts(
            code="PySCF",
            code_version=_imported("pyscf").__version__,
            functional=self.xc,
            spin=spin,
            is_converged=True,
        ) | {"basis": self.basis if isinstance(self.basis, str) else dict(self.basis)}


def _refuse_magnetic(density: Any, overlap: Any, structure: str) -> None:
    """Refuse spinors without time reversal: functionals see magnetisation along z only."""
    n = len(density) // 2
    uu, ud, du, dd = density[:n, :n], density[:n, n:], density[n:, :n], density[n:, n:]
    odd = (uu - dd.conj(), ud + du.conj())
    worst = max(float(np.abs(overlap[:n, :n] @ part).max()) for part in odd)
    if worst > TOL_MAGNETIC:
        msg = (
            f"structure '{structure}': the spinors are magnetic (spin density {worst:.1e}), "
            f"for which H of method=gks is not right. Use method=uks, or a closed shell."
        )
        raise ConfigError(msg, key="engine.method")


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        msg = (
            f"engine=pyscf: the package {error.name} is not installed. Install it by "
            f"pip install 'deeph-lightning[pyscf]', or choose another engine."
        )
        raise MissingDependencyError(msg) from None
