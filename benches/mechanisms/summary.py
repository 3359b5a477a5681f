"""The tables of docs/mechanisms.md from a dissection, and one CSV line a run.

    python benches/mechanisms/summary.py DIR/dissection.json RUNS.csv
"""

import csv
import json
import sys

with open(sys.argv[1]) as file:
    found = json.load(file)


def stat(of):
    return "–" if of is None else f"{of['mean']:.4f} ± {of['std'] or 0:.4f}"


def interval(of):
    return "–" if of is None else f"{of['estimate']:+.4f} ({of['low']:+.4f} to {of['high']:+.4f})"


def risk(of, tau=1.0):
    return next((at["cbr"] for at in of if at["tau"] == tau), None)


print(f"| arm | n | val | test | train | α | CBR(1), val | test, less that of `{found['reference']}` |")
print("|---|---|---|---|---|---|---|---|")
for arm in found["arms"]:
    values = [stat(arm[key]) for key in ("val_top1", "test_top1", "train_top1", "alpha")]
    values += [stat(risk(arm["risk_val"])), interval(arm["test_difference"])]
    print(f"| `{arm['name']}` | {len(arm['runs'])} | " + " | ".join(values) + " |")
    for seed, why in arm["failed"]:
        print(f"{arm['name']}, seed {seed}: {why}")
print()
for follow in found["follow"]:
    print(
        f"{follow['arm']}: training losses {stat(follow['distance'])} from those of {follow['source']},"
        f" whose seeds are {stat(follow['between_seeds'])} apart"
    )
for at in found["correlations"]:
    print(f"{at['over']}, {at['part']}, τ {at['tau']}: ρ {interval(at['rho'])}, {at['rho']['n']} runs")

with open(sys.argv[2], "w", newline="") as file:
    lines = csv.writer(file, lineterminator="\n")
    taus = [at["tau"] for at in found["arms"][0]["risk_val"]]
    head = ["arm", "seed", "val_top1", "test_top1", "train_top1", "val_loss", "train_loss", "alpha"]
    lines.writerow(head + [f"cbr_{part}_{tau}" for part in ("train", "val") for tau in taus])
    for arm in found["arms"]:
        for run in arm["runs"]:
            numbers = [run[key] for key in ("val_top1", "test_top1", "train_top1", "val_loss")]
            numbers += [run["train_loss"][-1], run["alpha"]]
            for part in ("risk_train", "risk_val"):
                numbers += [risk(run[part]["risk"], tau) for tau in taus]
            lines.writerow([arm["name"], run["seed"]] + [f"{number:.6g}" for number in numbers])
