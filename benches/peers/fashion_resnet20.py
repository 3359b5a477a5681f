#!/usr/bin/env python3
"""The recipe fashion_resnet20 with several seeds, and its speed beside PyTorch's, as CSV on stdout.

    python benches/peers/fashion_resnet20.py DIR accuracy [--seeds 3] > benches/results/fashion_resnet20.csv
    python benches/peers/fashion_resnet20.py DIR speed [--rounds 3] > benches/results/fashion_resnet20_speed.csv

DIR holds Fashion-MNIST's four IDX files. `accuracy` trains and tests the whole recipe with each seed; other work on
the machine changes nothing but its time. For `speed` nothing else may run: in each round fixnorm trains one epoch of the
recipe, start, validation, checkpoints and test included, and PyTorch runs 120 training steps of the same net, batch,
loss and augmentation in all of {fp32, bf16} x {eager, compile}. That is to PyTorch's advantage: it augments a batch at
a time in the training process, and its steps come without start, validation and checkpoints. Needs torch, and
`cargo build --release`.
"""
import argparse
import csv
import gzip
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy
import torch
from torch import nn
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[2]
BATCH, PICTURES = 128, 55_000
STEPS = 120


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; a shortcut that narrows takes every second pixel and pads channels with zeros."""

    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.stride, self.pad = stride, c_out - c_in

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.pad:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.pad))
        return F.relu(x + y)


class ResNet(nn.Module):
    """The ResNet of 6 * `blocks` + 2 layers for small images."""

    def __init__(self, blocks=3):
        super().__init__()
        self.conv = nn.Conv2d(1, 16, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        widths = [16] * (blocks + 1) + [32] * blocks + [64] * blocks
        pairs = zip(widths, widths[1:])
        self.blocks = nn.Sequential(*(BasicBlock(a, b, 2 if b > a else 1) for a, b in pairs))
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        x = self.blocks(F.relu(self.bn(self.conv(x))))
        return self.fc(x.mean((2, 3)))


def read_idx(path):
    raw = gzip.open(path).read() if path.suffix == ".gz" else path.read_bytes()
    rank = raw[3]
    shape = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(rank)]
    return torch.from_numpy(numpy.frombuffer(raw, numpy.uint8, offset=4 + 4 * rank).reshape(shape).copy())


def batch(images, labels, index):
    """A shifted and mirrored batch, in a few operations on all of its pictures."""
    picked = F.pad(images[index], (2, 2, 2, 2)).float().div_(255).sub_(0.286).div_(0.353)
    top, left = torch.randint(0, 5, (2, len(index), 1, 1))
    rows, columns = torch.arange(28).view(1, 28, 1) + top, torch.arange(28).view(1, 1, 28)
    columns = torch.where(torch.rand(len(index), 1, 1) < 0.5, 27 - columns, columns) + left
    shifted = picked[torch.arange(len(index)).view(-1, 1, 1), rows, columns]
    return shifted.unsqueeze(1).to(memory_format=torch.channels_last), labels[index]


class Peer:
    """A warmed-up training in PyTorch."""

    def __init__(self, precision, mode, data):
        self.model = ResNet().train().to(memory_format=torch.channels_last)
        self.forward = torch.compile(self.model) if mode == "compile" else self.model
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
        self.bf16, self.data = precision == "bf16", data
        self.run(10)

    def run(self, steps):
        """Pictures a second."""
        start = time.perf_counter()
        for _ in range(steps):
            x, y = batch(*self.data, torch.randint(0, PICTURES, (BATCH,)))
            self.optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16):
                loss = F.cross_entropy(self.forward(x), y, label_smoothing=0.1)
            loss.backward()
            self.optimizer.step()
            loss.item()
        return steps * BATCH / (time.perf_counter() - start)


def fixnorm(data, out, *more):
    command = [ROOT / "target/release/fixnorm", "--format", "json", "train", "--recipe", "fashion_resnet20"]
    command += ["--data", f"fashion-mnist:{data}", "--out", out, *more]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def accuracy(args, out, end):
    out.writerow("seed val_top1 test_top1 commit threads cpu".split())
    with tempfile.TemporaryDirectory() as runs:
        for seed in range(args.seeds):
            run = fixnorm(args.data, f"{runs}/{seed}", "--seed", str(seed))
            out.writerow([seed, f"{run['val_top1']:.4f}", f"{run['test_top1']:.4f}", *end])
            sys.stdout.flush()


def speed(args, out, end):
    found = {kind: next(args.data.glob(f"train-{kind}*")) for kind in ("images", "labels")}
    data = read_idx(found["images"]), read_idx(found["labels"]).long()
    peers = {
        (f"torch {torch.__version__}", precision, mode): Peer(precision, mode, data)
        for precision in ("fp32", "bf16")
        for mode in ("eager", "compile")
    }
    speeds = {}
    with tempfile.TemporaryDirectory() as runs:
        for round_ in range(args.rounds):
            for precision in ("f32", "bf16"):
                run = fixnorm(
                    args.data, f"{runs}/{round_}-{precision}", "--epochs", "1", "--set", f"train.precision={precision}"
                )
                key = ("fixnorm", precision.replace("f32", "fp32"), "")
                speeds.setdefault(key, []).append(PICTURES // BATCH * BATCH / run["seconds"])
            for key, peer in peers.items():
                speeds.setdefault(key, []).append(peer.run(STEPS))
    out.writerow("program precision mode images_per_second slowest fastest rounds commit threads cpu".split())
    for key, measured in speeds.items():
        row = [f"{f(measured):.0f}" for f in (statistics.median, min, max)]
        out.writerow([*key, *row, args.rounds, *end])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("what", choices=["accuracy", "speed"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    threads = os.cpu_count()
    torch.set_num_threads(threads)
    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), platform.processor())
    run = accuracy if args.what == "accuracy" else speed
    run(args, csv.writer(sys.stdout), [commit.stdout.strip(), threads, cpu])


if __name__ == "__main__":
    main()
