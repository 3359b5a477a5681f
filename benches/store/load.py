"""Loads a study's store with many workers whose trials sleep, and compares SQLite, PostgreSQL and Optuna's RDB storage.

python benches/store/load.py --program target/release/examples/store_load --out benches/results/store_load.csv
    [--workers 16] [--trials 500] [--sleep 1.0] [--crashes 2] [--kills 8] [--cut 20] [--repeats 1] [--only sqlite,postgres,optuna]

A private server is made with initdb in a temporary directory (as nobody where this runs as root). With --crashes the server is
ended with `-m immediate` and started again that often; with --kills as many workers are killed at random and replaced; with
--cut no packet passes between server and workers for so many seconds: they are in network namespaces of their own, joined by a pair
of virtual interfaces, and a firewall drops everything (needs root, and Debian's iproute2 and iptables).
All workers are connected before the first one claims: seconds and rates are those of the store, and --sleep 0 loads nothing else.
The program is built by `cargo build --release -p fixnorm-tune --features postgres --example store_load`.
Needs PostgreSQL, and for Optuna: pip install optuna psycopg2-binary.
"""

import argparse, csv, os, random, shutil, socket, subprocess, sys, tempfile, threading, time
from pathlib import Path

# `optuna.create_study` in several processes at once fails where there are no tables yet: TRIALS = 0 makes them.
OPTUNA = """
import sys, time, optuna
optuna.logging.set_verbosity(optuna.logging.ERROR)
url, trials, sleep = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]) / 1e3
storage = optuna.storages.RDBStorage(url, heartbeat_interval=2, grace_period=5)
study = optuna.create_study(study_name="load", storage=storage, load_if_exists=True, direction="maximize",
                            sampler=optuna.samplers.RandomSampler())
if trials:
    print("ready", flush=True)
    sys.stdin.readline()
while trials:
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

SERVER_HOST, WORKER_HOST = "10.203.0.1", "10.203.0.2"


def tool(name):
    found = shutil.which(name) or next(iter(sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None)
    return str(found) if found else sys.exit(f"{name} not found: install PostgreSQL")


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)


class Network:
    """Two namespaces, one for the server and one for the workers; or none, where nothing is to be cut."""

    def __init__(self, is_wanted):
        self.server, self.workers, self.host = [], [], "127.0.0.1"
        if not is_wanted:
            return
        names = [f"fixnorm-{os.getpid()}-{part}" for part in ("server", "workers")]
        self.names, self.host = names, SERVER_HOST
        self.server, self.workers = (["ip", "netns", "exec", name] for name in names)
        for name in names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", names[0], "link", "add", "to-workers", "type", "veth", "peer", "name", "to-server", "netns", names[1])
        for name, link, host in ((names[0], "to-workers", SERVER_HOST), (names[1], "to-server", WORKER_HOST)):
            ip("-n", name, "address", "add", f"{host}/30", "dev", link)
            ip("-n", name, "link", "set", link, "up")

    def cut(self, seconds):
        for change in ("-A", "-D"):
            # Both ends drop what arrives, so that no side has an error: packets vanish.
            for command, link in ((self.server, "to-workers"), (self.workers, "to-server")):
                subprocess.run([*command, "iptables", change, "INPUT", "-i", link, "-j", "DROP"], check=True)
            time.sleep(seconds if change == "-A" else 0)

    def end(self):
        for name in self.names if self.server else []:
            ip("netns", "delete", name)


class Server:
    def __init__(self, network):
        self.dir = tempfile.mkdtemp()
        self.before, self.host = network.server, network.host
        if os.geteuid() == 0:
            os.chown(self.dir, 65534, 65534)
            self.before = [*self.before, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.data = f"{self.dir}/data"
        self.run("initdb", "--auth=trust", "--username=ann", "--encoding=UTF8", "--locale=C", "-D", self.data)
        with open(f"{self.data}/pg_hba.conf", "a") as file:
            file.write(f"host all all {self.host}/30 trust\n")
        self.start()

    def run(self, name, *arguments):
        subprocess.run([*self.before, tool(name), *arguments], check=True, stdout=subprocess.DEVNULL, cwd="/")

    def start(self):
        options = f"-p {self.port} -c listen_addresses={self.host} -c unix_socket_directories="
        self.run("pg_ctl", "-D", self.data, "-o", options, "-l", f"{self.dir}/log", "-w", "start")

    def crash(self, pause):
        self.run("pg_ctl", "-D", self.data, "-m", "immediate", "-w", "stop")
        time.sleep(pause)
        self.start()

    def stop(self):
        self.run("pg_ctl", "-D", self.data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(self.dir, ignore_errors=True)


class Load:
    """A study that workers carry out. Each is started again where it ends with an error."""

    def __init__(self, command, count):
        self.command, self.workers = command, [None] * count
        self.lines, self.restarts, self.lock = [], 0, threading.Lock()
        self.ready, self.go = threading.Barrier(count + 1), threading.Event()
        self.threads = [threading.Thread(target=self.watch, args=(slot,)) for slot in range(count)]

    def watch(self, slot):
        waits = True
        while True:
            process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                       stderr=subprocess.DEVNULL, text=True)
            self.workers[slot] = process
            for line in process.stdout:
                if line == "ready\n":
                    if waits:
                        self.ready.wait()
                        self.go.wait()
                        waits = False
                    # Its standard input ends.
                    process.stdin.close()
                else:
                    with self.lock:
                        self.lines.append(line.strip().split(","))
            if process.wait() == 0:
                return
            with self.lock:
                self.restarts += 1

    def carry_out(self, args, server, network):
        """Returns the seconds from the first claim to the end."""
        for thread in self.threads:
            thread.start()
        self.ready.wait()
        since = time.time()
        self.go.set()
        events = ["kill"] * args.kills
        if server:
            events += ["crash"] * args.crashes + ["cut"] * (args.cut > 0)
        random.Random(0).shuffle(events)
        expected = args.trials * max(args.sleep, 0.05) / args.workers
        for event in events:
            time.sleep(expected / (len(events) + 1))
            if event == "crash":
                server.crash(1.0)
            elif event == "cut":
                network.cut(args.cut)
            else:
                running = [worker for worker in self.workers if worker.poll() is None]
                if running:
                    random.choice(running).kill()
        for thread in self.threads:
            thread.join()
        return time.time() - since


def measure(store, args):
    """One run as a row."""
    has_server = store != "sqlite"
    cut = args.cut if has_server else 0
    network = Network(cut > 0)
    server = Server(network) if has_server else None
    with tempfile.TemporaryDirectory() as dir:
        place = f"{dir}/load.study"
        if has_server:
            place = f"postgres://ann@{server.host}:{server.port}/postgres/load"
        command = [*network.workers, args.program]
        if store == "optuna":
            place = f"postgresql+psycopg2://ann@{server.host}:{server.port}/postgres"
            command = [*network.workers, sys.executable, "-c", OPTUNA]
            subprocess.run([*command, place, "0", "0"], check=True)
        command.append(place)
        other_load = os.getloadavg()[0]
        load = Load([*command, str(args.trials), str(round(1e3 * args.sleep))], args.workers)
        seconds = load.carry_out(args, server, network)
        if store != "optuna":
            print(store, subprocess.run(command, capture_output=True, text=True).stdout.strip())
    if server:
        server.stop()
    network.end()
    counted = [int(line[0]) for line in load.lines if line[-1] == "true"]
    row = {
        "store": store, "workers": args.workers, "trials": args.trials, "sleep_s": args.sleep,
        "crashes": args.crashes if server else 0, "kills": args.kills, "cut_s": cut, "workers_started_again": load.restarts,
        "trials_counted": len(set(counted)), "counted_twice": len(counted) - len(set(counted)),
        "seconds": round(seconds, 1), "trials_per_s": round(len(counted) / seconds, 2),
    }
    for name, column in (("claim", 2), ("finish", 3)):
        times = sorted(float(line[column]) for line in load.lines)
        for label, share in (("median", 0.5), ("p95", 0.95), ("max", 1)):
            row[f"{name}_ms_{label}"] = round(times[min(len(times) - 1, int(share * len(times)))], 2)
    return {**row, "load_before": round(other_load, 1)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--out")
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--sleep", type=float, default=1.0)
    parser.add_argument("--crashes", type=int, default=0)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--cut", type=float, default=0)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--only", default="sqlite,postgres,optuna")
    args = parser.parse_args()
    for _ in range(args.repeats):
        for store in args.only.split(","):
            row = measure(store, args)
            print(row, flush=True)
            if not args.out:
                continue
            is_new = not Path(args.out).exists()
            with open(args.out, "a", newline="") as file:
                writer = csv.DictWriter(file, row.keys(), lineterminator="\n")
                if is_new:
                    writer.writeheader()
                writer.writerow(row)


main()
