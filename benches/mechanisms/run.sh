#!/usr/bin/env bash
# Takes weight decay apart on full Fashion-MNIST: the table and the report of docs/mechanisms.md.
#
#     benches/mechanisms/run.sh FASHION_MNIST DIR [WORKERS=2]
#
# Runs go to DIR/resnet8 and are gone on with if they are there; the tables go to benches/results/mechanisms, the page to
# DIR/resnet8.html. One thread a run, WORKERS runs side by side: over an hour on two cores. Needs cargo and Python.
#
# The settings are those of two studies of eight trials each, which a tuning of one's own makes anew:
#
#     fixnorm tune --recipe benches/mechanisms/resnet8.toml --trials 8 --study alpha.study
#     fixnorm tune --recipe benches/mechanisms/resnet8_wd.toml --set optimizer.weight_decay=1e-3 --trials 8 --study wd.study
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

dissect() {
    "$fixnorm" dissect --recipe benches/mechanisms/resnet8.toml --set "data=fashion-mnist:$data" --seeds 5 \
        --wd-lr 0.19278 --wd 5.9e-4 --out "$dir/resnet8"
}
jobs=()
for worker in $(seq "$workers"); do
    dissect >/dev/null 2>>"$dir/worker-$worker.log" &
    jobs+=($!)
done
for job in "${jobs[@]}"; do wait "$job"; done
# All runs are there: this one collects them.
dissect >/dev/null 2>>"$dir/worker-1.log"
python3 benches/mechanisms/summary.py "$dir/resnet8/dissection.json" "$results/resnet8.csv"
"$fixnorm" report "$dir/resnet8" -o "$dir/resnet8.html" --plots "$dir/plots"
