"""A small network under every base update, step rule, constraint and scope: the reference of the Rust library's test.

`benches/peers/steps_fixture.py` makes the numbers and states the formulas.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small import norm_error
from torch import Tensor, nn
from torch.nn import functional as F

from fixnorm.torch import FixNorm, ParamRole, Roles

FIXTURE = json.loads((Path(__file__).resolve().parents[2] / "crates/fixnorm/tests/fixtures/steps.json").read_text())
CASES = FIXTURE["cases"]
MASK = (1 << 64) - 1
NAMES = {"rmsprop": "rmsprop_tf"}
OPTIONS = {
    "sgd": {"momentum": FIXTURE["momentum"]},
    "nesterov": {"momentum": FIXTURE["momentum"]},
    "rmsprop": {"momentum": FIXTURE["momentum"], "rms_decay": FIXTURE["rms_decay"], "eps": FIXTURE["rms_epsilon"]},
    "adamw": {"betas": tuple(FIXTURE["betas"]), "eps": FIXTURE["adam_epsilon"]},
}


def unit(stream: int, index: int) -> float:
    z = ((stream << 32 | index) + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & MASK
    return ((z ^ z >> 31) >> 11) * 2.0**-52 - 1.0


def values(stream: int, shape: list[int], dtype: torch.dtype) -> Tensor:
    count = torch.Size(shape).numel()
    numbers = torch.tensor([unit(stream, i) for i in range(count)], dtype=torch.float64)
    return numbers.float().reshape(shape).to(dtype)


class Weights(nn.Module):
    """The fixture's weights, each of a known role."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        for k, (name, shape) in enumerate(FIXTURE["shapes"].items()):
            self.register_parameter(name, nn.Parameter(values(k, shape, dtype)))

    def roles(self) -> Roles:
        roles = {"conv": "scale_invariant", "depthwise": "scale_invariant", "head": "head", "gain": "free"}
        rows = [
            ParamRole(name, tuple(p.shape), roles[name], 0 if p.ndim > 1 else None, p.ndim > 1)
            for name, p in self.named_parameters()
        ]
        return Roles(self, rows)


def optimizer(weights: Weights, case: dict[str, Any]) -> FixNorm:
    return FixNorm(
        NAMES.get(case["base"], case["base"]),
        weights.roles(),
        FIXTURE["lr"],
        FIXTURE["alpha"],
        constraint=case["constraint"],
        radius=case["radius"],
        scope=case["scope"],
        step_rule=case["step_rule"],
        head=case["constraint"],
        head_step_rule=case["step_rule"],
        head_lr_scale=FIXTURE["head_lr_scale"],
        free_step_rule=case["free_step_rule"],
        free_lr_scale=FIXTURE["free_lr_scale"],
        **OPTIONS[case["base"]],
    )


def loss_of(w: Weights, step: int) -> Tensor:
    x, labels = values(100 + step, [6, 2, 4, 4], w.gain.dtype), (torch.arange(6) + step) % 3
    z = F.conv2d(F.conv2d(x, w.conv), w.depthwise, groups=4).flatten(1)
    z = (z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt()
    return F.cross_entropy(torch.tanh(w.gain * z) @ w.head.T, labels)


@pytest.mark.parametrize(("dtype", "of_loss", "of_weights"), [(torch.float64, 1e-7, 1e-7), (torch.float32, 1e-5, 1e-4)])
@pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join(str(c[k]) for k in list(c)[:5]))
def test_losses_and_weights_are_the_references(
    case: dict[str, Any], dtype: torch.dtype, of_loss: float, of_weights: float
) -> None:
    weights = Weights(dtype)
    made = optimizer(weights, case)
    for step in range(FIXTURE["steps"]):
        made.zero_grad()
        loss = loss_of(weights, step)
        loss.backward()
        assert loss.item() == pytest.approx(case["losses"][step], rel=of_loss), step
        made.step()
        assert case["constraint"] != "fixed" or norm_error(made) < 1e-6
    for name, param in weights.named_parameters():
        expected = torch.tensor(case["weights"][name], dtype=torch.float64).view(param.shape)
        apart = (param.detach().double() - expected).abs().max() / expected.abs().max()
        assert apart <= of_weights, f"{name}: {apart}"


def test_fixture_has_every_combination() -> None:
    found = {(c["base"], c["step_rule"], c["constraint"], c["scope"]) for c in CASES}
    assert len(found) == len(CASES) == 4 * 4 * 3 * 2
    assert {c["radius"] for c in CASES if c["constraint"] != "free"} == {"sqrt_c_out", "unit", "init", 1.25}
