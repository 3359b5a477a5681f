#!/usr/bin/env python3
"""Every number of docs/mechanisms.md about mechanism 2, from the runs of gap.json, as Markdown.

    python benches/mechanisms/gap.py benches/results/mechanisms/gap.csv [FIGURE.svg]

A run's error is 1 - test accuracy; its gap is that minus the training error (images as they are, weights at rest). Effects are
paired over angle and seed, with t-intervals at 95 %; p values are Holm-corrected over a block's pairs. Regression and rank correlation have
percentile intervals of a bootstrap that draws whole arms (angle x alpha), 2,000 times. Needs numpy and scipy.
"""

import csv
import itertools
import sys
from collections import defaultdict

import numpy as np
from scipy.stats import rankdata, t

SWEEPS = {
    "n500_shared": "ResNet-8, 500 images, one learning rate for the head",
    "n500_squared": "ResNet-8, 500 images, the head's learning rate ∝ α²",
    "n500_smoothing": "the same with label smoothing 0.1, one learning rate, angle 1/64",
    "n500_wrong_labels": "with a fifth of the labels wrong",
    "n500_augmented": "with augmentation",
    "n2000_shared": "2,000 images",
    "shufflenet_n500": "ShuffleNet V2, 500 images, 30 epochs",
}
PANELS = {
    "n500_shared": "500 images",
    "n500_squared": "head's learning rate ∝ α²",
    "n500_smoothing": "label smoothing 0.1",
    "n500_wrong_labels": "a fifth of the labels wrong",
    "n500_augmented": "with augmentation",
    "n2000_shared": "2,000 images",
    "shufflenet_n500": "ShuffleNet V2, 500 images",
}
DRAWS = 2000
# Seeds of a whole sweep; further ones are those of a pair of α.
SWEEP_SEEDS = 5


def number(text):
    return float(text) if text not in ("", "None") else float("nan")


class Run:
    def __init__(self, row):
        settings = dict(pair.split("=", 1) for pair in row["settings"].split())
        self.settings, self.seed = row["settings"], int(row["seed"])
        self.diverged = row["diverged"] == "True"
        self.angle, self.alpha = number(settings.get("optimizer.lr", "")), number(settings.get("head.alpha", ""))
        self.of = {key: number(value) for key, value in row.items() if key not in ("block", "settings", "diverged", "commit")}
        of = self.of
        if not self.diverged:
            of["test_error"], of["train_error"] = 1 - of["test_top1"], 1 - of["train_top1"]
            of["val_error"] = 1 - of["val_top1"]
            of["gap"] = of["test_error"] - of["train_error"]
            # Distances on training images in units of a spread that training did not shrink.
            of["train_distance_over_val_sigma"] = of["train_distance"] / of["val_sigma"]
            of["val_distance_over_sigma"] = of["val_distance"] / of["val_sigma"]
            of["log_train_loss"] = np.log(max(of["train_loss"], 1e-12))

    def __getitem__(self, key):
        return self.of[key]


def interval(values):
    """Mean and the half-width of its t-interval."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return values.mean() if len(values) else float("nan"), float("nan")
    return values.mean(), t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5


def p_value(values):
    values = np.asarray(values, float)
    spread = values.std(ddof=1) / len(values) ** 0.5
    return 2 * t.sf(abs(values.mean()) / spread, len(values) - 1) if spread > 0 else float(values.mean() == 0)


def holm(values):
    order, worst, found = np.argsort(values), 0.0, np.empty(len(values))
    for rank, index in enumerate(order):
        worst = max(worst, min(1.0, (len(values) - rank) * values[index]))
        found[index] = worst
    return found


def span(mean, half, digits=4):
    return f"{mean:+.{digits}f} ({mean - half:+.{digits}f} to {mean + half:+.{digits}f})"


def plus_minus(values, digits=4):
    values = np.asarray(values, float)
    deviation = values.std(ddof=1) if len(values) > 1 else float("nan")
    return f"{values.mean():.{digits}f} ± {deviation:.{digits}f}"


def by_alpha(runs):
    arms = defaultdict(list)
    for run in runs:
        arms[run.alpha].append(run)
    return dict(sorted(arms.items()))


def paired(first, second, key):
    """Differences second - first over what both have of angle and seed."""
    of = {(run.angle, run.seed): run[key] for run in first}
    return [run[key] - of[run.angle, run.seed] for run in second if (run.angle, run.seed) in of]


def sweep_table(runs):
    print("| α | n | test error | training error | training loss | gap | CBR(1), training | CBR(1), validation | margin, validation | "
          "validation loss, at its best temperature | ECE |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for alpha, own in by_alpha(runs).items():
        cells = [f"{alpha:g}", str(len(own))]
        for key, digits in (("test_error", 4), ("train_error", 4), ("train_loss", 4), ("gap", 4), ("train_cbr_1.0", 4), ("val_cbr_1.0", 4),
                            ("val_margin", 2), ("val_loss_at_temperature", 3), ("val_ece", 3)):  # fmt: skip
            cells.append(plus_minus([run[key] for run in own], digits))
        print("| " + " | ".join(cells) + " |")


def pairs_table(runs):
    arms = by_alpha(runs)
    pairs = [(a, b, paired(arms[a], arms[b], "test_top1")) for a, b in itertools.combinations(arms, 2)]
    pairs = [pair for pair in pairs if len(pair[2]) > 1]
    if not pairs:
        return
    corrected = holm([p_value(differences) for *_, differences in pairs])
    print("\nTest accuracy at the larger α minus that at the smaller:")
    for (a, b, differences), p in zip(pairs, corrected):
        print(f"- {a:g} → {b:g}: {span(*interval(differences))}, n = {len(differences)}, p = {p:.2g}")
    for key in ("gap", "val_cbr_1.0", "val_loss_at_temperature"):
        low, high = min(arms), max(arms)
        print(f"- {key}, {low:g} → {high:g}: {span(*interval(paired(arms[low], arms[high], key)))}")


def standardized(values):
    values = np.asarray(values, float)
    return (values - values.mean()) / (values.std() or 1.0)


def slope(runs, outcome, covariates):
    """The coefficient of log2 α, with a column for each angle and these covariates (standardized) beside it."""
    angles = sorted({run.angle for run in runs})
    columns = [np.log2([run.alpha for run in runs])]
    columns += [np.array([run.angle == angle for run in runs], float) for angle in angles]
    columns += [standardized([run[key] for run in runs]) for key in covariates]
    found, *_ = np.linalg.lstsq(np.stack(columns, 1), np.array([run[outcome] for run in runs]), rcond=None)
    return found[0]


def partial_rank_correlation(runs, key, outcome, given):
    """Spearman's correlation of what is left of both once ranks of `given` and the angle are regressed out."""
    angles = sorted({run.angle for run in runs})[1:]
    controls = [np.ones(len(runs))] + [np.array([run.angle == angle for run in runs], float) for angle in angles]
    controls += [rankdata([run[name] for run in runs]) for name in given]
    controls = np.stack(controls, 1)

    def left(name):
        ranks = rankdata([run[name] for run in runs])
        return ranks - controls @ np.linalg.lstsq(controls, ranks, rcond=None)[0]

    x, y = left(key), left(outcome)
    scale = (x @ x * (y @ y)) ** 0.5
    return x @ y / scale if scale > 0 else float("nan")


def bootstrap(runs, of):
    """Percentile interval of `of`, drawing whole arms within each angle."""
    random = np.random.default_rng(0)
    arms = defaultdict(list)
    for run in runs:
        arms[run.angle, run.alpha].append(run)
    arms = list(arms.values())
    found = []
    for _ in range(DRAWS):
        drawn = [run for index in random.integers(len(arms), size=len(arms)) for run in arms[index]]
        if len({run.alpha for run in drawn}) > 2 and len({run.angle for run in drawn}) == len({run.angle for run in runs}):
            found.append(of(drawn))
    return np.nanpercentile(found, [2.5, 97.5])


# val_error is the control: a risk on validation images counts those that are misclassified without noise.
MEDIATORS = ["val_cbr_1.0", "val_error", "train_cbr_1.0", "train_distance_over_val_sigma", "val_distance_over_sigma", "val_margin", "log_train_loss", "val_feature_norm"]


def mediation(runs):
    print("\nTest error on log2 α (a column for each angle), alone and with a covariate; share of α's coefficient that is gone:")
    total = slope(runs, "test_error", [])
    low, high = bootstrap(runs, lambda drawn: slope(drawn, "test_error", []))
    print(f"- alone: {total:+.5f} ({low:+.5f} to {high:+.5f}) an octave")
    for key in MEDIATORS:
        own = slope(runs, "test_error", [key])
        low, high = bootstrap(runs, lambda drawn: slope(drawn, "test_error", [key]))
        print(f"- with {key}: {own:+.5f} ({low:+.5f} to {high:+.5f}), {100 * (1 - own / total):.0f} % gone")
    print("\nRank correlation with the gap over runs, angle regressed out; then log training loss, too:")
    for key in MEDIATORS:
        cells = []
        for given in ([], ["log_train_loss"]):
            if key in given:
                continue
            value = partial_rank_correlation(runs, key, "gap", given)
            low, high = bootstrap(runs, lambda drawn: partial_rank_correlation(drawn, key, "gap", given))
            cells.append(f"{value:+.2f} ({low:+.2f} to {high:+.2f})")
        print(f"- {key}: " + "; ".join(cells))
    for rival in ("val_error", "val_margin", "train_distance_over_val_sigma", "log_train_loss"):
        def ahead(drawn, rival=rival):
            return abs(partial_rank_correlation(drawn, "val_cbr_1.0", "gap", [])) - abs(partial_rank_correlation(drawn, rival, "gap", []))
        low, high = bootstrap(runs, ahead)
        print(f"- |val_cbr_1.0| − |{rival}|: {ahead(runs):+.2f} ({low:+.2f} to {high:+.2f})")


def tuned(blocks):
    """The best validated setting of each tuned block, and its ten other seeds."""
    print("\n## Weight decay on scale-invariant weights, on the head\n")
    print("| arm | trials | chosen on validation | n | validation | test | training error | test, less that of `decay_none` |")
    print("|---|---|---|---|---|---|---|---|")
    finals = {name.removesuffix("_final"): runs for name, runs in blocks.items() if name.endswith("_final")}
    reference = {run.seed: run for run in finals.get("decay_none", [])}
    for name, runs in finals.items():
        trials = blocks.get(name, [])
        chosen = max(trials, key=lambda run: -1 if run.diverged else run["val_top1"]).settings if trials else runs[0].settings
        difference = [run["test_top1"] - reference[run.seed]["test_top1"] for run in runs if run.seed in reference]
        against = "–" if name == "decay_none" or len(difference) < 2 else span(*interval(difference))
        cells = [f"`{name}`", str(len(trials) or "–"), chosen or "the law's", str(len(runs))]
        cells += [plus_minus([run[key] for run in runs]) for key in ("val_top1", "test_top1", "train_error")]
        print("| " + " | ".join([*cells, against]) + " |")
    for one, other in itertools.combinations(finals, 2):
        theirs = {run.seed: run["test_top1"] for run in finals[one]}
        difference = [run["test_top1"] - theirs[run.seed] for run in finals[other] if run.seed in theirs]
        if len(difference) > 1:
            print(f"- {other} − {one}: {span(*interval(difference))}, n = {len(difference)}")


COLOURS = {2**-7: "#d55e00", 2**-6: "#0072b2", 2**-5: "#009e73"}


def figure(blocks, path):
    """Test error and gap against α, a panel a block, a line an angle, with t-intervals."""
    shown = [(name, blocks[name]) for name in SWEEPS if len(by_alpha(blocks.get(name, []))) >= 5]
    width, height, left, top = 250, 190, 46, 30
    columns = max(2, -(-len(shown) // 2))
    rows = -(-len(shown) // columns)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {columns * width} {rows * (height + top) + 30}" font-family="sans-serif" font-size="11">',
           "<title>Test error against the norm of the head</title>",
           '<rect width="100%" height="100%" fill="#fff"/>']  # fmt: skip
    for place, (name, runs) in enumerate(shown):
        arms = by_alpha(runs)
        alphas, angles = list(arms), sorted({run.angle for run in runs})
        values = {}
        for angle in angles:
            for alpha in alphas:
                own = [run["test_error"] for run in arms[alpha] if run.angle == angle]
                if own:
                    values[angle, alpha] = interval(own)
        ends = [mean + sign * (0 if np.isnan(half) else half) for mean, half in values.values() for sign in (-1, 1)]
        low, high = int(np.floor(min(ends) * 100)), int(np.ceil(max(ends) * 100))

        def x(alpha):
            return left + (np.log2(alpha) - np.log2(alphas[0]) + 0.4) / (np.log2(alphas[-1] / alphas[0]) + 0.8) * (width - left - 10)

        def y(value):
            return (high - 100 * value) / (high - low) * (height - 40)

        out.append(f'<g transform="translate({place % columns * width} {place // columns * (height + top) + top})">')
        out.append(f'<text x="{left}" y="-10">{PANELS[name]}</text>')
        for tick in range(low, high + 1):
            out.append(f'<line x1="{left}" x2="{width - 10}" y1="{y(tick / 100):.1f}" y2="{y(tick / 100):.1f}" stroke="#ddd"/>')
            out.append(f'<text x="{left - 5}" y="{y(tick / 100) + 4:.1f}" text-anchor="end">{tick} %</text>')
        for alpha in alphas:
            out.append(f'<text x="{x(alpha):.1f}" y="{height - 24}" text-anchor="middle">{alpha:g}</text>')
        out.append(f'<text x="{(left + width) / 2}" y="{height - 8}" text-anchor="middle">α</text>')
        for index, angle in enumerate(angles):
            colour = COLOURS[angle]
            shift = (index - (len(angles) - 1) / 2) * 5
            points = [(x(alpha) + shift, *values[angle, alpha]) for alpha in alphas if (angle, alpha) in values]
            line = " ".join(f"{px:.1f},{y(mean):.1f}" for px, mean, _ in points)
            out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
            for px, mean, half in points:
                if not np.isnan(half):
                    out.append(f'<line x1="{px:.1f}" x2="{px:.1f}" y1="{y(mean - half):.1f}" y2="{y(mean + half):.1f}" stroke="{colour}"/>')
                out.append(f'<circle cx="{px:.1f}" cy="{y(mean):.1f}" r="2.5" fill="{colour}"/>')
        out.append("</g>")
    legend = " ".join(f'<tspan fill="{colour}">angle 1/{round(1 / angle)}</tspan>' for angle, colour in COLOURS.items())
    out.append(f'<text x="{left}" y="{rows * (height + top) + 18}">Test error against α, 95 % t-intervals over seeds. {legend}</text></svg>')
    with open(path, "w") as file:
        file.write("\n".join(out) + "\n")


def main(arguments):
    if not arguments:
        sys.exit(__doc__)
    blocks, total = defaultdict(list), 0
    with open(arguments[0], newline="") as file:
        for row in csv.DictReader(file):
            blocks[row["block"]].append(Run(row))
            total += 1
    diverged = sum(run.diverged for runs in blocks.values() for run in runs)
    print(f"{total} runs, {diverged} diverged")
    for name, title in SWEEPS.items():
        runs = [run for run in blocks.get(name, []) if not run.diverged]
        if len(runs) < 2:
            continue
        blocks[name] = runs
        print(f"\n## {title} (`{name}`)\n")
        sweep_table(runs)
        pairs_table(runs)
        fresh = [run for run in runs if run.seed >= SWEEP_SEEDS]
        if fresh:
            print(f"\nThe same with seeds from {SWEEP_SEEDS} on alone, run after the pair of α was chosen:")
            pairs_table(fresh)
        if len({(run.angle, run.alpha) for run in runs}) >= 5 and len(runs) >= 20:
            mediation(runs)
    tuned(blocks)
    if len(arguments) > 1:
        figure(blocks, arguments[1])


if __name__ == "__main__":
    main(sys.argv[1:])
