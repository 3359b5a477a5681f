#!/usr/bin/env python3
"""Trains a small network for 30 steps under every base update, step rule, constraint and scope, by the plainest code.

    pip install torch
    python benches/peers/steps_fixture.py

writes crates/fixnorm/tests/fixtures/steps.json. `crates/fixnorm/tests/steps.rs` and `python/tests/test_steps.py` repeat the
training. Weights and images come from the formula of parity_fixture.py, so the file holds losses and final weights only:

    weight number k, flat index i in PyTorch's order:   unit(k, i)          cast to f32
    images of step t, [6, 2, 4, 4]:                     unit(100 + t, i)    cast to f32
    labels of step t, image n:                          (n + t) mod 3

    z = depthwise(conv(x)); z = (z - mean) / sqrt(variance + 1e-5) over the batch; logits = head(tanh(gain * z))

and the loss is the mean cross-entropy. Everything is computed in f64, a group of elements at a time; gradients are
autograd's; docs/method.md has the formulas.
"""

import itertools
import json
import math
from pathlib import Path

import torch
from parity_fixture import unit
from torch.nn import functional as F

OUT = Path(__file__).resolve().parents[2] / "crates/fixnorm/tests/fixtures/steps.json"
STEPS, LR, ALPHA, HEAD_LR_SCALE, FREE_LR_SCALE = 30, 0.05, 0.7, 0.5, 2.0
MOMENTUM, RMS_DECAY, RMS_EPSILON, BETAS, ADAM_EPSILON = 0.9, 0.9, 1e-3, (0.9, 0.999), 1e-4
# The last but one is the head; the last is a gain, which is free. Output channels are the first dimension.
SHAPES = {"conv": [4, 2, 3, 3], "depthwise": [8, 1, 2, 2], "head": [3, 8], "gain": [8]}
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


def loss_of(weights, t):
    """The loss on the images of step t."""
    x, labels = values(100 + t, [6, 2, 4, 4]), (torch.arange(6) + t) % 3
    z = F.conv2d(F.conv2d(x, weights["conv"]), weights["depthwise"], groups=4).flatten(1)
    z = (z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt()
    return F.cross_entropy(torch.tanh(weights["gain"] * z) @ weights["head"].T, labels)


class Weight:
    """One weight, its groups of elements and how they are updated."""

    def __init__(self, case, k, name, shape):
        self.shape, self.direction = shape, Direction(case["base"], shape)
        self.rule, self.constraint, self.scope, self.lr = case["step_rule"], case["constraint"], case["scope"], LR
        if name == "head":
            self.scope, self.lr = "tensor", LR * HEAD_LR_SCALE
        if name == "gain":
            self.rule, self.constraint, self.scope, self.lr = case["free_step_rule"], "free", "tensor", LR * FREE_LR_SCALE
        parts, rows = groups(values(k, shape), self.scope), math.sqrt(shape[0]) if self.scope == "tensor" else 1.0
        radii = {"sqrt_c_out": rows, "unit": 1.0}.get(case["radius"], case["radius"])
        self.radii = [part.norm().item() if radii == "init" else radii for part in parts]
        if name == "head":
            self.radii = [ALPHA * rows]
        self.parts = [constrained(self.constraint, r, part) for r, part in zip(self.radii, parts)]

    def step(self, gradient):
        d = groups(self.direction(gradient), self.scope)
        self.parts = [
            constrained(self.constraint, r, stepped(self.rule, self.lr, part, row))
            for r, part, row in zip(self.radii, self.parts, d)
        ]

    def tensor(self):
        return torch.cat(self.parts).reshape(self.shape)


def run(case):
    """The losses before each step, and the weights after the last."""
    weights = {name: Weight(case, k, name, shape) for k, (name, shape) in enumerate(SHAPES.items())}
    losses = []
    for t in range(STEPS):
        tensors = {name: weight.tensor().requires_grad_() for name, weight in weights.items()}
        loss = loss_of(tensors, t)
        losses.append(float(f"{loss.item():.8g}"))
        for weight, gradient in zip(weights.values(), torch.autograd.grad(loss, list(tensors.values()))):
            weight.step(gradient)
    after = {name: [float(f"{x:.8g}") for x in weight.tensor().flatten().tolist()] for name, weight in weights.items()}
    return {"losses": losses, "weights": after}


def main():
    cases = []
    for i, (base, rule, constraint, scope) in enumerate(itertools.product(BASES, STEP_RULES, CONSTRAINTS, SCOPES)):
        case = {"base": base, "step_rule": rule, "constraint": constraint, "scope": scope}
        case["radius"] = RADII[(i // 2 + i // 6 + i // 24) % 4]
        case["free_step_rule"] = "rms_normalized" if rule == "rms_normalized" else "raw"
        cases.append({**case, **run(case)})
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
