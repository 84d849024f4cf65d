"""Tests of deeph_lightning.report."""
