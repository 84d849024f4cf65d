"""Files: reading and writing structures with their operators; no torch."""
