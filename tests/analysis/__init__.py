"""Tests of what a user asks of a Hamiltonian."""
