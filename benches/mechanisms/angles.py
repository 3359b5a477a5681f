"""Angles by which scale-invariant weights turn a step, median over layers, at some steps of runs of a dissection.

    python benches/mechanisms/angles.py RUN…
"""

import json
import sys
from statistics import median

STEPS = (0, 10, 40, 100, 200, 400, 600, 800)
for run in sys.argv[1:]:
    found = {}
    with open(f"{run}/metrics.jsonl") as file:
        for event in map(json.loads, file):
            if event["event"] == "measure":
                layers = [layer for layer in event["layers"] if layer["role"] == "scale_invariant"]
                found[event["step"]] = median(layer["angular_update"] for layer in layers)
    near = [min(found, key=lambda at: abs(at - step)) for step in STEPS]
    print(run, ", ".join(f"step {step}: {found[step]:.4f}" for step in near))
