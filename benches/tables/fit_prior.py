"""Fits the prior of the search to tables: prints the JSON that `--example replay -- --prior` reads.

    python benches/tables/fit_prior.py [--knobs angle,alpha] TABLE.csv:START...

START is LR,VALUE or ANGLE,VALUE, where a search of that table would begin. To judge the search on a table, leave it out.
Each table gives the numbers of the surface of crates/fixnorm-tune/src/ridge.rs that is likeliest given its cells. Over
tables, each number gets its mean and a standard deviation, in which the spread that is assumed without tables
(crates/fixnorm-tune/src/prior.rs) counts as two more of them. Place and slope come from tables with the same knobs alone,
widths and saturation from all. Needs numpy and scipy.
"""

import argparse
import csv
import json
import math
import sys
from collections import defaultdict

import numpy as np
from scipy.optimize import minimize

# As without tables: mean and standard deviation, of ln for widths (4) and saturation.
ASSUMED = {
    ("angle", "alpha"): [(0, 1.7), (0, 1.7), (0, 0.25)],
    ("lr", "alpha"): [(-0.5, 1.7), (1, 1.7), (-0.8, 0.3)],
}
SHAPE = [(math.log(1.3), 0.35), (math.log(1), 0.6), (math.log(1.6), 0.4), (math.log(1.6), 0.4), (math.log(0.4), 1)]
WEIGHT = 2
MISFIT = 0.25


def read(argument):
    path, start = argument.rsplit(":", 1)
    cells = defaultdict(list)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    first = "angle" if "angle" in rows[0] else "lr"
    if "alpha" not in rows[0]:
        sys.exit(f"{path}: expected a column alpha; only spaces with a head norm have a prior")
    for row in rows:
        cells[math.log2(float(row[first])), math.log2(float(row["alpha"]))].append(float(row["val_top1"] or "nan"))
    points = np.array(list(cells))
    scores = np.array([np.mean(runs) for runs in cells.values()])
    seeds = np.array([len(runs) for runs in cells.values()])
    spread = [np.var(runs, ddof=1) for runs in cells.values() if len(runs) > 1]
    noise = math.sqrt(np.nanmedian(spread)) if spread else 0.006
    kept = np.isfinite(scores)
    start = np.log2([float(value) for value in start.split(",")])
    return (first, "alpha"), points[kept] - start, scores[kept], noise / np.sqrt(seeds[kept])


def loss(z, points):
    x, y, slope = z[:3]
    below, above, left, right, saturation = np.exp(z[3:8])
    v = points[:, 1] - y
    u = points[:, 0] - x - slope * v
    q = 0.01 * ((u / np.where(u > 0, above, below)) ** 2 + (v / np.where(v > 0, right, left)) ** 2)
    return q / (1 + q / saturation)


def fit(knobs, points, scores, noise):
    """Mode of the posterior under the assumed prior with twice its spreads."""
    prior = np.array(ASSUMED[knobs] + SHAPE)

    def cost(z):
        fall = loss(z, points)
        variance = noise**2 + (MISFIT * fall) ** 2
        top = np.average(scores + fall, weights=1 / variance)
        off = (((z - prior[:, 0]) / (2 * prior[:, 1])) ** 2).sum()
        return ((scores - top + fall) ** 2 / variance + np.log(variance)).sum() + off

    best = points[scores.argmax()]
    begin = [np.concatenate([best + shift, prior[2:, 0]]) for shift in ([0, 0], [1, 0], [-1, 0], [0, 1], [0, -1])]
    found = [minimize(cost, z, method="Nelder-Mead", options={"maxiter": 20000, "maxfev": 20000}) for z in begin]
    return min(found, key=lambda result: result.fun).x


def pooled(values, assumed):
    mean, std = assumed
    if not values:
        return mean, std
    centre = (WEIGHT * mean + sum(values)) / (WEIGHT + len(values))
    squares = WEIGHT * std**2 + sum((value - centre) ** 2 for value in values)
    return centre, math.sqrt(squares / (WEIGHT + len(values)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--knobs", default="angle,alpha", help="those of the table that the prior is for")
    parser.add_argument("tables", nargs="+")
    args = parser.parse_args()
    wanted = tuple(args.knobs.split(","))
    fits = []
    for argument in args.tables:
        knobs, *table = read(argument)
        z = fit(knobs, *table)
        fits.append((knobs, z))
        shown = " ".join(f"{value:.2f}" for value in [*z[:3], *np.exp(z[3:])])
        print(f"{argument}: place, slope, widths, saturation {shown}", file=sys.stderr)
    same = [z for knobs, z in fits if knobs == wanted]
    numbers = [pooled([z[i] for z in same], ASSUMED[wanted][i]) for i in range(3)]
    for i, assumed in enumerate(SHAPE):
        mean, std = pooled([z[3 + i] for _, z in fits], assumed)
        numbers.append((math.exp(mean), std))
    prior = {"place": numbers[:2], "slope": numbers[2], "across": numbers[3:5], "along": numbers[5:7], "saturation": numbers[7]}
    print(json.dumps(prior))


if __name__ == "__main__":
    main()
