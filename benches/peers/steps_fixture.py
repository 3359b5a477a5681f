#!/usr/bin/env python3
"""Takes a few steps under every base update, step rule, constraint and scope, by the plainest code there is.

    pip install torch
    python benches/peers/steps_fixture.py

writes crates/fixnorm/tests/fixtures/steps.json. `crates/fixnorm/tests/steps.rs` and `python/tests/test_steps.py` repeat the
steps. Weights and gradients come from the formula of parity_fixture.py, so the file holds results only:

    weight number k, flat index i in PyTorch's order:      unit(k, i)            cast to f32
    its gradient at step t:                                 unit(100 + 10 t + k, i)     cast to f32

Everything is computed in f64, a group of elements at a time; docs/method.md has the formulas.
"""

import itertools
import json
import math
from pathlib import Path

import torch
from parity_fixture import unit

OUT = Path(__file__).resolve().parents[2] / "crates/fixnorm/tests/fixtures/steps.json"
STEPS, LR, ALPHA, HEAD_LR_SCALE, FREE_LR_SCALE = 4, 0.05, 0.7, 0.5, 2.0
MOMENTUM, RMS_DECAY, RMS_EPSILON, BETAS, ADAM_EPSILON = 0.9, 0.9, 1e-3, (0.9, 0.999), 1e-4
# The last but one is the head; the last is a gain, which is free. Output channels are the first dimension.
SHAPES = {"conv": [4, 2, 3, 3], "depthwise": [6, 1, 2, 2], "head": [3, 5], "gain": [5]}
BASES = ["sgd", "nesterov", "rmsprop", "adamw"]
STEP_RULES = ["raw", "angular", "rms_normalized", "trust_ratio"]
CONSTRAINTS = ["free", "fixed", "capped"]
SCOPES = ["tensor", "output_channel"]
RADII = ["sqrt_c_out", "unit", "init", 1.25]


def values(stream, shape):
    numbers = [unit(stream, i) for i in range(math.prod(shape))]
    return torch.tensor(numbers, dtype=torch.float64).float().double().reshape(shape)


class Direction:
    """The base update of one weight."""

    def __init__(self, base, shape):
        self.base, self.t = base, 0
        self.first = torch.zeros(shape, dtype=torch.float64)
        self.second = (torch.ones if base == "rmsprop" else torch.zeros)(shape, dtype=torch.float64)

    def __call__(self, g):
        self.t += 1
        if self.base == "rmsprop":
            self.second = RMS_DECAY * self.second + (1 - RMS_DECAY) * g * g
            self.first = MOMENTUM * self.first + g / (self.second + RMS_EPSILON).sqrt()
            return self.first
        if self.base == "adamw":
            beta1, beta2 = BETAS
            self.first = beta1 * self.first + (1 - beta1) * g
            self.second = beta2 * self.second + (1 - beta2) * g * g
            root = (self.second / (1 - beta2**self.t)).sqrt()
            return self.first / (1 - beta1**self.t) / (root + ADAM_EPSILON)
        self.first = MOMENTUM * self.first + g
        return g + MOMENTUM * self.first if self.base == "nesterov" else self.first


def stepped(rule, lr, w, d):
    """A group of elements after the step, before the constraint."""
    if rule == "raw":
        return w - lr * d
    if rule == "rms_normalized":
        return w - lr * math.sqrt(w.numel()) * d / d.norm()
    if rule == "trust_ratio":
        return w - lr * w.norm() * d / d.norm()
    # The weight turns by lr toward the part of -d at right angles to it; the norm grows as along a tangent.
    unit_w = w / w.norm()
    tangent = d - (unit_w @ d) * unit_w
    return w.norm() * (unit_w - math.tan(lr) * tangent / tangent.norm())


def constrained(constraint, radius, w):
    if constraint == "fixed" or (constraint == "capped" and w.norm() > radius):
        return radius * w / w.norm()
    return w


def groups(w, scope):
    return [row.flatten() for row in w] if scope == "output_channel" else [w.flatten()]


def run(case):
    """The weights after the steps."""
    result = {}
    for k, (name, shape) in enumerate(SHAPES.items()):
        w, direction = values(k, shape), Direction(case["base"], shape)
        rule, constraint, scope, lr = case["step_rule"], case["constraint"], case["scope"], LR
        if name == "head":
            scope, lr = "tensor", LR * HEAD_LR_SCALE
        if name == "gain":
            rule, constraint, scope, lr = case["free_step_rule"], "free", "tensor", LR * FREE_LR_SCALE
        parts, c_out = groups(w, scope), shape[0]
        rows = math.sqrt(c_out) if scope == "tensor" else 1.0
        radii = {"sqrt_c_out": rows, "unit": 1.0}.get(case["radius"], case["radius"])
        radii = [part.norm().item() if radii == "init" else radii for part in parts]
        if name == "head":
            radii = [ALPHA * rows]
        parts = [constrained(constraint, r, part) for r, part in zip(radii, parts)]
        for t in range(STEPS):
            d = groups(direction(values(100 + 10 * t + k, shape)), scope)
            parts = [
                constrained(constraint, r, stepped(rule, lr, part, row)) for r, part, row in zip(radii, parts, d)
            ]
        result[name] = [float(f"{x:.9g}") for part in parts for x in part.tolist()]
    return result


def main():
    cases = []
    for i, (base, rule, constraint, scope) in enumerate(itertools.product(BASES, STEP_RULES, CONSTRAINTS, SCOPES)):
        case = {"base": base, "step_rule": rule, "constraint": constraint, "scope": scope}
        case["radius"] = RADII[(i // 2 + i // 6 + i // 24) % 4]
        case["free_step_rule"] = "rms_normalized" if rule == "rms_normalized" else "raw"
        cases.append({**case, "weights": run(case)})
    document = {
        "generator": "benches/peers/steps_fixture.py",
        "steps": STEPS, "lr": LR, "alpha": ALPHA, "head_lr_scale": HEAD_LR_SCALE, "free_lr_scale": FREE_LR_SCALE,
        "momentum": MOMENTUM, "rms_decay": RMS_DECAY, "rms_epsilon": RMS_EPSILON,
        "betas": BETAS, "adam_epsilon": ADAM_EPSILON, "shapes": SHAPES, "cases": cases,
    }  # fmt: skip
    OUT.write_text(json.dumps(document, separators=(",", ":")) + "\n")
    print(f"{OUT}: {len(cases)} cases, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
