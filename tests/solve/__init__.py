"""Tests of deeph_lightning.solve."""
