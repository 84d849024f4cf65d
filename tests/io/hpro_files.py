"""Writes the files of a plane-wave calculation, and H(k) and S(k) of its orbitals.

Hydrogen in a cubic cell, in a potential of a few plane waves, with a made-up
pseudopotential and polynomials as orbitals and projectors. Everything is in hartree and bohr;
the potential file is in rydberg.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

SIDE = 5.0
POSITIONS = np.array([[0.3, 0.1, -0.4], [2.5, 1.6, 2.2]])
#: Plane waves of the potential, the partners at -G left out, and their coefficients.
WAVES = {(0, 0, 0): -0.31, (1, 0, 0): 0.12 + 0.05j, (0, 1, -1): -0.08j, (1, 1, 1): 0.04}


@dataclass(frozen=True)
class Radial:
    """R(r) = a r^l (1 - r²/c²)³ within the cutoff c, normalised."""

    l: int
    cutoff: float

    def over_power(self, r: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return R(r) / r^l."""
        grid = np.linspace(0, self.cutoff, 4001)
        norm = np.trapezoid((grid ** (self.l + 1) * self._shape(grid)) ** 2, grid)
        return self._shape(r) / np.sqrt(norm)

    def _shape(self, r: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.clip(1 - (r / self.cutoff) ** 2, 0, None) ** 3

    def values(self, d: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return R(r) Y_lm at vectors ``(..., 3)``, ``(2l+1, ...)``: s, or y z x."""
        radial = self.over_power(np.linalg.norm(d, axis=-1))
        if self.l == 0:
            return radial[None] * np.sqrt(1 / (4 * np.pi))
        return radial * np.moveaxis(d[..., [1, 2, 0]], -1, 0) * np.sqrt(3 / (4 * np.pi))


ORBITALS = (Radial(0, 2.8), Radial(0, 2.2), Radial(1, 2.6))
PROJECTORS = {Radial(0, 1.5): 0.6, Radial(1, 1.4): -0.4}


@dataclass
class Calculation:
    """What is written; change it before writing.

    Attributes
    ----------
    xml
        Texts of the XML file to be replaced, by what is there.
    degrees
        Order of the projectors by l.
    mesh_power
        1 for a uniform mesh of the pseudopotential.
    """

    xml: dict[str, str] = field(default_factory=dict)
    degrees: tuple[int, ...] = (0, 1)
    mesh_power: float = 1.0

    def write(self, folder: Path, basis: Path) -> None:
        """Write potential and XML file to a folder, orbitals and projectors to another."""
        folder.mkdir(parents=True, exist_ok=True)
        basis.mkdir(parents=True, exist_ok=True)
        (folder / "VSC").write_bytes(potential())
        text = XML.format(
            atoms="".join(f'<atom name="H">{x} {y} {z}</atom>' for x, y, z in POSITIONS),
            side=SIDE,
        )
        for there, new in self.xml.items():
            assert there in text
            text = text.replace(there, new)
        (folder / "hydrogen.xml").write_text(text)
        (basis / "H.ion").write_text(ion())
        (basis / "H_made_up.upf").write_text(self._upf())

    def _upf(self) -> str:
        r = 2.0 * np.linspace(0, 1, 401) ** self.mesh_power
        chosen = [next(f for f in PROJECTORS if f.l == l) for l in self.degrees]
        betas = "".join(
            f'<PP_BETA.{n} size="{len(r)}" angular_momentum="{f.l}" '
            f'cutoff_radius="{f.cutoff}">{lines(r ** (f.l + 1) * f.over_power(r))}'
            f"</PP_BETA.{n}>\n"
            for n, f in enumerate(chosen, 1)
        )
        D = 2 * np.diag([PROJECTORS[f] for f in chosen])  # rydberg
        return (
            f'<UPF version="2.0.1">\n<PP_HEADER relativistic="scalar" number_of_proj="2"/>\n'
            f'<PP_MESH><PP_R size="{len(r)}">{lines(r)}</PP_R></PP_MESH>\n'
            f"<PP_NONLOCAL>{betas}<PP_DIJ>{lines(D.ravel())}</PP_DIJ></PP_NONLOCAL>\n</UPF>\n"
        )


def lines(values: NDArray[np.float64]) -> str:
    return "\n" + "\n".join(f"{v:.16e}" for v in values) + "\n"


def ion(symbol: str = "H", orbitals: Sequence[Radial] = ORBITALS) -> str:
    """Return orbitals as SIESTA writes them."""
    text = f"<preamble>\n{symbol}  pb nrl nc\n</preamble>\n"
    text += f"{symbol}  # Symbol\n{symbol}  # Label\n1.0  # Valence charge\n"
    text += f"2 {len(orbitals)} # Lmax for basis, no. of nl orbitals\n"
    text += "# PAOs:____\n"
    for n, f in enumerate(orbitals, 1):
        r = np.linspace(0, f.cutoff, 500)
        text += f" {f.l} {n} 1 0 1.0 #orbital l, n, z, is_polarized, population\n"
        text += f" 500 {r[1]:.16e} {f.cutoff:.16e} # npts, delta, cutoff\n"
        text += "".join(f"{x:.16e} {y:.16e}\n" for x, y in zip(r, f.over_power(r), strict=True))
    return text + "# KBs:____\n"


def potential() -> bytes:
    """Return the potential as ``pw2bgw.x`` writes it."""
    waves = WAVES | {tuple(-n for n in G): np.conj(v) for G, v in WAVES.items()}
    n, atoms = len(waves), len(POSITIONS)
    axes = np.concatenate(([SIDE**3, SIDE], np.eye(3).ravel(), (SIDE**2 * np.eye(3)).ravel()))
    sites = np.zeros(atoms, dtype=[("tau", "<f8", 3), ("Z", "<i4")])
    sites["tau"], sites["Z"] = POSITIONS / SIDE, 1
    records = [
        "VSC-Complex".ljust(32).encode() + b" " * 64,
        np.array([1, n, 1, 0, atoms], "<i4").tobytes() + np.array([240.0], "<f8").tobytes(),
        np.array([30, 30, 30], "<i4").tobytes(),
        axes.tobytes(),
        axes.tobytes(),  # of the reciprocal lattice: not used
        np.eye(3, dtype="<i4").tobytes(),
        np.zeros(3).tobytes(),
        sites.tobytes(),
        *[np.array([x], "<i4").tobytes() for x in (1, n)],
        np.array(list(waves), "<i4").tobytes(),
        *[np.array([x], "<i4").tobytes() for x in (1, n)],
        (2 * np.array(list(waves.values()), "<c16")).tobytes(),
    ]
    marks = [np.array([len(r)], "<i4").tobytes() for r in records]
    return b"".join(m + r + m for m, r in zip(marks, records, strict=True))


def matrices(k: NDArray[np.float64]) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """Return H(k), hartree, and S(k) from Bloch sums on a grid, k fractional.

    The kinetic energy is taken in plane waves; nothing is shared with two-centre integrals.
    """
    n = 40
    grid = np.stack(np.meshgrid(*[np.arange(n) / n] * 3, indexing="ij"), axis=-1)
    phase = np.exp(2j * np.pi * grid @ k)
    volume = SIDE**3 / n**3
    states = np.concatenate([bloch(f, p, grid, k) for p in POSITIONS for f in ORBITALS])
    betas = {f: [bloch(f, p, grid, k) for p in POSITIONS] for f in PROJECTORS}
    V = sum(
        (1 + any(G)) * (v * np.exp(2j * np.pi * grid @ np.array(G))).real
        for G, v in WAVES.items()
    )
    G = np.stack(np.meshgrid(*[np.fft.fftfreq(n, 1 / n)] * 3, indexing="ij"), axis=-1)
    kinetic = np.linalg.norm(2 * np.pi / SIDE * (G + k), axis=-1) ** 2 / 2
    waves = np.fft.fftn(states * phase.conj(), axes=(1, 2, 3), norm="ortho")
    S = np.einsum("axyz,bxyz->ab", states.conj(), states) * volume
    H = np.einsum("axyz,bxyz->ab", states.conj(), V * states) * volume
    H += np.einsum("axyz,bxyz->ab", waves.conj(), kinetic * waves) * volume
    for f, D in PROJECTORS.items():
        for beta in betas[f]:
            overlap = np.einsum("mxyz,bxyz->mb", beta.conj(), states) * volume
            H += D * overlap.conj().T @ overlap
    return H, S


def bloch(
    f: Radial, position: NDArray[np.float64], grid: NDArray[np.float64], k: NDArray[np.float64]
) -> NDArray[np.complex128]:
    """Return ``sum_R exp(2πi k·R) f(r - position - R)`` on a grid."""
    cells = np.array(list(np.ndindex(3, 3, 3))) - 1
    return sum(
        np.exp(2j * np.pi * k @ R) * f.values(SIDE * (grid - R) - position) for R in cells
    )


XML = """<?xml version="1.0" encoding="UTF-8"?>
<qes:espresso xmlns:qes="http://www.quantum-espresso.org/ns/qes/qes-1.0">
<general_info><creator NAME="PWSCF" VERSION="7.1">made up</creator></general_info>
<input>
<control_variables><calculation>scf</calculation></control_variables>
<spin><lsda>false</lsda><noncolin>false</noncolin><spinorbit>false</spinorbit></spin>
<basis><gamma_only>false</gamma_only><ecutwfc>60.0</ecutwfc></basis>
</input>
<output>
<convergence_info><scf_conv>
<convergence_achieved>true</convergence_achieved>
</scf_conv></convergence_info>
<algorithmic_info><uspp>false</uspp><paw>false</paw></algorithmic_info>
<atomic_species ntyp="1" pseudo_dir="../pseudos/">
<species name="H"><pseudo_file>H_made_up.upf</pseudo_file></species>
</atomic_species>
<atomic_structure nat="2" alat="{side}">
<atomic_positions>{atoms}</atomic_positions>
<cell><a1>{side} 0 0</a1><a2>0 {side} 0</a2><a3>0 0 {side}</a3></cell>
</atomic_structure>
<dft><functional>PBE</functional></dft>
<band_structure><nelec>2.0</nelec>
<highestOccupiedLevel>0.1</highestOccupiedLevel>
<lowestUnoccupiedLevel>0.3</lowestUnoccupiedLevel>
<ks_energies><k_point weight="2.0">0.0 0.0 0.5</k_point>
<eigenvalues size="2">0.1 0.3</eigenvalues></ks_energies>
</band_structure>
</output>
</qes:espresso>
"""
