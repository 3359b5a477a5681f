#!/usr/bin/env python3
"""Trains a small ViT and a small GPT under AdamW with decay and under FixNorm with angular steps, at equal trials.

    pip install torch timm
    PYTHONPATH=python/src python benches/angle/transformers.py FASHION_MNIST_DIR RUNS.csv [--steps 400] [--nets vit gpt]

Four trials for each optimizer, with seed 0; the one of the lowest validation loss runs again with seeds 1, 2, 3, of which
the table has mean and deviation on the test set. Every run is a row of RUNS.csv; those that are there are not repeated.

vit: timm's VisionTransformer, 28 x 28, patches of 7, width 48, depth 3, mean pooling, on 10,000 images of Fashion-MNIST,
validated on 2,000 others of the training set. gpt: pre-LN, width 64, depth 2, 64 characters, on the language reference
that Python ships (pydoc_data.topics), 90 % of it, validated and tested on 5 % each. Both: batches of 64 and 32, cosine
schedule after 5 % warmup, beta2 0.98, one thread. FixNorm: AdamW's directions, all matrices held (hold="matrices": those
that write to the residual stream as one group, the others alone), gains and biases at a tenth of the angle.
"""

import argparse
import csv
import gzip
import math
import pydoc_data.topics
import statistics
import sys
import time
from pathlib import Path

import numpy
import torch
from timm.models.vision_transformer import VisionTransformer
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "python/tests"))
from gpt import Gpt  # noqa: E402

from fixnorm.torch import FixNorm, probe  # noqa: E402

TRIALS = {
    "adamw": [{"lr": lr, "weight_decay": decay} for lr in (2e-3, 6e-3) for decay in (0.03, 0.3)],
    "fixnorm": [{"lr": angle, "alpha": alpha} for angle in (0.01, 0.03) for alpha in (1.0, 3.0)],
}
BETAS = (0.9, 0.98)
FIELDS = ["net", "optimizer", "settings", "seed", "steps", "val_loss", "val_top1", "test_loss", "test_top1", "seconds"]
LENGTH = 64


class Images:
    """Fashion-MNIST: training, validation and test."""

    batch = 64

    def __init__(self, folder):
        def read(name, header):
            with gzip.open(Path(folder) / name) as file:
                return torch.from_numpy(numpy.frombuffer(file.read(), numpy.uint8)[header:].copy())

        parts = {}
        for part in ("train", "t10k"):
            x = read(f"{part}-images-idx3-ubyte.gz", 16).view(-1, 1, 28, 28).float()
            parts[part] = (x / 255 - 0.286) / 0.353, read(f"{part}-labels-idx1-ubyte.gz", 8).long()
        x, y = parts["train"]
        self.train, self.val = (x[:10_000], y[:10_000]), (x[50_000:52_000], y[50_000:52_000])
        self.test = parts["t10k"]

    def model(self):
        return VisionTransformer(
            img_size=28, patch_size=7, in_chans=1, num_classes=10, embed_dim=48, depth=3, num_heads=3,
            class_token=False, global_pool="avg",
        )  # fmt: skip

    def sample(self, generator):
        index = torch.randint(len(self.train[1]), (self.batch,), generator=generator)
        return self.train[0][index], self.train[1][index]


class Text:
    """Characters of Python's language reference."""

    batch = 32

    def __init__(self, _folder):
        topics = pydoc_data.topics.topics
        text = "\n".join(topics[name] for name in sorted(topics))
        names = sorted(set(text))
        ids = torch.tensor([names.index(c) for c in text])
        self.tokens, ends = len(names), [0, int(0.9 * len(ids)), int(0.95 * len(ids)), len(ids)]
        self.train, *others = (ids[a:b] for a, b in zip(ends, ends[1:]))
        self.val, self.test = ((p[:-1].unfold(0, LENGTH, LENGTH), p[1:].unfold(0, LENGTH, LENGTH)) for p in others)

    def model(self):
        return Gpt(self.tokens, LENGTH, width=64, depth=2, heads=4)

    def sample(self, generator):
        start = torch.randint(len(self.train) - LENGTH - 1, (self.batch, 1), generator=generator)
        rows = self.train[start + torch.arange(LENGTH + 1)]
        return rows[:, :-1], rows[:, 1:]


def loss_of(model, x, y):
    return F.cross_entropy(model(x).flatten(0, -2), y.flatten())


@torch.no_grad()
def evaluated(model, x, y):
    model.eval()
    losses, right = [], 0
    for start in range(0, len(x), 500):
        logits, labels = model(x[start : start + 500]).flatten(0, -2), y[start : start + 500].flatten()
        losses.append(F.cross_entropy(logits, labels, reduction="sum").item())
        right += (logits.argmax(-1) == labels).sum().item()
    return sum(losses) / y.numel(), right / y.numel()


def run(data, kind, settings, seed, steps):
    torch.manual_seed(seed)
    model, generator = data.model(), torch.Generator().manual_seed(1000 + seed)
    if kind == "adamw":
        groups = [{"params": [p for p in model.parameters() if p.ndim > 1]}]
        groups.append({"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0})
        optimizer = torch.optim.AdamW(groups, betas=BETAS, **settings)
    else:
        x, y = data.sample(torch.Generator().manual_seed(0))
        roles = probe(model, lambda m: loss_of(m, x[:8], y[:8]), hold="matrices")
        optimizer = FixNorm(torch.optim.AdamW, roles, step_rule="angular", free_lr_scale=0.1, betas=BETAS, **settings)
    warmup = steps // 20
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda t: min(1.0, (t + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * t / steps))
    )
    started = time.perf_counter()
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model, *data.sample(generator)).backward()
        optimizer.step()
        schedule.step()
    found = [*evaluated(model, *data.val), *evaluated(model, *data.test)]
    return [f"{value:.5f}" for value in found] + [f"{time.perf_counter() - started:.1f}"]


def table(rows):
    print(f"{'net':5}{'optimizer':10}{'chosen':38}{'val loss':>9}  {'test loss':>17}  {'test top-1':>17}  n")
    for net, kind in dict.fromkeys((row["net"], row["optimizer"]) for row in rows):
        own = [row for row in rows if (row["net"], row["optimizer"]) == (net, kind)]
        best = min((row for row in own if row["seed"] == "0"), key=lambda row: float(row["val_loss"]))
        again = [row for row in own if row["seed"] != "0" and row["settings"] == best["settings"]]
        cells = []
        for key in ("test_loss", "test_top1"):
            values = [float(row[key]) for row in again]
            cells.append(f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}" if len(values) > 1 else "–")
        val = float(best["val_loss"])
        print(f"{net:5}{kind:10}{best['settings']:38}{val:9.4f}  {cells[0]:>17}  {cells[1]:>17}  {len(again)}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("csv", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--nets", nargs="*", default=["vit", "gpt"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if not arguments.csv.exists():
        arguments.csv.write_text(",".join(FIELDS) + "\n")

    def rows():
        with arguments.csv.open(newline="") as file:
            return list(csv.DictReader(file))

    def ensure(net, data, kind, settings, seed):
        text = " ".join(f"{key}={value:g}" for key, value in settings.items())
        key = [net, kind, text, str(seed), str(arguments.steps)]
        if not any([row[field] for field in FIELDS[:5]] == key for row in rows()):
            found = run(data, kind, settings, seed, arguments.steps)
            with arguments.csv.open("a", newline="") as file:
                csv.writer(file, lineterminator="\n").writerow([*key, *found])
        return next(row for row in rows() if [row[field] for field in FIELDS[:5]] == key)

    for net in arguments.nets:
        data = {"vit": Images, "gpt": Text}[net](arguments.folder)
        for kind, trials in TRIALS.items():
            scores = [float(ensure(net, data, kind, settings, 0)["val_loss"]) for settings in trials]
            best = trials[min(range(len(scores)), key=scores.__getitem__)]
            for seed in (1, 2, 3):
                ensure(net, data, kind, best, seed)
    table(rows())


if __name__ == "__main__":
    main()
