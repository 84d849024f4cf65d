"""Networks: one file a trunk; heads and baseline are shared (`deeph_lightning.nn`)."""
