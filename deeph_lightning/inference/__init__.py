"""Inference: from a checkpoint and a structure to a predicted Hamiltonian."""

from deeph_lightning.inference.calculator import HamiltonianCalculator

__all__ = ["HamiltonianCalculator"]
