"""Samplers that displace atoms: at random, or as temperature does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import units
from ase.data import chemical_symbols

from deeph_lightning.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms
    from numpy.typing import NDArray

#: ħ/k_B in K·fs.
HBAR_OVER_KB = 1e15 * units._hbar / units._k
#: Eigenvalues of a dynamical matrix below this part of the largest are no vibration.
SOFT_MODE = 1e-6


def positive(key: str, value: float) -> float:
    """Return a number that must be positive.

    Raises
    ------
    ConfigError
        It is not.
    """
    if not value > 0:
        msg = f"sampler.{key} = {value}: expected a positive number."
        raise ConfigError(msg, key=f"sampler.{key}")
    return float(value)


class Rattle:
    """Displace every atom independently.

    Parameters
    ----------
    stdev
        Standard deviation along each axis, Å.

    Raises
    ------
    ConfigError
        It is not positive.
    """

    def __init__(self, stdev: float = 0.05) -> None:
        self.stdev = positive("rattle.stdev", stdev)

    def check(self, structures: Sequence[Atoms]) -> None:
        """Suit every structure."""

    def draw(self, structure: Atoms, rng: np.random.Generator) -> Atoms:
        """Return a displaced copy."""
        atoms = structure.copy()
        atoms.positions += rng.normal(scale=self.stdev, size=atoms.positions.shape)
        return atoms


class Einstein:
    r"""Displace atoms as independent quantum oscillators of one frequency.

    Each Cartesian displacement is normal, with the variance of a harmonic oscillator of
    frequency :math:`\omega = k_B\theta/\hbar`, zero-point motion included,

    .. math:: \langle u^2\rangle = \frac{\hbar}{2 m \omega} \coth\frac{\hbar\omega}{2 k_B T}.

    Parameters
    ----------
    temperature
        K.
    einstein_temperature
        :math:`\theta`, K: one number, or one for each element.

    Raises
    ------
    ConfigError
        A temperature is not positive.
    """

    def __init__(
        self, temperature: float, einstein_temperature: float | Mapping[str, float]
    ) -> None:
        self.temperature = positive("einstein.temperature", temperature)
        self.theta = einstein_temperature
        theta = einstein_temperature
        values = list(theta.values()) if isinstance(theta, Mapping) else [theta]
        for value in values:
            positive("einstein.einstein_temperature", value)

    def check(self, structures: Sequence[Atoms]) -> None:
        """Check that every element has an Einstein temperature."""
        if not isinstance(self.theta, Mapping):
            return
        for atoms in structures:
            missing = sorted(set(atoms.symbols) - set(self.theta))
            if missing:
                msg = (
                    f"sampler.einstein.einstein_temperature has {', '.join(self.theta)}; "
                    f"structure '{atoms.info.get('name')}' holds {', '.join(missing)} too. "
                    f"Give one for each element."
                )
                raise ConfigError(msg, key="sampler.einstein.einstein_temperature")

    def draw(self, structure: Atoms, rng: np.random.Generator) -> Atoms:
        """Return a displaced copy."""
        atoms = structure.copy()
        theta = self.theta
        each = theta if isinstance(theta, Mapping) else dict.fromkeys(atoms.symbols, theta)
        width = oscillator_width(np.array([each[s] for s in atoms.symbols]), self.temperature)
        scale = width / np.sqrt(atoms.get_masses())
        atoms.positions += rng.normal(size=atoms.positions.shape) * scale[:, None]
        return atoms


def oscillator_width(theta: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Return the standard deviation of oscillators of unit mass, Å·u^(1/2).

    Parameters
    ----------
    theta
        Frequencies times ħ/k_B, K.
    temperature
        K.
    """
    hbar2_over_m_k = units._hbar**2 / (units._amu * units._k) * 1e20  # Å² K, of mass 1 u
    return np.sqrt(hbar2_over_m_k / (2 * theta) / np.tanh(theta / (2 * temperature)))


class Harmonic:
    """Displace along vibrations, which a calculator of ASE gives, as quantum oscillators.

    The dynamical matrix comes from central differences of the forces: once for each start
    structure, or for every structure that a sampler before has changed. Translations,
    rotations of molecules and unstable modes are not excited.

    Parameters
    ----------
    temperature
        K.
    calculator
        Name of a calculator of ASE: emt, lj, tip3p, ...
    arguments
        Its arguments.
    step
        Displacement of the differences, Å.

    Raises
    ------
    ConfigError
        A number is not positive, or ASE has no such calculator.
    """

    def __init__(
        self,
        temperature: float,
        calculator: str,
        arguments: Mapping[str, Any] | None = None,
        step: float = 0.01,
    ) -> None:
        self.temperature = positive("harmonic.temperature", temperature)
        self.step = positive("harmonic.step", step)
        self.calculator, self.arguments = calculator, dict(arguments or {})
        self._modes: dict[bytes, NDArray[np.float64]] = {}
        make_calculator("harmonic", calculator, self.arguments)

    def check(self, structures: Sequence[Atoms]) -> None:
        """Check that the calculator can do the structures; keep their modes, no others."""
        self._modes = {_contents(atoms): self._modes_of(atoms) for atoms in structures}

    def draw(self, structure: Atoms, rng: np.random.Generator) -> Atoms:
        """Return a displaced copy."""
        modes = self._modes.get(_contents(structure))
        if modes is None:
            modes = self._modes_of(structure)
        atoms = structure.copy()
        steps = (modes @ rng.normal(size=modes.shape[1])).reshape(-1, 3)
        atoms.positions += steps / np.sqrt(atoms.get_masses())[:, None]
        return atoms

    def _modes_of(self, structure: Atoms) -> NDArray[np.float64]:
        """Return mass-weighted modes times their widths, ``(3A, modes)``, Å·u^(1/2)."""
        calculator = make_calculator("harmonic", self.calculator, self.arguments)
        forces = forces_of("harmonic", calculator, structure)
        root = np.sqrt(np.repeat(structure.get_masses(), 3))
        matrix = np.empty((len(root), len(root)))
        for n in range(len(root)):
            ends = []
            for sign in (1, -1):
                moved = structure.copy()
                moved.positions.ravel()[n] += sign * self.step
                ends.append(forces(moved).ravel())
            matrix[n] = (ends[1] - ends[0]) / (2 * self.step)
        inner = np.eye(len(root)) - _rigid_motions(structure)
        weighted = inner @ ((matrix + matrix.T) / 2 / np.outer(root, root)) @ inner
        values, vectors = np.linalg.eigh(weighted)
        is_bound = values > SOFT_MODE * values.max()
        # eV/(Å² u) to angular frequencies, 1/fs
        omega = np.sqrt(values[is_bound]) * np.sqrt(units._e / units._amu) * 1e-5
        widths = oscillator_width(HBAR_OVER_KB * omega, self.temperature)
        return np.asarray(vectors[:, is_bound] * widths)


def _contents(structure: Atoms) -> bytes:
    """Return all that the modes of a structure depend on."""
    cell = np.asarray(structure.cell.array)
    parts = (
        structure.numbers,
        structure.get_masses(),
        structure.positions,
        cell,
        structure.pbc,
    )
    return b"".join(np.ascontiguousarray(part).tobytes() for part in parts)


def _rigid_motions(structure: Atoms) -> NDArray[np.float64]:
    """Return the projector on mass-weighted translations and, of a molecule, rotations."""
    root = np.sqrt(structure.get_masses())[:, None]
    arms = structure.positions - structure.get_center_of_mass()
    motions = [(root * axis).ravel() for axis in np.eye(3)]
    if not structure.pbc.any():
        motions += [(root * np.cross(axis, arms)).ravel() for axis in np.eye(3)]
    vectors, sizes, _ = np.linalg.svd(np.array(motions).T, full_matrices=False)
    vectors = vectors[:, sizes > SOFT_MODE * sizes.max()]  # a linear molecule turns two ways
    return vectors @ vectors.T


class MolecularDynamics:
    """Run Langevin dynamics with a calculator of ASE, anew for each structure.

    Parameters
    ----------
    temperature
        K.
    calculator
        Name of a calculator of ASE: emt, lj, tip3p, ...
    arguments
        Its arguments.
    n_step
        Steps of each run; it starts from the structure with random velocities.
    time_step
        fs.
    friction
        1/fs.

    Raises
    ------
    ConfigError
        A number is not positive, or ASE has no such calculator.
    """

    def __init__(
        self,
        temperature: float,
        calculator: str,
        arguments: Mapping[str, Any] | None = None,
        n_step: int = 200,
        time_step: float = 1.0,
        friction: float = 0.02,
    ) -> None:
        self.temperature = positive("md.temperature", temperature)
        self.n_step = int(positive("md.n_step", n_step))
        self.time_step = positive("md.time_step", time_step)
        self.friction = positive("md.friction", friction)
        self.calculator, self.arguments = calculator, dict(arguments or {})
        make_calculator("md", calculator, self.arguments)

    def check(self, structures: Sequence[Atoms]) -> None:
        """Check that the calculator can do the structures."""
        calculator = make_calculator("md", self.calculator, self.arguments)
        for atoms in structures:
            forces_of("md", calculator, atoms)

    def draw(self, structure: Atoms, rng: np.random.Generator) -> Atoms:
        """Return the last step of a run."""
        from ase.md.langevin import Langevin
        from ase.md.velocitydistribution import thermalize_momenta

        atoms = structure.copy()
        atoms.calc = make_calculator("md", self.calculator, self.arguments)
        # ASE asks for the random numbers of the older interface of NumPy
        old = np.random.RandomState(rng.integers(2**32))
        thermalize_momenta(atoms, temperature_K=self.temperature, rng=old)
        dynamics = Langevin(
            atoms,
            timestep=self.time_step * units.fs,
            temperature_K=self.temperature,
            friction=self.friction / units.fs,
            rng=old,
            fixcm=False,
        )
        dynamics.run(self.n_step)
        atoms.calc = None
        return atoms


def make_calculator(sampler: str, name: str, arguments: Mapping[str, Any]) -> Any:
    """Return a calculator of ASE by its name.

    Raises
    ------
    ConfigError
        There is none, or the arguments are not its own.
    """
    from ase.calculators.calculator import get_calculator_class

    try:
        return get_calculator_class(name)(**arguments)
    except (ImportError, AttributeError, KeyError, TypeError, ValueError) as error:
        msg = (
            f"sampler.{sampler}.calculator = {name!r} with arguments {dict(arguments)}: ASE "
            f"cannot make it ({error}). Known without further programs: emt, lj, morse, tip3p."
        )
        raise ConfigError(msg, key=f"sampler.{sampler}.calculator") from None


def forces_of(sampler: str, calculator: Any, structure: Atoms) -> Any:
    """Return a function of structures that gives their forces, eV/Å.

    Raises
    ------
    ConfigError
        The calculator cannot do this structure.
    """

    def forces(atoms: Atoms) -> Any:
        atoms.calc = calculator
        return atoms.get_forces()

    try:
        forces(structure.copy())
    except Exception as error:  # noqa: BLE001  # calculators raise whatever they meet
        elements = ", ".join(sorted({chemical_symbols[z] for z in structure.numbers}))
        msg = (
            f"sampler.{sampler}: the calculator cannot compute structure "
            f"'{structure.info.get('name')}' of {elements} ({type(error).__name__}: {error}). "
            f"Choose another one."
        )
        raise ConfigError(msg, key=f"sampler.{sampler}.calculator") from None
    return forces
