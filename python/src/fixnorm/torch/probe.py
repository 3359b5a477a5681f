"""Finds each weight's role by scaling it and watching the loss. Not here: the use of the roles (``optimizer.py``).

1. Gains and biases that hardly differ within their vector get random offsets, an all-zero weight random values: at
   initialization biases are zero, and a convolution that merely feeds a ReLU would pass for scale-invariant until its
   bias starts to move. Everything is put back at the end.
2. Each weight is scaled by 1/2 and 2. It is scale-invariant when the losses agree within the tolerance and a random
   change of its direction moves the loss at least ten times more.
3. A normalization's epsilon breaks exactness. A weight that fails step 2 is scaled again around 8 and 64 times its
   size: what epsilon causes shrinks with the square of the size, what a bias causes at best in proportion. A mean over
   a batch can seem to shrink by chance, so it is looked at again from two other points.
4. Where the layer's layout is known, the same is done with output channels scaled by independent factors.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fixnorm.torch.roles import ROLES, ParamRole, Roles
from fixnorm.torch.sharding import is_sharded

Loss = Callable[[nn.Module], Tensor]

TOLERANCE = 2e-5
"""Largest relative change of the loss that counts as rounding."""
ENLARGED = (8.0, 64.0)
SHRINKAGE = 22.0
OFFSET = 0.5
SPREAD = 0.1
CONTRAST = 10.0
BY_EPSILON = "but for epsilon"
POINTS = 3
"""Points at which a weight that only epsilon may keep from being scale-invariant must be so."""


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
    buffers, mode and random number generators are left as they were. Costs three to five forward passes a weight, more
    where a normalization's epsilon matters. A weight whose output hardly varies beside that epsilon may be called free:
    set its role by ``roles``. Probe before the model is wrapped or sharded.

    Args:
        head: name of the head's weight, instead of the last ``nn.Linear``.
        roles: roles set by the user, by name or pattern (``*`` stands for any text), whose weights are not probed.
        hold: which norms to hold. ``invariant``: those of scale-invariant weights; ``matrices``: those of all
            weights but embeddings, for networks of which few weights are scale-invariant alone; or a pattern of names
            to hold besides the scale-invariant ones.
        tolerance: largest relative change of the loss that counts as rounding; less exact arithmetic needs more.

    Raises:
        TypeError: a loss that is no scalar, a parameter that is complex or sharded.
        ValueError: a loss that is not finite or not repeatable, a head that is scale-invariant.
        KeyError: a head, role or pattern that matches no parameter.
    """
    overrides = dict(roles or {})
    layers, notes = _layers(model), _ties(model)
    rows = [
        ParamRole(name, tuple(p.shape), "free", _channel_axis(layers[name], p), notes=list(notes.get(name, [])))
        for name, p in model.named_parameters()
        if p.requires_grad
    ]
    found = Roles(model, rows)
    if not rows:
        raise ValueError("the model has no trainable parameter: every one has requires_grad=False")
    by_hand = {row.name for pattern in overrides for row in found.matching(pattern)}
    for role in overrides.values():
        if role not in ROLES:
            raise ValueError(f"role must be one of {', '.join(ROLES)}; got {role!r}")
    if hold not in ("invariant", "matrices"):
        found.matching(hold)
    if head is not None and not found.get(head).is_weight:
        raise ValueError(f"{head} cannot be the head: it has one dimension")
    params = dict(model.named_parameters())
    for row in rows:
        _check(row.name, params[row.name])
        if row.is_weight and not params[row.name].detach().any():
            row.notes.append("zero at the start")
    with _unchanged(model):
        run = _Run(loss, model, seed, tolerance)
        run.check_repeatable()
        start = {row.name: params[row.name].detach().clone() for row in rows}
        probed = [row for row in rows if row.is_weight and row.name not in by_hand]
        for _ in range(POINTS):
            for name, value in start.items():
                params[name].copy_(value)
            _to_generic_point(params, rows, run.generator)
            run.baseline = run.loss()
            probed = [row for row in probed if _is_doubtful(row, params[row.name], run)]
    if head is not None or "head" not in overrides.values():
        _assign_head(found, head, layers)
    for pattern, role in overrides.items():
        found.set(pattern, role)
    _hold(found, hold, layers)
    return found


def _hold(found: Roles, hold: str, layers: dict[str, nn.Module]) -> None:
    if hold == "invariant":
        return
    if hold == "matrices":
        chosen = [row for row in found.rows if not isinstance(layers[row.name], nn.Embedding | nn.EmbeddingBag)]
    else:
        chosen = found.matching(hold)
    for row in chosen:
        row.held = row.is_weight and row.role == "free" and not row.overridden


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    """The module that declares each parameter."""
    return {
        f"{prefix}.{name}" if prefix else name: module
        for prefix, module in model.named_modules()
        for name, _ in module.named_parameters(recurse=False)
    }


def _ties(model: nn.Module) -> dict[str, list[str]]:
    """By the first name of a parameter with several, a note with the others."""
    names: dict[int, list[str]] = {}
    for name, param in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(param), []).append(name)
    return {first: [f"tied with {', '.join(rest)}"] for first, *rest in names.values() if rest}


def _channel_axis(layer: nn.Module, param: Tensor) -> int | None:
    known = isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
    return 0 if known and param.ndim >= 2 else None


def _check(name: str, param: Tensor) -> None:
    if is_sharded(param):
        raise TypeError(
            f"parameter {name} is sharded: probe the model before fully_shard, and make the optimizer after"
        )
    if param.is_complex() or not param.is_floating_point():
        raise TypeError(f"parameter {name} is of type {param.dtype}; roles are defined for real floating-point weights")
    if param.is_meta:
        raise TypeError(f"parameter {name} is on the meta device: give the model values before it is probed")


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
        self._loss, self._model, self.seed, self.tolerance = loss, model, seed, tolerance
        self.buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
        self.generator = torch.Generator().manual_seed(seed)
        self.baseline = math.nan

    def loss(self) -> float:
        torch.manual_seed(self.seed)
        for buffer, value in self.buffers:
            buffer.copy_(value)
        value = self._loss(self._model)
        if not isinstance(value, Tensor) or value.numel() != 1 or value.is_complex():
            found = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"loss(model) must return a scalar tensor, got {found}; take the mean over the batch")
        return float(value)

    def check_repeatable(self) -> None:
        first, second = self.loss(), self.loss()
        if not math.isfinite(first):
            raise ValueError(f"the probe's loss is {first}; check the batch and the initialization")
        if abs(first - second) > 1e-6 * abs(first):
            raise ValueError(
                f"the probe's loss is not repeatable: {first} and then {second} on the same batch; "
                "loss(model) must use the same images and labels at every call"
            )

    def deviation(self, param: Tensor, size: float, changes: list[Tensor]) -> float:
        """Largest relative change of the loss by factors of the weight at ``size`` times its own."""
        own = param.detach().clone()
        if size == 1.0:
            unchanged = self.baseline
        else:
            param.copy_(own * size)
            unchanged = self.loss()
        worst = 0.0
        for change in changes:
            param.copy_(own * size * change)
            changed = abs(self.loss() - unchanged) / max(abs(unchanged), 1e-300)
            # A loss that overflowed has changed.
            worst = math.inf if math.isnan(changed) else max(worst, changed)
        param.copy_(own)
        return worst

    def turned(self, param: Tensor) -> float:
        """The change that a random turn by half of the weight's length makes."""
        own = param.detach().clone()
        direction = self.normal(param)
        param.add_(direction * (0.5 * own.norm() / direction.norm().clamp_min(1e-30)))
        changed = abs(self.loss() - self.baseline) / max(abs(self.baseline), 1e-300)
        param.copy_(own)
        return math.inf if math.isnan(changed) else changed

    def normal(self, param: Tensor) -> Tensor:
        values = torch.randn(param.shape, generator=self.generator, dtype=torch.float32)
        return values.to(param.device, param.dtype)


def _to_generic_point(params: Mapping[str, Tensor], rows: list[ParamRole], generator: torch.Generator) -> None:
    for row in rows:
        param = params[row.name]
        random = torch.randn(param.shape, generator=generator).to(param.device, param.dtype)
        if param.ndim < 2:
            if param.numel() and (param.max() - param.min()) <= SPREAD:
                param.add_(random.clamp(-1.0, 1.0) * OFFSET)
        elif not param.any():
            param.copy_(random * OFFSET)


def _is_doubtful(row: ParamRole, param: Tensor, run: _Run) -> bool:
    """Steps 2 to 4 of the module's list for one weight; whether to look at it from another point."""
    scales = [torch.tensor(factor, device=param.device, dtype=param.dtype) for factor in (0.5, 2.0)]
    turned = run.turned(param)
    found = run.deviation(param, 1.0, scales)
    first = row.deviation is None
    row.deviation = max(found, row.deviation or 0.0)
    if not _is_invariant(turned, found, param, scales, run):
        row.role, row.channel_invariant = "free", False
        row.notes = [note for note in row.notes if note != BY_EPSILON]
        if turned == 0.0 and found == 0.0:
            row.notes.append("the loss does not depend on it")
        return False
    row.role = "scale_invariant"
    doubtful = found > run.tolerance
    if doubtful and BY_EPSILON not in row.notes:
        row.notes.append(BY_EPSILON)
    if row.channel_axis is not None and (first or row.channel_invariant):
        patterns = _patterns(param, row.channel_axis)
        found = run.deviation(param, 1.0, patterns)
        row.channel_invariant = _is_invariant(turned, found, param, patterns, run)
        doubtful |= row.channel_invariant and found > run.tolerance
    return doubtful


def _patterns(param: Tensor, axis: int) -> list[Tensor]:
    """Factors of 1/2 and 2 for the channels, in an irregular pattern and its opposite."""
    shape = [1] * param.ndim
    shape[axis] = -1
    # i*i/3 has no period that a group of channels could share.
    return [
        torch.tensor([(0.5, 2.0)[(i * i // 3 + i + parity) % 2] for i in range(param.shape[axis])])
        .to(param)
        .view(shape)
        for parity in (0, 1)
    ]


def _is_invariant(turned: float, found: float, param: Tensor, changes: list[Tensor], run: _Run) -> bool:
    if found > run.tolerance:
        for size in ENLARGED:
            enlarged = run.deviation(param, size, changes)
            if enlarged <= run.tolerance:
                found = enlarged
                break
            if enlarged > found / SHRINKAGE:
                return False
            found = enlarged
    return found * CONTRAST < turned


def _assign_head(found: Roles, head: str | None, layers: dict[str, nn.Module]) -> None:
    if head is None:
        linear = [row for row in found.rows if isinstance(layers[row.name], nn.Linear) and row.is_weight]
        if not linear:
            return
        row = linear[-1]
    else:
        row = found.get(head)
    if row.role == "scale_invariant":
        raise ValueError(
            f"{row.name} is scale-invariant, a normalization follows it: it cannot be the head; name another by head="
        )
    row.role = "head"
