#!/usr/bin/env python3
"""Trains every run of a sweep and appends a line for each to a CSV; runs that the CSV has are skipped, so it resumes.

    python benches/angle/sweep.py SPEC.json OUT.csv [--binary target/release/fixnorm] [--shuffle]

SPEC.json holds a list of blocks. Each block has `name`, `seeds` (a list), `base` (key = value, as `--set` takes them) and
`grid` (key -> list of values); its runs are all combinations. A grid key that names several keys, joined by `+`, sets them
together: its values are lists. One thread a run; start it twice with `--shuffle` for two workers (runs that another
worker has begun are skipped by a lock file beside the CSV).
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


def train(binary, block, settings, seed):
    sets = {**block["base"], **settings, "log.measure_every_steps": 0, "loader.workers": 0}
    with tempfile.TemporaryDirectory() as folder:
        command = [binary, "train", "--format", "json", "--seed", str(seed), "--out", f"{folder}/run"]
        command += [arg for key, value in sets.items() for arg in ("--set", f"{key}={value}")]
        start = time.time()
        found = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "RAYON_NUM_THREADS": "1"})
        seconds = time.time() - start
    if found.returncode == 0:
        return {**json.loads(found.stdout), "seconds": seconds, "diverged": False}
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
    args = parser.parse_args()
    commit = args.commit or subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], text=True).strip()
    todo = list(runs(json.loads(args.spec.read_text())))
    if args.shuffle:
        random.shuffle(todo)
    if not args.out.exists():
        args.out.write_text(",".join(COLUMNS) + "\n")
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
            found = train(args.binary, block, settings, seed)
            row = [block["name"], key[1], seed, *(found.get(name, "") for name in COLUMNS[3:9])]
            row[8] = f"{found['seconds']:.1f}"
            with args.out.open("a", newline="") as file:
                csv.writer(file, lineterminator="\n").writerow([*row, found["diverged"], commit])


if __name__ == "__main__":
    main()
