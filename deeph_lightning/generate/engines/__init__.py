"""Engines: codes that compute H of a structure, one file each."""
