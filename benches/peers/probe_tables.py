#!/usr/bin/env python3
"""Probes known networks and compares every role and joint group with what the network's structure says.

    pip install torch timm
    PYTHONPATH=python/src python benches/peers/probe_tables.py benches/results/torch_probe.csv [MODEL ...]

writes the weights' rows of the tables with the structure's reason, and ends with 1 where a role or a group is not the
expected one. Weights are those of initialization (seed 0), images and labels random, 64 x 64. `zoo` is the network of the
Rust library's probe test. Where few weights are scale-invariant alone, hold="matrices".
"""

import argparse
import csv
import sys
import time
from fnmatch import fnmatchcase
from pathlib import Path

import timm
import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "python/tests"))
from gpt import Gpt, gpt_loss  # noqa: E402
from test_probe import zoo  # noqa: E402

from fixnorm.torch import probe  # noqa: E402

NORM, STREAM = "a normalization takes its scale away", "the residual stream takes its output at its size"
LAYER_NORM = "its bias follows before layer norm"
# Model: patterns and reasons of the weights that are not scale-invariant (the first that matches); all others must be.
FREE = {
    "zoo": {
        "bare.weight": "its bias and a ReLU follow",
        "squeeze.weight": "its bias and a ReLU follow",
        "excite.weight": "a sigmoid follows",
        "tied_residual.weight": STREAM,
        "linear_biased.weight": LAYER_NORM,
    },
    "gpt": {
        "tokens.*": STREAM, "positions.*": STREAM, "*.proj.*": STREAM, "*.fc2.*": STREAM,
        "*.qkv.*": "its bias and softmax follow", "*.fc1.*": "its bias and GELU follow",
    },
    "resnet50": {},
    "efficientnet_b0": {"*.conv_reduce.*": "its bias and SiLU follow", "*.conv_expand.*": "a sigmoid follows"},
    "vit_small_patch16_224": {
        "*_token": STREAM, "pos_embed": STREAM, "patch_embed.*": STREAM, "*.attn.proj.*": STREAM, "*.fc2.*": STREAM,
        "*.qkv.*": "its bias and softmax follow", "*.fc1.*": "its bias and GELU follow",
    },
    "convnext_tiny": {
        "stem.0.*": LAYER_NORM, "*.conv_dw.*": LAYER_NORM, "*.downsample.*": STREAM, "*.fc2.*": STREAM,
        "*.fc1.*": "its bias and GELU follow",
    },
}  # fmt: skip
# Patterns of the members of each group, where groups are sought.
GROUPS = {
    "zoo": [["bare.*"], ["linear_biased.*"]],
    "gpt": [["tokens.*", "positions.*", "*.proj.*", "*.fc2.*"]],
    "vit_small_patch16_224": [["cls_token", "pos_embed", "patch_embed.*", "*.attn.proj.*", "*.fc2.*"]],
    # Stem before its layer norm; then each stage's stream, which the biases of its depthwise convolutions must follow.
    "convnext_tiny": [["stem.0.*"]] + [
        [f"stages.{i}.downsample.1.*" if i else "stem.1.*", f"stages.{i}.*.conv_dw.bias", f"stages.{i}.*.fc2.*"]
        for i in range(4)
    ],
}  # fmt: skip
HEADS = {"resnet50": "fc.weight", "efficientnet_b0": "classifier.weight", "convnext_tiny": "head.fc.weight"}
SETTINGS = {"vit_small_patch16_224": {"img_size": 64}}


def built(name):
    """The model and its loss."""
    torch.manual_seed(0)
    if name == "zoo":
        return zoo(0)
    if name == "gpt":
        return Gpt(), gpt_loss
    model = timm.create_model(name, num_classes=10, **SETTINGS.get(name, {}))
    x, y = torch.randn(8, 3, 64, 64), torch.arange(8) % 10
    return model, lambda m: F.cross_entropy(m(x), y)


def expected(name, row):
    """Role and reason."""
    if row.name == HEADS.get(name, "head.weight"):
        return "head", "the last linear layer"
    for pattern, reason in FREE[name].items():
        if fnmatchcase(row.name, pattern):
            return "free", reason
    return "scale_invariant", NORM


def compared(name, out):
    """Writes a model's rows; the number of them that are not as expected."""
    model, loss = built(name)
    started = time.perf_counter()
    roles = probe(model, loss, hold="matrices" if name in GROUPS else "invariant")
    print(f"{name}: {len(roles)} parameters, {time.perf_counter() - started:.1f} s", flush=True)
    wrong = []
    for row in roles:
        if row.is_weight:
            role, reason = expected(name, row)
            wrong += [] if row.role == role else [f"{row.name} is {row.role}, expected {role}"]
            held = f"group {row.joint}" if row.joint else "alone" if row.held else row.kind.replace("free", "no")
            shape = "x".join(map(str, row.shape))
            notes = "; ".join(note for note in row.notes if "together" not in note)
            channels = "yes" if row.channel_invariant else "no"
            out.writerow([name, row.name, shape, row.role, channels, f"{row.deviation:.0e}", held, notes, reason])
        elif row.role != "free":
            wrong.append(f"{row.name} is {row.role}")
    found = [{row.name for row in roles if row.joint == number} for number in {row.joint for row in roles} - {None}]
    groups = [{r.name for r in roles if any(fnmatchcase(r.name, p) for p in group)} for group in GROUPS.get(name, [])]
    wrong += [f"unexpected group {sorted(group)}" for group in found if group not in groups]
    wrong += [f"missing group {sorted(group)}" for group in groups if group not in found]
    print("".join(f"WRONG {name}: {line}\n" for line in wrong), end="", flush=True)
    return len(wrong)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("csv", type=Path)
    parser.add_argument("models", nargs="*", default=list(FREE))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with arguments.csv.open("w", newline="", buffering=1) as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow("model,weight,shape,role,channels_too,deviation,held,notes,structure".split(","))
        sys.exit(sum(compared(name, out) for name in arguments.models) > 0)


if __name__ == "__main__":
    main()
