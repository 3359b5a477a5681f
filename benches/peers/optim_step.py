#!/usr/bin/env python3
"""FixNorm's optimizer step and PyTorch's SGD with momentum, side by side, as CSV on stdout.

    python benches/peers/optim_step.py [--rounds 5] [--steps 50] > benches/results/optim_step.csv

Both update the parameters of EfficientNet-B0 with gradients of noise; beside each stands a copy that reads and
writes as many bytes as SGD with momentum must. A row is the median over the rounds of each round's median step.
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
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODEL = "efficientnet_b0"


def torch_sgd(parameters, steps, **form):
    """Median milliseconds of a step and of a copy after it."""
    import torch

    optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9, **form)
    count = sum(p.numel() for p in parameters)
    source = torch.ones(5 * count // 2)
    target = torch.zeros_like(source)
    stepped, copied = [], []
    for _ in range(2 + steps):
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter) * 0.01
        target.copy_(source)
        start = time.perf_counter()
        optimizer.step()
        middle = time.perf_counter()
        target.copy_(source)
        stepped.append(middle - start)
        copied.append(time.perf_counter() - middle)
    return statistics.median(stepped[2:]) * 1e3, statistics.median(copied[2:]) * 1e3


def fixnorm(steps, threads):
    command = [ROOT / "target/release/fixnorm", "--format", "json", "bench", "optim", "--model", MODEL]
    command += ["--steps", str(steps), "--threads", str(threads)]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return report["step_ms"], report["copy_ms"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=50, help="steps of a measurement")
    args = parser.parse_args()
    import timm
    import torch

    threads = os.cpu_count()
    torch.set_num_threads(threads)
    parameters = list(timm.create_model(MODEL).parameters())
    found = {}
    for _ in range(args.rounds):
        for form in ("fused", "foreach"):
            key = (f"torch {torch.__version__}", f"sgd {form}")
            found.setdefault(key, []).append(torch_sgd(parameters, args.steps, **{form: True}))
        found.setdefault(("fixnorm", "fixnorm"), []).append(fixnorm(args.steps, threads))
    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), platform.processor())
    out = csv.writer(sys.stdout)
    out.writerow("model program optimizer step_ms fastest slowest copy_ms over_copy rounds commit threads cpu".split())
    for (program, optimizer), measured in found.items():
        steps, copies = zip(*measured)
        step, copy = statistics.median(steps), statistics.median(copies)
        out.writerow([MODEL, program, optimizer, f"{step:.2f}", f"{min(steps):.2f}", f"{max(steps):.2f}", f"{copy:.2f}",
                      f"{step / copy:.2f}", args.rounds, commit.stdout.strip(), threads, cpu])


if __name__ == "__main__":
    main()
