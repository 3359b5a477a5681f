#!/usr/bin/env python3
"""Counts, runs and trains every model of the registry in timm or torchvision, so that ours can be held against them.

    pip install torch torchvision timm
    python benches/peers/models_fixture.py

writes
- crates/fixnorm-nn/tests/fixtures/models.json: parameters, multiply-accumulates counted with forward hooks, and logits;
- crates/fixnorm-train/tests/fixtures/training.json: five steps of SGD with weight decay and of FixNorm-SGD.

Nothing is drawn from a random generator: weights, running statistics, pictures and labels come from the formula below,
which the tests in Rust repeat, so the files hold results only.

The formula, all in 64-bit unsigned integers (wrapping) and f64, cast to f32 at the very end:

    hash(name, i) = splitmix64(fnv1a64(name) + i)
    unit(name, i) = (hash >> 11) * 2^-52 - 1                           in [-1, 1)

    tensor of this name in the reference's state, flat index i in PyTorch's order:  offset + scale * unit(name, i)
        two dimensions or more    offset 0, scale sqrt(6 / fan_in), fan_in = elements / dimension 0
        gains                     offset 1, scale 0.2
        biases, running means     offset 0, scale 0.1
        running variances         offset 1, scale 0.3
    pictures number t, [n, c, y, x] of side s:
        0.5 * unit("fine t", ((n * 3 + c) * s + y) * s + x) + unit("coarse t", ((n * 3 + c) * 64 + y / 16) * 64 + x / 16)
    label of picture n of batch t:  hash("label t", n) mod 10

Logits: batch 0 three times in training mode, with the batch norms' momentum set to 0.9, then in evaluation mode, with
the running statistics that this left: far enough from the formula's for activations to stay sane in a deep net, which
they would not with any fixed numbers.

Training: gains have offset 0.5 and scale 0.1 instead, biases of batch norms offset 1, which keeps most units on one side
of their kink. With the formula above, rounding would decide on which side some are, and five steps make differences of
1e-6 grow to ones of 1e-2, in PyTorch as in ours. Batch t at step t, label smoothing 0.1. SGD: momentum 0.9, weight decay on everything of two dimensions or
more. FixNorm-SGD: section 2 of docs/method.md, the radius of a convolution before a normalization being sqrt(c_out),
alpha for the head, no decay. Recorded are the losses before each update, and of every running statistic after the last
its sum and its values at up to eight channels, c * i // 8.

Every run is repeated in f64 from the same (f32) start; `deviation_from_f64` is how far the two are apart, which is what
f32 rounding alone may cause: of logits relative to the largest, of losses relative, of statistics relative to the
largest of their tensor.
"""
import argparse
import json
import math
from pathlib import Path

import numpy
import timm
import torch
import torchvision
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.efficientnet import EfficientNet
from torch import nn
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "crates/fixnorm-nn/tests/fixtures/models.json"
TRAINING = ROOT / "crates/fixnorm-train/tests/fixtures/training.json"
CLASSES = 10
BATCH, SIDES, MOMENTUM = 2, (224, 97), 0.9
TRAINED, STEPS, TRAIN_BATCH, TRAIN_SIDE, SMOOTHING = (
    ["mobilenetv2_100", "efficientnet_b0", "resnet50"], 5, 4, 96, 0.1,
)  # fmt: skip
LR = {"mobilenetv2_100": 0.005, "efficientnet_b0": 0.02, "resnet50": 0.001}
# Strong, so that a run without it would be told apart within five steps.
WEIGHT_DECAY, ALPHA = 1.0, 1.5
U64 = numpy.uint64


def fnv1a(name):
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def hashes(name, indices):
    with numpy.errstate(over="ignore"):
        z = U64(fnv1a(name)) + numpy.asarray(indices, dtype=U64) + U64(0x9E3779B97F4A7C15)
        z = (z ^ z >> U64(30)) * U64(0xBF58476D1CE4E5B9)
        z = (z ^ z >> U64(27)) * U64(0x94D049BB133111EB)
        return z ^ z >> U64(31)


def unit(name, indices):
    return (hashes(name, indices) >> U64(11)).astype(numpy.float64) * 2.0**-52 - 1.0


def offset_and_scale(name, shape, training=False):
    if len(shape) > 1:
        return 0.0, math.sqrt(6.0 / math.prod(shape[1:]))
    if name.endswith("running_var"):
        return 1.0, 0.3
    if training and name.endswith("weight"):
        return 0.5, 0.1
    if training and name.endswith("bias") and ("bn" in name or "downsample" in name):
        return 1.0, 0.1
    return (1.0, 0.2) if name.endswith("weight") else (0.0, 0.1)


@torch.no_grad()
def fill(net, training=False):
    """Every tensor of the state by the formula."""
    for name, tensor in net.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            offset, scale = offset_and_scale(name, tensor.shape, training)
            values = offset + scale * unit(name, numpy.arange(tensor.numel()))
            tensor.copy_(torch.from_numpy(values).float().reshape(tensor.shape))
    return net


def pictures(t, n, side, dtype):
    plane, y, x = numpy.meshgrid(numpy.arange(n * 3), numpy.arange(side), numpy.arange(side), indexing="ij")
    fine = unit(f"fine {t}", (plane * side + y) * side + x)
    coarse = unit(f"coarse {t}", (plane * 64 + y // 16) * 64 + x // 16)
    return torch.from_numpy(0.5 * fine + coarse).float().to(dtype).reshape(n, 3, side, side)


def labels(t, n):
    return torch.from_numpy((hashes(f"label {t}", numpy.arange(n)) % U64(CLASSES)).astype(numpy.int64))


def mobilenet_v2_b0(classes, squeeze, act_layer):
    """MobileNetV2 with B0's multiply-accumulates: a model of ours that timm's own class builds."""
    stages = ["ds_r1_k3_s1_c16", "ir_r3_k3_s2_e6_c24", "ir_r4_k3_s2_e6_c32", "ir_r5_k3_s2_e6_c64",
              "ir_r4_k3_s1_e6_c96", "ir_r4_k3_s2_e6_c160", "ir_r1_k3_s1_e6_c320"]  # fmt: skip
    return EfficientNet(
        block_args=decode_arch_def([[stage + squeeze] for stage in stages]), num_classes=classes, num_features=1280,
        stem_size=32, act_layer=act_layer,
    )  # fmt: skip


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; a shortcut that narrows takes every second pixel and pads channels with zeros."""

    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.stride, self.added = stride, c_out - c_in

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.added))
        return F.relu(x + y)


class CifarResNet(nn.Module):
    """He et al. 2015, section 4.2; neither library has it."""

    def __init__(self, blocks, classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        c_in = 16
        for stage, c_out in enumerate((16, 32, 64), 1):
            layer = []
            for block in range(blocks):
                layer.append(BasicBlock(c_in, c_out, 2 if stage > 1 and block == 0 else 1))
                c_in = c_out
            setattr(self, f"layer{stage}", nn.Sequential(*layer))
        self.fc = nn.Linear(64, classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        return self.fc(self.layer3(self.layer2(self.layer1(x))).mean(dim=(2, 3)))


# Our name, how the reference is built for a number of classes, its own resolution.
REFERENCES = {
    "resnet8": (lambda classes: CifarResNet(1, classes), 32),
    "resnet20": (lambda classes: CifarResNet(3, classes), 32),
    "mobilenetv2_b0": (lambda classes: mobilenet_v2_b0(classes, "_se0.25", nn.SiLU), 224),
    "mobilenetv2_b0_plain": (lambda classes: mobilenet_v2_b0(classes, "", nn.ReLU6), 224),
    "shufflenet_v2_x1_0": (lambda classes: torchvision.models.shufflenet_v2_x1_0(num_classes=classes), 224),
}
for own in ["resnet18", "resnet50", "mobilenetv2_100", "mobilenetv2_140", "efficientnet_b0", "efficientnet_lite0",
            "tf_efficientnet_lite0", "semnasnet_100", "mobilenetv3_large_100"]:  # fmt: skip
    REFERENCES[own] = (lambda classes, own=own: timm.create_model(own, num_classes=classes), 224)


def counts(build, side, classes):
    """Parameters, and multiply-accumulates of convolutions and linear layers on one picture."""
    net, total = build(classes).eval(), 0

    def hook(layer, _, out):
        nonlocal total
        pixels = out.shape[2:].numel() if out.dim() == 4 else 1
        total += layer.weight.numel() * pixels

    for layer in net.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(hook)
    with torch.no_grad():
        net(torch.zeros(1, 3, side, side))
    return sum(p.numel() for p in net.parameters()), total


@torch.no_grad()
def logits(build, side, dtype):
    """In training and in evaluation mode."""
    net = fill(build(CLASSES)).to(dtype).train()
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = MOMENTUM
    x = pictures(0, BATCH, side, dtype)
    trained = [net(x) for _ in range(3)][0]
    return trained, net.eval()(x)


def numbers(tensor):
    """f32 as the shortest decimals that read back to the same bits."""
    assert tensor.dtype == torch.float32 and torch.isfinite(tensor).all()
    return [float(str(value)) for value in tensor.detach().flatten().numpy()]


def rounded(value):
    return float(f"{value:.3g}")


def model(name, build, side):
    params, macs = counts(build, side, CLASSES if side == 32 else 1000)
    entry = {"params": params, "macs": macs, "logits": []}
    for side in SIDES if side == 224 else (32, 19):
        single, double = logits(build, side, torch.float32), logits(build, side, torch.float64)
        record = {"side": side}
        for mode, single, double in zip(("train", "eval"), single, double):
            apart = (single[0] - single[1]).norm() / single.norm()
            assert 0.1 < apart < 2 and 0.1 < single.abs().max() < 100, f"{name} {side} {mode}: {apart} {single}"
            deviation = ((single - double).abs().max() / double.abs().max()).item()
            record[mode] = {"values": numbers(single), "deviation_from_f64": rounded(deviation)}
            print(f"{name} {side} {mode}: largest {single.abs().max():.3g}, pictures apart {apart:.2g}, "
                  f"f32 off by {deviation:.1e}")  # fmt: skip
        entry["logits"].append(record)
    return entry


class FixNormSgd:
    """Section 2 of docs/method.md: u = mu u + g, w = w - lr u, then the norms are restored."""

    def __init__(self, net, lr, momentum, alpha):
        self.named = list(net.named_parameters())
        self.lr, self.momentum, self.alpha = lr, momentum, alpha
        self.velocity = {n: torch.zeros_like(p) for n, p in self.named}
        self.restore()

    @torch.no_grad()
    def restore(self):
        for name, w in self.named:
            # A squeeze's convolutions are not followed by a normalization.
            if w.dim() == 4 and ".se." not in name:
                w.copy_(w * (math.sqrt(w.shape[0]) / w.double().norm()))
            elif w.dim() == 2:
                w.copy_(w * (self.alpha * math.sqrt(CLASSES) / w.double().norm()))

    @torch.no_grad()
    def step(self):
        for name, w in self.named:
            w.sub_(self.lr * self.velocity[name].mul_(self.momentum).add_(w.grad))
        self.restore()


def sgd(net, lr):
    groups = [
        {"params": [p for p in net.parameters() if p.dim() > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in net.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=lr, momentum=0.9)


def train(build, make, dtype):
    """Losses by step, and the running statistics after the last."""
    net = fill(build(CLASSES), training=True).to(dtype).train()
    optimizer, losses = make(net), []
    for t in range(STEPS):
        net.zero_grad()
        x = pictures(t, TRAIN_BATCH, TRAIN_SIDE, dtype)
        loss = F.cross_entropy(net(x), labels(t, TRAIN_BATCH), label_smoothing=SMOOTHING)
        loss.backward()
        losses.append(loss.detach())
        optimizer.step()
    return torch.stack(losses), {n: v for n, v in net.state_dict().items() if "running" in n}


def training(build, make):
    losses, running = train(build, make, torch.float32)
    exact_losses, exact_running = train(build, make, torch.float64)
    apart = [((running[n] - exact).abs().max() / exact.abs().max()).item() for n, exact in exact_running.items()]
    statistics = []
    for name, values in running.items():
        count = min(8, len(values))
        sample = values[[len(values) * i // count for i in range(count)]]
        statistics.append({"name": name, "largest": numbers(values.abs().max())[0],
                           "sum": values.double().sum().item(), "sample": numbers(sample)})  # fmt: skip
    return {
        "losses": numbers(losses),
        "statistics": statistics,
        "deviation_from_f64": {
            "loss": rounded(((losses - exact_losses).abs() / exact_losses).max().item()),
            "statistics": rounded(max(apart)),
        },
    }


def write(path, document):
    versions = {"torch": torch, "torchvision": torchvision, "timm": timm}
    head = {
        "generator": "benches/peers/models_fixture.py",
        "versions": {name: module.__version__.split("+")[0] for name, module in versions.items()},
        "hash_check": [str(hashes(name, [i])[0]) for name, i in [("", 0), ("fc.weight", 1), ("fine 2", 12345)]],
        "classes": CLASSES,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(head | document, separators=(",", ":")) + "\n")
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["models", "training"])
    only = parser.parse_args().only
    torch.use_deterministic_algorithms(True)
    if only != "training":
        models = {name: model(name, build, side) for name, (build, side) in sorted(REFERENCES.items())}
        write(MODELS, {"batch": BATCH, "momentum": MOMENTUM, "models": models})
    if only != "models":
        runs = {}
        for name in TRAINED:
            build = REFERENCES[name][0]
            lr = LR[name]
            runs[name] = {"sgd_wd": training(build, lambda net: sgd(net, lr)),
                          "fixnorm_sgd": training(build, lambda net: FixNormSgd(net, lr, 0.9, ALPHA))}  # fmt: skip
            for run, record in runs[name].items():
                print(name, run, record["losses"], record["deviation_from_f64"])
        write(TRAINING, {
            "steps": STEPS, "batch": TRAIN_BATCH, "side": TRAIN_SIDE, "label_smoothing": SMOOTHING, "lr": LR,
            "momentum": 0.9, "weight_decay": WEIGHT_DECAY, "alpha": ALPHA, "runs": runs,
        })  # fmt: skip


if __name__ == "__main__":
    main()
