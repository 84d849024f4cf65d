"""What a structure holds, whether it is as physics wants it, and what looks odd."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy import linalg

from deeph_lightning.core.basis import shell_text, species_labels
from deeph_lightning.core.checks import CHECKED_K
from deeph_lightning.core.pairs import neighbour_pairs
from deeph_lightning.core.spin import (
    spin_channel,
    spin_mixing,
    spin_orbit_constants,
    time_reversal_residual,
)
from deeph_lightning.core.two_centre import (
    SAME_DISTANCE,
    TOL_AUGMENTED,
    TOL_TWO_CENTRE,
    two_centre_residual,
)
from deeph_lightning.errors import OverlapNotPositiveError
from deeph_lightning.solve.dense import eigenvalues, fermi_level, kgrid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deeph_lightning.core.operator import Operator
    from deeph_lightning.io.code_output import Eigenvalues
    from deeph_lightning.io.system import SystemData

#: What is called odd, in the units of the names: eV, Å.
ODD_HERMITICITY_eV = 1e-6
ODD_HERMITICITY_S = 1e-7
ODD_NORM = 5e-2
ODD_SMALLEST_S = 1e-6
ODD_EIGENVALUE_eV = 2e-4
#: Bands of plane waves, and of the orbitals in which H was rebuilt.
ODD_REBUILT_eV = 0.3
ODD_EDGE_eV = 0.05
ODD_FERMI_eV = 0.2
#: Width of the end of a range, Å.
EDGE = 0.5
#: Elements below this count as empty.
EMPTY_eV = 1e-6
#: Largest difference of the spin-orbit constant between x, y and z, relative.
MAX_ANISOTROPY = 0.3
#: Length along a lattice vector that one k-point serves, Å, and width of its occupations, eV.
K_LENGTH = 25.0
SMEARING_eV = 0.02
#: Orbitals cubed times k-points that a count of electrons may cost.
MAX_WORK = 2e10


@dataclass
class Inspection:
    """Findings on one structure.

    Attributes
    ----------
    title
        Name, format and code.
    lines
        ``(what, finding)``, in the order of the printout.
    odd
        Sentences on what looks odd; empty if nothing does.
    numbers
        The measured residuals by name, for programs.
    """

    title: str
    lines: list[tuple[str, str]] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)

    def note(self, what: str, finding: str) -> None:
        """Add a line."""
        self.lines.append((what, finding))

    def text(self) -> str:
        """Return the printout."""
        rows = [f"  {what:16} {finding}" for what, finding in self.lines]
        odd = [f"  odd: {sentence}" for sentence in self.odd] or ["  nothing looks odd"]
        return "\n".join([self.title, *rows, *odd])


def inspect_system(
    system: SystemData,
    reference: Eigenvalues | None = None,
    *,
    max_k: int = 8,
    max_orbitals: int = 1500,
) -> Inspection:
    """Describe a structure and measure its residuals.

    Parameters
    ----------
    system
        Structure with its operators.
    reference
        Eigenvalues of the code, if its files have them.
    max_k
        K-points at which they are computed anew, spread over those of `reference`.
    max_orbitals
        Orbitals, with spin, up to which matrices are diagonalised.
    """
    code = " ".join(str(system.info[k]) for k in ("code", "code_version") if k in system.info)
    origin = ", ".join(
        filter(None, (system.source_format, code, system.info.get("functional")))
    )
    found = Inspection(f"{system.name} ({origin})")
    _describe_structure(found, system)
    if system.H is not None:
        _describe_H(found, system.H, system.S)
    if system.S is not None:
        _check_S(found, system.S, system.has_augmented_overlap, max_orbitals)
    for key, op in system.operators():
        value, _ = op.hermiticity_residual()
        found.numbers[f"hermiticity_{key}"] = value
        limit = ODD_HERMITICITY_eV if op.unit == "eV" else ODD_HERMITICITY_S
        if value > limit:
            found.odd.append(f"{key} is Hermitian to {value:.1e} only; codes reach {limit:.0e}")
    parts = [f"{k[12:]} {v:.1e}" for k, v in found.numbers.items() if k.startswith("hermit")]
    if parts:
        found.note("Hermitian to", ", ".join(parts) + " (H in eV)")
    if system.H is not None and system.H.is_spinful:
        _check_spin(found, system.H)
    if system.rho is not None and system.S is not None:
        _check_rho(found, system)
    if system.H is None:
        found.note("H", "none")
    elif system.H.n_orb > max_orbitals:
        found.note("eigenvalues", f"not computed: {system.H.n_orb} orbitals (max_orbitals)")
    elif system.S is None and not system.info.get("orthogonal_basis"):
        found.note("eigenvalues", "not computed: there is no overlap")
    else:
        try:
            if reference is not None:
                _compare_eigenvalues(found, system, reference, max_k)
            _check_fermi_level(found, system)
        except OverlapNotPositiveError:
            found.note("eigenvalues", "none: S(k) is not positive definite")
    if system.info.get("is_converged") is False:
        found.odd.append("the self-consistent cycle of the code did not converge")
    return found


def _describe_structure(found: Inspection, system: SystemData) -> None:
    atoms, basis = system.atoms, system.basis
    labels = species_labels(atoms)
    lengths = " x ".join(f"{length:.3f}" for length in atoms.cell.lengths())
    found.note("structure", f"{atoms.symbols}, {len(atoms)} atoms, cell {lengths} Å")
    counts = basis.orbital_counts(labels)
    shells = ", ".join(
        f"{label} {shell_text(basis.shells[label])} ({basis.n_orb(label)})"
        for label in sorted(set(labels.tolist()))
    )
    spin = system.info.get("spin", "spinor" if system.is_spinful else "none")
    found.note("orbitals", f"{int(counts.sum())}: {shells}; spin: {spin}")
    electrons = "unknown" if system.n_electrons is None else f"{system.n_electrons:g}"
    level = "unknown" if system.fermi_energy is None else f"{system.fermi_energy:.4f} eV"
    found.note("electrons", f"{electrons}, E_F {level}")


def _describe_H(found: Inspection, H: Operator, S: Operator | None) -> None:
    distance, largest = H.pairs.distances(H.atoms), H.largest_elements()
    full = np.abs(H.values) > EMPTY_eV
    couples = len(np.unique(H.pairs.i * len(H.atoms) + H.pairs.j)) / len(H.atoms) ** 2
    found.note(
        "H",
        f"{len(H.pairs)} pairs, {len(H.pairs) / len(H.atoms):.0f} an atom; of all couples of "
        f"atoms {couples:.0%} have a block, of all elements {full.mean():.0%} exceed "
        f"{EMPTY_eV:.0e} eV; largest {largest.max():.3f} eV",
    )
    seen = []
    for a, b, index in H.groups:
        if a <= b:
            seen.append(f"{a}-{b} {distance[index].max():.2f}")
            end = float(distance[index].max())
            value = float(largest[index[distance[index] > end - EDGE]].max())
            if end > 0 and value > ODD_EDGE_eV and _has_pairs_beyond(H, a, b, end):
                found.odd.append(
                    f"H of {a}-{b} is still {value:.3f} eV where its pairs end, and there are "
                    f"atoms just beyond: cut short?"
                )
    found.note("ranges of H", ", ".join(seen) + " Å")
    if S is None:
        return
    only_H = lacks_overlap(H, S)
    found.numbers["n_H_only"] = float(only_H.sum())
    found.numbers["largest_H_only_eV"] = float(largest[only_H].max(initial=0.0))
    text = "none"
    if only_H.any():
        near, far = distance[only_H].min(), distance[only_H].max()
        text = (
            f"{int(only_H.sum())}, {near:.2f} to {far:.2f} Å, largest "
            f"{1e3 * found.numbers['largest_H_only_eV']:.3g} meV"
        )
    found.note("pairs S lacks", text)


def lacks_overlap(H: Operator, S: Operator) -> NDArray[np.bool_]:
    """Return which pairs of H have no block of S, or one of zeros, ``(n_pair,)``."""
    return S.pairs.select(S.largest_elements() > 0).locate(H.pairs) < 0


def _has_pairs_beyond(H: Operator, a: str, b: str, end: float) -> bool:
    """Whether atoms of two species are a little farther apart than any of their pairs of H."""
    labels = species_labels(H.atoms)
    near = neighbour_pairs(H.atoms, end + EDGE)
    is_theirs = (labels[near.i] == a) & (labels[near.j] == b)
    return bool(np.any(near.distances(H.atoms)[is_theirs] > end + SAME_DISTANCE))


def _check_S(found: Inspection, S: Operator, is_augmented: bool, max_orbitals: int) -> None:
    onsite = np.flatnonzero(S.pairs.is_onsite)
    norm = max(float(np.abs(np.diag(S.block(int(n))) - 1).max()) for n in onsite)
    form = two_centre_residual(S)
    found.numbers |= {
        "norm": norm, "two_centre": form.rotation, "two_centre_distance": form.distance
    }  # fmt: skip
    found.note(
        "S",
        f"{len(S.pairs)} pairs; norms are 1 to {norm:.1e}; two-centre form to "
        f"{form.rotation:.1e}, the same at equal distances to {form.distance:.1e}",
    )
    if norm > ODD_NORM and not is_augmented:
        found.odd.append(f"the norm of an orbital differs from 1 by {norm:.1e}")
    if max(form.rotation, form.distance) > (TOL_AUGMENTED if is_augmented else TOL_TWO_CENTRE):
        found.odd.append(
            "S has not the form of two-centre integrals: order or signs of orbitals, the sign "
            "of R, or the order of atoms is wrong, or periodic images were added up"
        )
    if S.n_orb > max_orbitals:
        return
    spectra = [linalg.eigvalsh(S.bloch(k)) for k in CHECKED_K]
    lowest = min(float(values[0]) for values in spectra)
    condition = max(float(values[-1] / values[0]) for values in spectra)
    found.numbers |= {"smallest_S": lowest, "condition_S": condition}
    found.note("S(k)", f"smallest eigenvalue {lowest:.2e}, condition number {condition:.1e}")
    if lowest < ODD_SMALLEST_S:
        found.odd.append(
            f"S(k) is nearly singular (eigenvalue {lowest:.1e}): errors of H are amplified in "
            f"the bands; a smaller basis, or a projection, is needed"
            if lowest > 0
            else f"S(k) is not positive definite (eigenvalue {lowest:.1e}): S is wrong"
        )


def _check_spin(found: Inspection, H: Operator) -> None:
    exchange = time_reversal_residual(H)
    found.numbers["time_reversal_eV"] = exchange
    if spin_mixing(H) == 0:
        found.note("spin", f"nothing couples up and down; exchange up to {exchange:.3g} eV")
        return
    constants = spin_orbit_constants(H)
    largest = max(constants, key=lambda item: abs(item.xi), default=None)
    text = f"time reversal is broken by up to {exchange:.3g} eV"
    if largest is not None:
        symbol = H.atoms[largest.atom].symbol
        text += (
            f"; spin-orbit constant of {symbol} {'spdfgh'[largest.l]} {largest.xi:.3f} eV, "
            f"equal in x, y, z to {largest.anisotropy:.1e}"
        )
        found.numbers["spin_orbit_eV"] = largest.xi
        is_wrong = largest.xi < 0 or largest.anisotropy > MAX_ANISOTROPY * largest.xi
        if is_wrong and abs(largest.xi) > ODD_EIGENVALUE_eV:
            found.odd.append(
                "the spin-orbit constant is negative or differs between x, y and z: spins, or "
                "rows and columns of one of spin and orbitals, are exchanged"
            )
    found.note("spin", text)


def _check_rho(found: Inspection, system: SystemData) -> None:
    rho, S = system.rho, system.S
    assert rho is not None
    assert S is not None
    if rho.is_spinful:
        parts = [spin_channel(rho, channel) for channel in (0, 1)]
    else:
        parts = [rho]
    on_rho = S.on_pairs(rho.pairs).values
    count = sum(float((part.values.real * on_rho).sum()) for part in parts)
    found.numbers["electrons_of_rho"] = count
    found.note("density matrix", f"{len(rho.pairs)} pairs, holds {count:.5f} electrons")
    if system.n_electrons is not None and abs(count - system.n_electrons) > 1e-2:
        found.odd.append(
            f"the density matrix holds {count:.3f} electrons, not {system.n_electrons:g}"
        )


def _compare_eigenvalues(
    found: Inspection, system: SystemData, reference: Eigenvalues, max_k: int
) -> None:
    n_k = len(reference.k)
    which = np.unique(np.linspace(0, n_k - 1, min(n_k, max_k)).round().astype(int))
    own = computed_eigenvalues(system, reference.k[which], len(reference.energies))
    n_band = min(own.shape[2], reference.energies.shape[2])
    difference = np.abs(own[:, :, :n_band] - reference.energies[:, which, :n_band])
    worst = float(difference.max())
    found.numbers["eigenvalues_eV"] = worst
    text = f"{n_band} bands at {len(which)} k-points differ from the code's by {worst:.1e} eV"
    level = system.fermi_energy
    if level is not None and np.any(reference.energies[:, which, :n_band] < level):
        valence = float(difference[reference.energies[:, which, :n_band] < level].max())
        found.numbers["eigenvalues_valence_eV"] = valence
        text += f", below E_F by {valence:.1e}"
        worst = valence
    found.note("eigenvalues", text)
    if "rebuilt_by" in system.info:
        if worst > ODD_REBUILT_eV:
            found.odd.append(
                f"the bands of the orbitals differ from those of the plane waves by "
                f"{worst:.2f} eV: the basis is too small, or files are of two calculations"
            )
    elif worst > ODD_EIGENVALUE_eV:
        found.odd.append(
            f"the bands of H differ from those that the code printed by {worst:.1e} eV: files "
            f"of two calculations, or H before the last iteration"
        )


def computed_eigenvalues(
    system: SystemData, k: NDArray[np.float64], n_channel: int
) -> NDArray[np.float64]:
    """Return the eigenvalues of H, ``(n_channel, n_k, n_band)``, eV; two channels: up, down."""
    H = system.H
    assert H is not None
    channels = [spin_channel(H, n) for n in (0, 1)] if n_channel == 2 else [H]
    return np.stack([eigenvalues(channel, system.S, k) for channel in channels])


def _check_fermi_level(found: Inspection, system: SystemData) -> None:
    """Count electrons on a k-grid and compare with the Fermi level of the file."""
    H = system.H
    assert H is not None
    if not system.n_electrons or H.n_orb * (3 - H.n_spin) <= system.n_electrons:
        return
    lengths = np.maximum(H.atoms.cell.lengths(), EDGE)  # none of molecules
    size = np.ceil(K_LENGTH / lengths).astype(int)
    size[~np.array([np.any(H.pairs.R[:, axis]) for axis in range(3)])] = 1
    while size.max() > 1 and np.prod(size) * float(H.n_orb) ** 3 > MAX_WORK:
        size[np.argmax(size)] -= 1
    k, weight = kgrid(size, time_reversal=True)
    is_collinear = H.is_spinful and spin_mixing(H) == 0
    bands = computed_eigenvalues(system, k, 2 if is_collinear else 1)
    energies = np.concatenate(list(bands), axis=1)
    level = fermi_level(energies, weight, system.n_electrons, SMEARING_eV, 3 - H.n_spin)
    sorted_bands = np.sort(energies, axis=1)
    n_filled = round(system.n_electrons * H.n_spin / 2)
    gap = float(sorted_bands[:, n_filled:].min() - sorted_bands[:, :n_filled].max())
    grid = "x".join(str(n) for n in size)
    kind = f"gap {gap:.3f} eV" if gap > 0 else "a metal"
    found.numbers["fermi_level_eV"] = level
    found.note("Fermi level", f"{level:.4f} eV by counting on {grid} k-points; {kind}")
    stated = system.fermi_energy
    allowed = max(gap / 2, 0.0) + ODD_FERMI_eV
    if stated is not None and abs(stated - level) > allowed:
        found.odd.append(
            f"E_F of the file, {stated:.3f} eV, is {abs(stated - level):.2f} eV from the level "
            f"that holds {system.n_electrons:g} electrons"
        )
