"""Base updates: from gradients and states to directions, for a list of parameters at once.

The formulas are those of the classes of ``torch.optim`` that they stand for; a step is ``w <- w - lr*d``.
Not here: what becomes of a direction (``rule.py``).
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from fixnorm.torch.rule import number

Group = dict[str, Any]
States = list[dict[str, Tensor]]


def is_cheap_to_call(tensor: Tensor) -> bool:
    """Whether a call for each tensor costs less than a pass over memory: on a CPU, where nothing is being compiled."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


class Base:
    """A base update; its options are those of its class in ``torch.optim``, by the same names and defaults."""

    name = ""
    options: Mapping[str, Any] = {}
    decoupled = False
    """Whether weight decay shrinks the weight beside the step, or is added to the gradient."""

    def checked(self, options: dict[str, Any]) -> dict[str, Any]:
        """All options, those given among them, or an error."""
        if options.pop("weight_decay", 0.0):
            raise ValueError(
                "weight_decay must be 0: FixNorm holds norms instead; to decay the head alone, say head='decayed' and "
                "head_weight_decay="
            )
        options = {key: value for key, value in options.items() if key not in ("foreach", "fused")}
        unknown = sorted(set(options) - set(self.options))
        if unknown:
            raise ValueError(f"{self.name} has no option {', '.join(unknown)} here; it has {', '.join(self.options)}")
        found = {**self.options, **options}
        self.check(found)
        return found

    def check(self, group: Group) -> None:
        """Raises where an option is out of range."""

    def state(self, param: Tensor, group: Group) -> dict[str, Tensor]:
        """The states of a parameter at the start."""
        raise NotImplementedError

    def directions(self, params: list[Tensor], grads: list[Tensor], states: States, group: Group) -> list[Tensor]:
        """Advances the states and returns the directions; gradients may be used up."""
        raise NotImplementedError

    def plain(self, params: list[Tensor], grads: list[Tensor], states: States, group: Group, lr: float) -> None:
        """The step ``w <- w - lr*d`` as ``torch.optim`` takes it."""
        decay = group["weight_decay"]
        found = self.directions(params, self.decayed(params, grads, group), states, group)
        if self.decoupled and decay != 0:
            torch._foreach_mul_(params, 1.0 - lr * decay)
        torch._foreach_add_(params, found, alpha=-lr)

    def decayed(self, params: list[Tensor], grads: list[Tensor], group: Group) -> list[Tensor]:
        """The gradients with decay added, where it belongs there."""
        if self.decoupled or group["weight_decay"] == 0:
            return grads
        return list(torch._foreach_add(grads, params, alpha=group["weight_decay"]))


class Sgd(Base):
    """``torch.optim.SGD``; Nesterov's direction overwrites the gradient, as it does there."""

    name = "sgd"
    options: Mapping[str, Any] = {"momentum": 0.0, "nesterov": False}

    def check(self, group: Group) -> None:
        number("momentum", group["momentum"], 0.0, inclusive=True)
        if group["nesterov"] and group["momentum"] == 0:
            raise ValueError("nesterov=True needs a momentum above 0")

    def state(self, param: Tensor, group: Group) -> dict[str, Tensor]:
        return {"momentum_buffer": torch.zeros_like(param)} if group["momentum"] != 0 else {}

    def directions(self, params: list[Tensor], grads: list[Tensor], states: States, group: Group) -> list[Tensor]:
        if group["momentum"] == 0:
            return grads
        buffers = [state["momentum_buffer"] for state in states]
        if is_cheap_to_call(buffers[0]):
            # One pass over memory instead of two.
            for buffer, grad in zip(buffers, grads, strict=True):
                torch.add(grad, buffer, alpha=group["momentum"], out=buffer)
        else:
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, grads)
        if not group["nesterov"]:
            return buffers
        torch._foreach_add_(grads, buffers, alpha=group["momentum"])
        return grads

    def plain(self, params: list[Tensor], grads: list[Tensor], states: States, group: Group, lr: float) -> None:
        # One pass over memory instead of three; a compiler makes one of the others.
        fused = not torch.compiler.is_compiling() and all(p.device.type in ("cpu", "cuda") for p in params)
        sgd(
            params,
            grads,
            [state.get("momentum_buffer") for state in states],
            foreach=not fused,
            fused=fused,
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            lr=lr,
            dampening=0.0,
            nesterov=group["nesterov"],
            maximize=False,
        )


class RmsProp(Base):
    """``torch.optim.RMSprop``, its ``alpha`` called ``rms_decay``.

    With ``tensorflow`` epsilon is inside the root and averages start at one.
    """

    name = "rmsprop"
    options: Mapping[str, Any] = {"rms_decay": 0.99, "eps": 1e-8, "momentum": 0.0}
    tensorflow = False

    def check(self, group: Group) -> None:
        number("rms_decay", group["rms_decay"], 0.0, inclusive=True)
        number("eps", group["eps"], 0.0)
        number("momentum", group["momentum"], 0.0, inclusive=True)

    def state(self, param: Tensor, group: Group) -> dict[str, Tensor]:
        start = torch.ones_like if self.tensorflow else torch.zeros_like
        state = {"square_avg": start(param)}
        if group["momentum"] != 0:
            state["momentum_buffer"] = torch.zeros_like(param)
        return state

    def directions(self, params: list[Tensor], grads: list[Tensor], states: States, group: Group) -> list[Tensor]:
        averages = [state["square_avg"] for state in states]
        torch._foreach_mul_(averages, group["rms_decay"])
        torch._foreach_addcmul_(averages, grads, grads, value=1.0 - group["rms_decay"])
        if self.tensorflow:
            roots = list(torch._foreach_add(averages, group["eps"]))
            torch._foreach_sqrt_(roots)
        else:
            roots = list(torch._foreach_sqrt(averages))
            torch._foreach_add_(roots, group["eps"])
        if group["momentum"] == 0:
            return list(torch._foreach_div(grads, roots))
        buffers = [state["momentum_buffer"] for state in states]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_addcdiv_(buffers, grads, roots)
        return buffers


class RmsPropTf(RmsProp):
    """RMSProp in TensorFlow's form with EfficientNet's constants: the Rust library's ``rmsprop``."""

    name = "rmsprop_tf"
    options: Mapping[str, Any] = {"rms_decay": 0.9, "eps": 1e-3, "momentum": 0.9}
    tensorflow = True


class AdamW(Base):
    """``torch.optim.AdamW``."""

    name = "adamw"
    options: Mapping[str, Any] = {"betas": (0.9, 0.999), "eps": 1e-8}
    decoupled = True

    def check(self, group: Group) -> None:
        number("eps", group["eps"], 0.0)
        if len(group["betas"]) != 2 or not all(0.0 <= beta < 1.0 for beta in group["betas"]):
            raise ValueError(f"betas must be two numbers of at least 0 and below 1, got {group['betas']}")

    def state(self, param: Tensor, group: Group) -> dict[str, Tensor]:
        zeros = torch.zeros_like
        step = torch.zeros((), dtype=torch.float32, device=param.device)
        return {"step": step, "exp_avg": zeros(param), "exp_avg_sq": zeros(param)}

    def directions(self, params: list[Tensor], grads: list[Tensor], states: States, group: Group) -> list[Tensor]:
        first, second, steps = ([state[key] for state in states] for key in ("exp_avg", "exp_avg_sq", "step"))
        beta1, beta2 = group["betas"]
        torch._foreach_add_(steps, 1.0)
        torch._foreach_lerp_(first, grads, 1.0 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, grads, grads, value=1.0 - beta2)
        # On the device, in f64: 1 - beta2^t loses digits for a beta2 near 1.
        taken = torch.stack(steps).to(torch.float32 if steps[0].device.type == "mps" else torch.float64)
        correction1, correction2 = ((1.0 - beta**taken).to(params[0].dtype) for beta in (beta1, beta2))
        found = list(torch._foreach_sqrt(second))
        torch._foreach_div_(found, list(correction2.sqrt().unbind()))
        torch._foreach_add_(found, group["eps"])
        torch._foreach_mul_(found, list(correction1.unbind()))
        torch._foreach_reciprocal_(found)
        torch._foreach_mul_(found, first)
        return found


class Muon(Base):
    """``torch.optim.Muon`` for tensors of one shape at once, as matrices of as many rows as their first dimension."""

    name = "muon"
    options: Mapping[str, Any] = {
        "momentum": 0.95,
        "nesterov": True,
        "ns_coefficients": (3.4445, -4.7750, 2.0315),
        "eps": 1e-7,
        "ns_steps": 5,
    }
    decoupled = True

    def state(self, param: Tensor, group: Group) -> dict[str, Tensor]:
        return {"momentum_buffer": torch.zeros_like(param)}

    def directions(self, params: list[Tensor], grads: list[Tensor], states: States, group: Group) -> list[Tensor]:
        buffers = [state["momentum_buffer"] for state in states]
        torch._foreach_lerp_(buffers, grads, 1.0 - group["momentum"])
        updates = torch._foreach_lerp(grads, buffers, group["momentum"]) if group["nesterov"] else buffers
        x = torch.stack(list(updates)).flatten(2)
        rows, columns = x.shape[1:]
        x = _orthogonalized(x.bfloat16(), group["ns_coefficients"], group["ns_steps"], group["eps"])
        x = math.sqrt(max(1.0, rows / columns)) * x.to(params[0].dtype)
        return list(x.view(-1, *params[0].shape).unbind())


def _orthogonalized(x: Tensor, factors: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Newton and Schulz's iteration toward the nearest orthogonal matrices, of ``[k, rows, columns]``."""
    a, b, c = factors
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / x.flatten(1).norm(dim=1).clamp_min(eps)[:, None, None]
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


BASES: dict[str, Base] = {base.name: base for base in (Sgd(), RmsProp(), RmsPropTf(), AdamW(), Muon())}


def base_of(kind: object) -> Base:
    """The base update that stands for a class of ``torch.optim``, or that has this name."""
    if isinstance(kind, str):
        found = BASES.get({"nesterov": "sgd"}.get(kind, kind))
    else:
        classes = {torch.optim.SGD: "sgd", torch.optim.RMSprop: "rmsprop", torch.optim.AdamW: "adamw"}
        if hasattr(torch.optim, "Muon"):
            classes[torch.optim.Muon] = "muon"
        found = BASES.get(classes.get(kind, "")) if isinstance(kind, type) else None
    if found is None:
        raise ValueError(
            "the base must be torch.optim.SGD, RMSprop, AdamW or Muon (the class, not an instance), or one of "
            f"{', '.join(BASES)}, nesterov; got {kind!r}"
        )
    return found
