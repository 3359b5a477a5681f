"""Local parts of tensors, and sums over the processes that share a sharded one (DTensor, as FSDP2 makes them).

Not here: what is summed (``optimizer.py``).
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def _dtensor() -> Any:
    if not dist.is_available():
        return None
    from torch.distributed.tensor import DTensor

    return DTensor


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process holds a part of the tensor."""
    if type(tensor) is Tensor or type(tensor) is torch.nn.Parameter:
        return False
    kind = _dtensor()
    return kind is not None and isinstance(tensor, kind)


def local(tensor: Any) -> Tensor:
    """The part of this process: the tensor itself where it is not sharded. Shares memory."""
    part: Tensor = tensor._local_tensor if is_sharded(tensor) else tensor
    return part


def group_key(tensor: Any) -> Any:
    """What must agree for sums over processes to be taken together."""
    return (tensor.device_mesh, tensor.placements) if is_sharded(tensor) else None


def sum_over_processes(values: Tensor, like: Any, own_axis: int | None = None) -> Tensor:
    """``values`` summed over the processes that hold other parts of ``like``, in place.

    A mesh dimension that shards ``own_axis`` is left out: its processes have groups of elements of their own.
    """
    if not is_sharded(like):
        return values
    for dimension, placement in enumerate(like.placements):
        if placement.is_partial():
            raise ValueError("a parameter that is a partial DTensor cannot be optimized; redistribute it")
        if placement.is_shard() and placement.dim != own_axis:
            dist.all_reduce(values, group=like.device_mesh.get_group(dimension))
    return values


def sharded_like(values: Tensor, like: Any) -> Tensor:
    """One value for each index of the first dimension of ``like``, sharded as that is."""
    if not is_sharded(like):
        return values
    from torch.distributed.tensor import Replicate, Shard

    placements = [Shard(0) if p.is_shard(0) else Replicate() for p in like.placements]
    made: Tensor = _dtensor().from_local(
        values, like.device_mesh, placements, run_check=False, shape=torch.Size([like.shape[0]]), stride=(1,)
    )
    return made
