"""The step of a weight, ``w <- a*w + b*d``, from three inner products: section 4 of docs/method.md.

Not here: the direction d (``direction.py``), which weight has which rule (``optimizer.py``).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

STEP_RULES = ("raw", "angular", "rms_normalized", "trust_ratio")
CONSTRAINTS = ("free", "fixed", "capped")
# What optimizer.py gives a joint group is a third scope, "group".
SCOPES = ("tensor", "output_channel")
RADII = ("unit", "init", "sqrt_c_out")
HEAD_MODES = ("fixed", "capped", "free", "decayed")
ALIASES = {"normalized": "angular"}
MAX_ANGLE = 1.5
"""The largest angle of the angular rule, in radians."""
STILL = 1e-36
"""The squared norm below which a direction is what is left of a momentum without a gradient, and is not lengthened."""


@dataclass(frozen=True)
class Rule:
    """How the parameters of one role are updated."""

    step_rule: str = "raw"
    constraint: str = "free"
    radius: str | float = "sqrt_c_out"
    scope: str = "tensor"
    lr_factor: float = 1.0
    alpha: float | None = None
    """For the head: the radius is alpha times sqrt(c_out) for a tensor, alpha for an output channel."""

    def radii(self, norms: Tensor, c_out: int) -> Tensor:
        """The norms that groups of elements are held at, where ``norms`` are those at setup."""
        rows = math.sqrt(c_out) if self.scope == "tensor" else 1.0
        if self.alpha is not None:
            return torch.full_like(norms, self.alpha * rows)
        if self.radius == "init":
            return norms.clone()
        value = {"unit": 1.0, "sqrt_c_out": rows}.get(str(self.radius), self.radius)
        return torch.full_like(norms, float(value))


def choice(name: str, value: str, allowed: tuple[str, ...]) -> str:
    """``value`` under its present name; an error names the allowed ones."""
    value = ALIASES.get(value, value)
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")
    return value


def number(name: str, value: object, low: float, *, inclusive: bool = False) -> float:
    """``value`` as a float above ``low`` (or at least it) and finite."""
    if isinstance(value, Tensor) or not isinstance(value, int | float):
        found = "a tensor" if isinstance(value, Tensor) else repr(value)
        raise TypeError(f"{name} must be a Python number, got {found}")
    if not math.isfinite(value) or value < low or (value == low and not inclusive):
        bound = "at least" if inclusive else "above"
        raise ValueError(f"{name} must be {bound} {low:g} and finite, got {value}")
    return float(value)


def radius(name: str, value: str | float) -> str | float:
    """A checked radius: a name or a positive number."""
    if isinstance(value, str):
        if value not in RADII:
            raise ValueError(f"{name} must be one of {', '.join(RADII)} or a number; got {value!r}")
        return value
    return number(name, value, 0.0)


def coefficients(
    step_rule: str,
    constraint: str,
    lr: float,
    decay: float,
    size: int | Tensor,
    moments: Sequence[Tensor],
    radii: Tensor | None,
    noise: float,
) -> tuple[Tensor, Tensor]:
    """The factors a and b of ``w <- a*w + b*d``.

    ``moments`` are w.w, w.d and d.d of each group of elements, ``decay`` is decoupled weight decay, ``size`` the number
    of elements of a group, ``noise`` the relative error of an inner product. A NaN passes through.
    """
    ww, wd, dd = moments
    kept = 1.0 - lr * decay
    a, b = torch.full_like(ww, kept), torch.full_like(ww, -lr)
    if step_rule == "angular":
        tangent = dd - wd * wd / ww
        still = (ww == 0) | (dd < STILL) | (tangent <= noise * dd)
        b = torch.where(still, 0.0, -kept * math.tan(min(lr, MAX_ANGLE)) * (ww / tangent).sqrt())
        a = torch.where(still, kept, kept - b * wd / ww)
    elif step_rule == "rms_normalized":
        b = torch.where(dd < STILL, 0.0, -lr * (size / dd).sqrt())
    elif step_rule == "trust_ratio":
        square = dd + 2.0 * decay * wd + decay * decay * ww
        trust = torch.where((ww == 0) | (square < STILL), 1.0, (ww / square).sqrt())
        a, b = 1.0 - lr * decay * trust, -lr * trust
    if radii is not None:
        norm = (a * a * ww + 2.0 * a * b * wd + b * b * dd).clamp_min(0.0).sqrt()
        scale = scale_to(norm, radii, constraint)
        a, b = a * scale, b * scale
    if decay == 0:
        # Nothing to do, and rescaling by 1 plus or minus rounding would be something.
        a, b = torch.where(dd == 0, 1.0, a), torch.where(dd == 0, 0.0, b)
    return a, b


def scale_to(norm: Tensor, radii: Tensor, constraint: str) -> Tensor:
    """The factor that brings a norm to its radius, or below it where ``constraint`` is ``capped``."""
    scale = torch.where(norm == 0, 1.0, radii / norm)
    return scale.clamp_max(1.0) if constraint == "capped" else scale
