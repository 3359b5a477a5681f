"""Fits the law of the start to tables: log2 angle = a + b*log2(steps) + c*log2(batch), and alpha = A/sqrt(features).

    python benches/tables/fit_law.py TABLE.csv:STEPS:BATCH:FEATURES... [ANGLE:STEPS:BATCH...]

Each table (columns angle, alpha, seed, val_top1) gives its best setting: the top of a quadratic in log2 angle and log2 alpha
through the cells that are within 0.03 of the best one, weighted by their number of seeds; the best cell itself where the
quadratic has no top inside the table. An ANGLE in radians is a point without a table, for example the equilibrium angle of a weight
decay recipe; it counts as one table, and not for alpha. Prints the coefficients with their standard errors, for
crates/fixnorm-tune/src/law.rs, and how far each table's best is from a law fitted to the others (leave one out). A
coefficient is left out, and said to be, where the tables do not vary in it. Needs numpy.
"""

import csv
import math
import sys
from collections import defaultdict

import numpy as np

NEAR = 0.03


def best(path):
    cells = defaultdict(list)
    with open(path, newline="") as file:
        for number, row in enumerate(csv.DictReader(file), 2):
            try:
                cell = math.log2(float(row["angle"])), math.log2(float(row["alpha"]))
                # A run that diverged has no score; its cell is not near the best.
                cells[cell].append(float(row["val_top1"] or 0))
            except (KeyError, TypeError, ValueError) as error:
                sys.exit(f"{path}, line {number}: expected angle, alpha and val_top1, found {error}")
    points = np.array(list(cells))
    scores = np.array([np.mean(runs) for runs in cells.values()])
    seeds = np.array([len(runs) for runs in cells.values()])
    top = points[scores.argmax()]
    near = scores >= scores.max() - NEAR
    if near.sum() < 6:
        return top, "cell"
    (u, v), weight = (points[near] - top).T, np.sqrt(seeds[near])
    terms = np.stack([np.ones_like(u), u, v, u * u, v * v, u * v], axis=1)
    c = np.linalg.lstsq(terms * weight[:, None], scores[near] * weight, rcond=None)[0]
    hessian = np.array([[2 * c[3], c[5]], [c[5], 2 * c[4]]])
    if np.linalg.eigvalsh(hessian).max() >= 0:
        return top, "cell"
    peak = top - np.linalg.solve(hessian, c[1:3])
    inside = (peak >= points.min(axis=0)).all() and (peak <= points.max(axis=0)).all()
    return (peak, "fit") if inside else (top, "cell")


def regress(rows, y):
    """Coefficients and their standard errors (nan without a degree of freedom)."""
    c, *_ = np.linalg.lstsq(rows, y, rcond=None)
    free = len(y) - rows.shape[1]
    variance = ((y - rows @ c) ** 2).sum() / free if free > 0 else math.nan
    return c, np.sqrt(np.diag(np.linalg.pinv(rows.T @ rows)) * variance)


def parse(argument):
    """The best point (alpha is nan without a table), how it was found, steps, batch, features (nan without a table)."""
    name, *counts = argument.split(":")
    try:
        steps, batch, *features = map(float, counts)
        if features:
            point, by = best(name)
            return point, by, steps, batch, features[0]
        return np.array([math.log2(float(name)), math.nan]), "given", steps, batch, math.nan
    except ValueError:
        sys.exit(f"expected TABLE.csv:STEPS:BATCH:FEATURES or ANGLE:STEPS:BATCH, found {argument}")


def main(arguments):
    if len(arguments) < 2:
        sys.exit(__doc__)
    found = [parse(argument) for argument in arguments]
    angle = np.array([point[0] for point, *_ in found])
    product = np.array([point[1] + 0.5 * math.log2(features) for point, *_, features in found])
    columns, names = [np.ones(len(found))], ["ANGLE_AT_ONE"]
    for name, index in (("ANGLE_PER_STEPS", 2), ("ANGLE_PER_BATCH", 3)):
        column = np.log2([setting[index] for setting in found])
        if np.linalg.matrix_rank(np.stack([*columns, column], axis=1)) > len(columns):
            columns.append(column)
            names.append(name)
        else:
            print(f"{name}: not determined by these tables, left out")
    rows = np.stack(columns, axis=1)
    for name, value, error in zip(names, *regress(rows, angle)):
        print(f"{name} = {value:.3f} +- {error:.3f}")
    tables = np.isfinite(product)
    spread = product[tables].std(ddof=1) / math.sqrt(tables.sum())
    print(f"ALPHA_BY_ROOT_FEATURES = 2^{product[tables].mean():.3f} +- {spread:.3f} octaves")
    print("\ntable,best_angle,best_alpha,by,angle_error_octaves,alpha_error_octaves")
    errors = []
    for i, (argument, (point, by, *_)) in enumerate(zip(arguments, found)):
        others = np.arange(len(found)) != i
        c, _ = regress(rows[others], angle[others])
        errors.append([angle[i] - rows[i] @ c, product[i] - product[others & tables].mean()])
        print(f"{argument},{2 ** point[0]:.5f},{2 ** point[1]:.2f},{by},{errors[-1][0]:.2f},{errors[-1][1]:.2f}")
    rms = np.sqrt(np.nanmean(np.square(errors), axis=0))
    print(f"\nleave one out, root mean square in octaves: UNCERTAINTY = [{rms[0]:.2f}, {rms[1]:.2f}]")


if __name__ == "__main__":
    main(sys.argv[1:])
