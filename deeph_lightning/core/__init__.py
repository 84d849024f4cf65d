"""Structures, bases, pairs and operators; no torch."""
