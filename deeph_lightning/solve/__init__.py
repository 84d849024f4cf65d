"""Physics from operators: eigenvalues, Fermi level, bands; no torch."""
