#!/usr/bin/env python3
"""Probes small networks at many initializations and counts the roles and joint groups that are not the structure's.

    pip install torch timm
    PYTHONPATH=python/src python benches/peers/probe_inits.py benches/results/torch_probe_inits.csv [--inits 40]

adds one row for each network and seed to the CSV, with hold="joint" where few weights are scale-invariant alone; rows that
are there are kept, so it can be stopped and started again. Ends with 1 where a row has a wrong one. `zoo` is the network
of the Rust library's probe test, the others are timm's smallest of their kind and a GPT.
"""

import argparse
import csv
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import probe_tables  # noqa: F401 puts the networks of the tests on the path
import timm
import torch
from gpt import Gpt, gpt_loss
from probe_tables import FREE, GROUPS
from test_probe import zoo

from fixnorm.torch import probe
from fixnorm.torch.timm import probe_timm

# Network: the one whose structure it shares.
NETWORKS = {
    "test_resnet": "resnet50",
    "test_efficientnet": "efficientnet_b0",
    "gpt": "gpt",
    "zoo": "zoo",
    "test_vit": "vit_small_patch16_224",
    "test_convnext": "convnext_tiny",
}
HEADER = ["network", "seed", "hold", "weights", "wrong_roles", "wrong_groups", "wrong"]


def probed(name, seed, hold):
    """The roles of a network with this seed's weights."""
    torch.manual_seed(seed)
    if name == "zoo":
        return probe(*zoo(seed), hold=hold)
    if name == "gpt":
        return probe(Gpt(), gpt_loss, hold=hold)
    return probe_timm(timm.create_model(name, num_classes=5), hold=hold)


def compared(name, seed):
    """The row of a network and a seed."""
    structure = NETWORKS[name]
    hold = "joint" if structure in GROUPS else "invariant"
    roles = probed(name, seed, hold)
    weights = [row for row in roles if row.is_weight and row.role != "head"]
    free = {row.name for row in weights if any(fnmatchcase(row.name, pattern) for pattern in FREE[structure])}
    wrong = [row.name for row in weights if row.role != ("free" if row.name in free else "scale_invariant")]
    numbers = sorted({row.joint for row in roles} - {None})
    found = [{row.name for row in roles if row.joint == number} for number in numbers]
    expected = [{r.name for r in roles if any(fnmatchcase(r.name, p) for p in group)} for group in GROUPS.get(structure, [])]
    groups = [sorted(group) for group in [*found, *expected] if (group in found) != (group in expected)]
    named = [*wrong, *(f"group of {group[0]}" for group in groups)]
    return [name, seed, hold, len(weights), len(wrong), len(groups), " ".join(named)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("csv", type=Path)
    parser.add_argument("--inits", type=int, default=40)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = list(csv.reader(arguments.csv.open())) if arguments.csv.exists() else []
    done = {(row[0], int(row[1])) for row in rows[1:]}
    with arguments.csv.open("a", newline="", buffering=1) as file:
        out = csv.writer(file, lineterminator="\n")
        if not rows:
            out.writerow(HEADER)
        for seed in range(arguments.inits):
            for name in arguments.networks:
                if (name, seed) not in done:
                    out.writerow(compared(name, seed))
    rows = list(csv.reader(arguments.csv.open()))[1:]
    for name in arguments.networks:
        own = [row for row in rows if row[0] == name]
        counts = [sum(int(row[column]) > 0 for row in own) for column in (4, 5)]
        print(f"{name}: {len(own)} initializations, {counts[0]} with a wrong role, {counts[1]} with a wrong group")
    sys.exit(any(int(row[4]) + int(row[5]) for row in rows))


if __name__ == "__main__":
    main()
