"""Finds each weight's role by scaling it and watching the loss. Not here: the use of the roles (``optimizer.py``).

1. Gains and biases that hardly differ within their vector get random offsets, a weight of about zero random values: at
   initialization biases are zero, and a convolution that merely feeds a ReLU would pass for scale-invariant until its
   bias starts to move. Everything is put back at the end.
2. Each weight is scaled by 1/2 and 2. It may be scale-invariant when the losses agree within the tolerance.
3. A normalization's epsilon breaks exactness. A weight that fails step 2 is scaled again with the epsilons of modules
   out of the way, then around 8 and 64 times its size: what epsilon causes shrinks with the square of the size, what a
   bias causes at best in proportion.
4. Where the layer's layout is known, the same is done with output channels scaled by independent factors.
5. A loss that hardly depends on a weight at all agrees as well. So at random points the derivative of the loss along
   what passed must be far below that along a random direction: a gradient has as many digits where it is small.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fixnorm.torch.joint import joint_groups
from fixnorm.torch.radial import radial_derivatives, without_epsilon
from fixnorm.torch.roles import ParamRole, Roles, checked
from fixnorm.torch.sharding import is_sharded

Loss = Callable[[nn.Module], Tensor]
HOLDS = ("invariant", "joint", "matrices")

UNUSED = "the loss does not depend on it"
TOO_LITTLE = "the loss depends on it too little to see that by scaling"
TOLERANCE = 2e-5
"""Largest relative change of the loss that counts as rounding."""
SIZES = (1.0, 8.0, 64.0)
SHRINKAGE = 22.0
OFFSET = 0.5
TINY = 1e-4
"""Weights of no larger element may be lost beside others (a class token at 1e-6): they count as zero."""
SPREAD = 0.1
POINTS, ENOUGH = 8, 6
"""Random points of step 5, and at how many the derivative must vanish: rounding can hide that it does where a channel
is almost constant."""
VANISHING = (1000.0, 0.05)
"""Largest derivative along a weight, beside that along a random direction, that counts as zero: so many tolerances, at
most the second number. Rounding in f32 leaves 1e-6 to 1e-3, in bf16 0.03; others are normally distributed around zero
with a deviation of 1, or a twentieth of that where a small bias follows."""


def probe(
    model: nn.Module,
    loss: Loss,
    *,
    head: str | None = None,
    roles: Mapping[str, str] | None = None,
    hold: str = "invariant",
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> Roles:
    """The role of every trainable parameter of ``model``.

    ``loss(model)`` computes the training loss of one fixed batch, a scalar, for example
    ``lambda model: F.cross_entropy(model(images), labels)``. The model is put into training mode for it; weights,
    buffers, mode and random number generators are left as they were. Costs two to four forward passes a weight, more
    where a normalization's epsilon matters, and eight backward passes. A weight whose output hardly varies beside that
    epsilon may be called free where the normalization is no module: set its role by ``roles``. Probe before the model
    is wrapped or sharded.

    Args:
        head: name of the head's weight, instead of the last ``nn.Linear``.
        roles: roles set by the user, by name or pattern (``*`` stands for any text), whose weights are not probed.
        hold: which norms to hold. ``invariant``: those of scale-invariant weights. For networks of which few weights
            are so alone, ``joint``: also those of groups that are scale-invariant together (``joint.py``), which costs
            a backward pass and a quarter for each parameter; ``matrices``: also those of all other weights but
            embeddings, each at the size it starts with; or a pattern of the names of such weights.
        tolerance: largest relative change of the loss that counts as rounding; less exact arithmetic needs more.

    Raises:
        TypeError: a loss that is no scalar, a parameter that is complex or sharded.
        ValueError: a loss that is not finite or not repeatable or has no gradient, a head that is scale-invariant.
        KeyError: a head, role or pattern that matches no parameter.
    """
    overrides, found = dict(roles or {}), Roles(model, _rows(model))
    params = {row.name: model.get_parameter(row.name) for row in found}
    by_hand = {row.name for pattern, role in overrides.items() if checked(role) for row in found.matching(pattern)}
    alone = [] if hold in HOLDS else found.matching(hold)
    if head is not None and not found.get(head).is_weight:
        raise ValueError(f"{head} cannot be the head: it has one dimension")
    with _unchanged(model):
        run = _Run(loss, model, seed, tolerance)
        run.check_repeatable()
        _to_generic_point(params, run.generator)
        run.baseline = run.loss()
        probed = [row for row in found if row.is_weight and row.name not in by_hand]
        for row in probed:
            _scale(row, params[row.name], run)
        start = {name: param.detach().clone() for name, param in params.items()}
        _confirm(probed, params, run)
        torch._foreach_copy_(list(params.values()), list(start.values()))
        if head is not None or "head" not in overrides.values():
            _assign_head(found, head)
        for pattern, role in overrides.items():
            found.set(pattern, role)
        if hold in ("joint", "matrices"):
            free = {row.name: params[row.name] for row in found if row.role == "free" and not row.overridden}
            for number, group in enumerate(joint_groups(model, run.value, free, run.generator, tolerance), 1):
                for name in group.members:
                    found.get(name).joint = number
                    found.get(name).notes.append(
                        f"scale-invariant together with group {number} ({group.deviation:.1e})"
                    )
    if hold == "matrices":
        alone = [row for row in found if not isinstance(_layer(model, row.name), nn.Embedding | nn.EmbeddingBag)]
    for row in alone:
        row.held = row.is_weight and row.role == "free" and not row.overridden and row.joint is None
    return found


def _rows(model: nn.Module) -> list[ParamRole]:
    """The trainable parameters, all free."""
    names: dict[int, list[str]] = {}
    for name, param in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(param), []).append(name)
    rows = []
    for name, param in model.named_parameters():
        if not param.requires_grad:
            continue
        if is_sharded(param):
            raise TypeError(f"parameter {name} is sharded: probe before fully_shard, make the optimizer after it")
        if not param.is_floating_point() or param.layout != torch.strided:
            raise TypeError(f"parameter {name} is {param.dtype}, {param.layout}: only real, dense weights have roles")
        if param.is_meta:
            raise TypeError(f"parameter {name} is on the meta device: give the model values before it is probed")
        known = isinstance(_layer(model, name), nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d) and param.ndim >= 2
        row = ParamRole(name, tuple(param.shape), "free", 0 if known else None)
        if len(names[id(param)]) > 1:
            row.notes.append(f"tied with {', '.join(names[id(param)][1:])}")
        if row.is_weight and param.detach().abs().max() <= TINY:
            row.notes.append("about zero at the start")
        rows.append(row)
    if not rows:
        raise ValueError("the model has no trainable parameter: every one has requires_grad=False")
    return rows


def _layer(model: nn.Module, name: str) -> nn.Module:
    """The module that declares a parameter."""
    return model.get_submodule(name.rpartition(".")[0])


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Training mode; at the end modes, parameters, buffers and random number generators are as they were."""
    modes = {module: module.training for module in model.modules()}
    tensors = [*model.parameters(), *model.buffers()]
    saved = [tensor.detach().clone() for tensor in tensors]
    devices = sorted({t.device.index for t in tensors if t.device.type == "cuda" and t.device.index is not None})
    try:
        with torch.random.fork_rng(devices), torch.no_grad():
            model.train()
            yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, saved, strict=True):
                tensor.copy_(value)
        for module, mode in modes.items():
            module.training = mode


class _Run:
    """The loss on the fixed batch, with the same random numbers and buffers at every call."""

    def __init__(self, loss: Loss, model: nn.Module, seed: int, tolerance: float) -> None:
        self._loss, self.model, self.seed, self.tolerance = loss, model, seed, tolerance
        self.buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
        self.generator = torch.Generator().manual_seed(seed)
        self.baseline = math.nan

    def value(self) -> Tensor:
        torch.manual_seed(self.seed)
        with torch.no_grad():
            for buffer, kept in self.buffers:
                buffer.copy_(kept)
        value = self._loss(self.model)
        if not isinstance(value, Tensor) or value.numel() != 1 or value.is_complex():
            found = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"loss(model) must return a scalar tensor, got {found}; take the mean over the batch")
        return value

    def loss(self) -> float:
        return float(self.value())

    def check_repeatable(self) -> None:
        first, second = self.loss(), self.loss()
        if not math.isfinite(first):
            raise ValueError(f"the probe's loss is {first}; check the batch and the initialization")
        if abs(first - second) > 1e-6 * abs(first):
            raise ValueError(
                f"the probe's loss is not repeatable: {first} and then {second} on the same batch; "
                "loss(model) must use the same images and labels at every call"
            )

    def change(self, param: Tensor, value: Tensor, unchanged: float) -> float:
        """Relative change of the loss where the parameter has this value; one that overflowed has changed."""
        param.copy_(value)
        changed = abs(self.loss() - unchanged) / max(abs(unchanged), 1e-300)
        return math.inf if math.isnan(changed) else changed

    def deviation(self, param: Tensor, changes: list[Tensor], size: float | None = None) -> float:
        """Largest relative change of the loss by factors of the weight, at ``size`` times its own."""
        own, unchanged = param.detach().clone(), self.baseline
        if size is not None:
            param.copy_(own * size)
            unchanged = self.loss()
        worst = max(self.change(param, own * (size or 1.0) * change, unchanged) for change in changes)
        param.copy_(own)
        return worst


def _to_generic_point(params: Mapping[str, Tensor], generator: torch.Generator) -> None:
    for param in params.values():
        random = torch.randn(param.shape, generator=generator).to(param)
        if param.ndim < 2:
            if param.numel() and (param.max() - param.min()) <= SPREAD:
                param.add_(random.clamp(-1.0, 1.0) * OFFSET)
        elif param.abs().max() <= TINY:
            param.copy_(random * OFFSET)


def _scale(row: ParamRole, param: Tensor, run: _Run) -> None:
    """Steps 2 to 4 of the module's list."""
    scales = [torch.tensor(factor, device=param.device, dtype=param.dtype) for factor in (0.5, 2.0)]
    row.deviation = run.deviation(param, scales)
    if _is_but_epsilon(row.deviation, param, scales, run):
        row.role = "scale_invariant"
        if row.channel_axis is not None:
            patterns = _patterns(param)
            row.channel_invariant = _is_but_epsilon(run.deviation(param, patterns), param, patterns, run)


def _confirm(rows: list[ParamRole], params: Mapping[str, Tensor], run: _Run) -> None:
    """Step 5."""
    radial = radial_derivatives(run.model, run.value, params, run.generator, POINTS)
    zero = min(VANISHING[0] * run.tolerance, VANISHING[1])
    vanishing, channels = ((shares <= zero).sum(0) * POINTS >= ENOUGH * len(shares) for shares in radial[1:])
    depends = (radial.shares > 0).any(0)
    for row in rows:
        index = list(params).index(row.name)
        if row.role == "scale_invariant" and not vanishing[index]:
            row.role, row.channel_invariant = "free", False
            if (row.deviation or 0.0) <= run.tolerance:
                row.notes.append(TOO_LITTLE if depends[index] else UNUSED)
        row.channel_invariant &= bool(channels[index])
        if row.role == "scale_invariant" and (row.deviation or 0.0) > run.tolerance:
            row.notes.append("but for epsilon")


def _patterns(param: Tensor) -> list[Tensor]:
    """Factors of 1/2 and 2 for the first dimension, in an irregular pattern and its opposite."""
    # i*i/3 has no period that a group of channels could share.
    patterns = [[(0.5, 2.0)[(i * i // 3 + i + parity) % 2] for i in range(len(param))] for parity in (0, 1)]
    return [torch.tensor(pattern).to(param).view(-1, *[1] * (param.ndim - 1)) for pattern in patterns]


def _is_but_epsilon(found: float, param: Tensor, changes: list[Tensor], run: _Run) -> bool:
    """Whether a deviation is rounding, or of the kind that epsilon causes."""
    if found <= run.tolerance:
        return True
    with without_epsilon(run.model):
        for size in SIZES:
            enlarged = run.deviation(param, changes, size)
            if enlarged <= run.tolerance:
                return True
            if size > 1.0 and enlarged > found / SHRINKAGE:
                return False
            found = enlarged
    return True


def _assign_head(found: Roles, head: str | None) -> None:
    linear = [row for row in found if row.is_weight and isinstance(_layer(found.model, row.name), nn.Linear)]
    if head is None and not linear:
        return
    row = linear[-1] if head is None else found.get(head)
    if row.role == "scale_invariant":
        raise ValueError(
            f"{row.name} is scale-invariant, a normalization follows it: it cannot be the head; name another by head="
        )
    row.role = "head"
