"""The tables of docs/tuning.md, from the CSVs in benches/results.

    python benches/tables/summary.py cells TABLE.csv       mean validation accuracy of each cell, and the best cell
    python benches/tables/summary.py replay REPLAY.csv…    regret and trials to target of each tuner
"""

import csv
import sys
from collections import defaultdict
from statistics import mean, stdev


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def cells(path):
    knob = "alpha" if "alpha" in rows(path)[0] else "wd"
    runs = defaultdict(list)
    for row in rows(path):
        runs[float(row["lr"]), float(row[knob])].append(row)
    # A seed that diverged is worth guessing.
    score = lambda row, key: float(row[key] or 0.1)
    val = {cell: mean(score(row, "val_top1") for row in seeds) for cell, seeds in runs.items()}
    best = max(val, key=val.get)
    # As a replay takes it: pooled over the better half of the cells in which no seed diverged.
    whole = [cell for cell in runs if all(row["val_top1"] for row in runs[cell])]
    whole.sort(key=val.get, reverse=True)
    half = whole[: (len(whole) + 1) // 2]
    noise = mean(stdev(score(row, "val_top1") for row in runs[cell]) ** 2 for cell in half) ** 0.5
    near = sum(value >= val[best] - noise for value in val.values())
    test = mean(score(row, "test_top1") for row in runs[best])

    lrs, seconds = (sorted({cell[i] for cell in runs}) for i in (0, 1))
    print(f"| lr \\ {knob} | " + " | ".join(f"{value:.4g}" for value in seconds) + " |")
    print("|---" * (len(seconds) + 1) + "|")
    mark = lambda cell: f"**{val[cell]:.4f}**" if cell == best else f"{val[cell]:.4f}"
    for lr in lrs:
        print(f"| {lr:.4g} | " + " | ".join(mark((lr, second)) for second in seconds) + " |")
    print(f"\nbest: lr {best[0]:.4g}, {knob} {best[1]:.4g}: val {val[best]:.4f}, test {test:.4f}")
    print(f"noise of a seed {noise:.4f}; {near} of {len(val)} cells within it of the best")


def replay(paths):
    columns = [defaultdict(dict) for _ in paths]
    for column, path in zip(columns, paths):
        for row in rows(path):
            column[row["tuner"]][int(row["trials"])] = row
    print("| tuner | " + " | ".join("4 | 6 | 10 | to target" for _ in paths) + " |")
    print("|---" * (1 + 4 * len(paths)) + "|")
    for tuner in columns[0]:
        parts = []
        for column in columns:
            trials = column[tuner]
            parts += [f"{float(trials[n]['regret']):.4f}" for n in (4, 6, 10)]
            low, high = (float(trials[1]["to_target_" + end]) for end in ("low", "high"))
            parts.append(f"{float(trials[1]['to_target']):.1f} ({low:.1f} to {high:.1f})")
        print(f"| `{tuner}` | " + " | ".join(parts) + " |")


if __name__ == "__main__" and len(sys.argv) > 2 and sys.argv[1] in ("cells", "replay"):
    cells(sys.argv[2]) if sys.argv[1] == "cells" else replay(sys.argv[2:])
elif __name__ == "__main__":
    sys.exit(__doc__)
