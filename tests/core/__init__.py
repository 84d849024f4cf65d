"""Tests of deeph_lightning.core."""
