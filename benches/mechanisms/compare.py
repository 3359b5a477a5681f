"""Paired differences between arms over shared seeds, with 95 % bootstrap intervals, from CSVs with a line a run.

    python benches/mechanisms/compare.py RUNS.csv… -- ARM ARM [ARM ARM …]

Of each pair of arms, in accuracy on test and on validation: the first less the second.
"""

import csv
import random
import sys
from statistics import mean

split = sys.argv.index("--")
arms = {}
for path in sys.argv[1:split]:
    with open(path, newline="") as file:
        for run in csv.DictReader(file):
            arms.setdefault(run["arm"], {})[run["seed"]] = run

names = sys.argv[split + 1 :]

for first, second in zip(names[::2], names[1::2]):
    for key in ("test_top1", "val_top1"):
        random.seed(0)
        seeds = sorted(arms[first].keys() & arms[second].keys())
        found = [float(arms[first][seed][key]) - float(arms[second][seed][key]) for seed in seeds]
        drawn = sorted(mean(random.choices(found, k=len(found))) for _ in range(10_000))
        print(f"{first} - {second}, {key}: {mean(found):+.4f} ({drawn[250]:+.4f} to {drawn[9750]:+.4f}), {len(seeds)} seeds")
