"""Parameters that are updated together, their elements arranged for it, and their norms.

Not here: the updates (``optimizer.py``).
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fixnorm.torch.direction import Group, is_cheap_to_call
from fixnorm.torch.sharding import group_key, is_sharded, local

CHUNK = {"cpu": 1 << 21}
"""Elements of a batch by device, so that a batch stays in a CPU's cache and temporary tensors stay small."""
OTHER_CHUNK = 1 << 23


@dataclass
class Batch:
    """Parameters of one group, device, dtype and sharding."""

    params: list[Tensor]
    by_products: bool
    """Whether the rule needs inner products; otherwise a factor after the base update's own step is enough."""
    channels: bool
    """Whether each index of the first dimension has a norm of its own."""

    @property
    def key(self) -> Any:
        """What tensors of one kernel must agree in."""
        first = self.params[0]
        return first.device, first.dtype, group_key(first), self.by_products, self.channels


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
        one_shape = not scaled and (param.device.type != "cpu" or group["base"] == "muon")
        parts = collected.setdefault((batch.key, param.shape if one_shape else None), [])
        limit = CHUNK.get(param.device.type, OTHER_CHUNK)
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
            batch = Batch([p for p in batch.params if p.grad is not None], batch.by_products, batch.channels)
        if batch.params:
            together.setdefault(batch.key if is_sharded(batch.params[0]) else index, []).append(batch)
    return list(together.values())


class Stack(NamedTuple):
    """Parameters of one shape, and ``[parameters, first dimension, other elements]`` of weights and directions."""

    params: list[Tensor]
    w: Tensor
    d: Tensor


def stacks(params: list[Tensor], directions: list[Tensor]) -> list[Stack]:
    """All parameters in one stack; on a CPU, where copies cost more than calls, each in one of its own."""
    size = 1 if params[0].device.type == "cpu" else len(params)
    parts = [slice(start, start + size) for start in range(0, len(params), size)]
    return [Stack(params[part], rows(params[part]), rows(directions[part])) for part in parts]


def inner_products(found: list[Stack], channels: bool) -> Tensor:
    """``[3, groups]``: w.w, w.d and d.d of each parameter, or of each index of its first dimension."""
    weights, directions = [stack.w for stack in found], [stack.d for stack in found]
    if not channels and is_cheap_to_call(weights[0]):
        products = torch.stack([torch.dot(stack.w.view(-1), stack.d.view(-1)) for stack in found])
        squared = squares([x[0] for x in (*weights, *directions)])
        return torch.stack([squared[: len(found)], products.to(squared), squared[len(found) :]])
    sums = []
    for w, d in zip(weights, directions, strict=True):
        of_rows = [x.flatten(0, 1) for x in (w, d)]
        norms = torch.stack([row_norms(x) for x in of_rows]).to(wide(w)).square()
        rows_found = torch.stack([norms[0], torch.linalg.vecdot(*of_rows).to(norms), norms[1]])
        sums.append(rows_found if channels else rows_found.view(3, len(w), -1).sum(2))
    return torch.cat(sums, 1)


def step(found: list[Stack], a: Tensor, b: Tensor, channels: bool) -> None:
    """Sets each weight to a*w + b*d, with factors for each parameter or each index of its first dimension."""
    if not channels and is_cheap_to_call(found[0].w):
        one = torch.ones(1, dtype=found[0].w.dtype)
        for stack, of_w, of_d in zip(found, a.tolist(), b.tolist(), strict=True):
            # One pass over memory.
            stack.w.view(1, -1).addr_(one, stack.d.view(-1), beta=of_w, alpha=of_d)
    else:
        counts = [stack.w.shape[:2].numel() if channels else len(stack.w) for stack in found]
        for stack, *factors in zip(found, torch.split(a, counts), torch.split(b, counts), strict=True):
            of_w, of_d = (x.to(stack.w.dtype).view(len(stack.w), -1, 1) for x in factors)
            stack.w.mul_(of_w).addcmul_(stack.d, of_d)
    for params, w, _ in found:
        if torch.compiler.is_compiling() or w.data_ptr() != params[0].data_ptr():
            torch._foreach_copy_(params, list(w.view(len(params), *params[0].shape).unbind()))


def squares(params: list[Tensor]) -> Tensor:
    """The squared norm of each tensor."""
    if not is_cheap_to_call(params[0]):
        return torch.stack(torch._foreach_norm(params)).to(wide(params[0])).square()
    # By rows, then in f64: on a CPU, PyTorch's sum in f32 over millions of elements is off by 4e-5.
    return torch.stack(torch._foreach_norm([row_norms(p) for p in params], 2, torch.float64)).square()


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
