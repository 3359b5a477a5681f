"""Parameters that are updated together, their elements arranged for it, and their norms.

Not here: the updates (``optimizer.py``).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fixnorm.torch.direction import Group
from fixnorm.torch.sharding import group_key, is_sharded, local

CHUNK = {"cpu": 1 << 20}
"""Elements of a batch by device, so that a batch stays in a CPU's cache and temporary tensors stay small."""
STACK = {"cpu": 1 << 16}
"""The same where a batch is stacked: on a CPU, copying larger tensors costs more than fewer calls save."""
OTHER_CHUNK = 1 << 23


@dataclass
class Batch:
    """Parameters of one group, device, dtype and sharding; stacked ones are of one shape."""

    params: list[Tensor]
    stacked: bool
    """Whether the rule needs inner products; otherwise a factor after the base update's own step is enough."""
    channels: bool
    """Whether each index of the first dimension has a norm of its own."""

    @property
    def key(self) -> Any:
        """What tensors of one kernel must agree in."""
        first = self.params[0]
        return first.device, first.dtype, group_key(first), self.stacked, self.channels


def wide(param: Tensor) -> torch.dtype:
    """The type in which norms are handled."""
    return torch.float32 if param.device.type == "mps" else torch.float64


def split_into_batches(group: Group) -> list[Batch]:
    """Splits a group's parameters into batches."""
    collected: dict[Any, list[Batch]] = {}
    for param in group["params"]:
        channels = group["scope"] == "output_channel" and param.ndim >= 2
        exact = param.dtype in (torch.float32, torch.float64) and not channels
        scaled = group["step_rule"] == "raw" and group["base"] != "muon" and (group["constraint"] == "free" or exact)
        batch = Batch([param], not scaled, channels)
        parts = collected.setdefault((batch.key, None if scaled else param.shape), [])
        limit = (CHUNK if scaled else STACK).get(param.device.type, OTHER_CHUNK)
        if parts and sum(local(p).numel() for p in [*parts[-1].params, param]) <= limit:
            parts[-1].params.append(param)
        else:
            parts.append(batch)
    return [batch for parts in collected.values() for batch in parts]


def summed_together(group: Group, batches: list[Batch]) -> list[list[Batch]]:
    """The batches with gradients: one at a time while it is in the cache, or together where sums span several.

    All members of a joint group share one norm; of sharded ones, sums over processes are taken at once.
    """
    if group["scope"] == "group":
        return [batches] if any(p.grad is not None for batch in batches for p in batch.params) else []
    together: dict[Any, list[Batch]] = {}
    for index, batch in enumerate(batches):
        if not all(p.grad is not None for p in batch.params):
            batch = Batch([p for p in batch.params if p.grad is not None], batch.stacked, batch.channels)
        if batch.params:
            together.setdefault(batch.key if is_sharded(batch.params[0]) else index, []).append(batch)
    return list(together.values())


def squares(params: list[Tensor]) -> Tensor:
    """The squared norm of each tensor."""
    if params[0].device.type != "cpu" or torch.compiler.is_compiling():
        return torch.stack(torch._foreach_norm(params)).to(wide(params[0])).square()
    # By rows, then in f64: on a CPU, PyTorch's sum in f32 over millions of elements is off by 4e-5.
    norms = [torch.linalg.vector_norm(row_norms(p), dtype=torch.float64) for p in params]
    return torch.stack(norms).square()


def row_norms(param: Tensor) -> Tensor:
    """The norm for each index of the first dimension; of a vector, its own."""
    norms: Tensor = torch.linalg.vector_norm(param, dim=tuple(range(1, param.ndim)) or None)
    return norms


def rows(tensors: list[Tensor]) -> Tensor:
    """Tensors of one shape as ``[tensors, first dimension, other elements]``, in f32 at least; a view where it can."""
    x = torch.stack(tensors) if len(tensors) > 1 else tensors[0].unsqueeze(0)
    x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    return x.reshape(len(tensors), x.shape[1] if x.ndim > 2 else 1, -1)


def along(values: Tensor, like: Tensor) -> Tensor:
    """One value, or one for each index of the first dimension, shaped to multiply a tensor."""
    return values if values.ndim == 0 else values.view(-1, *[1] * (like.ndim - 1))
