"""The optimizer: holds norms around a base update. Section 4 of docs/method.md.

Parameters are updated in batches. Where nothing but the norm of a whole tensor is needed (``raw`` steps), a batch
takes the base update's step and is scaled to its radii; all other rules work on tensors of one shape stacked, with the
three inner products of each group of elements. Nothing is read back from the device.

Not here: the formulas of rules (``rule.py``) and base updates (``direction.py``).
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from fixnorm.torch import rule as rules
from fixnorm.torch.batches import (
    Batch,
    along,
    is_scaled,
    rows,
    split_into_batches,
    squares,
    unstacked,
    wide,
    with_gradients,
)
from fixnorm.torch.direction import BASES, Base, Group, base_of
from fixnorm.torch.roles import ParamRole, Roles
from fixnorm.torch.rule import Moments, Rule, coefficients, scale_to
from fixnorm.torch.sharding import group_key, is_sharded, local, sharded_like, sum_over_processes


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
        self._base = base_of(base)
        if base == "nesterov":
            options["nesterov"] = True
        options = _checked_options(self._base, options)
        lr = rules.number("lr", lr, 0.0, inclusive=True)
        steps = {
            name: rules.choice(name, value, rules.STEP_RULES)
            for name, value in [
                ("step_rule", step_rule),
                ("head_step_rule", head_step_rule),
                ("free_step_rule", free_step_rule),
            ]
        }
        head = rules.choice("head", head, rules.HEAD_MODES)
        head_rule = Rule(
            steps["head_step_rule"],
            head if head in rules.CONSTRAINTS else "free",
            lr_factor=rules.number("head_lr_scale", head_lr_scale, 0.0, inclusive=True),
            alpha=rules.number("alpha", alpha, 0.0),
        )
        decay = rules.number("head_weight_decay", head_weight_decay, 0.0, inclusive=True)
        if (head == "decayed") != (decay > 0):
            raise ValueError(f"head='decayed' goes with a head_weight_decay above 0, got {head!r} and {decay}")
        body = Rule(
            steps["step_rule"],
            rules.choice("constraint", constraint, rules.CONSTRAINTS),
            rules.radius("radius", radius),
            rules.choice("scope", scope, rules.SCOPES),
        )
        free = Rule(
            steps["free_step_rule"], lr_factor=rules.number("free_lr_scale", free_lr_scale, 0.0, inclusive=True)
        )
        # Weights held without being invariant keep the size that their layer was initialized for.
        held = Rule(body.step_rule, body.constraint, "init", "tensor")
        by_kind = {"scale_invariant": body, "head": head_rule, "held": held, "free": free, "gains_and_biases": free}
        if head != "free" and roles.head is None:
            names = ", ".join(row.name for row in roles if row.is_weight)
            raise ValueError(
                f"no weight has the role head; name one by probe(..., head=), or say head='free'; weights: {names}"
            )
        params = dict(roles.model.named_parameters())
        by_name = {row.name: row for row in roles}
        radii = _check_and_measure(by_name, params, by_kind)

        groups = []
        for kind, rule in by_kind.items():
            named = [(name, params[name]) for name, row in by_name.items() if row.kind == kind]
            if named:
                groups.append({"params": named, "kind": kind, **_settings(rule), "base": self._base_for(kind).name})
                if kind == "head":
                    groups[-1]["weight_decay"] = decay
        defaults = {
            "lr": lr,
            "weight_decay": 0.0,
            **options,
            "kind": "free",
            **_settings(Rule()),
            "base": self._base.name,
        }
        if self._base.name == "muon":
            defaults = {**BASES["adamw"].options, **defaults}
        self._batches: list[list[Batch]] | None = None
        super().__init__(groups, defaults)
        self._base.check(self.param_groups[0])
        self._place(by_name, params, by_kind, radii)
        for group in self.param_groups:
            for param in group["params"]:
                self.state[param].update(BASES[group["base"]].state(param, group))

    def _base_for(self, kind: str) -> Base:
        # Muon's direction is that of a matrix.
        return BASES["adamw"] if self._base.name == "muon" and kind == "gains_and_biases" else self._base

    @torch.no_grad()
    def _place(
        self, roles: dict[str, ParamRole], params: Mapping[str, Tensor], by_kind: dict[str, Rule], radii: Any
    ) -> None:
        """Brings every held weight to its norm and keeps the radii."""
        for name, (norms, radius) in radii.items():
            rule, param = by_kind[roles[name].kind], params[name]
            axis = _axis(roles[name], rule)
            scale = scale_to(norms, radius, rule.constraint)
            part = local(param)
            part.copy_(part.to(scale.dtype) * along(scale, part, axis))
            kept = radius.to(torch.float64 if param.dtype == torch.float64 else torch.float32)
            self.state[param]["radius"] = kept if axis is None else sharded_like(kept, param, axis)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds parameters that the base update alone acts on: they are free."""
        super().add_param_group(param_group)
        self._batches = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._batches = None
        if "_base" not in self.__dict__:
            names = [group["base"] for group in self.param_groups if group["kind"] != "gains_and_biases"]
            self._base = BASES[(names or [self.param_groups[0]["base"]])[0]]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes a step; ``closure`` evaluates the loss again and returns it."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._refuse_sparse()
        if self._batches is None:
            self._batches = [split_into_batches(group, self.state) for group in self.param_groups]
        for group, batches in zip(self.param_groups, self._batches, strict=True):
            ready = [part for batch in batches if (part := with_gradients(batch)).params]
            if not ready:
                continue
            for together in _summed_together(ready):
                (self._step_scaled if is_scaled(group, together[0]) else self._step_stacked)(group, together)
        return loss

    def _step_scaled(self, group: Group, batches: list[Batch]) -> None:
        """The base update's own step, then each tensor's norm by one factor."""
        base, lr = BASES[group["base"]], group["lr"] * group["lr_factor"]
        for batch in batches:
            params, grads, states = self._local(batch)
            base.plain(params, grads, states, group, lr)
        if group["constraint"] == "free":
            return
        found = torch.cat([squares([local(p) for p in batch.params]) for batch in batches])
        norms = sum_over_processes(found, batches[0].params[0]).sqrt()
        radii = torch.stack([self.state[p]["radius"] for batch in batches for p in batch.params]).to(norms.dtype)
        scale = scale_to(norms, radii, group["constraint"])
        # A norm at its radius but for rounding stays: a zero gradient moves nothing.
        tolerance = 3 * torch.finfo(batches[0].params[0].dtype).eps
        scale = torch.where((scale - 1.0).abs() <= tolerance, 1.0, scale)
        factors = scale.to(batches[0].params[0].dtype).unbind()
        start = 0
        for batch in batches:
            end = start + len(batch.params)
            torch._foreach_mul_([local(p) for p in batch.params], list(factors[start:end]))
            start = end

    def _step_stacked(self, group: Group, batches: list[Batch]) -> None:
        """Any rule, by the inner products of each group of elements."""
        base, lr = BASES[group["base"]], group["lr"] * group["lr_factor"]
        decay = group["weight_decay"] if base.decoupled else 0.0
        directions, found = [], []
        for batch in batches:
            params, grads, states = self._local(batch)
            directions.append(base.directions(params, base.decayed(params, grads, group), states, group))
            w, d = rows(params, batch.axes[0]), rows(directions[-1], batch.axes[0])
            found.append(torch.stack([(w * w).sum(-1), (w * d).sum(-1), (d * d).sum(-1)]))
        like = batches[0].params[0]
        sums = torch.cat([part.flatten(1) for part in found], 1).to(wide(like))
        sums = sum_over_processes(sums, like, batches[0].axes[0])
        start = 0
        for batch, direction, part in zip(batches, directions, found, strict=True):
            end = start + part[0].numel()
            ww, wd, dd = (row.view_as(part[0]) for row in sums[:, start:end])
            start = end
            radii = None
            if group["constraint"] != "free":
                radii = torch.stack([local(self.state[p]["radius"]) for p in batch.params]).view_as(ww).to(ww.dtype)
            whole, axis = batch.params[0], batch.axes[0]
            size = whole.numel() // (1 if axis is None else whole.shape[axis])
            noise = 1e-12 if whole.dtype == torch.float64 else 1e-6
            a, b = coefficients(
                group["step_rule"], group["constraint"], lr, decay, size, Moments(ww, wd, dd), radii, noise
            )
            params = [local(p) for p in batch.params]
            w, d = rows(params, axis), rows(direction, axis)
            stepped = torch.addcmul(w * a.to(w.dtype)[..., None], d, b.to(w.dtype)[..., None])
            torch._foreach_copy_(params, unstacked(stepped, params, axis))

    def _refuse_sparse(self) -> None:
        for group in self.param_groups:
            for index, p in enumerate(group["params"]):
                if p.grad is not None and p.grad.layout != torch.strided:
                    name = group.get("param_names", {index: "a parameter"})[index]
                    raise TypeError(f"{name} has a sparse gradient, which FixNorm does not take: use sparse=False")

    def _local(self, batch: Batch) -> tuple[list[Tensor], list[Tensor], list[dict[str, Tensor]]]:
        params, grads, states = [], [], []
        for p in batch.params:
            assert p.grad is not None
            params.append(local(p))
            grads.append(local(p.grad))
            states.append({key: local(value) for key, value in self.state[p].items()})
        return params, grads, states

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


def _summed_together(batches: list[Batch]) -> Iterator[list[Batch]]:
    """A batch at a time, while it is in the cache; sharded ones together, for one sum over processes."""
    sharded: dict[Any, list[Batch]] = {}
    for batch in batches:
        if not is_sharded(batch.params[0]):
            yield [batch]
        else:
            key = (group_key(batch.params[0]), batch.params[0].dtype, batch.axes[0])
            sharded.setdefault(key, []).append(batch)
    yield from sharded.values()


def _settings(rule: Rule) -> dict[str, Any]:
    keys = ("step_rule", "constraint", "radius", "scope", "lr_factor", "alpha")
    return {key: getattr(rule, key) for key in keys}


def _checked_options(base: Base, options: dict[str, Any]) -> dict[str, Any]:
    if options.pop("weight_decay", 0.0):
        raise ValueError(
            "weight_decay must be 0: FixNorm holds norms instead; to decay the head alone, say head='decayed' and "
            "head_weight_decay="
        )
    for name in ("foreach", "fused"):
        options.pop(name, None)
    unknown = sorted(set(options) - set(base.options))
    if unknown:
        raise ValueError(f"{base.name} has no option {', '.join(unknown)} here; it has {', '.join(base.options)}")
    return {**base.options, **options}


def _axis(row: ParamRole, rule: Rule) -> int | None:
    return row.channel_axis if rule.scope == "output_channel" else None


@torch.no_grad()
def _check_and_measure(
    roles: dict[str, ParamRole], params: Mapping[str, Tensor], by_kind: dict[str, Rule]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Norms and radii of the weights that are to be held, by name; raises before anything is changed."""
    found = {}
    for name, row in roles.items():
        param = params.get(name)
        if param is None or tuple(param.shape) != row.shape:
            raise ValueError(f"the roles are not this model's: {name} is missing or has another shape; probe it again")
        if not param.requires_grad:
            raise TypeError(f"{name} was frozen after the probe (requires_grad=False): probe again, or train it")
        if param.is_complex() or param.layout != torch.strided:
            raise TypeError(f"{name} is {param.dtype}, {param.layout}: only real, dense parameters can be held")
        rule = by_kind[row.kind]
        if rule.constraint == "free" and rule.step_rule in ("raw", "rms_normalized"):
            continue
        if rule.scope == "output_channel":
            if row.channel_axis is None:
                raise ValueError(f"{name}: scope output_channel asked for, but its layer's layout is not known")
            if not row.channel_invariant and not row.overridden:
                raise ValueError(
                    f"{name}: scope output_channel asked for, but the loss depends on the ratio of its channels' "
                    "norms; use scope='tensor', or give it the role free"
                )
        if rule.constraint == "free" and rule.step_rule == "trust_ratio":
            continue
        axis = _axis(row, rule)
        part = local(param).to(wide(param))
        square = rows([part], axis)[0].square().sum(-1)
        norms = sum_over_processes(square, param, axis).sqrt()
        if bool((norms == 0).any()):
            raise ValueError(
                f"weight {name}: its norm is zero, so it has no direction to keep; initialize it, or give it the role "
                "free"
            )
        if rule.constraint != "free":
            radii = rule.radii(norms, row.c_out)
            found[name] = (norms, radii) if axis is not None else (norms[0], radii[0])
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
