"""Tests of deeph_lightning.inference."""
