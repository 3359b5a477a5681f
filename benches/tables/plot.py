"""Regret against trials, from replays: a panel each, as one SVG on stdout.

    python benches/tables/plot.py REPLAY.csv… > docs/regret.svg
"""

import csv
import math
import sys
from collections import defaultdict
from pathlib import Path

# Tuners that stand for the rest, with colours that can be told apart by the colour-blind; shades are 95 % intervals.
TUNERS = {
    "two-knob": "#d55e00",
    "gp-centre": "#0072b2",
    "optuna-gp-3": "#56b4e9",
    "optuna-tpe-3": "#009e73",
    "halton": "#cc79a7",
    "random": "#777777",
}
WIDTH, HEIGHT, LEFT, TOP = 330, 210, 52, 34
LOW, HIGH, TRIALS = 0.001, 0.1, 20


def x(trials):
    return (trials - 1) / (TRIALS - 1) * (WIDTH - LEFT - 12)


def y(regret):
    share = math.log(max(regret, LOW) / HIGH) / math.log(LOW / HIGH)
    return min(max(share, 0), 1) * (HEIGHT - TOP - 34)


def points(rows, key):
    return " ".join(f"{x(int(row['trials'])):.1f},{y(float(row[key])):.1f}" for row in rows)


def panel(path, left, top):
    tuners = defaultdict(list)
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            tuners[row["tuner"]].append(row)
    name = Path(path).stem.removeprefix("replay_")
    net, space = name.split("_", 1)
    net, space = net.replace("resnet", "ResNet-"), space.replace("_", " × ").replace("alpha", "α")
    out = [f'<g transform="translate({left + LEFT},{top + TOP})">', f'<text y="-12">{net}, {space}</text>']
    for regret in (0.001, 0.003, 0.01, 0.03, 0.1):
        out.append(f'<path class="grid" d="M0 {y(regret):.1f}H{x(TRIALS)}"/>')
        out.append(f'<text x="-6" y="{y(regret) + 4:.1f}" text-anchor="end">{regret}</text>')
    for trials in (1, 5, 10, 15, 20):
        out.append(f'<text x="{x(trials):.1f}" y="{y(LOW) + 16:.1f}" text-anchor="middle">{trials}</text>')
    out.append(f'<text x="{x(10.5):.1f}" y="{y(LOW) + 30:.1f}" text-anchor="middle">trials</text>')
    for tuner, colour in reversed(TUNERS.items()):
        rows = tuners[tuner]
        band = points(rows, "low") + " " + points(rows[::-1], "high")
        out.append(f'<polygon points="{band}" fill="{colour}" opacity="0.12"/>')
        width = 2.5 if tuner == "two-knob" else 1.5
        out.append(f'<polyline points="{points(rows, "regret")}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
    return out + ["</g>"]


def main(paths):
    rows = (len(paths) + 1) // 2
    width, height = 2 * WIDTH, rows * HEIGHT + 30
    print(f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">')
    print("<title>Regret in accuracy against trials, of six tuners in replays of full tables</title>")
    print("<style>text{font:11px sans-serif;fill:#222}.grid{stroke:#ddd}</style>")
    print(f'<rect width="{width}" height="{height}" fill="#fff"/>')
    for i, path in enumerate(paths):
        print("\n".join(panel(path, i % 2 * WIDTH, i // 2 * HEIGHT)))
    for i, (tuner, colour) in enumerate(TUNERS.items()):
        left, top = 24 + i * 106, height - 14
        print(f'<path d="M{left} {top}h18" stroke="{colour}" stroke-width="3"/>')
        print(f'<text x="{left + 23}" y="{top + 4}">{tuner}</text>')
    print("</svg>")


if __name__ == "__main__":
    main(sys.argv[1:])
