"""Structures to predict and to calculate."""
