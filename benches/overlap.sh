#!/usr/bin/env bash
# Shows that an epoch takes as long as the slower of loading and computing, not as their sum.
#
#     benches/overlap.sh DATA [EPOCHS=6] > benches/results/overlap.csv
#
# ResNet-8 at 48 px on DATA, say folder:photos, with one thread for computing. Pictures a second of loading alone (one
# worker), of training steps alone, and of the epochs after the first: loaded in the computing thread (`loader.workers` 0:
# the sum) and by a worker beside it (1: the maximum). Needs two cores and nothing but cargo.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
data=${1:?the data to train on, for example folder:photos}
epochs=${2:-6}

cargo build --release --quiet
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
end=$(git rev-parse --short=12 HEAD),$(nproc),$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)
export RAYON_NUM_THREADS=1
field() { sed -n "s/.*\"$1\": *\([0-9.e-]*\).*/\1/p"; }

echo "what,epoch,images_per_second,data_wait,commit,cores,cpu"
speed=$(target/release/fixnorm --format json bench data --data "$data" --res 48 --workers 1 --batch 32 | field images_per_second)
echo "loading,,$speed,,$end"
speed=$(target/release/fixnorm --format json bench step --model resnet8 --res 48 --batch 32 --threads 1 --steps 60 | field images_per_second)
echo "computing,,$speed,,$end"
for workers in 0 1; do
    target/release/fixnorm train --model resnet8 --data "$data" --epochs "$epochs" --out "$out/$workers" \
        --set train.resolution=48 --set train.batch_size=32 --set "loader.workers=$workers" >/dev/null 2>&1
    grep '"event":"epoch"' "$out/$workers/metrics.jsonl" | tail -n +2 | while read -r line; do
        echo "workers=$workers,$(field epoch <<<"$line"),$(field images_per_second <<<"$line"),$(field data_wait <<<"$line"),$end"
    done
done
