"""What `log.measure_every_steps = 50` costs: pictures a second with and without, pairs in turns, as CSV on stdout.

    python benches/measuring.py > benches/results/measuring.csv

Nothing else may run. Needs `cargo build --release`.
"""

import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

FIXNORM = Path(__file__).resolve().parents[1] / "target/release/fixnorm"
lines = csv.writer(sys.stdout, lineterminator="\n")
lines.writerow("model pair off every_50 median_ratio".split())


def speed(model, epochs, every):
    with tempfile.TemporaryDirectory() as out:
        command = [FIXNORM, "--format", "json", "train", "--model", model, "--data", "fashion-mnist-mini"]
        command += ["--epochs", str(epochs), "--set", f"log.measure_every_steps={every}"]
        command += ["--set", "train.batch_size=64", "--out", f"{out}/run"]
        run = subprocess.run(command, check=True, capture_output=True, text=True)
        return json.loads(run.stdout)["images_per_second"]


for model, epochs in (("resnet8", 4), ("shufflenet_v2_x1_0", 2)):
    pairs = []
    for pair in range(5):
        order = (0, 50) if pair % 2 == 0 else (50, 0)
        found = {every: speed(model, epochs, every) for every in order}
        pairs.append((found[0], found[50]))
    ratio = median(on / off for off, on in pairs)
    for pair, (off, on) in enumerate(pairs):
        lines.writerow([model, pair, f"{off:.0f}", f"{on:.0f}", f"{ratio:.3f}"])
