"""Replays Optuna's real samplers over tables of results, as crates/fixnorm-tune/examples/replay.rs does for ours.

    pip install optuna torch scipy
    python benches/peers/tune_replay.py [--trials 20] [--replays 200] [--offset 2] [--start LR,VALUE] TABLE.csv... > optuna.csv

A table has the columns lr or angle, alpha or wd, seed, val_top1 and optionally test_top1; `fixnorm tune --searcher grid
--export-csv` writes it. A trial draws one seed of the nearest cell; knobs are integers, the cell's indices, which is how
Optuna represents a grid. The choice is the best score seen. Regret, the noise between seeds, the target and the columns
are those of the Rust replay. A run that diverged is reported with the table's worst score, from which a model can learn;
if it is reported as failed (`--failed fail`), the samplers leave it out and try there again.

Tuners: TPE and GP-EI with 3 and with 10 (default) start-up trials; both with 3, after a first trial at the start that ours
gets (`--start` or the centre, moved by the same offsets); random. Optuna's GP sampler needs torch and scipy.
"""

import argparse
import csv
import math
import random
import sys
import warnings

import optuna

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


class Table:
    def __init__(self, path):
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        first = "angle" if "angle" in rows[0] else "lr"
        second = "alpha" if "alpha" in rows[0] else "wd"
        self.axes = [self.axis(rows, first), self.axis(rows, second)]
        self.cells = {}
        for row in rows:
            cell = self.index([float(row[first]), float(row[second])])
            run = [float(row[name]) if row.get(name) else None for name in ("val_top1", "test_top1")]
            self.cells.setdefault(cell, []).append(run)
        if len(self.cells) != len(self.axes[0]) * len(self.axes[1]):
            sys.exit(f"{path}: a cell without a run")
        self.worst = min(val for runs in self.cells.values() for val, _ in runs if val is not None)
        self.best_cell = max(self.cells, key=self.truth)
        self.noise = self.measure_noise()

    @staticmethod
    def axis(rows, name):
        values = []
        for value in sorted(math.log2(float(row[name])) for row in rows):
            if not values or value - values[-1] > 1e-3:
                values.append(value)
        return values

    def index(self, knobs):
        logs = [math.log2(knob) for knob in knobs]
        return tuple(min(range(len(axis)), key=lambda i: abs(axis[i] - x)) for axis, x in zip(self.axes, logs))

    def truth(self, cell):
        runs = self.cells[cell]
        return sum(self.worst if val is None else val for val, _ in runs) / len(runs)

    def test(self, cell):
        tests = [test for _, test in self.cells[cell]]
        return None if None in tests else sum(tests) / len(tests)

    def measure_noise(self):
        """Pooled over the better half of the cells in which no seed diverged."""
        spreads = []
        for runs in self.cells.values():
            scores = [val for val, _ in runs]
            if None in scores or len(scores) < 2:
                continue
            mean = sum(scores) / len(scores)
            spreads.append((mean, sum((score - mean) ** 2 for score in scores), len(scores) - 1))
        spreads.sort(reverse=True)
        spreads = spreads[: (len(spreads) + 1) // 2]
        freedom = sum(spread[2] for spread in spreads)
        return math.sqrt(sum(spread[1] for spread in spreads) / freedom) if freedom else self.roughness()

    def roughness(self):
        """With one seed per cell: from second differences along the axes, whose variance is six times a cell's."""
        found = []
        for i, j in self.cells:
            for di, dj in ((1, 0), (0, 1)):
                three = [self.cells.get((i + k * di, j + k * dj)) for k in range(3)]
                if None in three or any(val is None for runs in three for val, _ in runs):
                    continue
                a, b, c = (sum(val for val, _ in runs) / len(runs) for runs in three)
                found.append((min(a, b, c), (a - 2 * b + c) ** 2 / 6))
        found.sort(reverse=True)
        found = found[: (len(found) + 1) // 2]
        return math.sqrt(sum(square for _, square in found) / max(len(found), 1))


def sampler(name, seed):
    if name == "optuna-random":
        return optuna.samplers.RandomSampler(seed=seed)
    kind, startup = name.removeprefix("optuna-").split("-")
    startup = 3 if startup == "centre" else int(startup)
    if kind == "tpe":
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup)
    return optuna.samplers.GPSampler(seed=seed, n_startup_trials=startup, deterministic_objective=False)


def replay(table, name, trials, start, seed, draws, failed):
    study = optuna.create_study(direction="maximize", sampler=sampler(name, seed))
    if name.endswith("centre"):
        study.enqueue_trial({"first": start[0], "second": start[1]})
    best, chosen = None, []
    for _ in range(trials):
        trial = study.ask()
        cell = tuple(trial.suggest_int(key, 0, len(axis) - 1) for key, axis in zip(("first", "second"), table.axes))
        score = draws.choice(table.cells[cell])[0]
        if score is None and failed == "fail":
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        elif score is None:
            study.tell(trial, table.worst)
        else:
            study.tell(trial, score)
            if best is None or score > best[0]:
                best = (score, cell)
        chosen.append(best and best[1])
    return chosen


def bootstrap(values, draws, resamples=1000):
    n = len(values)
    means = sorted(sum(draws.choices(values, k=n)) / n for _ in range(resamples))
    return sum(values) / n, means[resamples // 40], means[resamples - 1 - resamples // 40]


def judge(path, table, name, options):
    least = min(table.truth(cell) for cell in table.cells)
    best, best_test = table.truth(table.best_cell), table.test(table.best_cell)
    regrets, tests, to_target, first_hit = [], [], [], []
    for number in range(options.replays):
        draws = random.Random(options.seed * 1_000_003 + number)
        start = []
        for axis, x in zip(table.axes, options.start or [(axis[0] + axis[-1]) / 2 for axis in table.axes]):
            x += options.offset * (2 * draws.random() - 1)
            start.append(min(range(len(axis)), key=lambda i: abs(axis[i] - x)))
        chosen = replay(table, name, options.trials, start, draws.randrange(2**31), draws, options.failed)
        regret = [best - (least if cell is None else table.truth(cell)) for cell in chosen]
        regrets.append(regret)
        tests.append([None if cell is None else table.test(cell) for cell in chosen])
        missed = [i for i, value in enumerate(regret) if value > table.noise]
        to_target.append(missed[-1] + 2 if missed else 1)
        hits = [i for i, value in enumerate(regret) if value <= table.noise]
        first_hit.append(hits[0] + 1 if hits else options.trials + 1)
    draws = random.Random(options.seed)
    target, first = bootstrap(to_target, draws), bootstrap(first_hit, draws)
    reached = sum(hit <= options.trials for hit in to_target) / options.replays
    for i in range(options.trials):
        regret = bootstrap([values[i] for values in regrets], draws)
        column = [values[i] for values in tests]
        test = "" if best_test is None or None in column else best_test - sum(column) / len(column)
        print(path, name, i + 1, *regret, *target, reached, options.trials, table.noise, test, *first, sep=",")


TUNERS = ["optuna-random", "optuna-tpe-3", "optuna-tpe-10", "optuna-gp-3", "optuna-gp-10", "optuna-tpe-centre", "optuna-gp-centre"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="+")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--replays", type=int, default=200)
    parser.add_argument("--offset", type=float, default=2.0, help="octaves by which each replay moves the start")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--failed", choices=["worst", "fail"], default="worst", help="how a diverged run is reported")
    parser.add_argument("--start", type=lambda text: [math.log2(float(x)) for x in text.split(",")])
    parser.add_argument("--tuners", nargs="+", default=TUNERS, choices=TUNERS)
    options = parser.parse_args()
    print("table,tuner,trials,regret,low,high,to_target,to_target_low,to_target_high,reached,used,noise,test_regret,first_hit,first_hit_low,first_hit_high")
    for path in options.tables:
        table = Table(path)
        for name in options.tuners:
            judge(path, table, name, options)
            sys.stdout.flush()


if __name__ == "__main__":
    main()
