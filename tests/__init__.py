"""Tests of deeph_lightning."""
