"""Callbacks, one file each; `conf/callbacks/default.yaml` lists those that are on."""
