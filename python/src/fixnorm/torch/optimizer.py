"""The optimizer: holds norms around a base update. Section 4 of docs/method.md.

Parameters are updated in batches. Where nothing but the norm of a whole tensor is needed (``raw`` steps), a batch
takes the base update's step and is scaled to its radii; all other rules take three inner products of each group of
elements. Nothing is read back from a GPU.

Not here: the formulas of rules (``rule.py``) and base updates (``direction.py``).
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from fixnorm.torch import rule as rules
from fixnorm.torch.batches import (
    Batch,
    Stack,
    along,
    inner_products,
    split_into_batches,
    squares,
    stacks,
    step,
    summed_together,
    wide,
)
from fixnorm.torch.direction import BASES, Group, base_of
from fixnorm.torch.roles import Roles
from fixnorm.torch.rule import Rule, coefficients, scale_to
from fixnorm.torch.sharding import group_key, local, sharded_like, sum_over_processes


class FixNorm(Optimizer):
    """Holds the norm of every scale-invariant weight at a radius and that of the head at alpha times sqrt(C).

    Example::

        roles = fixnorm.torch.probe(model, lambda model: F.cross_entropy(model(images), labels))
        optimizer = FixNorm(torch.optim.SGD, roles, lr=0.1, alpha=1.0, momentum=0.9)

    Making it brings the weights to their norms. Steps, schedulers, ``zero_grad`` and ``state_dict`` work as with any
    optimizer of ``torch.optim``. The radii are tensors of the state (``radius``).

    Args:
        base: class of ``torch.optim`` (SGD, RMSprop, AdamW, Muon) or a name (also ``nesterov``, ``rmsprop_tf``), whose
            further options follow by keyword. RMSprop's own ``alpha`` is called ``rms_decay`` here.
        roles: the roles of the model's parameters, from ``probe``.
        lr: learning rate; under the angular step rule an angle in radians.
        alpha: RMS norm of the head's rows.
        constraint: ``fixed``, ``capped`` or ``free``, for scale-invariant weights.
        radius: ``sqrt_c_out``, ``unit``, ``init`` or a number.
        scope: what a norm is taken over, ``tensor`` or ``output_channel``.
        step_rule: ``raw``, ``angular`` (or ``normalized``), ``rms_normalized``, ``trust_ratio``.
        head: ``fixed``, ``capped``, ``free``, or ``decayed`` by ``head_weight_decay``.
        head_step_rule, head_lr_scale: step rule of the head, factor of its learning rate.
        free_step_rule, free_lr_scale: of gains, biases and weights that are neither held nor the head.

    Raises:
        ValueError: a value out of range, no head where one is to be held, a weight of norm zero that is to be held.
        TypeError: a learning rate that is a tensor, a parameter that is complex, sparse or frozen.
    """

    def __init__(
        self,
        base: object,
        roles: Roles,
        lr: float = 0.1,
        alpha: float = 1.0,
        *,
        constraint: str = "fixed",
        radius: str | float = "sqrt_c_out",
        scope: str = "tensor",
        step_rule: str = "raw",
        head: str = "fixed",
        head_weight_decay: float = 0.0,
        head_step_rule: str = "raw",
        head_lr_scale: float = 1.0,
        free_step_rule: str = "raw",
        free_lr_scale: float = 1.0,
        **options: Any,
    ) -> None:
        if not isinstance(roles, Roles):
            raise TypeError(f"roles must come from fixnorm.torch.probe, got {type(roles).__name__}")
        lr, chosen = rules.number("lr", lr, 0.0, inclusive=True), base_of(base)
        options = chosen.checked({**({"nesterov": True} if base == "nesterov" else {}), **options})
        head = rules.choice("head", head, rules.HEAD_MODES)
        decay = rules.number("head_weight_decay", head_weight_decay, 0.0, inclusive=True)
        if (head == "decayed") != (decay > 0):
            raise ValueError(f"head='decayed' goes with a head_weight_decay above 0, got {head!r} and {decay}")
        body = Rule(
            rules.choice("step_rule", step_rule, rules.STEP_RULES),
            rules.choice("constraint", constraint, rules.CONSTRAINTS),
            rules.radius("radius", radius),
            rules.choice("scope", scope, rules.SCOPES),
        )
        head_rule = Rule(
            rules.choice("head_step_rule", head_step_rule, rules.STEP_RULES),
            head if head in rules.CONSTRAINTS else "free",
            lr_factor=rules.number("head_lr_scale", head_lr_scale, 0.0, inclusive=True),
            alpha=rules.number("alpha", alpha, 0.0),
        )
        free = Rule(
            rules.choice("free_step_rule", free_step_rule, rules.STEP_RULES),
            lr_factor=rules.number("free_lr_scale", free_lr_scale, 0.0, inclusive=True),
        )
        # What is held without being invariant alone keeps the size that its layer was initialized for.
        held = replace(body, radius="init", scope="tensor")
        by_kind = {"scale_invariant": body, "head": head_rule}
        by_kind |= {row.kind: replace(held, scope="group") for row in roles if row.joint is not None}
        by_kind |= {"held": held, "free": free, "gains_and_biases": free}
        radii = _check_and_measure(roles, by_kind, needs_head=head != "free")

        # Muon's direction is that of a matrix.
        muon = chosen.name == "muon"
        if muon and any(row.joint is not None for row in roles):
            raise ValueError("Muon's direction is a matrix's, and joint groups have vectors: take another base or hold")
        params = dict(roles.model.named_parameters())
        groups: list[dict[str, Any]] = []
        for kind, rule in by_kind.items():
            named = [(row.name, params[row.name]) for row in roles if row.kind == kind]
            name = "adamw" if muon and kind == "gains_and_biases" else chosen.name
            if named:
                groups.append({"params": named, "kind": kind, **asdict(rule), "base": name})
                groups[-1]["weight_decay"] = decay if kind == "head" else 0.0
        defaults = {"lr": lr, "weight_decay": 0.0, **options, "kind": "free", **asdict(Rule()), "base": chosen.name}
        self._batches: list[list[Batch]] | None = None
        super().__init__(groups, {**BASES["adamw"].options, **defaults} if muon else defaults)
        with torch.no_grad():
            for name, (norms, wanted) in radii.items():
                param, scale = params[name], scale_to(norms, wanted, by_kind[roles.get(name).kind].constraint)
                part = local(param)
                part.copy_(part.to(scale.dtype) * along(scale, part))
                kept = wanted.to(torch.float64 if param.dtype == torch.float64 else torch.float32)
                self.state[param]["radius"] = kept if kept.ndim == 0 else sharded_like(kept, param)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds parameters that the base update alone acts on: they are free."""
        base = BASES[param_group.get("base", self.defaults["base"])]
        base.check({**self.defaults, **param_group})
        super().add_param_group(param_group)
        for param in self.param_groups[-1]["params"]:
            self.state[param].update(base.state(param, self.param_groups[-1]))
        self._batches = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._batches = None

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes a step; ``closure`` evaluates the loss again and returns it."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for index, p in enumerate(group["params"]):
                if p.grad is not None and p.grad.layout != torch.strided:
                    name = group.get("param_names", {index: "a parameter"})[index]
                    raise TypeError(f"{name} has a sparse gradient, which FixNorm does not take: use sparse=False")
        if self._batches is None:
            self._batches = [split_into_batches(group) for group in self.param_groups]
        for group, batches in zip(self.param_groups, self._batches, strict=True):
            for together in summed_together(group, batches):
                (self._step_by_products if together[0].by_products else self._step_scaled)(group, together)
        return loss

    def _step_scaled(self, group: Group, batches: list[Batch]) -> None:
        """The base update's own step, then each tensor's norm by one factor."""
        base, lr = BASES[group["base"]], group["lr"] * group["lr_factor"]
        for batch in batches:
            base.plain(*self._local(batch), group, lr)
        if group["constraint"] == "free":
            return
        whole = [p for batch in batches for p in batch.params]
        params = [local(p) for p in whole]
        found = sum_over_processes(squares(params), whole[0])
        if group["scope"] == "group":
            found = found.sum().expand_as(found)
        radii = torch.stack([self.state[p]["radius"] for p in whole]).to(found.dtype)
        scale = scale_to(found.sqrt(), radii, group["constraint"])
        # A norm at its radius but for rounding stays: a zero gradient moves nothing.
        scale = torch.where((scale - 1.0).abs() <= 3 * torch.finfo(params[0].dtype).eps, 1.0, scale)
        torch._foreach_mul_(params, list(scale.to(params[0].dtype).unbind()))

    def _step_by_products(self, group: Group, batches: list[Batch]) -> None:
        """Any rule, by the inner products of each group of elements."""
        base, lr = BASES[group["base"]], group["lr"] * group["lr_factor"]
        decay = group["weight_decay"] if base.decoupled else 0.0
        first, channels, found = batches[0].params[0], batches[0].channels, list[Stack]()
        for batch in batches:
            params, grads, states = self._local(batch)
            directions = base.directions(params, base.decayed(params, grads, group), states, group)
            found += stacks(params, directions)
        sums = sum_over_processes(inner_products(found, channels), first, 0 if channels else None)
        whole = [p for batch in batches for p in batch.params]
        size: Tensor | int = 1
        if group["scope"] == "group":
            sums, size = sums.sum(1, keepdim=True).expand_as(sums), sum(p.numel() for p in whole)
        elif group["step_rule"] == "rms_normalized":
            of_rows = [(local(p).shape[0], p.numel() // p.shape[0]) if channels else (1, p.numel()) for p in whole]
            size = torch.cat([sums.new_full((count,), elements) for count, elements in of_rows])
        radii = None
        if group["constraint"] != "free":
            radii = (torch.cat if channels else torch.stack)([local(self.state[p]["radius"]) for p in whole]).to(sums)
        noise = 1e-12 if first.dtype == torch.float64 else 1e-6
        a, b = coefficients(group["step_rule"], group["constraint"], lr, decay, size, sums.unbind(), radii, noise)
        step(found, a, b, channels)

    def _local(self, batch: Batch) -> tuple[list[Tensor], list[Tensor], list[dict[str, Tensor]]]:
        params = [local(p).detach() for p in batch.params]
        # In a joint group a parameter without a gradient is scaled with the others.
        grads = [torch.zeros_like(local(p)) if p.grad is None else local(p.grad) for p in batch.params]
        return params, grads, [{key: local(value) for key, value in self.state[p].items()} for p in batch.params]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads a state after checking that it belongs to this model; where it does not, nothing changes."""
        _check_state(self, state_dict)
        super().load_state_dict(state_dict)
        # torch.optim gives states the type of their parameter; a radius keeps its own.
        params = [p for group in self.param_groups for p in group["params"]]
        keys = [key for group in state_dict["param_groups"] for key in group["params"]]
        for key, param in zip(keys, params, strict=True):
            radius = state_dict["state"].get(key, {}).get("radius")
            if radius is not None:
                self.state[param]["radius"] = radius.to(param.device).clone()
        self._batches = None


@torch.no_grad()
def _check_and_measure(
    roles: Roles, by_kind: Mapping[str, Rule], *, needs_head: bool
) -> dict[str, tuple[Tensor, Tensor]]:
    """Norms and radii of the weights that are to be held, by name; raises before anything is changed."""
    if needs_head and roles.head is None:
        weights = ", ".join(row.name for row in roles if row.is_weight)
        raise ValueError(
            f"no weight has the role head; name one by probe(..., head=), or say head='free'; weights: {weights}"
        )
    found, joint, params = {}, dict[str, list[str]](), dict(roles.model.named_parameters())
    for row in roles:
        name, param, rule = row.name, params.get(row.name), by_kind[row.kind]
        if param is None or tuple(param.shape) != row.shape:
            raise ValueError(f"the roles are not this model's: {name} is missing or has another shape; probe it again")
        if not param.requires_grad:
            raise TypeError(f"{name} was frozen after the probe (requires_grad=False): probe again, or train it")
        if param.is_complex() or param.layout != torch.strided:
            raise TypeError(f"{name} is {param.dtype}, {param.layout}: only real, dense parameters can be held")
        channels = rule.scope == "output_channel"
        if channels and (rule.constraint, rule.step_rule) != ("free", "raw"):
            if row.channel_axis is None:
                raise ValueError(f"{name}: scope output_channel asked for, but its layer's layout is not known")
            if not row.channel_invariant and not row.overridden:
                raise ValueError(
                    f"{name}: scope output_channel asked for, but the loss depends on the ratio of its channels' "
                    "norms; use scope='tensor', or give it the role free"
                )
        if rule.constraint == "free" and rule.step_rule != "angular":
            continue
        square = local(param).to(wide(param)).square()
        square = square.flatten(1).sum(1) if channels else square.sum()
        norms = sum_over_processes(square, param, 0 if channels else None).sqrt()
        if row.joint is not None:
            joint.setdefault(row.kind, []).append(name)
        elif bool((norms == 0).any()):
            raise ValueError(
                f"weight {name}: its norm is zero, so it has no direction to keep; initialize it, or give it the role "
                "free"
            )
        if rule.constraint != "free":
            found[name] = (norms, rule.radii(norms, row.c_out))
    for kind, names in joint.items():
        if len({(p.device, p.dtype, group_key(p)) for p in (params[name] for name in names)}) > 1:
            raise ValueError(f"{', '.join(names)} are held together, and must be of one device, type and sharding")
        if by_kind[kind].constraint != "free":
            norm = torch.stack([found[name][0] for name in names]).norm()
            found |= {name: (norm, norm) for name in names}
    return found


def _check_state(optimizer: FixNorm, saved: dict[str, Any]) -> None:
    """Raises where a state belongs to another model or other rules."""

    def refuse(why: str) -> None:
        raise ValueError(f"the optimizer's state is not this model's: {why}")

    ours, theirs = optimizer.param_groups, saved.get("param_groups", [])
    kinds = [[group.get("kind") for group in groups] for groups in (ours, theirs)]
    if kinds[0] != kinds[1]:
        refuse(f"groups {kinds[1]}, expected {kinds[0]}")
    for mine, other in zip(ours, theirs, strict=True):
        names, found = mine.get("param_names", []), other.get("param_names", mine.get("param_names", []))
        different = sorted(set(names) ^ set(found))
        if different or len(mine["params"]) != len(other["params"]):
            refuse(f"parameters of {mine['kind']} differ: {', '.join(different) or 'their number'}")
        for index, (param, key) in enumerate(zip(mine["params"], other["params"], strict=True)):
            name = names[index] if index < len(names) else f"parameter {index}"
            expected, state = optimizer.state[param], saved["state"].get(key, {})
            for tensor in sorted(set(expected) ^ set(state)):
                refuse(f"{name} has {'no' if tensor in expected else 'an unexpected'} {tensor}")
            for tensor, value in expected.items():
                if tuple(state[tensor].shape) != tuple(value.shape):
                    refuse(f"{tensor} of {name} has shape {tuple(state[tensor].shape)}, expected {tuple(value.shape)}")
