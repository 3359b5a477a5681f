#!/usr/bin/env python3
"""Takes one block of a sweep's CSV as a table for the replay example, or prints the mean of each setting.

    python benches/angle/table.py SWEEP.csv                 settings, n, validation accuracy and loss, test accuracy: mean and deviation
    python benches/angle/table.py SWEEP.csv BLOCK OUT.csv   columns angle or lr, alpha or wd, seed, val_top1, val_loss, test_top1

Runs that diverged count as runs without a score.
"""

import csv
import statistics
import sys
from collections import defaultdict

AXES = {"optimizer.lr": "lr", "head.alpha": "alpha", "optimizer.weight_decay": "wd"}


def settings(text):
    return dict(pair.split("=", 1) for pair in text.split(" "))


def spread(values):
    values = [float(value) for value in values if value]
    if not values:
        return "–"
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values) if len(values) > 1 else float('nan'):.4f}"


def main(path, block=None, out=None):
    with open(path, newline="") as file:
        rows = [row for row in csv.DictReader(file) if block in (None, row["block"])]
    if not rows:
        sys.exit(f"{path} has no runs" + (f" of the block {block}" if block else ""))
    if out is None:
        cells = defaultdict(list)
        for row in rows:
            cells[row["block"], row["settings"]].append(row)
        for (name, text), runs in cells.items():
            columns = (spread([run[key] for run in runs]) for key in ("val_top1", "val_loss", "test_top1"))
            print(f"{name:24} {text:90} {len(runs):2}  " + "  ".join(columns))
        return
    names = {key: AXES.get(key, key) for key in settings(rows[0]["settings"])}
    if block.endswith("_angle"):
        names["optimizer.lr"] = "angle"
    with open(out, "w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([*names.values(), "seed", "val_top1", "val_loss", "test_top1"])
        for row in rows:
            values = settings(row["settings"])
            table.writerow([*(values[key] for key in names), *(row[key] for key in ("seed", "val_top1", "val_loss", "test_top1"))])


if __name__ == "__main__":
    if len(sys.argv) not in (2, 4):
        sys.exit(__doc__)
    main(*sys.argv[1:])
