#!/usr/bin/env python3
"""Trains every run of a sweep and appends a line for each to a CSV; runs that the CSV has are skipped, so it resumes.

    python benches/angle/sweep.py SPEC.json OUT.csv [--binary target/release/fixnorm] [--shuffle] [--risk] [--data DIR]

SPEC.json holds a list of blocks. Each block has `name`, `seeds` (a list), `base` (key = value, as `--set` takes them) and
`grid` (key -> list of values); its runs are all combinations. A grid key that names several keys, joined by `+`, sets them
together: its values are lists. One thread a run; start it twice with `--shuffle` for two workers (runs that another
worker has begun are skipped by a lock file beside the CSV). `--risk` also measures the model at the end of each run on
training and validation images (cross-boundary risk, margins, calibration, class means; docs/dissect.md) into further columns. `{data}` in a
value of `base` is the directory of `--data`.
"""

import argparse
import csv
import fcntl
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COLUMNS = ["block", "settings", "seed", "steps", "val_top1", "val_loss", "test_top1", "train_loss", "seconds",
           "diverged", "commit"]  # fmt: skip

# Of the images of each part; cbr is followed by τ.
MEASURES = ["top1", "loss", "loss_at_temperature", "ece", "margin", "distance", "sigma", "cbr_0.25", "cbr_0.5", "cbr_1.0", "cbr_2.0",
            "feature_norm", "within_over_between", "head_angle", "nearest_mean", "head_alpha"]  # fmt: skip
RISK_COLUMNS = [f"{part}_{name}" for part in ("train", "val") for name in MEASURES]


def measures(run):
    """The measurements of a run's last epoch."""
    found = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["event"] != "risk":
            continue
        risk, separation = event["risk"], event["separation"]
        values = {**separation["class_means"], **separation["confidence"], "sigma": risk["sigma"],
                  "margin": separation["confidence"]["margin"]["mean"], "distance": risk["distance"]["mean"],
                  **{f"cbr_{at['tau']}": at["cbr"] for at in risk["risk"]}}  # fmt: skip
        found.update({f"{event['part']}_{name}": values[name] for name in MEASURES})
    return found


def runs(spec):
    for block in spec:
        keys, values = list(block["grid"]), list(block["grid"].values())
        for combination in itertools.product(*values):
            settings = {}
            for key, value in zip(keys, combination):
                names = key.split("+")
                settings.update(zip(names, value if len(names) > 1 else [value]))
            for seed in block["seeds"]:
                yield block, settings, seed


def text(settings):
    return " ".join(f"{key}={value}" for key, value in settings.items())


def done(out):
    with out.open(newline="") as file:
        return {(row["block"], row["settings"], row["seed"]) for row in csv.DictReader(file)}


def train(binary, block, settings, seed, risk, data):
    base = {key: value.replace("{data}", data) if isinstance(value, str) else value for key, value in block["base"].items()}
    sets = {**base, **settings, "log.measure_every_steps": 0, "loader.workers": 0}
    if risk:
        # More than any run has: the last epoch alone is measured.
        sets["log.risk_every_epochs"] = 100_000
    with tempfile.TemporaryDirectory() as folder:
        command = [binary, "train", "--format", "json", "--seed", str(seed), "--out", f"{folder}/run"]
        command += [arg for key, value in sets.items() for arg in ("--set", f"{key}={value}")]
        start = time.time()
        found = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "RAYON_NUM_THREADS": "1"})
        seconds = time.time() - start
        if found.returncode == 0:
            measured = measures(Path(folder) / "run") if risk else {}
            summary = json.loads(found.stdout)
            # The command's `val_top1` and `val_loss` are of all validation images, its `train_loss` is a mean over the last epoch.
            measured |= {key: value for key, value in summary.items() if not (risk and key == "train_loss")}
            return {**measured, "seconds": seconds, "diverged": False}
    if found.returncode == 1 and "diverged" in found.stderr:
        return {"seconds": seconds, "diverged": True}
    sys.exit(f"{' '.join(command)}\n{found.stderr}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--binary", default="target/release/fixnorm")
    parser.add_argument("--commit", default="", help="recorded with each run; default: git rev-parse")
    parser.add_argument("--shuffle", action="store_true", help="take the runs in random order")
    parser.add_argument("--risk", action="store_true", help="measure each model at the end of its run")
    parser.add_argument("--data", default="data", help="replaces {data} in a spec; default: data")
    args = parser.parse_args()
    columns = COLUMNS + [name for name in RISK_COLUMNS if args.risk and name not in COLUMNS]
    commit = args.commit or subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], text=True).strip()
    todo = list(runs(json.loads(args.spec.read_text())))
    if args.shuffle:
        random.shuffle(todo)
    if not args.out.exists():
        args.out.write_text(",".join(columns) + "\n")
    claims = args.out.with_suffix(".claims")
    claims.mkdir(exist_ok=True)
    for block, settings, seed in todo:
        key = (block["name"], text(settings), str(seed))
        if key in done(args.out):
            continue
        # A lock that ends with its process: a killed worker's run is free again.
        with (claims / "-".join(key).replace("/", "_").replace(" ", ",")).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if key in done(args.out):
                continue
            found = train(args.binary, block, settings, seed, args.risk, args.data)
            row = {**found, "block": block["name"], "settings": key[1], "seed": seed, "commit": commit,
                   "seconds": f"{found['seconds']:.1f}"}  # fmt: skip
            with args.out.open("a", newline="") as file:
                csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n").writerow(row)


if __name__ == "__main__":
    main()
