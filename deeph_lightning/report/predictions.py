"""What a network says of structures whose DFT Hamiltonian is known, one at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from deeph_lightning.core.operator import Operator
from deeph_lightning.data.build import graph_from_record, operator_from_blocks
from deeph_lightning.data.records import record_from_system
from deeph_lightning.errors import BasisMismatchError, PhysicsError
from deeph_lightning.io.formats import SystemData


@dataclass(frozen=True)
class Prediction:
    """One structure: what DFT says and what a network says.

    Attributes
    ----------
    system
        Structure with H of DFT, eV; S and the number of electrons where they are known.
    H
        Predicted, eV, on all pairs that H or S of DFT has.
    """

    system: SystemData
    H: Operator


def predict_systems(model: nn.Module, systems: Iterable[SystemData]) -> Iterator[Prediction]:
    """Predict structures on the pairs of their DFT operators.

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
    network = getattr(model, "model", model)
    device = next(network.parameters()).device
    network.eval()
    for system in systems:
        _check_basis(system, network)
        record, _ = record_from_system(system)
        graph = graph_from_record(record, network.basis, network.r_message)
        with torch.no_grad():
            blocks = network(graph.to(device))
        for values in blocks.values():
            if not torch.isfinite(values).all():
                raise PhysicsError(
                    f"structure '{system.name}': the predicted H holds NaN or infinities, so "
                    f"training has diverged. Train again with a smaller learning rate.",
                    structure=system.name,
                )
        yield Prediction(
            system, operator_from_blocks(graph, blocks, network.basis, system.atoms)
        )


def _check_basis(system: SystemData, network: nn.Module) -> None:
    """Compare shells and spin of a structure with those of the network."""
    known = network.basis.shells
    for label, shells in system.basis.shells.items():
        if known.get(label, shells) != shells:
            raise BasisMismatchError(
                f"structure '{system.name}': {label} has shells {list(shells)}, the model was "
                f"trained with {list(known[label])}. Use data of the same basis, or train anew.",
                structure=system.name,
            )
    if system.is_spinful:
        raise BasisMismatchError(
            f"structure '{system.name}': its H is spinful, the model is not. Use spinless data.",
            structure=system.name,
        )
