"""fixnorm's input pipeline and torchvision's, in turns on the same images: appends to benches/results/data.csv.

    pip install torch torchvision
    cargo build --release
    python benches/peers/data.py TREE [--rounds 5] [--seconds 10] [--workers 2]

TREE holds train/CLASS/*.jpg, as benches/peers/photo_tree.py makes it. Programs: torchvision, torchvision with Pillow's
draft mode (decoding at a smaller scale), fixnorm, and fixnorm with exact decoding. A row gives the median, slowest and
fastest of the rounds, and the median of the rounds' ratios to torchvision, which other load on the machine changes
least; `load` is the system's load average before the first round.
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
RESULTS = ROOT / "benches/results/data.csv"
# What fixnorm's pipeline is changed by. Two operations a picture each, as torchvision's RandAugment has.
PIPELINES = {
    "crop": [],
    "rand": ["auto_augment=rand-m9-n2-p1-inc1"],
    "auto": ["auto_augment=imagenet"],
}
PROGRAMS = ("torchvision", "torchvision with draft", "fixnorm", "fixnorm exact")
FIELDS = (
    "tree,pipeline,program,images_per_second,slowest,fastest,ratio,rounds,peak_rss_mib,workers,load,commit,cores,cpu"
).split(",")


def run(command: list) -> dict:
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tree", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pipelines", nargs="+", choices=PIPELINES, default=list(PIPELINES))
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument("--fixnorm", type=Path, default=ROOT / "target/release/fixnorm")
    args = parser.parse_args()
    commit = subprocess.run(
        ["git", "-C", ROOT, "rev-parse", "--short=12", "HEAD"], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()
    shared = [f"--workers={args.workers}", f"--seconds={args.seconds}"]
    rows, load = [], f"{os.getloadavg()[0]:.1f}"
    for pipeline in args.pipelines:
        own = [args.fixnorm, "bench", "data", "--format", "json", f"--data=folder:{args.tree}", *shared]
        own += [f"--pipeline={change}" for change in PIPELINES[pipeline]]
        peer = [sys.executable, ROOT / "benches/peers/torch_data.py", args.tree / "train", *shared]
        peer += [f"--pipeline={pipeline}"]
        commands = dict(zip(PROGRAMS, (peer, [*peer, "--draft"], own, [*own, "--pipeline=exact_decode=true"])))
        reports = {program: [] for program in args.programs}
        for _ in range(args.rounds):
            for program in args.programs:
                reports[program].append(run(commands[program]))
        speeds = {name: [report["images_per_second"] for report in own] for name, own in reports.items()}
        for program, own in speeds.items():
            ratio = statistics.median(mine / theirs for mine, theirs in zip(own, speeds[args.programs[0]]))
            said = reports[program][0].get("program", program)
            rows.append(
                {
                    "tree": args.tree.name,
                    "pipeline": pipeline,
                    "program": said,
                    "images_per_second": f"{statistics.median(own):.1f}",
                    "slowest": f"{min(own):.1f}",
                    "fastest": f"{max(own):.1f}",
                    "ratio": f"{ratio:.2f}",
                    "rounds": args.rounds,
                    "peak_rss_mib": reports[program][0].get("peak_rss_mib", ""),
                    "workers": args.workers,
                    "load": load,
                    "commit": commit,
                    "cores": os.cpu_count(),
                    "cpu": cpu(),
                }
            )
            print(f"{pipeline}, {said}: {statistics.median(own):.1f} images/s, {ratio:.2f}x", file=sys.stderr)
    new = not RESULTS.exists()
    with RESULTS.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
