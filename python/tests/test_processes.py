"""Two processes: replicated (DDP) and sharded (FSDP2) training, beside one process on the same batch."""

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from small import batch
from torch import nn
from torch.nn import functional as F

from fixnorm.torch import FixNorm, probe

STEPS = 4
CASES = [("raw", "tensor"), ("angular", "tensor"), ("raw", "output_channel"), ("angular", "output_channel")]
CASES += [("rms_normalized", "tensor")]


class Mlp(nn.Module):
    """Layer norms only, so that the halves of a batch do not depend on each other."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(64, 10, bias=False), nn.LayerNorm(10)
        self.second, self.head = nn.Linear(10, 7), nn.Linear(7, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(self.second(F.relu(self.norm(self.first(x.flatten(1)))))))


def optimizer(model: nn.Module, roles: object, case: tuple[str, str]) -> FixNorm:
    step_rule, scope = case
    return FixNorm(torch.optim.SGD, roles, lr=0.02, momentum=0.9, step_rule=step_rule, scope=scope, alpha=1.5)


def probed(model: nn.Module) -> object:
    x, y = batch()
    return probe(model, lambda m: F.cross_entropy(m(x), y), roles={"first.weight": "scale_invariant"})


def losses_and_norms(model: nn.Module, by: FixNorm, rank: int, size: int) -> tuple[list[float], list[float]]:
    losses = []
    for step in range(STEPS):
        x, y = batch(step)
        by.zero_grad()
        part = slice(rank * len(x) // size, (rank + 1) * len(x) // size)
        loss = F.cross_entropy(model(x[part]), y[part])
        loss.backward()
        by.step()
        total = loss.detach().clone()
        if size > 1:
            dist.all_reduce(total)
        losses.append(total.item() / size)
    whole = [p.full_tensor() if hasattr(p, "full_tensor") else p for p in model.parameters()]
    return losses, [p.detach().norm().item() for p in whole]


def worker(rank: int, port: int, kind: str, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), OMP_NUM_THREADS="1")
    dist.init_process_group("gloo", rank=rank, world_size=2)
    results = []
    for case in CASES:
        torch.manual_seed(0)
        model = Mlp()
        roles = probed(model)
        if kind == "ddp":
            by = optimizer(model, roles, case)
            model = nn.parallel.DistributedDataParallel(model)
        else:
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import fully_shard

            fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
            by = optimizer(model, roles, case)
        results.append(losses_and_norms(model, by, rank, 2))
    if rank == 0:
        torch.save(results, Path(folder) / "results.pt")
    dist.barrier()
    # Without destructors: with PyTorch's threads still running they can abort the process ("terminate called without
    # an active exception").
    os._exit(0)


@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="PyTorch without gloo")
@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_two_processes_do_what_one_does(kind: str, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(worker, (port, kind, str(tmp_path)), nprocs=2)
    for case, (losses, norms) in zip(CASES, torch.load(tmp_path / "results.pt"), strict=True):
        torch.manual_seed(0)
        model = Mlp()
        expected = losses_and_norms(model, optimizer(model, probed(model), case), 0, 1)
        assert losses == pytest.approx(expected[0], rel=1e-4), case
        assert norms == pytest.approx(expected[1], rel=1e-6, abs=1e-6), case
