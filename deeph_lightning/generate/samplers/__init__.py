"""Samplers: random changes of a structure."""
