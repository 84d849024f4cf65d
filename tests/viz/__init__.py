"""Tests of deeph_lightning.viz."""
