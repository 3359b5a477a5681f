"""Parameters that are updated together, and their elements arranged for it.

Not here: the updates (``optimizer.py``).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fixnorm.torch.direction import Group
from fixnorm.torch.sharding import group_key, local

CHUNK = {"cpu": 1 << 20}
"""Elements of a batch by device, so that a batch stays in a CPU's cache and temporary tensors stay small."""
OTHER_CHUNK = 1 << 23
PIECE = 1 << 14
"""Elements whose norm PyTorch sums in f32 on a CPU without an error that matters."""


@dataclass
class Batch:
    """One group, device, dtype and sharding, and one shape where tensors are stacked."""

    params: list[Tensor]
    axes: list[int | None]
    """The dimension whose indices have a norm each; ``None`` for the whole tensor."""


def wide(param: Tensor) -> torch.dtype:
    """The type in which norms are handled."""
    return torch.float32 if param.device.type == "mps" else torch.float64


def split_into_batches(group: Group, states: Any) -> list[Batch]:
    """Splits a group's parameters into batches."""
    collected: dict[Any, list[Batch]] = {}
    for param in group["params"]:
        radius = states[param].get("radius")
        axis = 0 if radius is not None and radius.ndim == 1 else None
        if group["scope"] == "output_channel" and param.ndim >= 2:
            axis = 0
        stacked = not is_scaled(group, Batch([param], [axis]))
        key = (param.device, param.dtype, group_key(param), param.shape if stacked else None, axis)
        parts = collected.setdefault(key, [])
        limit = CHUNK.get(param.device.type, OTHER_CHUNK)
        if not parts or sum(local(p).numel() for p in parts[-1].params) + local(param).numel() > limit:
            parts.append(Batch([], []))
        parts[-1].params.append(param)
        parts[-1].axes.append(axis)
    return [batch for parts in collected.values() for batch in parts]


def is_scaled(group: Group, batch: Batch) -> bool:
    """Whether one factor for each tensor, after the base update's own step, is all the rule needs."""
    if group["step_rule"] != "raw" or group["base"] == "muon":
        return False
    exact = batch.params[0].dtype in (torch.float32, torch.float64)
    return group["constraint"] == "free" or (exact and batch.axes[0] is None)


def with_gradients(batch: Batch) -> Batch:
    """The parameters of a batch that have a gradient."""
    if all(p.grad is not None for p in batch.params):
        return batch
    kept = [(p, axis) for p, axis in zip(batch.params, batch.axes, strict=True) if p.grad is not None]
    return Batch([p for p, _ in kept], [axis for _, axis in kept])


def squares(params: list[Tensor]) -> Tensor:
    """The squared norm of each tensor."""
    first = params[0]
    if first.device.type != "cpu" or torch.compiler.is_compiling():
        return torch.stack(torch._foreach_norm(params)).to(wide(first)).square()
    # In pieces: PyTorch's sum in f32 over millions of elements is off by 4e-5.
    pieces: list[Tensor] = []
    counts = []
    for p in params:
        parts = torch.split(_flat(p), PIECE)
        pieces.extend(parts)
        counts.append(len(parts))
    found = torch.stack(torch._foreach_norm(pieces)).double().square()
    owners = torch.repeat_interleave(torch.tensor(counts))
    return found.new_zeros(len(params)).index_add_(0, owners, found)


def _flat(param: Tensor) -> Tensor:
    """All elements in any order, without a copy for the memory formats of convolutions."""
    if param.is_contiguous():
        return param.view(-1)
    if param.ndim == 4 and param.is_contiguous(memory_format=torch.channels_last):
        return param.permute(0, 2, 3, 1).reshape(-1)
    return param.reshape(-1)


def rows(tensors: list[Tensor], axis: int | None) -> Tensor:
    """Tensors of one shape as ``[tensors, groups, elements]``, in f32 at least."""
    x = torch.stack(tensors) if len(tensors) > 1 else tensors[0].unsqueeze(0)
    x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    if axis is None:
        return x.reshape(len(tensors), 1, -1)
    return x.movedim(axis + 1, 1).reshape(len(tensors), x.shape[axis + 1], -1)


def unstacked(rows: Tensor, like: list[Tensor], axis: int | None) -> list[Tensor]:
    """Back from ``rows`` to tensors of the shape of ``like``."""
    shape = list(like[0].shape)
    if axis is None:
        return list(rows.view(len(like), *shape).unbind())
    moved = [shape[axis], *shape[:axis], *shape[axis + 1 :]]
    return [part.movedim(0, axis) for part in rows.view(len(like), *moved).unbind()]


def along(values: Tensor, like: Tensor, axis: int | None) -> Tensor:
    """Values of groups, shaped to multiply a tensor."""
    if axis is None:
        return values
    shape = [1] * like.ndim
    shape[axis] = -1
    return values.view(shape)
