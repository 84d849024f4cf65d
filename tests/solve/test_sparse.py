"""Sparse solvers against dense ones: counts, windows, Fermi levels, libraries."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from scipy import sparse

from deeph_lightning.errors import (
    ConfigError,
    MissingDependencyError,
    OverlapNotPositiveError,
    PhysicsError,
    ResourceError,
)
from deeph_lightning.io.source import open_source
from deeph_lightning.solve import factorisation as module
from deeph_lightning.solve.bands import band_structure, bands_near, compare_bands
from deeph_lightning.solve.dense import eigenvalues, overlap_at
from deeph_lightning.solve.factorisation import LIBRARIES, factorisation, residual
from deeph_lightning.solve.kpath import band_path
from deeph_lightning.solve.levels import grid_levels
from deeph_lightning.solve.pencil import Hermitian, Pencil
from deeph_lightning.solve.precision import N_VECTORS, ordered
from deeph_lightning.solve.sparse import SparseSolver
from deeph_lightning.solve.sparse_levels import sparse_levels
from deeph_lightning.solve.system import electronic_system
from tests.conftest import ROOT
from tests.solve.systems import toy
from tests.tolerances import DENSE_SPARSE, EIGENVALUE, FERMI_INERTIA, FLOAT64

K = np.array([[0.0, 0.0, 0.0], [0.12, -0.31, 0.0]])


@pytest.fixture(params=LIBRARIES)
def library(request) -> str:
    module = LIBRARIES[request.param]
    if module is not None:
        pytest.importorskip(module)
    return request.param


@pytest.fixture(scope="module")
def graphene():
    return electronic_system(open_source(ROOT / "data" / "graphene").read("000"))


@pytest.mark.parametrize("is_complex", [False, True])
def test_inertia_of_indefinite_matrices(library, is_complex, rng) -> None:
    """Random matrices, zeros on the diagonal included, against dense eigenvalues."""
    n, block = 120, np.repeat(np.arange(40), 3)
    for density in (0.03, 0.1):
        A = sparse.random_array((n, n), density=density, rng=rng).toarray()
        if is_complex:
            A = A + 1j * sparse.random_array((n, n), density=density, rng=rng).toarray()
        A = A + A.conj().T + np.diag(rng.normal(size=n))
        matrix = Hermitian(sparse.csr_array(np.triu(A)))
        assert np.abs(matrix.full().toarray() - A).max() < FLOAT64
        assert np.abs(matrix @ A[:, :2] - A @ A[:, :2]).max() < FLOAT64 * n
        factors = factorisation(library, is_complex=is_complex, counts=True)
        factors.analyse(matrix, block)
        factors.factorise(matrix)
        assert factors.n_entries() > np.count_nonzero(np.triu(A))
        # another matrix of the pattern, some elements zero
        values = matrix.upper.data.copy()
        values[1::2] = values[1::2].real
        values[1::3] = 0
        values[matrix.upper.indptr[:-1]] = matrix.diagonal
        matrix = matrix.with_values(values)
        A = matrix.full().toarray()
        factors.factorise(matrix)
        assert factors.n_negative() == int((np.linalg.eigvalsh(A) < 0).sum())
        assert residual(factors, matrix) < module.MAX_RESIDUAL


@pytest.mark.parametrize("spin", ["none", "spinful"])
@pytest.mark.parametrize("k", [[0.0, 0.5, 0.5], [0.1, -0.2, 0.3]])
def test_pencil_is_the_bloch_sum(spin, k, rng) -> None:
    system = electronic_system(toy(rng, spin=spin))
    H, S = system.channels[0], system.S
    pencil = Pencil(H, S)
    found, order = pencil.at(k), pencil.orbital
    assert found.H.is_complex == (spin == "spinful" or k[0] != 0)
    for matrix, expected in ((found.H, H.bloch(k)), (found.S, overlap_at(S, k, H.n_spin))):
        assert np.abs(matrix.full().toarray() - expected[np.ix_(order, order)]).max() < FLOAT64
    assert np.array_equal(pencil.to_orbitals(np.arange(H.n_orb)), np.argsort(order))
    shifted = found.shifted(-1.3)
    assert np.shares_memory(shifted.upper.indices, found.H.upper.indices)
    energy, state = np.linalg.eigvalsh(shifted.full().toarray())[0], np.ones(H.n_orb)
    assert energy < (state @ (shifted @ state)).real / H.n_orb


def test_count_is_that_of_dense(library, graphene) -> None:
    H, S = graphene.channels[0], graphene.S
    solver = SparseSolver(H, S, library)
    for k, energies in zip(K, eigenvalues(H, S, K), strict=True):
        for E in (-30.0, -3.3, 0.0, 5.0, 200.0):
            assert solver.n_below(k, E) == int((energies < E).sum())


def test_states_are_those_of_dense(library, graphene) -> None:
    H, S = graphene.channels[0], graphene.S
    solver = SparseSolver(H, S, library)
    for k, energies in zip(K, eigenvalues(H, S, K), strict=True):
        states = solver.window(k, -5.0, 2.5)
        inside = np.flatnonzero((energies >= -5.0) & (energies < 2.5))
        assert states.first == inside[0]
        assert np.abs(states.energies - energies[inside]).max() < DENSE_SPARSE
        assert states.residual < DENSE_SPARSE
        C, S_k = states.coefficients, S.bloch(k)
        assert np.abs(C.conj().T @ S_k @ C - np.eye(len(inside))).max() < EIGENVALUE
        near = solver.nearest(k, -1.0, 10)
        expected = energies[near.first : near.first + 10]
        assert np.abs(near.energies - expected).max() < DENSE_SPARSE


@pytest.mark.parametrize("n_states", [1, 10, 60])
def test_single_precision_is_refined_to_double(n_states, graphene) -> None:
    """States, their numbers and residuals do not show the precision of the factors."""
    pytest.importorskip("pypardiso")
    H, S = graphene.channels[0], graphene.S
    solver = SparseSolver(H, S, "pardiso", "single")
    for k, energies in zip(K, eigenvalues(H, S, K), strict=True):
        near = solver.nearest(k, -1.0, n_states)
        expected = energies[near.first : near.first + n_states]
        assert np.abs(near.energies - expected).max() < DENSE_SPARSE
        assert near.residual < DENSE_SPARSE
        for E in (-30.0, -3.3, 5.0, 200.0):
            assert solver.n_below(k, E) == int((energies < E).sum())


def test_single_precision_where_double_does_not_fit(graphene, caplog) -> None:
    pytest.importorskip("pypardiso")
    pencil = Pencil(graphene.channels[0], graphene.S)
    A = pencil.at(K[0]).shifted(0.0)
    needed = [
        factorisation("pardiso", is_complex=False, counts=False, is_single=single).analyse(
            A, pencil.row_block
        )
        for single in (False, True)
    ]
    assert needed[1] < needed[0]
    beside = N_VECTORS * pencil.n_orb * 8 + A.upper.data.nbytes
    with caplog.at_level("INFO"):
        found = ordered(
            A, pencil.row_block, "H", "", name="pardiso", limit=needed[1] + beside + 1e3
        )
    assert isinstance(found, module.Refined)
    assert "single precision" in caplog.text


def test_singular_matrix_defeats_single_precision(rng) -> None:
    """Next to an eigenvalue refinement stalls: said, not returned; double precision solves."""
    pytest.importorskip("pypardiso")
    n = 60
    vectors, _ = np.linalg.qr(rng.normal(size=(n, n)))
    values = np.concatenate(([5e-8], np.linspace(1, 9, n - 1)))
    matrix = Hermitian(sparse.csr_array(np.triu((vectors * values) @ vectors.T)))
    for is_single in (False, True):
        factors = factorisation("pardiso", is_complex=False, counts=True, is_single=is_single)
        factors = module.Refined(factors) if is_single else factors
        factors.analyse(matrix, np.repeat(np.arange(20), 3))
        factors.factorise(matrix)
        if is_single:
            with pytest.raises(PhysicsError, match="factor_precision=double"):
                factors.solve(np.ones(n))
        else:
            x = factors.solve(np.ones(n))
            assert np.abs(matrix @ x - 1).max() < module.MAX_RESIDUAL


def test_single_precision_needs_pardiso(graphene) -> None:
    with pytest.raises(ConfigError, match="superlu factorises in double precision"):
        SparseSolver(graphene.channels[0], graphene.S, "superlu", "single").n_below(K[0], 0.0)


def test_wide_windows_are_cut(graphene, monkeypatch) -> None:
    H, S = graphene.channels[0], graphene.S
    monkeypatch.setattr("deeph_lightning.solve.sparse.MAX_STATES", 12)
    states = SparseSolver(H, S, "superlu").window(K[1], -8.0, 2.0)
    energies = eigenvalues(H, S, K[1])[0]
    inside = energies[(energies >= -8.0) & (energies < 2.0)]
    assert len(inside) > 18
    assert np.abs(states.energies - inside).max() < DENSE_SPARSE


@pytest.mark.parametrize("spin", ["none", "collinear", "spinful"])
@pytest.mark.parametrize(("gap", "kind"), [(0.0, "metal"), (9.0, "insulator")])
def test_fermi_level_by_inertia(spin, gap, kind, rng) -> None:
    data = toy(rng, spin=spin, gap=gap)  # nine orbitals of B lie below five of C
    data.n_electrons = 18.0 if kind == "insulator" else 7.0
    system = electronic_system(data)
    grid, width = (2, 2, 2), 0.02
    expected = grid_levels(system, grid, width)
    solvers = [SparseSolver(H, system.S, "superlu") for H in system.channels]
    found = sparse_levels(system, solvers, grid, width, guess_eV=-20.0)
    assert expected.edges.is_metal == (kind == "metal")
    assert abs(found.e_fermi - expected.e_fermi) < FERMI_INERTIA * 1e-3
    assert abs(found.edges.gap - expected.edges.gap) < DENSE_SPARSE
    assert abs(found.edges.direct_gap - expected.edges.direct_gap) < DENSE_SPARSE
    if kind == "insulator":
        assert (found.edges.vbm.k, found.edges.vbm.band) == (
            expected.edges.vbm.k, expected.edges.vbm.band
        )  # fmt: skip
    n = found.first_band
    part = expected.energies[:, :, n : n + found.energies.shape[2]]
    assert np.nanmax(np.abs(found.energies - part)) < DENSE_SPARSE


def test_fermi_level_of_graphene(graphene) -> None:
    solver = SparseSolver(graphene.channels[0], graphene.S, "superlu")
    expected = grid_levels(graphene, (2, 2, 1), 0.03)
    found = sparse_levels(graphene, [solver], (2, 2, 1), 0.03)
    assert abs(found.e_fermi - expected.e_fermi) < FERMI_INERTIA * 1e-3


@pytest.mark.parametrize("n_states", [None, 12])
def test_bands_near_the_fermi_level(n_states, graphene) -> None:
    path = band_path(graphene.atoms, 4, is_periodic=(True, True, False), kpath="GM")
    solver = SparseSolver(graphene.channels[0], graphene.S, "superlu")
    whole = band_structure(graphene, path, -1.11)
    near = bands_near(graphene.atoms, [solver], path, -1.11, (-2.0, 2.0), n_states=n_states)
    difference = compare_bands(whole, near, 2.0)
    assert difference.largest < DENSE_SPARSE
    assert abs(difference.gap) < DENSE_SPARSE
    inside = np.abs(whole.relative) < 2.0
    if n_states is None:
        assert difference.is_near.sum() == inside.sum()
    else:
        assert (difference.is_near | ~difference.is_near).shape[2] >= 12


def test_solver_can_be_sent_to_another_process(graphene) -> None:
    solver = SparseSolver(graphene.channels[0], graphene.S, "superlu")
    count = solver.n_below(K[1], -1.0)
    assert pickle.loads(pickle.dumps(solver)).n_below(K[1], -1.0) == count  # noqa: S301


def test_orthonormal_basis(rng) -> None:
    data = toy(rng, spin="spinful")
    data.S, data.info["orthogonal_basis"] = None, True
    system = electronic_system(data)
    H = system.channels[0]
    states = SparseSolver(H, None, "superlu").window(K[1], -3.0, 3.0)
    energies = eigenvalues(H, None, K[1])[0]
    inside = energies[(energies >= -3.0) & (energies < 3.0)]
    assert np.abs(states.energies - inside).max() < DENSE_SPARSE


# ---------------------------------------------------------------------- bad input


def test_factorisation_that_does_not_fit(graphene) -> None:
    solver = SparseSolver(graphene.channels[0], graphene.S, "superlu", memory_limit=1e5)
    with pytest.raises(ResourceError, match=r"needs about .* GB.*method=kpm"):
        solver.n_below(K[0], 0.0)


def test_overlap_that_is_not_positive(graphene) -> None:
    S = graphene.S.replace(values=np.where(graphene.S.values == 1, 0.3, graphene.S.values))
    with pytest.raises(OverlapNotPositiveError, match="negative eigenvalues"):
        SparseSolver(graphene.channels[0], S, "superlu").check_overlap(K[0])
    SparseSolver(graphene.channels[0], graphene.S, "superlu").check_overlap(K[0])


def test_library_that_is_not_installed(graphene, monkeypatch) -> None:
    monkeypatch.setitem(LIBRARIES, "mumps", "no_such_module")
    with pytest.raises(MissingDependencyError, match="pip install python-mumps"):
        SparseSolver(graphene.channels[0], graphene.S, "mumps")


def test_shift_on_an_eigenvalue_is_moved(rng) -> None:
    """At an exact eigenvalue H - E S is singular; next to it is a count of one or the other."""
    data = toy(rng)
    data.S, data.info["orthogonal_basis"] = None, True
    H = electronic_system(data).channels[0]
    solver = SparseSolver(H.replace(values=0 * H.values), None, "superlu")
    assert solver.n_below(K[0], 0.0) in (0, H.n_orb)
