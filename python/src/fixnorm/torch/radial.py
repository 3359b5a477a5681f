"""Derivatives of the loss along parameters, <p, dL/dp>, at random points: that of a scale-invariant weight is zero.

Not here: what is concluded from them (``probe.py``, ``joint.py``).
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fixnorm.torch.batches import wide

JITTER = 0.5
EPSILON = 1e-4
"""Factor of epsilons: none matters any more, and a channel that is constant but for rounding still stays small."""


class Radial(NamedTuple):
    """Tensors of ``[points, parameters]``."""

    sums: Tensor
    """The derivatives."""
    shares: Tensor
    """Their size beside that along a random direction of the parameter's length; NaN where that is zero."""
    channel_shares: Tensor
    """The same where each index of the first dimension has a direction of its own."""


def radial_derivatives(
    model: nn.Module,
    loss: Callable[[], Tensor],
    params: Mapping[str, Tensor],
    generator: torch.Generator,
    points: int,
) -> Radial:
    """Takes one backward pass a point. Epsilons of the model's normalizations are out of the way.

    ``params`` are at a point where none is zero; they move from it by random offsets and factors, and stay there.

    Raises:
        ValueError: the loss has no gradient, or none that is finite.
    """
    tensors, found = list(params.values()), []
    start = [p.detach().clone() for p in tensors]
    with without_epsilon(model):
        for _ in range(points):
            with torch.no_grad():
                for p, own in zip(tensors, start, strict=True):
                    noise, factor = (torch.randn(shape, generator=generator).to(p) for shape in (p.shape, ()))
                    p.copy_((own + JITTER * own.square().mean().sqrt() * noise) * torch.exp(JITTER * factor))
            with torch.enable_grad():
                value = loss()
            if not value.requires_grad:
                raise ValueError("loss(model) has no gradient: do not compute it under no_grad, or of detached outputs")
            grads = torch.autograd.grad(value, tensors, allow_unused=True)
            found.append(torch.stack([_radial(p, g) for p, g in zip(tensors, grads, strict=True)], 1).cpu().double())
    finite = [point for point in found if point[0].isfinite().all()]
    if not finite:
        raise ValueError("no gradient of loss(model) is finite at random weights of the model's size")
    return Radial(*torch.stack(finite, 1))


def _radial(param: Tensor, grad: Tensor | None) -> Tensor:
    """The three numbers of ``Radial`` for one parameter."""
    if grad is None:
        return torch.tensor([0.0, math.nan, math.nan], device=param.device)
    grad = grad if grad.layout == torch.strided else grad.to_dense()
    p, g = (x.detach().reshape(len(x) if x.ndim > 1 else 1, -1) for x in (param, grad))
    sums = (p * g).to(wide(p)).sum(1)
    lengths = (p.norm(dim=1) * g.norm(dim=1)).to(sums)
    whole = (p.norm() * g.norm()).to(sums)
    total = sums.sum()
    return torch.stack(
        [total, total.abs() * p.numel() ** 0.5 / whole, sums.norm() * p.shape[1] ** 0.5 / lengths.norm()]
    )


@contextmanager
def without_epsilon(model: nn.Module) -> Iterator[None]:
    """Normalizations that are exact: an epsilon is only an obstacle to seeing what they do."""
    modules: list[Any] = [m for m in model.modules() if isinstance(getattr(m, "eps", None), float)]
    before = [(module, module.eps) for module in modules]
    try:
        for module, eps in before:
            module.eps = eps * EPSILON
        yield
    finally:
        for module, eps in before:
            module.eps = eps
