"""Equivariant building blocks: Wigner matrices, edge frames, SO(2) layers, heads, baseline."""
