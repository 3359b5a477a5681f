"""Finds parameters that are scale-invariant together: what writes to a normalized residual stream, a weight with the
bias that follows it. Not here: weights that are so alone (``probe.py``).

Scaling a group by one factor changes nothing exactly where its radial derivatives, <p, dL/dp>, add up to zero at every
point. They are taken at more random points than there are parameters, and the sums that vanish are read off the null
space in reduced row echelon form: of its rows, those of zeros and ones are the groups. Rows with entries below zero
are no groups: what must shrink where another grows (Q and K, the layers around a ReLU, a gain and its reader) has a
product, which acts, and no norm to hold. Each group is checked by scaling it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

NULL = 3e-6
"""Largest singular value, beside the first, of a sum that vanishes: rounding in f32 leaves 2e-7, others have 1e-3."""
JITTER = 0.5
SCALINGS = (0.5, 2.0)


class Group(NamedTuple):
    """Names of parameters that are scale-invariant together, and how much scaling them changed the loss."""

    members: list[str]
    deviation: float


def joint_groups(
    model: nn.Module,
    loss: Callable[[], Tensor],
    params: Mapping[str, Tensor],
    generator: torch.Generator,
    tolerance: float,
) -> list[Group]:
    """The groups with at least one weight; no parameter is in two.

    ``params`` are the candidates, by name, at a point where none is zero; they are changed.
    """
    names, start = list(params), {name: p.detach().clone() for name, p in params.items()}

    def move() -> None:
        with torch.no_grad():
            for name, p in params.items():
                noise = torch.randn(p.shape, generator=generator).to(p)
                size = JITTER * start[name].square().mean().sqrt()
                p.copy_((start[name] + size * noise) * torch.exp(JITTER * torch.randn((), generator=generator)).to(p))

    with _without_epsilon(model):
        points = []
        for _ in range(len(names) * 5 // 4 + 8):
            move()
            with torch.enable_grad():
                grads = torch.autograd.grad(loss(), list(params.values()), allow_unused=True)
            radial = [0.0 if g is None else (p * g).double().sum() for p, g in zip(params.values(), grads, strict=True)]
            points.append(torch.tensor([float(r) for r in radial], dtype=torch.float64))
        found: list[Group] = []
        taken: set[str] = set()
        for group in _null_sums(torch.stack([p for p in points if p.isfinite().all()] or points[:0])):
            members = [names[index] for index in group]
            if taken.isdisjoint(members) and any(params[name].ndim >= 2 for name in members):
                deviation = _deviation(loss, [params[name] for name in members])
                if deviation <= tolerance:
                    taken.update(members)
                    found.append(Group(members, deviation))
    return found


def _deviation(loss: Callable[[], Tensor], members: list[Tensor]) -> float:
    unchanged, worst = float(loss()), 0.0
    own = [p.detach().clone() for p in members]
    for factor in SCALINGS:
        torch._foreach_copy_(members, torch._foreach_mul(own, factor))
        worst = max(worst, abs(float(loss()) - unchanged) / max(abs(unchanged), 1e-300))
    torch._foreach_copy_(members, own)
    return worst


def _null_sums(points: Tensor) -> list[list[int]]:
    """The sets of columns whose sum vanishes in every row, as far as the reduced echelon form shows them."""
    points = points / points.norm(dim=1, keepdim=True).clamp_min(1e-300)
    sizes = points.norm(dim=0)
    live = (sizes > NULL * sizes.max()).nonzero().flatten() if len(points) else sizes.new_zeros(0).long()
    if len(points) <= len(live) or not len(live):
        return []
    sizes = sizes[live]
    _, values, vectors = torch.linalg.svd(points[:, live] / sizes, full_matrices=False)
    null = vectors[values < NULL * values[0]]
    groups = []
    for pivot, row in _echelon(null):
        row = row * sizes[pivot] / sizes
        # Sums that nearly vanish leave up to 0.03; scaling the group decides.
        if (row - row.round()).abs().max() < 0.1 and set(row.round().tolist()) <= {0.0, 1.0}:
            groups.append(live[row > 0.5].tolist())
    return groups


def _echelon(matrix: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Column of the pivot and row, for each row of the reduced row echelon form."""
    matrix, pivots = matrix.clone(), list[int]()
    for column in range(matrix.shape[1]):
        done = len(pivots)
        if done == len(matrix):
            break
        best = done + int(matrix[done:, column].abs().argmax())
        if matrix[best, column].abs() > 1e-4:
            matrix[[done, best]] = matrix[[best, done]]
            matrix[done] /= matrix[done, column].clone()
            others = torch.arange(len(matrix)) != done
            matrix[others] -= matrix[others, column, None] * matrix[done]
            pivots.append(column)
    yield from zip(pivots, matrix, strict=False)


@contextmanager
def _without_epsilon(model: nn.Module) -> Iterator[None]:
    """Normalizations that are exact: an epsilon is only an obstacle to seeing what they do."""
    modules: list[Any] = [m for m in model.modules() if isinstance(getattr(m, "eps", None), float)]
    before = [(module, module.eps) for module in modules]
    try:
        for module, _ in before:
            module.eps = 1e-12
        yield
    finally:
        for module, eps in before:
            module.eps = eps
