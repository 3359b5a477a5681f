"""Loads a study's store with many workers whose trials sleep, and compares SQLite, PostgreSQL and Optuna's RDB storage.

python benches/store/load.py --program target/release/examples/store_load --out benches/results/store_load.csv
    [--workers 16] [--trials 500] [--sleep 1.0] [--crashes 2] [--kills 8] [--only sqlite,postgres,optuna]

A private server is made with initdb in a temporary directory (as nobody where this runs as root). With --crashes the server is
ended with `-m immediate` and started again that often; with --kills as many workers are killed at random and replaced.
The program is built by `cargo build --release -p fixnorm-tune --features postgres --example store_load`.
Needs PostgreSQL, and for Optuna: pip install optuna psycopg2-binary.
"""

import argparse, csv, os, random, shutil, socket, subprocess, sys, tempfile, threading, time
from pathlib import Path

OPTUNA = """
import sys, time, optuna
optuna.logging.set_verbosity(optuna.logging.ERROR)
url, trials, sleep = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
storage = optuna.storages.RDBStorage(url, heartbeat_interval=2, grace_period=5)
study = optuna.create_study(study_name="load", storage=storage, load_if_exists=True, direction="maximize",
                            sampler=optuna.samplers.RandomSampler())
while True:
    since = time.perf_counter()
    trial = study.ask({"lr": optuna.distributions.FloatDistribution(0.01, 1, log=True),
                       "alpha": optuna.distributions.FloatDistribution(0.25, 16, log=True)})
    claim = time.perf_counter() - since
    if trial.number >= trials:
        break
    time.sleep(sleep)
    since = time.perf_counter()
    study.tell(trial, 0.5)
    print(f"{trial.number},1,{1e3 * claim:.3f},{1e3 * (time.perf_counter() - since):.3f},true", flush=True)
"""


def tool(name):
    found = shutil.which(name) or next(iter(sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None)
    return str(found) if found else sys.exit(f"{name} not found: install PostgreSQL")


class Server:
    def __init__(self):
        self.dir = tempfile.mkdtemp()
        self.as_user = []
        if os.geteuid() == 0:
            os.chown(self.dir, 65534, 65534)
            self.as_user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.data = f"{self.dir}/data"
        self.run("initdb", "--auth=trust", "--username=ann", "--encoding=UTF8", "--locale=C", "-D", self.data)
        self.start()

    def run(self, name, *arguments):
        subprocess.run([*self.as_user, tool(name), *arguments], check=True, stdout=subprocess.DEVNULL, cwd="/")

    def start(self):
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        self.run("pg_ctl", "-D", self.data, "-o", options, "-l", f"{self.dir}/log", "-w", "start")

    def crash(self, pause):
        self.run("pg_ctl", "-D", self.data, "-m", "immediate", "-w", "stop")
        time.sleep(pause)
        self.start()

    def stop(self):
        self.run("pg_ctl", "-D", self.data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(self.dir, ignore_errors=True)


def load(command, args, server):
    """Carries a study out; returns its lines, seconds, and how often a worker had to be started again."""
    lines, lock, restarts = [], threading.Lock(), [0]
    workers = [None] * args.workers

    def watch(slot):
        while True:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            workers[slot] = process
            for line in process.stdout:
                with lock:
                    lines.append(line.strip().split(","))
            if process.wait() == 0:
                return
            restarts[0] += 1

    since = time.time()
    threads = [threading.Thread(target=watch, args=(slot,)) for slot in range(args.workers)]
    for thread in threads:
        thread.start()
    crashes, kills = (args.crashes if server else 0), args.kills
    expected = args.trials * max(args.sleep, 0.05) / args.workers
    events = ["crash"] * crashes + ["kill"] * kills
    random.Random(0).shuffle(events)
    for event in events:
        time.sleep(expected / (len(events) + 1))
        if event == "crash":
            server.crash(1.0)
        else:
            running = [worker for worker in workers if worker and worker.poll() is None]
            if running:
                random.choice(running).kill()
    for thread in threads:
        thread.join()
    return lines, time.time() - since, restarts[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--out")
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--sleep", type=float, default=1.0)
    parser.add_argument("--crashes", type=int, default=0)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--only", default="sqlite,postgres,optuna")
    args = parser.parse_args()
    rows = []
    for store in args.only.split(","):
        server = Server() if store != "sqlite" else None
        with tempfile.TemporaryDirectory() as dir:
            place = f"{dir}/load.study" if store == "sqlite" else f"postgres://ann@127.0.0.1:{server.port}/postgres/load"
            command = [args.program, place, str(args.trials), str(round(1e3 * args.sleep))]
            if store == "optuna":
                url = f"postgresql+psycopg2://ann@127.0.0.1:{server.port}/postgres"
                command = [sys.executable, "-c", OPTUNA, url, str(args.trials), str(args.sleep)]
            lines, seconds, restarts = load(command, args, server)
            if store != "optuna":
                print(store, subprocess.run([args.program, place], capture_output=True, text=True).stdout.strip())
        if server:
            server.stop()
        counted = [int(line[0]) for line in lines if line[-1] == "true"]
        claims = sorted(float(line[2]) for line in lines)
        at = lambda share: claims[min(len(claims) - 1, int(share * len(claims)))] if claims else float("nan")
        rows.append({
            "store": store, "workers": args.workers, "trials": args.trials, "sleep_s": args.sleep,
            "crashes": args.crashes if server else 0, "kills": args.kills, "workers_started_again": restarts,
            "trials_counted": len(set(counted)), "counted_twice": len(counted) - len(set(counted)),
            "seconds": round(seconds, 1), "trials_per_s": round(len(counted) / seconds, 2),
            "claim_ms_median": round(at(0.5), 2), "claim_ms_p95": round(at(0.95), 2), "claim_ms_max": round(at(1), 2),
        })
        print(rows[-1], flush=True)
    if args.out:
        is_new = not Path(args.out).exists()
        with open(args.out, "a", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            if is_new:
                writer.writeheader()
            writer.writerows(rows)


main()
