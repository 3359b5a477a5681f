#!/usr/bin/env bash
# Trains the default recipe with several seeds in each precision and writes a line for each run.
#
#     benches/default_recipe.sh [SEEDS=5] > benches/results/default_recipe.csv
#
# Needs nothing but cargo; the pictures are embedded. Accuracies are fractions of 1,000 pictures.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo build --release --quiet
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
commit=$(git rev-parse --short=12 HEAD)
cpu=$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)
field() { sed -n "s/^ *\"$1\": \([0-9.e-]*\),*$/\1/p" "$2"; }

echo "precision,seed,val_top1,val_loss,test_top1,images_per_second,seconds,commit,cores,cpu"
for seed in $(seq 0 $((${1:-5} - 1))); do
    for precision in f32 bf16; do
        target/release/fixnorm train --seed "$seed" --set "train.precision=$precision" \
            --out "$out/$precision-$seed" --format json >"$out/json" 2>/dev/null
        line=$precision,$seed
        for key in val_top1 val_loss test_top1 images_per_second seconds; do
            line+=,$(field "$key" "$out/json")
        done
        echo "$line,$commit,$(nproc),$cpu"
    done
done
