"""What lies outside a training set is named."""

from __future__ import annotations

import numpy as np
import torch
from ase import Atoms
from ase.build import graphene

from deeph_lightning.core.basis import OrbitalBasis
from deeph_lightning.data.build import graph_from_structure
from deeph_lightning.data.graph import Graph
from deeph_lightning.nn.domain import TrainingDomain

R = 4.0


def graph_of(atoms: Atoms) -> Graph:
    basis = OrbitalBasis({"C": (0,), "N": (0,)})
    return graph_from_structure(atoms, basis, 3.0, {"C-C": R, "C-N": R, "N-N": R})


def sheet(*, seed: int = 0, size: int = 3) -> Atoms:
    atoms = graphene(size=(size, size, 1), vacuum=6.0)
    atoms.pbc = True
    atoms.positions += np.random.default_rng(seed).uniform(-0.02, 0.02, atoms.positions.shape)
    return atoms


def fitted() -> TrainingDomain:
    domain = TrainingDomain(["C", "N"], R, 3.0)
    domain.fit(lambda: (graph_of(sheet(seed=n)) for n in range(3)))
    return domain


def test_the_training_set_lies_inside() -> None:
    domain = fitted()
    assert domain.is_fitted
    assert not domain.departures(graph_of(sheet(seed=0)))
    assert not domain.departures(graph_of(sheet(seed=9, size=4)))


def test_distances_and_neighbours_that_were_never_seen() -> None:
    atoms = sheet(seed=1)
    atoms.positions[7] += (0.0, 0.0, 1.2)
    found = fitted().departures(graph_of(atoms))
    assert any("C-C distances" in what for what, _ in found)
    assert all(7 in which.tolist() for _, which in found if len(which) > 1)

    vacancy = sheet(seed=1)
    del vacancy[0]
    (found,) = fitted().departures(graph_of(vacancy))
    assert "C has" in found.what
    assert "in it 12 to 12" in found.what
    assert len(found.atoms) == 12


def test_unseen_species() -> None:
    atoms = sheet(seed=1)
    atoms.symbols[4] = "N"
    texts = [what for what, _ in fitted().departures(graph_of(atoms))]
    assert any("C-N distances" in text for text in texts)
    assert any("no N" in text for text in texts)


def test_counts_survive_a_checkpoint() -> None:
    domain = fitted()
    other = TrainingDomain(["C", "N"], R, 3.0)
    other.load_state_dict(domain.state_dict())
    assert torch.equal(other.n_pair, domain.n_pair)
    other.load_state_dict({})  # of a run from before
    assert not other.is_fitted
