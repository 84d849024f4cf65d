"""Tests of deeph_lightning.io."""
