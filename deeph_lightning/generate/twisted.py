r"""Twisted bilayers in commensurate cells.

Two equal layers with a hexagonal lattice, one turned by the angle theta against the other,
share the lattice (J. M. B. Lopes dos Santos, N. M. R. Peres and A. H. Castro Neto, Phys. Rev. B
86, 155449): for coprime m, r > 0

.. math:: \cos\theta = \frac{3m^2 + 3mr + r^2/2}{3m^2 + 3mr + r^2},

with ``t1 = m a1 + (m + r) a2`` where r is no multiple of 3, and else
``t1 = (m + r/3) a1 + r/3 a2``, for lattice vectors a1, a2 at 60 degrees.
"""

from __future__ import annotations

import math

import numpy as np
from ase import Atoms
from ase.build import graphene, make_supercell
from numpy.typing import NDArray

from deeph_lightning.errors import ConfigError, PhysicsError

#: Largest departure of a layer from a hexagonal lattice, Å.
TOL_LATTICE = 1e-3


def angle_degrees(m: int, r: int) -> float:
    """Return the twist angle of a cell, degrees.

    Raises
    ------
    ConfigError
        m and r are not positive, or have a common divisor.
    """
    if m < 1 or r < 1 or math.gcd(m, r) != 1:
        raise ConfigError(
            f"m = {m}, r = {r}: expected positive integers without a common divisor.\n"
            "  Small angles have r = 1: m=1 is 21.79, m=6 is 5.09, m=30 is 1.08 degrees.",
            key="m",
        )
    square = 3 * m * m + 3 * m * r
    return math.degrees(math.acos((square + r * r / 2) / (square + r * r)))


def twisted_bilayer(
    m: int,
    r: int,
    lower: Atoms | None = None,
    upper: Atoms | None = None,
    *,
    spacing: float = 3.35,
    vacuum: float = 12.65,
    max_strain: float = 0.0,
) -> Atoms:
    """Build the commensurate cell of two hexagonal layers.

    Parameters
    ----------
    m, r
        Integers of the cell, coprime; see the module.
    lower, upper
        One cell of each layer, hexagonal in the plane of the first two lattice vectors; without
        them graphene with a = 2.466 Å. `upper` without a value equals `lower`.
    spacing
        Between the top atom of the lower and the bottom atom of the upper layer, Å.
    vacuum
        Empty space between periodic images of the bilayer, Å.
    max_strain
        The upper layer is strained in its plane to the lattice constant of the lower, up to
        this, relative.

    Returns
    -------
    Atoms
        Periodic along all three vectors, the lower layer first.

    Raises
    ------
    ConfigError
        m, r, spacing or vacuum are out of range.
    PhysicsError
        A layer is not hexagonal, or the lattice constants differ by more than the strain.
    """
    angle = math.radians(angle_degrees(m, r))
    for key, value in (("spacing", spacing), ("vacuum", vacuum)):
        if not 0 < value < math.inf:
            raise ConfigError(f"{key} = {value}: expected a positive length in Å.", key=key)
    lower = graphene(a=2.466) if lower is None else lower
    upper = lower if upper is None else upper
    layers = [_hexagonal(layer, name) for layer, name in ((lower, "lower"), (upper, "upper"))]
    first, second = (float(np.linalg.norm(layer.cell[0])) for layer in layers)
    if abs(first - second) > max(TOL_LATTICE, max_strain * second):
        raise PhysicsError(
            f"the lower layer has the lattice constant {first:.4f} Å, the upper {second:.4f} "
            f"Å: no cell of this kind fits both.\n  Allow the upper to be strained by "
            f"{abs(first / second - 1):.2%}: max_strain={abs(first / second - 1) + 1e-4:.4f}"
        )
    plane = layers[1].cell.array.copy()
    plane[:2] *= first / second
    layers[1].set_cell(plane, scale_atoms=True)
    # vectors of the cell in those of each layer; the mirrored integers turn the other way
    p, q = (m, m + r) if r % 3 else (m + r // 3, r // 3)
    parts = [_supercell(layers[0], p, q), _supercell(layers[1], q, p)]
    cell = parts[0].cell.array
    for part in parts[1:]:
        part.rotate(-math.degrees(_azimuth(part.cell.array) - _azimuth(cell)), "z",
                    rotate_cell=True)  # fmt: skip
    turned = _azimuth(_unit(parts[1], q, p)) - _azimuth(_unit(parts[0], p, q))
    assert math.isclose(math.cos(6 * turned), math.cos(6 * angle), abs_tol=1e-9)
    return _stacked(parts, cell, spacing, vacuum)


def _hexagonal(layer: Atoms, name: str) -> Atoms:
    """Return a layer with its lattice vectors at exactly 60 degrees, a1 along x, a2 in xy."""
    layer = layer.copy()
    layer.cell = layer.cell.complete()
    layer.pbc = True
    a, b, _, alpha, beta, gamma = layer.cell.cellpar()
    is_hexagonal = abs(a - b) < TOL_LATTICE and min(abs(gamma - 60), abs(gamma - 120)) < 0.05
    if not is_hexagonal or max(abs(alpha - 90), abs(beta - 90)) > 0.05:
        raise PhysicsError(
            f"the {name} layer has lattice vectors of {a:.4f} and {b:.4f} Å at {gamma:.2f} "
            "degrees; expected a hexagonal lattice: equal ones at 60 or 120 degrees, the third "
            "perpendicular.\n  Give a primitive cell of a hexagonal layer."
        )
    if abs(gamma - 120) < 1:
        layer = make_supercell(layer, [[1, 0, 0], [1, 1, 0], [0, 0, 1]])
    normal = np.cross(layer.cell[0], layer.cell[1])
    layer.rotate(normal, "z", rotate_cell=True)
    layer.rotate(-math.degrees(_azimuth(layer.cell.array)), "z", rotate_cell=True)
    # what is left within the tolerance would keep the two supercells from being one
    side = 0.5 * (a + b)
    plane = [[side, 0, 0], [side / 2, side * math.sqrt(3) / 2, 0], layer.cell.array[2]]
    layer.set_cell(plane, scale_atoms=True)
    return layer


def _supercell(layer: Atoms, p: int, q: int) -> Atoms:
    """Cell of ``t1 = p a1 + q a2`` and t2, t1 turned by 60 degrees."""
    cell: Atoms = make_supercell(layer, [[p, q, 0], [-q, p + q, 0], [0, 0, 1]])
    return cell


def _unit(part: Atoms, p: int, q: int) -> NDArray[np.float64]:
    """Lattice vectors of a layer, from those of its supercell."""
    matrix = np.array([[p, q], [-q, p + q]])
    return np.linalg.solve(matrix, part.cell.array[:2])


def _azimuth(cell: NDArray[np.float64]) -> float:
    return math.atan2(cell[0, 1], cell[0, 0])


def _stacked(
    parts: list[Atoms], cell: NDArray[np.float64], spacing: float, vacuum: float
) -> Atoms:
    """Put layers on each other, the same empty space below and above."""
    height = 0.5 * vacuum
    for part in parts:
        z = part.positions[:, 2]
        z += height - z.min()
        height = z.max() + spacing
    length = height - spacing + 0.5 * vacuum
    bilayer = parts[0] + parts[1]
    bilayer.set_cell([[*cell[0, :2], 0.0], [*cell[1, :2], 0.0], [0.0, 0.0, length]])
    bilayer.pbc = True
    bilayer.wrap()
    return bilayer
