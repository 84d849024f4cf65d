"""The tolerances of the tests; a test writes no literal of its own."""

#: Sums and products of a few float64 numbers of order one.
FLOAT64 = 1e-12
#: Eigenvalues of float64 matrices of order ten, well conditioned.
EIGENVALUE = 1e-10
#: Eigenvalues (eV) of generalised problems whose overlap goes down to 1e-3.
EIGENVALUE_DFT = 1e-9
#: Wigner matrices to l = 6, least squares on random points included.
WIGNER = 1e-11
#: Densities of states whose S was factorised in single precision, relative to their peak.
SINGLE_PRECISION_S = 1e-3
#: Two-centre form of overlaps: ABACUS rounded to 2^-24 (formats.md 14), OpenMX.
TWO_CENTRE_ABACUS = 5e-6
TWO_CENTRE_OPENMX = 1e-11
#: Overlaps learnt on one set against those of DFT; and what they change in energies, eV.
LEARNED_OVERLAP = 1e-5
LEARNED_OVERLAP_EIGENVALUE = 1e-3
#: What a wrong orbital order leaves of it at least.
TWO_CENTRE_WRONG = 0.1
#: Eigenvalues (eV) of the rounded graphene set against the code's own.
ROUNDED_EIGENVALUE = 5e-5
#: Bands (eV) of a file made by another program from the same H and S.
BANDS_FILE = 1e-8
#: Rotational noise of DFT grids: H in eV, S.
DFT_ROTATION_H = 5e-4
DFT_ROTATION_S = 1e-5
#: Equivariance of a whole network, relative to the largest element.
MODEL_FLOAT64 = 1e-10
MODEL_FLOAT32 = 1e-5
#: Blocks of a repeated cell against those of the cell, float32, relative.
REPEATED_CELL = 1e-5
#: Derivatives of a network against central differences, relative.
DERIVATIVE = 1e-5
#: A smoke bound for bfloat16 matrix products, relative to what the network adds.
MODEL_BFLOAT16 = 5e-2
#: OpenMX: eigenvalues (eV) at k-points printed with five digits, isotropy of spin-orbit (eV).
OPENMX_EIGENVALUE = 1e-6
OPENMX_SPIN_ORBIT = 1e-5
#: FHI-aims, light settings: two-centre form and norms, which the grid limits; eigenvalues (eV)
#: of core levels of one atom against a converter of the same files.
TWO_CENTRE_AIMS = 1e-3
AIMS_EIGENVALUE = 1e-8
#: wannier90: energies (eV) on the k-points of the run, bands between them; six decimals of H.
WANNIER_GRID = 5e-5
WANNIER_BANDS = 5e-5
#: DeePTB: two-centre form of float32 files.
TWO_CENTRE_DEEPTB = 1e-6
#: Eigenvalues (eV) against those that a code printed: ABACUS; SIESTA; SIESTA far above E_F,
#: where its overlap is nearly singular (it prints those before the last mixing step).
CODE_EIGENVALUE_ABACUS = 2e-4
CODE_EIGENVALUE_SIESTA = 1e-4
CODE_EIGENVALUE_SIESTA_TOP = 2e-4
#: Against another converter of the same files: other constants of rydberg, digits of the log.
OTHER_CONVERTER = 1e-6
#: Elements of single precision files, relative.
SINGLE_PRECISION = 1e-6
#: Eigenvalues (eV) against those that the DFT code printed.
CODE_EIGENVALUE = 2e-4
#: Dense and sparse eigenvalues of one problem, eV.
DENSE_SPARSE = 1e-8
#: Fermi levels by counting negative pivots and by full diagonalisation, eV.
FERMI_INERTIA = 1e-4
#: Derivatives of bands (eV Å, eV Å^2) against central differences.
FINITE_DIFFERENCE = 1e-5
#: Density matrix of a converged calculation from its last H.
DENSITY_MATRIX = 1e-5
#: Lengths of built structures, Å; and of structures whose files round positions.
BUILT_LENGTH = 1e-8
GIVEN_LENGTH = 1e-3
#: Chunks of pairs against all at once, relative.
CHUNKS_FLOAT32 = 1e-6
#: Overlaps from orbital files against those of the code that used them.
ORBITAL_OVERLAP = 1e-6
#: Spatial parts against the whole, relative.
PARTS_FLOAT64 = 1e-12
