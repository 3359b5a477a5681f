#!/usr/bin/env python3
"""Trains a small network in PyTorch and records it, so that our optimizers can be held against it.

    pip install torch timm     # any CPU build of torch; timm has LAMB, and RMSPropTF to check ours with
    python benches/peers/parity_fixture.py

writes crates/fixnorm/tests/fixtures/parity.json. Nothing is drawn from a random generator: initial
weights, inputs and labels come from the formula below, which the test in Rust repeats, so the file
holds results only.

The formula, all in 64-bit unsigned integers and f64, cast to f32 at the very end:

    hash(stream, index) = splitmix64(stream << 32 | index)
        z = x + 0x9E3779B97F4A7C15 ;  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9
        z = (z ^ z >> 27) * 0x94D049BB133111EB ;  z ^ z >> 31             (wrapping)
    unit(stream, index) = (hash >> 11) * 2^-52 - 1                         in [-1, 1)

    parameter number k of PARAMETERS, flat index i in PyTorch's order:  offset + scale * unit(k, i)
        conv and linear weights   offset 0, scale sqrt(6 / fan_in), fan_in = elements / dimension 0
        gains                     offset 1, scale 0.1
        biases                    offset 0, scale 0.1
    input of step t, flat index i of [8, 1, 8, 8]:  unit(1000 + t, i)
    label of step t, sample i:                      hash(2000 + t, i) mod 3

Running means start at 0, running variances at 1; PyTorch's running variance takes in the unbiased
variance of the batch. Every run starts from the same weights and sees the same batches. The loss
of step t is the one before the update of step t.

Each run is repeated in f64 from the same (f32) start; `deviation_from_f64` is how far the two are
apart, which is what f32 rounding alone may cause: a comparison needs a tolerance above it.
"""

import json
import math
from pathlib import Path

import torch
from timm.optim import Lamb, RMSpropTF
from torch import nn
from torch.nn import functional as F

STEPS, BATCH, SIDE, CLASSES = 30, 8, 8, 3
SMOOTHING = 0.1
OUT = Path(__file__).resolve().parents[2] / "crates/fixnorm/tests/fixtures/parity.json"

# The order gives each parameter its number k in the formula.
PARAMETERS = [
    "conv1.weight", "bn1.weight", "bn1.bias",
    "conv2.weight", "bn2.weight", "bn2.bias",
    "conv3.weight", "bn3.weight", "bn3.bias",
    "fc.weight", "fc.bias",
]  # fmt: skip
CONVS = ["conv1.weight", "conv2.weight", "conv3.weight"]
HEAD = "fc.weight"
MASK = (1 << 64) - 1


def hash64(stream, index):
    z = ((stream << 32 | index) + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & MASK
    return z ^ z >> 31


def unit(stream, index):
    return (hash64(stream, index) >> 11) * 2.0**-52 - 1.0


class Net(nn.Module):
    """Conv, depthwise conv and linear: [N, 1, 8, 8] to [N, 3]; no two channel counts are equal
    where a swapped dimension could hide, but for the depthwise one."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(6)
        self.conv3 = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False)
        self.bn3 = nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.relu(self.bn3(self.conv3(x)))
        return self.fc(x.mean(dim=(2, 3)))


def is_weight(name):
    return name in CONVS or name == HEAD


def initial(k, name, shape):
    """Parameter number `k`, f32."""
    count = math.prod(shape)
    if is_weight(name):
        offset, scale = 0.0, math.sqrt(6.0 / (count // shape[0]))
    else:
        offset, scale = (1.0 if name.endswith("weight") else 0.0), 0.1
    values = [offset + scale * unit(k, i) for i in range(count)]
    return torch.tensor(values, dtype=torch.float64).float().reshape(shape)


def build(dtype):
    net = Net()
    names = dict(net.named_parameters())
    assert sorted(names) == sorted(PARAMETERS)
    with torch.no_grad():
        for k, name in enumerate(PARAMETERS):
            names[name].copy_(initial(k, name, names[name].shape))
    # f32 first: both precisions start from the same numbers.
    return net.to(dtype).train()


def batch(t, dtype):
    count = BATCH * SIDE * SIDE
    x = torch.tensor([unit(1000 + t, i) for i in range(count)], dtype=torch.float64).float()
    labels = torch.tensor([hash64(2000 + t, i) % CLASSES for i in range(BATCH)])
    return x.to(dtype).reshape(BATCH, 1, SIDE, SIDE), labels


def groups(net, weight_decay):
    """PyTorch parameter groups: decay on conv and linear weights only."""
    named = list(net.named_parameters())
    return [
        {"params": [p for n, p in named if is_weight(n)], "weight_decay": weight_decay},
        {"params": [p for n, p in named if not is_weight(n)], "weight_decay": 0.0},
    ]


def constant(lr):
    return lambda t: lr


def cosine(lr):
    return lambda t: 0.5 * lr * (1.0 + math.cos(math.pi * t / STEPS))


class FixNormSgd:
    """Section 2 of docs/method.md: u = mu u + g, w = w - lr u, then the norms are restored."""

    def __init__(self, net, momentum, alpha, scope):
        self.named = list(net.named_parameters())
        self.momentum, self.alpha, self.scope = momentum, alpha, scope
        self.velocity = {n: torch.zeros_like(p) for n, p in self.named}
        self.restore()

    @torch.no_grad()
    def restore(self):
        for name, w in self.named:
            if name == HEAD:
                w.copy_(w * (self.alpha * math.sqrt(CLASSES) / w.double().norm()))
            elif name in CONVS and self.scope == "tensor":
                w.copy_(w * (math.sqrt(w.shape[0]) / w.double().norm()))
            elif name in CONVS:
                w.copy_(w / w.double().flatten(1).norm(dim=1).reshape(-1, 1, 1, 1))

    @torch.no_grad()
    def step(self, lr):
        for name, w in self.named:
            u = self.velocity[name].mul_(self.momentum).add_(w.grad)
            w.sub_(lr * u)
        self.restore()


class Sgd:
    """u = mu u + g; the direction is u, or g + mu u with Nesterov momentum."""

    def __init__(self, momentum, nesterov=False):
        self.momentum, self.nesterov, self.velocity = momentum, nesterov, {}

    def direction(self, name, g, t):
        u = self.velocity.setdefault(name, torch.zeros_like(g)).mul_(self.momentum).add_(g)
        return g + self.momentum * u if self.nesterov else u


class RmsProp:
    """s = a s + (1 - a) g^2 from one, u = mu u + g / sqrt(s + eps); the direction is u."""

    def __init__(self, decay, momentum, eps):
        self.decay, self.momentum, self.eps = decay, momentum, eps
        self.average, self.velocity = {}, {}

    def direction(self, name, g, t):
        s = self.average.setdefault(name, torch.ones_like(g))
        s.mul_(self.decay).add_((1.0 - self.decay) * g * g)
        u = self.velocity.setdefault(name, torch.zeros_like(g)).mul_(self.momentum)
        return u.add_(g / (s + self.eps).sqrt())


class Adam:
    """Adam's direction with bias correction."""

    def __init__(self, beta1, beta2, eps):
        self.beta1, self.beta2, self.eps, self.m, self.v = beta1, beta2, eps, {}, {}

    def direction(self, name, g, t):
        m = self.m.setdefault(name, torch.zeros_like(g)).lerp_(g, 1.0 - self.beta1)
        v = self.v.setdefault(name, torch.zeros_like(g))
        v.mul_(self.beta2).addcmul_(g, g, value=1.0 - self.beta2)
        root = (v / (1.0 - self.beta2 ** (t + 1))).sqrt()
        return m / (1.0 - self.beta1 ** (t + 1)) / (root + self.eps)


class Angular:
    """Section 4 of docs/method.md: a held weight turns by lr radians toward the tangent part of -d.

    The head has a norm of alpha sqrt(C) and turns too where `head_turns`; gains and biases change by
    lr in the root mean square where `rms_gains`.
    """

    def __init__(self, net, base, alpha, scope="tensor", head_turns=False, head_scale=1.0,
                 gain_scale=1.0, rms_gains=False):
        self.named, self.base, self.alpha, self.scope = list(net.named_parameters()), base, alpha, scope
        self.head_turns, self.head_scale = head_turns, head_scale
        self.gain_scale, self.rms_gains, self.t = gain_scale, rms_gains, 0
        with torch.no_grad():
            for name, w in self.named:
                if is_weight(name):
                    rows = self.rows(name, w)
                    w.copy_((self.radius(name, w) * rows / rows.norm(dim=1, keepdim=True)).reshape(w.shape))

    def rows(self, name, w):
        """One row for each group that has a norm, in f64."""
        channels = name in CONVS and self.scope == "output_channel"
        return w.double().reshape(w.shape[0] if channels else 1, -1)

    def radius(self, name, w):
        if name == HEAD:
            return self.alpha * math.sqrt(CLASSES)
        return math.sqrt(w.shape[0]) if self.scope == "tensor" else 1.0

    @torch.no_grad()
    def step(self, lr):
        for name, w in self.named:
            d = self.base.direction(name, w.grad, self.t)
            if name in CONVS or (name == HEAD and self.head_turns):
                angle = lr * (self.head_scale if name == HEAD else 1.0)
                x, d = self.rows(name, w), self.rows(name, d)
                unit_x = x / x.norm(dim=1, keepdim=True)
                tangent = d - (unit_x * d).sum(1, keepdim=True) * unit_x
                unit_t = tangent / tangent.norm(dim=1, keepdim=True)
                x = self.radius(name, w) * (math.cos(angle) * unit_x - math.sin(angle) * unit_t)
                w.copy_(x.reshape(w.shape))
            elif name == HEAD:
                x = (w - lr * self.head_scale * d).double()
                w.copy_(self.radius(name, w) * x / x.norm())
            elif self.rms_gains:
                rms = d.double().square().mean().sqrt()
                w.sub_((lr * self.gain_scale / rms * d).to(w.dtype))
            else:
                w.sub_(lr * self.gain_scale * d)
        self.t += 1


class RmsPropTf:
    """RMSProp in TensorFlow's form; L2 decay on conv and linear weights."""

    def __init__(self, net, alpha, eps, momentum, weight_decay):
        self.named = list(net.named_parameters())
        self.alpha, self.eps, self.momentum, self.weight_decay = alpha, eps, momentum, weight_decay
        self.average = {n: torch.ones_like(p) for n, p in self.named}
        self.velocity = {n: torch.zeros_like(p) for n, p in self.named}

    @torch.no_grad()
    def step(self, lr):
        for name, w in self.named:
            g = w.grad + self.weight_decay * w if is_weight(name) else w.grad
            s = self.average[name].mul_(self.alpha).add_((1.0 - self.alpha) * g * g)
            u = self.velocity[name].mul_(self.momentum).add_(lr * g / (s + self.eps).sqrt())
            w.sub_(u)


class Torch:
    """A PyTorch optimizer with our `step(lr)`."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    def step(self, lr):
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()


def runs():
    """Name, hyperparameters as recorded, learning rate by step, optimizer of a network."""
    sgd = {"momentum": 0.9, "dampening": 0.0}
    return [
        (
            "sgd_wd",
            {"optimizer": "sgd", "lr": 0.1, "schedule": "constant", "momentum": 0.9,
             "nesterov": False, "weight_decay": 5e-3, "decay": "l2", "decay_on": "weights"},
            constant(0.1),
            lambda net: Torch(torch.optim.SGD(groups(net, 5e-3), lr=0.1, **sgd)),
        ),
        (
            "sgd_nesterov_wd_all",
            {"optimizer": "sgd", "lr": 0.1, "schedule": "constant", "momentum": 0.9,
             "nesterov": True, "weight_decay": 5e-3, "decay": "l2", "decay_on": "all"},
            constant(0.1),
            lambda net: Torch(torch.optim.SGD(
                net.parameters(), lr=0.1, weight_decay=5e-3, nesterov=True, **sgd)),
        ),
        (
            "fixnorm_sgd",
            {"optimizer": "fixnorm_sgd", "lr": 0.1, "schedule": "cosine", "momentum": 0.9,
             "nesterov": False, "radius": "sqrt_c_out", "scope": "tensor", "alpha": 1.5},
            cosine(0.1),
            lambda net: FixNormSgd(net, 0.9, 1.5, "tensor"),
        ),
        (
            "fixnorm_sgd_channel",
            {"optimizer": "fixnorm_sgd", "lr": 0.1, "schedule": "cosine", "momentum": 0.9,
             "nesterov": False, "radius": "unit", "scope": "output_channel", "alpha": 1.5},
            cosine(0.1),
            lambda net: FixNormSgd(net, 0.9, 1.5, "output_channel"),
        ),
        (
            "adamw",
            {"optimizer": "adamw", "lr": 0.01, "schedule": "constant", "betas": [0.9, 0.999],
             "epsilon": 1e-8, "weight_decay": 0.05, "decay": "decoupled", "decay_on": "weights"},
            constant(0.01),
            lambda net: Torch(torch.optim.AdamW(
                groups(net, 0.05), lr=0.01, betas=(0.9, 0.999), eps=1e-8)),
        ),
        (
            "rmsprop_tf",
            {"optimizer": "rmsprop_tf", "lr": 0.01, "schedule": "constant", "alpha": 0.9,
             "momentum": 0.9, "epsilon": 1e-3, "weight_decay": 1e-4, "decay": "l2",
             "decay_on": "weights"},
            constant(0.01),
            lambda net: RmsPropTf(net, 0.9, 1e-3, 0.9, 1e-4),
        ),
        (
            # With a large epsilon: a small gradient over its own size is mostly rounding.
            "lamb",
            {"optimizer": "lamb", "lr": 0.01, "schedule": "constant", "betas": [0.9, 0.999],
             "epsilon": 1e-4, "weight_decay": 0.05, "decay": "decoupled", "decay_on": "weights"},
            constant(0.01),
            lambda net: Torch(Lamb(groups(net, 0.05), lr=0.01, eps=1e-4, max_grad_norm=None)),
        ),
        (
            "angular_sgd",
            {"optimizer": "angular", "base": "sgd", "lr": 0.05, "schedule": "cosine", "momentum": 0.9,
             "scope": "tensor", "alpha": 1.5, "head_scale": 2.0, "gain_scale": 2.0},
            cosine(0.05),
            lambda net: Angular(net, Sgd(0.9), 1.5, head_scale=2.0, gain_scale=2.0),
        ),
        (
            "angular_nesterov_channel",
            {"optimizer": "angular", "base": "nesterov", "lr": 0.05, "schedule": "cosine",
             "momentum": 0.9, "scope": "output_channel", "alpha": 1.5, "head_turns": True,
             "head_scale": 0.5, "gain_scale": 0.25, "rms_gains": True},
            cosine(0.05),
            lambda net: Angular(net, Sgd(0.9, nesterov=True), 1.5, "output_channel", head_turns=True,
                                head_scale=0.5, gain_scale=0.25, rms_gains=True),
        ),
        (
            "angular_rmsprop",
            {"optimizer": "angular", "base": "rmsprop", "lr": 0.05, "schedule": "cosine", "decay": 0.9,
             "momentum": 0.9, "epsilon": 1e-3, "scope": "tensor", "alpha": 1.5, "head_turns": True,
             "gain_scale": 0.1},
            cosine(0.05),
            lambda net: Angular(net, RmsProp(0.9, 0.9, 1e-3), 1.5, head_turns=True, gain_scale=0.1),
        ),
        (
            "angular_adamw",
            {"optimizer": "angular", "base": "adamw", "lr": 0.05, "schedule": "cosine",
             "betas": [0.9, 0.999], "epsilon": 1e-4, "scope": "tensor", "alpha": 1.5,
             "head_turns": True, "gain_scale": 0.1},
            cosine(0.05),
            lambda net: Angular(net, Adam(0.9, 0.999, 1e-4), 1.5, head_turns=True, gain_scale=0.1),
        ),
    ]  # fmt: skip


def train(make, lr_at, dtype):
    """Losses by step and the final state, by name."""
    net = build(dtype)
    optimizer = make(net)
    losses = []
    for t in range(STEPS):
        x, labels = batch(t, dtype)
        net.zero_grad()
        loss = F.cross_entropy(net(x), labels, label_smoothing=SMOOTHING)
        loss.backward()
        losses.append(loss.detach())
        optimizer.step(lr_at(t))
    state = net.state_dict()
    return torch.stack(losses), {n: v for n, v in state.items() if "num_batches" not in n}


def numbers(tensor):
    """f32 as the shortest decimals that read back to the same bits."""
    assert tensor.dtype == torch.float32 and torch.isfinite(tensor).all()
    return [float(str(value)) for value in tensor.flatten().numpy()]


def record(hyperparameters, lr_at, make):
    losses, state = train(make, lr_at, torch.float32)
    exact_losses, exact_state = train(make, lr_at, torch.float64)
    deviation = {
        "loss": (losses - exact_losses).abs().max().item(),
        "tensor": max((state[n] - exact_state[n]).abs().max().item() for n in state),
    }
    return {
        "hyperparameters": hyperparameters,
        "deviation_from_f64": {k: float(f"{v:.3g}") for k, v in deviation.items()},
        "losses": numbers(losses),
        "tensors": [
            {"name": n, "shape": list(v.shape), "values": numbers(v)} for n, v in state.items()
        ],
    }


def check_against_timm():
    """Our RMSProp is timm's; says so."""
    lr_at = constant(0.01)
    ours, ours_state = train(lambda n: RmsPropTf(n, 0.9, 1e-3, 0.9, 1e-4), lr_at, torch.float64)
    theirs, theirs_state = train(
        lambda n: Torch(RMSpropTF(groups(n, 1e-4), lr=0.01, alpha=0.9, eps=1e-3, momentum=0.9)),
        lr_at,
        torch.float64,
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    for name in ours_state:
        torch.testing.assert_close(ours_state[name], theirs_state[name], rtol=1e-9, atol=1e-11)
    print("rmsprop_tf agrees with timm")


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    check_against_timm()
    document = {
        "generator": "benches/peers/parity_fixture.py",
        "torch": torch.__version__.split("+")[0],
        "formula": {
            "hash": "splitmix64(stream << 32 | index)",
            "unit": "(hash >> 11) * 2^-52 - 1",
            "parameter": "offset + scale * unit(k, i), k the place in `parameters`; weights: 0 and "
            "sqrt(6 / fan_in); gains: 1 and 0.1; biases: 0 and 0.1; f64, then cast to f32",
            "input": "unit(1000 + t, i), i flat in [batch, 1, side, side]",
            "label": "hash(2000 + t, i) mod classes",
        },
        "hash_check": [str(hash64(k, i)) for k, i in [(0, 0), (0, 1), (1, 0), (1029, 511)]],
        "parameters": PARAMETERS,
        "steps": STEPS,
        "batch": BATCH,
        "side": SIDE,
        "classes": CLASSES,
        "label_smoothing": SMOOTHING,
        "batch_norm": {"epsilon": 1e-5, "momentum": 0.1},
        "runs": {name: record(hyper, lr_at, make) for name, hyper, lr_at, make in runs()},
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(document, separators=(",", ":")) + "\n")
    for name, run in document["runs"].items():
        print(name, run["losses"][0], run["losses"][-1], run["deviation_from_f64"])
    print(f"{OUT}: {OUT.stat().st_size} bytes, torch {document['torch']}")


if __name__ == "__main__":
    main()
