"""Time of a training step on two hosts with one core each, and bytes between them: fixnorm over MPI beside PyTorch's DDP with gloo.

python benches/hosts/two_hosts.py --program target/release/fixnorm --out benches/results/two_hosts.csv
    [--model mobilenetv2_100] [--resolution 224] [--batch 16] [--steps 12] [--rounds 3] [--rate 1gbit] [--only fixnorm,ddp,…]

The hosts are network namespaces with names of their own, joined by a pair of virtual interfaces that a token bucket shapes at both
ends (needs root, and Debian's iproute2); `mpirun` starts the other host's rank through a script in the place of ssh. Each host has
one core, and half of the batch. `…-alone` is one process with half of the batch, on one core: what the network adds is the
difference. Programs take turns; a step's time is the median of the steps after the first three, the bytes are what one host's
interface sent. The link's limit is the time of the gradients' bytes, once in each direction.
The program is built by `cargo build --release -p fixnorm-cli --features mpi`; DDP needs: pip install torch timm.
"""

import argparse, csv, json, os, shutil, signal, statistics, subprocess, sys, tempfile, time
from pathlib import Path

ADDRESSES = ["10.204.0.1", "10.204.0.2"]

DDP = """
import os, sys, time, torch, timm
import torch.distributed as dist
model, resolution, batch, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(1)
torch.manual_seed(0)
net = timm.create_model(model, num_classes=1000)
if "RANK" in os.environ:
    dist.init_process_group("gloo")
    net = torch.nn.parallel.DistributedDataParallel(net, gradient_as_bucket_view=True)
optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
loss = torch.nn.CrossEntropyLoss()
x, y = torch.randn(batch, 3, resolution, resolution), torch.randint(1000, (batch,))
for _ in range(steps):
    optimizer.zero_grad(set_to_none=True)
    loss(net(x), y).backward()
    optimizer.step()
    print("step", flush=True)
"""

# Called by mpirun as ssh would be: the host's name, then a command for its shell.
AGENT = """#!/bin/sh
shift
exec ip netns exec {name} unshare --uts sh -c 'hostname "$0"; eval "$1"' {name} "$*"
"""


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)


class Hosts:
    """Two namespaces and the link between them."""

    def __init__(self, rate):
        self.names = [f"fixnorm-{os.getpid()}-host{host}" for host in range(2)]
        for name in self.names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", self.names[0], "link", "add", "link0", "type", "veth", "peer", "name", "link0", "netns", self.names[1])
        for name, address in zip(self.names, ADDRESSES):
            ip("-n", name, "address", "add", f"{address}/30", "dev", "link0")
            ip("-n", name, "link", "set", "link0", "up")
            shape = ["root", "tbf", "rate", rate, "burst", "128kb", "latency", "20ms"]
            subprocess.run(["tc", "-n", name, "qdisc", "add", "dev", "link0", *shape], check=True)

    def on(self, host):
        """What comes before a command, so that it runs on this host under the host's own name."""
        name = self.names[host]
        return ["ip", "netns", "exec", name, "unshare", "--uts", "sh", "-c", 'hostname "$0"; exec "$@"', name]

    def sent(self, host):
        """Bytes that this host has sent so far."""
        shown = subprocess.run([*self.on(host), "cat", "/sys/class/net/link0/statistics/tx_bytes"], capture_output=True)
        return int(shown.stdout)

    def end(self):
        for name in self.names:
            ip("netns", "delete", name)


class Fixnorm:
    def __init__(self, hosts, args, dir, is_alone):
        settings = [f"train.batch_size={args.batch // (2 if is_alone else 1)}", f"train.resolution={args.resolution}",
                    "log.every_steps=1", "eval.every_epochs=1000"]
        self.log = Path(dir) / "run/metrics.jsonl"
        command = [str(Path(args.program).resolve()), "train", "--model", args.model, "--out", str(self.log.parent),
                   "--data", f"synthetic:3x{args.resolution}x{args.resolution}", "--epochs", "8"]
        command += [part for setting in settings for part in ("--set", setting)]
        if is_alone:
            command = ["taskset", "-c", "0", *command]
        else:
            agent = Path(dir) / "agent"
            agent.write_text(AGENT.format(name=hosts.names[1]))
            agent.chmod(0o755)
            wrapper = ["sh", "-c", 'exec taskset -c "$OMPI_COMM_WORLD_RANK" "$0" "$@"']
            command = [*hosts.on(0), "mpirun", "--allow-run-as-root", "--bind-to", "none", "-n", "2",
                       "--host", ",".join(f"{address}:1" for address in ADDRESSES),
                       "--mca", "plm_rsh_agent", str(agent), "--mca", "btl", "tcp,self",
                       "--mca", "btl_tcp_if_include", "link0", "--mca", "oob_tcp_if_include", "link0",
                       *args.mca, *wrapper, *command]
        environment = {**os.environ, "FIXNORM_CACHE": f"{dir}/cache"}
        self.processes = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=open(f"{dir}/err", "w"),
                                           start_new_session=True)]
        self.errors = f"{dir}/err"

    def steps(self):
        """Steps taken so far."""
        if self.processes[0].poll() is not None:
            sys.exit(Path(self.errors).read_text())
        return self.log.read_bytes().count(b'"event":"step"') if self.log.exists() else 0


class Ddp:
    def __init__(self, hosts, args, dir, is_alone):
        options = [args.model, args.resolution, args.batch // 2, 10**9]
        self.processes, self.errors = [], f"{dir}/err"
        for rank in range(1 if is_alone else 2):
            command = ["taskset", "-c", str(rank), args.python, "-c", DDP, *map(str, options)]
            environment = dict(os.environ)
            if not is_alone:
                command = [*hosts.on(rank), *command]
                environment |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": ADDRESSES[0], "MASTER_PORT": "29400",
                                "GLOO_SOCKET_IFNAME": "link0"}
            self.processes.append(subprocess.Popen(command, env=environment, stdout=open(f"{dir}/{rank}", "w"),
                                                   stderr=open(self.errors, "a"), start_new_session=True))
        self.log = Path(dir) / "0"

    def steps(self):
        """Steps taken so far."""
        if any(process.poll() is not None for process in self.processes):
            sys.exit(Path(self.errors).read_text())
        return self.log.read_bytes().count(b"step\n")


def measure(kind, hosts, args):
    """Milliseconds of each step, and bytes that the first host sent in a step."""
    program, _, alone = kind.partition("-")
    with tempfile.TemporaryDirectory() as dir:
        job = {"fixnorm": Fixnorm, "ddp": Ddp}[program](hosts, args, dir, alone == "alone")
        times, sent, deadline = [], [], time.time() + 60 + 60 * args.steps
        try:
            while len(times) < 4 + args.steps:
                if (done := job.steps()) > len(times):
                    now = time.perf_counter()
                    times += [now] * (done - len(times))
                    sent += [0 if alone else hosts.sent(0)] * (done - len(sent))
                if time.time() > deadline:
                    sys.exit(f"{kind} takes too long: {Path(job.errors).read_text()}")
                time.sleep(0.002)
        finally:
            for process in job.processes:
                os.killpg(process.pid, signal.SIGKILL if program == "ddp" else signal.SIGTERM)
            for process in job.processes:
                process.wait()
    steps = [1e3 * (after - before) for before, after in zip(times[3:], times[4:])]
    return steps, (sent[-1] - sent[3]) / (len(sent) - 4)


def parameters(args):
    """Learned values of the model."""
    shown = subprocess.run([args.program, "--format", "json", "models"], check=True, capture_output=True, text=True).stdout
    return next(model["params"] for model in json.loads(shown) if model["name"] == args.model)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--out")
    parser.add_argument("--model", default="mobilenetv2_100")
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", default="1gbit")
    parser.add_argument("--only", default="fixnorm,ddp,fixnorm-alone,ddp-alone")
    parser.add_argument("--mca", nargs="*", default=[], help="further arguments of mpirun")
    args = parser.parse_args()
    megabytes = 4 * parameters(args) / 1e6
    # What is ended from outside ends its programs and hosts, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    hosts = Hosts(args.rate)
    try:
        for number in range(args.rounds):
            for kind in args.only.split(","):
                load = os.getloadavg()[0]
                steps, sent = measure(kind, hosts, args)
                row = {
                    "program": kind, "model": args.model, "resolution": args.resolution,
                    "images_a_host": args.batch // 2, "rate": args.rate, "round": number, "steps": len(steps),
                    "step_ms_median": round(statistics.median(steps), 1), "step_ms_least": round(min(steps), 1),
                    "step_ms_largest": round(max(steps), 1), "sent_mb_a_step": round(sent / 1e6, 2),
                    "gradient_mb": round(megabytes, 2), "load_before": round(load, 1),
                }
                print(row, flush=True)
                if not args.out:
                    continue
                is_new = not Path(args.out).exists()
                with open(args.out, "a", newline="") as file:
                    writer = csv.DictWriter(file, row.keys(), lineterminator="\n")
                    if is_new:
                        writer.writeheader()
                    writer.writerow(row)
    finally:
        hosts.end()


main()
