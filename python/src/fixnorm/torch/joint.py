"""Finds parameters that are scale-invariant together: what writes to a normalized residual stream, a weight with the
bias that follows it. Not here: weights that are so alone (``probe.py``).

Scaling a group by one factor changes nothing exactly where its radial derivatives, <p, dL/dp>, add up to zero at every
point. They are taken at more random points than there are parameters, and the sums that vanish are read off the null
space in reduced row echelon form: of its rows, those of zeros and ones are the groups, of which those with more
weights come first where they overlap. Rows with entries below zero
are no groups: what must shrink where another grows (Q and K, the layers around a ReLU, a gain and its reader) has a
product, which acts, and no norm to hold. Each group is checked by scaling it.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fixnorm.torch.radial import radial_derivatives, without_epsilon

DEAD = 1e-5
"""Size beside the largest of a derivative that is rounding."""
NULL, GAP = 3e-3, 30.0
"""Largest singular value, beside the first, of a sum that vanishes, and how far they are from others: rounding leaves
1e-7, in a channel that is almost constant 1e-3; others have 2e-3 and more."""
LEFT = 1e-4
"""Largest sum of a group's derivatives beside the largest of them, at the median point: rounding leaves 1e-6 to 2e-5.
Without a member that matters ten thousand times less than the others, a group is none."""
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
    names, found, taken = list(params), list[Group](), set[str]()
    points = radial_derivatives(model, loss, params, generator, len(names) * 5 // 4 + 8).sums
    with without_epsilon(model):
        groups = [[names[index] for index in group] for group in _null_sums(points)]
        weights = {name for name in names if params[name].ndim >= 2}
        # Of groups that overlap, the one with more weights.
        for members in sorted(groups, key=lambda group: (len(weights & set(group)), len(group)), reverse=True):
            if taken.isdisjoint(members) and not weights.isdisjoint(members):
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


def _null_sums(sums: Tensor) -> list[list[int]]:
    """The sets of columns whose sum vanishes in every row, as far as the reduced echelon form shows them."""
    points = sums / sums.norm(dim=1, keepdim=True).clamp_min(1e-300)
    sizes = points.norm(dim=0)
    live = (sizes > DEAD * sizes.max()).nonzero().flatten()
    if len(points) <= len(live):
        return []
    sizes = sizes[live]
    points, null = points[:, live] / sizes, points.new_zeros(0, len(live))
    for _ in range(3):
        null = _null_space(points)
        if len(null):
            # Points with more rounding than others count less.
            rounding = (points @ null.T).norm(dim=1)
            points = points / (rounding / rounding.median().clamp_min(1e-300)).clamp_min(1.0)[:, None]
    groups = []
    for pivot, row in _echelon(null):
        row = row * sizes[pivot] / sizes
        # Rounding leaves up to 0.03.
        if (row - row.round()).abs().max() < 0.1 and set(row.round().tolist()) <= {0.0, 1.0}:
            members = live[row > 0.5]
            left = sums[:, members].sum(1).abs() / sums[:, members].abs().max(1).values
            if left.median() <= LEFT:
                groups.append(members.tolist())
    return groups


def _null_space(points: Tensor) -> Tensor:
    """The singular vectors below the largest gap between the singular values, if there is one."""
    _, values, vectors = torch.linalg.svd(points, full_matrices=False)
    gaps = values[:-1] / values[1:].clamp_min(1e-300) * (values[1:] < NULL * values[0])
    first = int(gaps.argmax()) + 1 if len(gaps) and gaps.max() > GAP else len(values)
    null: Tensor = vectors[first:]
    return null


def _echelon(matrix: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Column of the pivot and row, for each row of the reduced row echelon form."""
    matrix, pivots = matrix.clone(), list[int]()
    for column in range(matrix.shape[1]):
        done = len(pivots)
        if done == len(matrix):
            break
        best = done + int(matrix[done:, column].abs().argmax())
        if matrix[best, column].abs() > 2e-3:
            matrix[[done, best]] = matrix[[best, done]]
            matrix[done] /= matrix[done, column].clone()
            others = torch.arange(len(matrix)) != done
            matrix[others] -= matrix[others, column, None] * matrix[done]
            pivots.append(column)
    yield from zip(pivots, matrix, strict=False)
