"""The contract of every network in conf/model: symmetries, locality, smoothness, gradients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from omegaconf import OmegaConf

from deeph_lightning.config.targets import build
from deeph_lightning.core.operator import Operator
from deeph_lightning.data.build import graph_from_structure, operator_from_blocks
from deeph_lightning.data.graph import Graph, collate
from deeph_lightning.inference.parts import cut_out
from deeph_lightning.models.base import HamiltonianModel
from tests.systems import BASIS, random_atoms
from tests.tolerances import (
    CHUNKS_FLOAT32,
    DERIVATIVE,
    FLOAT64,
    MODEL_BFLOAT16,
    MODEL_FLOAT32,
    MODEL_FLOAT64,
    REPEATED_CELL,
)

CONF = Path(__file__).resolve().parents[2] / "conf" / "model"
R_TARGET = {"B-B": 4.6, "B-C": 4.8, "C-C": 5.0}
#: Arguments that make a network small, where it has them.
SMALL = {
    "channels": [8, 6, 6, 4, 4],
    "unnatural_channels": [0, 2, 2, 2, 0],
    "pair_channels": [8, 6, 6, 4, 4],
    "unnatural_pair_channels": [0, 2, 2, 2, 0],
    "head_channels": [6, 6, 6, 4, 4],
    "unnatural_head_channels": [0, 2, 2, 2, 0],
    "n_radial": 8,
    "baseline_spacing": 0.5,
    "r_message": 3.4,
    "r_onsite": 3.0,
}
#: The same, for one file of conf/model.
SMALLER = {"deeph_e3": {"l_max": 2, "n_blocks": 2}}


def make_model(
    file: Path,
    *,
    o3: bool = True,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    **more: object,
) -> HamiltonianModel:
    """Build a small network with random weights, biases and baseline."""
    node = OmegaConf.to_container(OmegaConf.load(file))
    assert isinstance(node, dict)
    node |= {key: value for key, value in SMALL.items() if key in node} | {"o3": o3}
    node |= SMALLER.get(file.stem, {}) | more
    node |= {"basis": BASIS.to_dict(), "r_target": R_TARGET}
    torch.manual_seed(seed)
    model: HamiltonianModel = build(node, key="model")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    rng = np.random.default_rng(seed)
    graphs = [labelled(model, random_atoms(rng, n_atom=6)) for _ in range(3)]
    model.fit_statistics(lambda: iter(graphs))
    return model.to(dtype).eval()


def graph_of(model: HamiltonianModel, atoms: Atoms) -> Graph:
    return graph_from_structure(atoms, model.basis, model.r_message, R_TARGET)


def labelled(model: HamiltonianModel, atoms: Atoms) -> Graph:
    """Graph with random labels, onsite blocks symmetric."""
    graph = graph_of(model, atoms)
    sizes = [model.basis.n_orb(model.basis.labels[s]) for s in graph.species.tolist()]
    blocks = [torch.randn(n, n) for n in sizes]
    graph.H_onsite = torch.cat([(b + b.T).flatten() for b in blocks])
    graph.H_hopping = torch.randn(int(graph.hopping_ptr[-1]))
    graph.H_hopping_mask = torch.ones(graph.n_target, dtype=torch.bool)
    return graph


@torch.no_grad()
def predict(model: HamiltonianModel, atoms: Atoms) -> Operator:
    graph = graph_of(model, atoms)
    return operator_from_blocks(graph, model(graph), model.basis, atoms)


def assert_same(found: Operator, expected: Operator, tolerance: float) -> None:
    assert found.pairs == expected.pairs
    scale = np.abs(expected.values).max()
    assert np.abs(found.values - expected.values).max() < tolerance * scale


def special_atoms() -> Atoms:
    """Bonds exactly along x, y and z, both species."""
    positions = [(0, 0, 0), (1.6, 0, 0), (0, 1.7, 0), (0, 0, 1.8), (1.6, 1.7, 0)]
    return Atoms("CBCBB", positions=positions, cell=[4.0, 4.1, 4.2], pbc=True)


STRUCTURES = [random_atoms(np.random.default_rng(3), n_atom=5), special_atoms()]
MODELS = sorted(CONF.glob("*.yaml"))
every_model = pytest.mark.parametrize("file", MODELS, ids=lambda f: f.stem)
every_structure = pytest.mark.parametrize("atoms", STRUCTURES, ids=["skew", "axes"])


def random_rotation(seed: int = 1) -> np.ndarray:
    Q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return Q * np.sign(np.linalg.det(Q))


@every_model
@every_structure
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, MODEL_FLOAT64), (torch.float32, MODEL_FLOAT32)],
    ids=["float64", "float32"],
)
@pytest.mark.parametrize("o3", [True, False])
def test_rotation_and_inversion(
    file: Path, atoms: Atoms, dtype: torch.dtype, tolerance: float, *, o3: bool
) -> None:
    model = make_model(file, o3=o3, dtype=dtype)
    H = predict(model, atoms)
    turns = [random_rotation(), np.eye(3)[[1, 2, 0]], np.diag([1.0, -1.0, -1.0])]
    if o3:
        turns += [-np.eye(3), -random_rotation(2), np.diag([1.0, 1.0, -1.0])]
    for Q in turns:
        expected = H.rotated(Q)
        assert_same(predict(model, expected.atoms), expected, tolerance)


@every_model
@every_structure
def test_description_of_the_crystal_does_not_matter(file: Path, atoms: Atoms) -> None:
    model = make_model(file)
    H = predict(model, atoms)
    H.check_hermitian(1e-12)
    moved = atoms.copy()
    moved.translate([0.37, -1.2, 5.1])
    assert_same(predict(model, moved), H.replace(atoms=moved), MODEL_FLOAT64)
    shifts = np.random.default_rng(0).integers(-2, 3, (len(atoms), 3))
    order = np.random.default_rng(1).permutation(len(atoms))
    for expected in (
        H.permuted(order),
        H.with_atoms_shifted(shifts),
        H.with_lattice([[1, 1, 0], [0, 1, 0], [-1, 0, 1]]),
    ):
        assert_same(predict(model, expected.atoms), expected, MODEL_FLOAT64)


@every_model
@every_structure
@pytest.mark.parametrize("o3", [True, False])
def test_repeated_cell_has_the_blocks_of_the_cell(
    file: Path, atoms: Atoms, *, o3: bool
) -> None:
    model = make_model(file, dtype=torch.float32, o3=o3)
    expected = predict(model, atoms).repeated((2, 1, 1))
    assert_same(predict(model, expected.atoms), expected, REPEATED_CELL)


@every_model
def test_batch_equals_single_structures(file: Path) -> None:
    model = make_model(file)
    graphs = [graph_of(model, atoms) for atoms in STRUCTURES]
    prepared = [model.prepare(graph) for graph in graphs]
    with torch.no_grad():
        single = [model(graph) for graph in graphs]
        for batch in (collate(graphs), collate(prepared)):
            together = model(batch)
            onsite = torch.cat([blocks["H_onsite"] for blocks in single])
            assert torch.allclose(together["H_onsite"], onsite, atol=1e-11)
            pieces = []
            for t in range(len(graphs[0].hopping_ptr) - 1):
                for graph, blocks in zip(graphs, single, strict=True):
                    start, stop = graph.hopping_ptr[t : t + 2]
                    pieces.append(blocks["H_hopping"][start:stop])
            assert torch.allclose(together["H_hopping"], torch.cat(pieces), atol=1e-11)


@every_model
def test_isolated_atoms_and_pairs(file: Path) -> None:
    model = make_model(file)
    lone = Atoms("C", cell=[20, 20, 20], pbc=True)
    graph = graph_of(model, lone)
    assert graph.n_pair == 0
    assert torch.isfinite(model(graph)["H_onsite"]).all()
    distant = Atoms("CB", positions=[(0, 0, 0), (0, 0, 4.2)], cell=[20, 20, 20], pbc=True)
    graph = graph_of(model, distant)
    assert graph.n_target == 1
    assert not len(graph.edge_pair)
    assert torch.isfinite(model(graph)["H_hopping"]).all()


@every_model
def test_far_atoms_do_not_matter(file: Path) -> None:
    model = make_model(file)
    chain = np.zeros((9, 3))
    chain[:, 0] = 2.4 * np.arange(9)
    atoms = Atoms("CBCBCBCBC", positions=chain, cell=[60, 20, 20], pbc=True)
    moved = atoms.copy()
    moved.positions[-1] += [0.3, 0.2, 0.1]
    before = predict(model, atoms)
    after = predict(model, moved).on_pairs(before.pairs)
    reach = model.n_hops * model.r_message
    far = 2.4 * np.maximum(before.pairs.i, before.pairs.j) < 19.2 - reach
    assert far.any()
    for n in np.flatnonzero(far):
        assert np.allclose(before.block(n), after.block(n), rtol=0, atol=FLOAT64 * 100)


@every_model
def test_a_part_with_its_halo_has_the_blocks_of_the_whole(file: Path) -> None:
    model = make_model(file)
    n_atom = 40
    atoms = Atoms("CBB" * 13 + "C", cell=[1.7 * n_atom, 20, 20], pbc=True)
    atoms.positions[:, 0] = 1.7 * np.arange(n_atom)
    atoms.rattle(0.2, seed=4)
    graph = graph_of(model, atoms)
    is_own = torch.arange(n_atom) < 6
    r_near = max(model.r_message, model.baseline.r_onsite)
    part = cut_out(graph, is_own, model.n_hops, r_near)
    assert len(part.atoms) < n_atom
    with torch.no_grad():
        whole, found = model(graph), model(part.graph)
    scale = whole["H_onsite"].abs().max()
    sizes = torch.diff(graph.onsite_offsets)
    expected = whole["H_onsite"][torch.repeat_interleave(is_own, sizes)]
    own = torch.repeat_interleave(part.is_own, torch.diff(part.graph.onsite_offsets))
    assert (found["H_onsite"][own] - expected).abs().max() < MODEL_FLOAT64 * scale
    is_kept = is_own[graph.pair_i[: graph.n_target]]
    expected = whole["H_hopping"][
        torch.repeat_interleave(is_kept, torch.diff(graph.hopping_offsets))
    ]
    assert (found["H_hopping"] - expected).abs().max() < MODEL_FLOAT64 * scale


@every_model
def test_blocks_vanish_smoothly_at_their_range(file: Path) -> None:
    model = make_model(file)
    reach = R_TARGET["C-C"]
    sizes = []
    for r in (reach - 0.3, reach - 0.03, reach - 0.003):
        atoms = Atoms("CC", positions=[(0, 0, 0), (0, 0, r)], cell=[30] * 3, pbc=True)
        H = predict(model, atoms)
        sizes.append(np.abs(H.values[H.offsets[1] : H.offsets[2]]).max())
    assert sizes[1] < 1e-1 * sizes[0]
    assert sizes[2] < 1e-2 * sizes[1]


@every_model
@every_structure
def test_derivatives_with_respect_to_positions(file: Path, atoms: Atoms) -> None:
    model = make_model(file)
    graph = graph_of(model, atoms)
    torch.manual_seed(9)
    weights = {key: torch.randn_like(value) for key, value in model(graph).items()}
    vector = graph.pair_vector.clone()

    def contraction(vector: torch.Tensor) -> torch.Tensor:
        graph.pair_vector = vector
        return sum((model(graph)[key] * weight).sum() for key, weight in weights.items())

    leaf = vector.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(contraction(leaf), leaf)
    assert torch.isfinite(gradient).all()
    direction, step = torch.randn_like(vector), 1e-6
    with torch.no_grad():
        difference = contraction(vector + step * direction) - contraction(
            vector - step * direction
        )
    numeric = (difference / (2 * step)).item()
    assert (gradient * direction).sum().item() == pytest.approx(numeric, rel=DERIVATIVE)


@every_model
@pytest.mark.parametrize("o3", [True, False])
def test_every_parameter_receives_a_gradient(file: Path, *, o3: bool) -> None:
    model = make_model(file, o3=o3)
    graph = graph_of(model, STRUCTURES[0])
    sum((value**2).sum() for value in model(graph).values()).backward()
    idle = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert not idle


@every_model
def test_mixed_precision_keeps_the_heads_exact(file: Path) -> None:
    model = make_model(file, dtype=torch.float32)
    graph = graph_of(model, STRUCTURES[0])
    with torch.no_grad():
        exact = model(graph)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = model(graph)
        bare = model.hopping_head.two_centre(graph, *_frames(model, graph), model.baseline)
    assert mixed["H_hopping"].dtype == torch.float32
    learnt = (exact["H_hopping"] - bare).abs().max()
    assert (mixed["H_hopping"] - exact["H_hopping"]).abs().max() < MODEL_BFLOAT16 * learnt


def _frames(model: HamiltonianModel, graph: Graph) -> tuple[list[torch.Tensor], torch.Tensor]:
    frames, distance = model.geometry(graph)
    n = graph.n_target
    return frames.part(0, n).blocks, distance[:n]


@every_model
def test_baseline_recovers_a_two_centre_hamiltonian(file: Path) -> None:
    """Labels that a baseline made are fitted to the last digits by another baseline."""
    teacher, student = make_model(file, seed=5), make_model(file, seed=6)
    for name, buffer in teacher.baseline.named_buffers():
        if "weight" in name:  # linear over distance: as smooth as the fit expects
            n_basis = len(teacher.baseline.get_submodule(name.rpartition(".")[0]).basis)
            slope, start = torch.randn(2, len(buffer) // n_basis, 1, buffer.shape[1])
            ramp = start + slope * torch.linspace(-1, 1, n_basis)[:, None]
            buffer.copy_(ramp.flatten(0, 1))
    rng = np.random.default_rng(4)
    graphs = []
    for _ in range(6):
        graph = graph_of(teacher, random_atoms(rng, n_atom=6))
        frames, distance = _frames(teacher, graph)
        graph.H_hopping = teacher.hopping_head.two_centre(
            graph, frames, distance, teacher.baseline
        )
        graph.H_onsite = teacher.onsite_head.two_centre(graph, teacher.baseline)
        graphs.append(graph)
    student.fit_statistics(lambda: iter(graphs))
    for graph in graphs:
        found = student.prepare(graph)
        for key in ("hopping", "onsite"):
            label = getattr(graph, f"H_{key}")
            error = (getattr(found, f"baseline_{key}") - label).abs().max()
            assert error < 1e-4 * label.abs().max()


@every_model
@pytest.mark.parametrize("chunk", [1, 7, 10**6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_chunks_of_pairs_change_nothing(file: Path, chunk: int, dtype: torch.dtype) -> None:
    model = make_model(file, dtype=dtype)
    graph = graph_of(model, STRUCTURES[0])
    assert len(graph.edge_pair) < graph.n_pair
    with torch.no_grad():
        expected = model(graph)
        for one in (graph, model.prepare(graph)):
            *hopping, onsite = model.stream(one, chunk)
            assert len(hopping) == -(-graph.n_pair // chunk)  # alike for all: ensembles
            found = {"H_onsite": onsite, "H_hopping": torch.cat(hopping)}
            for key, value in expected.items():
                error = (found[key] - value).abs().max() / value.abs().max()
                assert error < CHUNKS_FLOAT32
