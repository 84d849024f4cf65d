"""Inference: from a checkpoint and a structure to a predicted Hamiltonian."""
