"""Two processes with a batch each; the first compares with one process that has both.

python ddp_gradients.py RANK FILE
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from deeph_lightning.data.graph import collate
from deeph_lightning.training.losses import HamiltonianLoss
from tests.models.test_contract import CONF, labelled, make_model
from tests.systems import BASIS, random_atoms

SIZES = ((2, 5), (6,))  # atoms of the structures of each rank: unequal shares

if __name__ == "__main__":
    rank, file = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    model = make_model(CONF / "elct.yaml")
    loss = HamiltonianLoss(BASIS.to_dict(), {"mae": 1.0, "rmse": 0.5}, onsite_weight=3.0)
    rng = np.random.default_rng(0)
    batches = [[labelled(model, random_atoms(rng, n_atom=n)) for n in own] for own in SIZES]

    both = collate([graph for batch in batches for graph in batch])
    value, _ = loss(model(both), both)
    value.backward()
    expected = {key: p.grad.clone() for key, p in model.named_parameters()}
    model.zero_grad()

    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    parallel = torch.nn.parallel.DistributedDataParallel(model)
    graph = collate(batches[rank])
    share, _ = loss(parallel(graph), graph)
    share.backward()
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[key], rtol=1e-9, atol=1e-9, msg=key)
    total = share.detach().clone()
    dist.all_reduce(total)
    torch.testing.assert_close(total / 2, value.detach())
    dist.destroy_process_group()
