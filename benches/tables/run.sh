#!/usr/bin/env bash
# Makes the four tables of docs/tuning.md: both spaces of two nets, every cell trained with several seeds.
#
#     benches/tables/run.sh DIR [WORKERS=2]
#
# Studies go to DIR and are gone on with if they are there; tables go to benches/results/tables. One thread a run, WORKERS
# runs side by side: about four hours on two cores. Needs DIR/fashion-12k (subset.py) and cargo.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
dir=$(realpath "${1:?the directory for the studies}")
workers=${2:-2}
fixnorm=${FIXNORM:-target/release/fixnorm}
[ -n "${FIXNORM:-}" ] || cargo build --release --quiet
results=benches/results/tables
mkdir -p "$results"
export RAYON_NUM_THREADS=1

# table NAME RECIPE SEEDS FLAG…
table() {
    local name=$1 recipe=benches/tables/$2.toml seeds=$3 jobs=()
    shift 3
    for _ in $(seq "$workers"); do
        "$fixnorm" tune --searcher grid --recipe "$recipe" --seeds "$seeds" --study "$dir/$name.study" "$@" >/dev/null 2>>"$dir/$name.log" &
        jobs+=($!)
    done
    for job in "${jobs[@]}"; do wait "$job"; done
    "$fixnorm" tune --show --study "$dir/$name.study" --export-csv "$results/$name.csv" >/dev/null
}

large=(--set "data=idx:$dir/fashion-12k")
table resnet8_lr_alpha resnet8 3 --lr 0.0125:3.2:9 --alpha 0.25:16:7
table resnet8_lr_wd resnet8_wd 3 --space lr-wd --lr 0.0125:3.2:9 --wd 2.5e-4:1.6e-2:7
table resnet20_lr_alpha resnet20 2 "${large[@]}" --lr 0.00625:1.6:9 --alpha 0.5:8:5
table resnet20_lr_wd resnet20_wd 2 "${large[@]}" --space lr-wd --lr 0.0125:0.8:7 --wd 5e-4:8e-3:5
