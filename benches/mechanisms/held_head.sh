#!/usr/bin/env bash
# The control beside the arms of ShuffleNet V2: weight decay with the head held at FixNorm's α, at both learning rates.
#
#     benches/mechanisms/held_head.sh FASHION_MNIST DIR > benches/results/mechanisms/shufflenet_wd_held_head.csv
#
# Runs go to DIR, which has none yet. Needs `cargo build --release` and Python.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
data=$(realpath "${1:?the directory of Fashion-MNIST}")
dir=${2:?the directory for the runs}
fixnorm=${FIXNORM:-target/release/fixnorm}
export RAYON_NUM_THREADS=1

echo arm,seed,val_top1,test_top1
for lr in 0.05256 0.14865; do
    for seed in 0 1 2 3 4; do
        "$fixnorm" --format json train --recipe benches/mechanisms/shufflenet_wd.toml --set "data=fashion-mnist:$data" \
            --set "optimizer.lr=$lr" --set head.control=fixed --set head.alpha=0.30132 --seed "$seed" --out "$dir/$lr-$seed" |
            python3 -c 'import json, sys; run = json.load(sys.stdin); print(*sys.argv[1:], run["val_top1"], run["test_top1"], sep=",")' \
                "wd_held_head_$lr" "$seed"
    done
done
