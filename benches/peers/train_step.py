#!/usr/bin/env python3
"""Training steps (or predictions) of fixnorm and PyTorch, side by side, as CSV on stdout.

    python benches/peers/train_step.py [--rounds 5] [--models mobilenetv2_100:32,...] > benches/results/train_step.csv
    python benches/peers/train_step.py --inference > benches/results/inference.csv
    python benches/peers/train_step.py --device cuda:0 --models mobilenetv2_100:256,efficientnet_b0:256,resnet50:256

In each round every configuration is measured once, one after another on an otherwise idle machine; a row is the
median over the rounds with the fastest and the slowest. PyTorch runs in all of {fp32, bf16} x {eager, compile}, on a GPU
(of CUDA or ROCm, which it calls by the same name) one after another, since their memory does not fit together, unless
`--in-turns` says that it does. A program that fails is left out, with a message, and the exit code is 1. Needs torch and timm, and `cargo build --release`; nothing else may run.
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

ROOT = Path(__file__).resolve().parents[min(2, len(Path(__file__).resolve().parents) - 1)]
MODELS = "mobilenetv2_100:32,efficientnet_b0:32,resnet50:16"


class Torch:
    """A warmed-up PyTorch process that measures when asked."""

    def __init__(self, model, precision, mode, args):
        script = Path(__file__).with_name("torch_step.py")
        name, batch = model.split(":")
        device = "cpu" if args.device == "cpu" else "cuda"
        options = [name, batch, args.res, precision, mode, os.cpu_count(), args.steps, args.kind, device]
        self.process = subprocess.Popen(
            [sys.executable, script, *map(str, options)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if self.process.stdout.readline().strip() != "ready":
            raise SystemExit(f"PyTorch failed on {model} {precision} {mode}")

    def measure(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        ms, mib = self.process.stdout.readline().split()
        return float(ms), int(mib)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Fixnorm:
    """The command, run anew for each measurement."""

    def __init__(self, model, precision, args):
        name, batch = model.split(":")
        options = dict(model=name, batch=batch, res=args.res, precision=precision, threads=os.cpu_count())
        options |= dict(steps=args.steps, device=args.device)
        self.command = [args.fixnorm, "--format", "json", "bench", "step"]
        self.command += [f"--{key}={value}" for key, value in options.items()]
        self.command += ["--inference"] if args.inference else []
        self.on_cpu = args.device == "cpu"

    def measure(self):
        report = json.loads(subprocess.run(self.command, check=True, capture_output=True, text=True).stdout)
        self.mode = report["isa"] if self.on_cpu else report["device"]
        return report["step_ms"], report["peak_rss_mib" if self.on_cpu else "device_mib"]

    def close(self):
        pass


def name_of(device):
    """The processor's or the GPU's name, with its driver's version."""
    if device == "cpu":
        names = (line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
        return next(names, platform.processor())
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    return subprocess.run(query, check=True, capture_output=True, text=True).stdout.splitlines()[0].replace(",", "")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="steps of a measurement")
    parser.add_argument("--models", default=MODELS, help="MODEL:BATCH,...")
    parser.add_argument("--res", type=int, default=224)
    parser.add_argument("--inference", action="store_true", help="predictions instead of training steps")
    parser.add_argument("--device", default="cpu", help="fixnorm's name of it")
    parser.add_argument("--fixnorm", type=Path, default=ROOT / "target/release/fixnorm", help="the command")
    parser.add_argument("--precisions", default="fp32,bf16", help="those that are measured")
    parser.add_argument("--in-turns", action="store_true", help="in turns on a GPU, too")
    args = parser.parse_args()
    args.kind = "inference" if args.inference else "train"
    import torch

    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    end = [commit.stdout.strip(), os.cpu_count(), name_of(args.device)]
    out = csv.writer(sys.stdout)
    out.writerow("model batch res program precision mode images_per_second slowest fastest rounds peak_mib "
                 "commit threads device".split())
    precisions = args.precisions.split(",")
    peers = [(precision, mode) for precision in precisions for mode in ("eager", "compile")]
    failed = False
    for model in args.models.split(","):
        makers = {
            (f"torch {torch.__version__}", *peer): lambda peer=peer: Torch(model, *peer, args) for peer in peers
        }
        for precision in precisions:
            own = precision.replace("fp32", "f32")
            makers["fixnorm", precision, None] = lambda own=own: Fixnorm(model, own, args)
        # In turns on a CPU; on a GPU what is warmed up keeps its memory.
        together = args.device == "cpu" or args.in_turns
        groups = [makers.items()] if together else [[maker] for maker in makers.items()]
        for group in groups:
            programs, found = {}, {}
            for name, make in group:
                try:
                    programs[name], found[name] = make(), []
                except (OSError, SystemExit) as error:
                    print(f"{model}: {name}: {error}", file=sys.stderr)
                    failed = True
            for round_ in range(args.rounds):
                for name, program in list(programs.items()):
                    try:
                        found[name].append(program.measure())
                    except (OSError, ValueError, subprocess.CalledProcessError) as error:
                        print(f"{model}: {name}: {error}", file=sys.stderr)
                        failed = True
                        del programs[name]
                print(f"{model}: round {round_ + 1} of {args.rounds}", file=sys.stderr)
            for (name, precision, mode), measured in found.items():
                if not measured:
                    continue
                batch = int(model.split(":")[1])
                speeds = [1e3 * batch / ms for ms, _ in measured]
                mode = mode or args.device
                if (name, precision, None) in programs:
                    mode = programs[name, precision, None].mode
                speeds = [f"{speed:.2f}" for speed in (statistics.median(speeds), min(speeds), max(speeds))]
                peak = max(mib or 0 for _, mib in measured)
                out.writerow([*model.split(":"), args.res, name, precision, mode, *speeds, len(measured), peak, *end])
            sys.stdout.flush()
            for program in programs.values():
                program.close()
    return failed


if __name__ == "__main__":
    sys.exit(main())
