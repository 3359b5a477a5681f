#!/usr/bin/env python3
"""Training steps (or predictions) of fixnorm and PyTorch, side by side, as CSV on stdout.

    python benches/peers/train_step.py [--rounds 5] [--models mobilenetv2_100:32,...] > benches/results/train_step.csv
    python benches/peers/train_step.py --inference > benches/results/inference.csv

In each round every configuration is measured once, one after another on an otherwise idle machine; a row is the
median over the rounds with the fastest and the slowest. PyTorch runs in all of {fp32, bf16} x {eager, compile}.
Needs torch and timm, and `cargo build --release`; nothing else may run.
"""
import argparse
import csv
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODELS = "mobilenetv2_100:32,efficientnet_b0:32,resnet50:16"


class Torch:
    """A warmed-up PyTorch process that measures when asked."""

    def __init__(self, model, batch, side, precision, mode, threads, steps, kind):
        script = Path(__file__).with_name("torch_step.py")
        args = [model, batch, side, precision, mode, threads, steps, kind]
        self.process = subprocess.Popen(
            [sys.executable, script, *map(str, args)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if self.process.stdout.readline().strip() != "ready":
            raise SystemExit(f"PyTorch failed on {model} {precision} {mode}")

    def measure(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        ms, rss = self.process.stdout.readline().split()
        return float(ms), int(rss)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def fixnorm(model, batch, side, precision, threads, steps, kind):
    command = [ROOT / "target/release/fixnorm", "--format", "json", "bench", "step", "--model", model]
    options = dict(batch=batch, res=side, precision=precision, threads=threads, steps=steps)
    for key, value in options.items():
        command += [f"--{key}", str(value)]
    if kind == "inference":
        command.append("--inference")
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return report["step_ms"], report["peak_rss_mib"], report["isa"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="steps of a measurement")
    parser.add_argument("--models", default=MODELS, help="MODEL:BATCH,...")
    parser.add_argument("--res", type=int, default=224)
    parser.add_argument("--inference", action="store_true", help="predictions instead of training steps")
    args = parser.parse_args()
    import torch

    threads, kind = os.cpu_count(), "inference" if args.inference else "train"
    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), platform.processor())
    out = csv.writer(sys.stdout)
    out.writerow("model batch res program precision mode images_per_second slowest fastest rounds peak_rss_mib "
                 "commit threads cpu".split())
    for entry in args.models.split(","):
        model, batch = entry.split(":")
        peers = {
            (precision, mode): Torch(model, batch, args.res, precision, mode, threads, args.steps, kind)
            for precision in ("fp32", "bf16")
            for mode in ("eager", "compile")
        }
        found = {}
        for round_ in range(args.rounds):
            for key, peer in peers.items():
                found.setdefault((f"torch {torch.__version__}", *key), []).append(peer.measure())
            for precision in ("f32", "bf16"):
                ms, rss, isa = fixnorm(model, batch, args.res, precision, threads, args.steps, kind)
                found.setdefault(("fixnorm", precision.replace("f32", "fp32"), isa), []).append((ms, rss))
            print(f"{model}: round {round_ + 1} of {args.rounds}", file=sys.stderr)
        for (program, precision, mode), measured in found.items():
            speeds = [1e3 * int(batch) / ms for ms, _ in measured]
            rss = max(rss for _, rss in measured)
            out.writerow([model, batch, args.res, program, precision, mode, f"{statistics.median(speeds):.2f}",
                          f"{min(speeds):.2f}", f"{max(speeds):.2f}", args.rounds, rss, commit.stdout.strip(), threads, cpu])
        sys.stdout.flush()
        for peer in peers.values():
            peer.close()


if __name__ == "__main__":
    main()
