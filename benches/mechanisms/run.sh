#!/usr/bin/env bash
# Takes weight decay apart on full Fashion-MNIST: the table and the report of docs/mechanisms.md.
#
#     benches/mechanisms/run.sh FASHION_MNIST DIR [WORKERS=2]
#
# Runs go to DIR/NET and are gone on with if they are there; the tables go to benches/results/mechanisms, the pages to
# DIR/NET.html. One thread a run, WORKERS runs side by side: over two hours on two cores. Needs cargo and Python.
#
# The settings are those of two studies of eight trials a net, which a tuning of one's own makes anew:
#
#     fixnorm tune --recipe benches/mechanisms/NET.toml --trials 8 --study alpha.study
#     fixnorm tune --recipe benches/mechanisms/NET_wd.toml --set optimizer.weight_decay=1e-3 --trials 8 --study wd.study
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
data=$(realpath "${1:?the directory of Fashion-MNIST}")
mkdir -p "${2:?the directory for the runs}"
dir=$(realpath "$2")
workers=${3:-2}
fixnorm=${FIXNORM:-target/release/fixnorm}
[ -n "${FIXNORM:-}" ] || cargo build --release --quiet
results=benches/results/mechanisms
mkdir -p "$results"
export RAYON_NUM_THREADS=1

# dissect NET FLAG…: all arms, by WORKERS processes that divide the runs
dissect() {
    local net=$1 jobs=()
    shift
    local command=("$fixnorm" dissect --recipe "benches/mechanisms/$net.toml" --set "data=fashion-mnist:$data" --seeds 5)
    command+=("$@" --out "$dir/$net")
    for worker in $(seq "$workers"); do
        "${command[@]}" >/dev/null 2>>"$dir/$net-$worker.log" &
        jobs+=($!)
    done
    for job in "${jobs[@]}"; do wait "$job"; done
    # All runs are there: this one collects them.
    "${command[@]}" >/dev/null 2>>"$dir/$net-1.log"
    python3 benches/mechanisms/summary.py "$dir/$net/dissection.json" "$results/$net.csv"
    "$fixnorm" report "$dir/$net" -o "$dir/$net.html" --plots "$dir/$net-plots"
}

dissect resnet8 --wd-lr 0.19278 --wd 5.9e-4
dissect shufflenet --wd-lr 0.05256 --wd 1e-3
