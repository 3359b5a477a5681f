#!/usr/bin/env python3
"""Prints the difference of two blocks of a sweep over their shared seeds, with a 95 % t-interval.

    python benches/angle/paired.py SWEEP.csv... BLOCK REFERENCE

Each block has one setting; of files that both have a block, the first one counts. Validation and test accuracy; needs scipy.
"""

import csv
import statistics
import sys

from scipy.stats import t


def block(paths, name):
    for path in paths:
        with open(path, newline="") as file:
            rows = {row["seed"]: row for row in csv.DictReader(file) if row["block"] == name}
        if rows:
            return rows
    return {}


def main(*arguments):
    *paths, name, reference = arguments
    ours, theirs = block(paths, name), block(paths, reference)
    seeds = sorted(ours.keys() & theirs.keys(), key=int)
    if len(seeds) < 2:
        sys.exit(f"{', '.join(paths)}: fewer than two seeds that {name} and {reference} share")
    for key in ("val_top1", "test_top1"):
        differences = [float(ours[seed][key]) - float(theirs[seed][key]) for seed in seeds]
        mean = statistics.mean(differences)
        half = t.ppf(0.975, len(seeds) - 1) * statistics.stdev(differences) / len(seeds) ** 0.5
        print(f"{name} - {reference}, {key}: {mean:+.4f} ({mean - half:+.4f} to {mean + half:+.4f}), n = {len(seeds)}")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
