"""What a network says of structures whose DFT Hamiltonian is known, one at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from deeph_lightning.data.build import graph_from_record, operator_from_blocks
from deeph_lightning.data.records import record_from_system
from deeph_lightning.errors import BasisMismatchError, PhysicsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import nn

    from deeph_lightning.core.operator import Operator
    from deeph_lightning.io.system import SystemData
    from deeph_lightning.models.base import HamiltonianModel


@dataclass(frozen=True)
class Prediction:
    """One structure: what DFT says and what a network says.

    Attributes
    ----------
    system
        Structure with H of DFT, eV; S and the number of electrons where they are known.
    H
        Predicted, eV, both Hermitian halves.
    """

    system: SystemData
    H: Operator


def predict_systems(model: nn.Module, systems: Iterable[SystemData]) -> Iterator[Prediction]:
    """Predict structures on the pairs of their DFT operators that the model reaches.

    Parameters
    ----------
    model
        A `HamiltonianModel`, or the module that holds one as ``model``; it is put into
        evaluation mode and stays on its device.
    systems
        Structures with H.

    Raises
    ------
    BasisMismatchError
        A structure has orbitals or spin that the model does not have.
    PhysicsError
        The model returns NaN.
    DataError
        A structure has no H.
    """
    network = cast("HamiltonianModel", getattr(model, "model", model))
    network.eval()
    device = next(network.parameters()).device
    for system in systems:
        _check_basis(system, network)
        record, _ = record_from_system(system)
        graph = graph_from_record(record, network.basis, network.r_message)
        with torch.no_grad():
            blocks = network(graph.to(device))
        if not all(torch.isfinite(values).all() for values in blocks.values()):
            raise PhysicsError(
                f"structure '{system.name}': the predicted H holds NaN or infinities, so the "
                f"training has diverged. Train again with a smaller learning rate.",
                structure=system.name,
            )
        H = operator_from_blocks(graph, blocks, network.basis, system.atoms)
        yield Prediction(system, _within_reach(H, network))


def _within_reach(H: Operator, network: HamiltonianModel) -> Operator:
    """Leave out pairs longer than any that the model was trained on: it knows nothing there."""
    reach = np.zeros(len(H.pairs))
    for a, b, index in H.groups:
        reach[index] = network.r_target.get("-".join(sorted((a, b))), 0.0)
    rounding = 1e-6
    keep = H.pairs.is_onsite | (H.pairs.distances(H.atoms) <= reach + rounding)
    return H if keep.all() else H.on_pairs(H.pairs.select(keep))


def _check_basis(system: SystemData, network: HamiltonianModel) -> None:
    """Compare shells and spin of a structure with those of the network."""
    known = network.basis.shells
    for label, shells in system.basis.shells.items():
        if known.get(label, shells) != shells:
            raise BasisMismatchError(
                f"structure '{system.name}': {label} has shells {list(shells)}, the model has "
                f"{list(known[label])}. Use data of the same basis, or train anew.",
                structure=system.name,
            )
    if system.is_spinful:
        raise BasisMismatchError(
            f"structure '{system.name}': its H has spin, that of the model has not. Use data "
            f"without spin.",
            structure=system.name,
        )
