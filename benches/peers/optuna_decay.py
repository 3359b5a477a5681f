#!/usr/bin/env python3
"""What weight decay reaches in PyTorch when Optuna tunes it: 20 trials of (lr, decay), then ten other seeds on the test set.

    python benches/peers/optuna_decay.py [--trials 20] [--seeds 10] [--settings NAME...] > benches/results/angle/optuna_decay.csv
    python benches/peers/optuna_decay.py --summary benches/results/angle/optuna_decay.csv benches/results/angle/law.csv

ResNet-8 on the embedded images (`crates/fixnorm-data/assets`), SGD with momentum 0.9 on a cosine, label smoothing 0.1, shift and mirror, as the
recipe's defaults have it, in the two settings of SETTINGS. The trials are TPE's, with Optuna's defaults, on validation accuracy with seed 0;
the best one is trained again with the seeds 10, 11, … A line for each run, trials with the part `trial`. One thread. Needs torch and optuna.
`--summary` prints the test accuracy of these seeds, and how far the law's point is ahead on the same seeds (95 % t-interval; needs scipy).
"""
import argparse
import csv
import math
import statistics
import subprocess
import sys

import optuna
import torch
from torch.nn import functional as F

from fashion_resnet20 import ROOT, ResNet, batch, read_idx

SETTINGS = {"resnet8_e1": (1, 64), "resnet8_e4": (4, 64)}
LR, DECAY = (0.01, 2.0), (1e-5, 0.05)


def part(name):
    found = [ROOT / f"crates/fixnorm-data/assets/fashion-mnist-mini/{name}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1")]
    return read_idx(found[0]), read_idx(found[1]).long()


def accuracy(model, images, labels):
    model.eval()
    with torch.no_grad():
        x = images.float().div(255).sub(0.286).div(0.353).unsqueeze(1).to(memory_format=torch.channels_last)
        return (model(x).argmax(1) == labels).double().mean().item()


def train(data, epochs, size, lr, decay, seed):
    """Validation and test accuracy; 0 for a run whose loss is not finite."""
    torch.manual_seed(seed)
    model = ResNet(blocks=1).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=decay)
    steps = len(data["train"][0]) // size
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 0.5 * (1 + math.cos(math.pi * t / (epochs * steps))))
    for _ in range(epochs):
        for index in torch.randperm(len(data["train"][0]))[: steps * size].view(steps, size):
            x, y = batch(*data["train"], index)
            loss = F.cross_entropy(model(x), y, label_smoothing=0.1)
            if not loss.isfinite():
                return 0.0, 0.0
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    return accuracy(model, *data["val"]), accuracy(model, *data["test"])


def summary(results, law):
    from scipy.stats import t

    with open(results, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["part"] == "best"]
    with open(law, newline="") as file:
        ours = {(row["block"], row["seed"]): float(row["test_top1"]) for row in csv.DictReader(file)}
    for setting in SETTINGS:
        theirs = {row["seed"]: float(row["test_top1"]) for row in rows if row["setting"] == setting}
        ahead = [ours[f"{setting}_law", seed] - value for seed, value in theirs.items()]
        mean, half = statistics.mean(ahead), t.ppf(0.975, len(ahead) - 1) * statistics.stdev(ahead) / len(ahead) ** 0.5
        values = list(theirs.values())
        print(f"{setting}: test {statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}, n = {len(values)}; "
              f"the law's point {mean:+.4f} ({mean - half:+.4f} to {mean + half:+.4f})")  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--summary", nargs=2, metavar=("RESULTS", "LAW"))
    args = parser.parse_args()
    if args.summary:
        return summary(*args.summary)
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    data = {name: part(name) for name in ("train", "val", "test")}
    commit = subprocess.run(["git", "rev-parse", "--short=7", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    out = csv.writer(sys.stdout)
    out.writerow("setting part lr wd seed val_top1 test_top1 torch optuna commit".split())

    def run(setting, kind, lr, decay, seed):
        val, test = train(data, *SETTINGS[setting], lr, decay, seed)
        row = [setting, kind, f"{lr:.5g}", f"{decay:.3g}", seed, f"{val:.4f}", f"{test:.4f}", torch.__version__, optuna.__version__, commit]
        out.writerow(row)
        sys.stdout.flush()
        return val

    for setting in args.settings:
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
        study.optimize(
            lambda trial: run(
                setting, "trial", trial.suggest_float("lr", *LR, log=True), trial.suggest_float("wd", *DECAY, log=True), 0
            ),
            n_trials=args.trials,
        )
        for seed in range(10, 10 + args.seeds):
            run(setting, "best", study.best_params["lr"], study.best_params["wd"], seed)


if __name__ == "__main__":
    main()
