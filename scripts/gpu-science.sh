#!/usr/bin/env bash
# The dense tables of docs/tuning.md and the ablation of docs/mechanisms.md at a larger scale than a CPU allows: all of
# Fashion-MNIST, more epochs, more seeds, a wider net.
#
#     scripts/gpu-science.sh FIXNORM FASHION_MNIST OUT [DEVICE=cuda:0] [WORKERS=4]
#
# FIXNORM is the command, built with the GPU's backend, FASHION_MNIST the directory of the four files; builds nothing, needs no
# network. WORKERS runs share the GPU. Each net of NETS is tuned in both spaces, taken apart at what was found, and trained at
# every cell of both tables. Studies and runs lie in OUT and are gone on with if they are there, so it may be stopped at any
# time; OUT/NET_arms.csv, OUT/NET_lr_alpha.csv and OUT/NET_lr_wd.csv are what it is for.
set -euo pipefail
fixnorm=$(realpath "${1:?the command fixnorm}")
fashion=$(realpath "${2:?the directory of Fashion-MNIST}")
mkdir -p "${3:?a directory for the results}"
out=$(realpath "$3")
device=${4:-cuda:0}
workers=${5:-4}
nets=${NETS:-resnet20,resnet18}
data=${DATA:-fashion-mnist:$fashion}
epochs=${EPOCHS:-10} trials=${TRIALS:-16} seeds=${SEEDS:-10} cell_seeds=${CELL_SEEDS:-3}
# shellcheck disable=SC2034 # `${!kind}` reads them.
lr=${LR:-0.0125:3.2:9} alpha=${ALPHA:-0.25:16:7} wd=${WD:-2.5e-4:1.6e-2:7}
summary=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../benches/mechanisms/summary.py")
cd "$out"
[ "$device" = cpu ] && export RAYON_NUM_THREADS=1
# What CubeCL's tuner finds stays beside the results.
printf '[compilation]\ncache = true\n[environment]\npath = { directory = "%s/environment" }\n' "$out" >cubecl.toml

# The recipe of a net, with held norms or with weight decay.
recipe() {
    printf 'model = "%s"\ndata = "%s"\n[train]\nepochs = %d\nbatch_size = 64\n' "$1" "$data" "$epochs"
    if [ "$2" = wd ]; then
        printf '[optimizer]\nconstraint = "free"\nweight_decay = 1e-3\n[head]\ncontrol = "free"\n'
    fi
}

# together LOG COMMAND…: by WORKERS processes that divide the runs.
together() {
    local log=$1 jobs=()
    shift
    for _ in $(seq "$workers"); do
        "$@" >/dev/null 2>>"$log" &
        jobs+=($!)
    done
    for job in "${jobs[@]}"; do wait "$job"; done
}

# The value of a key in a recipe's section.
setting() { sed -n "/^\[$2\]/,/^\[/s/^$3 = //p" "$1"; }

for net in ${nets//,/ }; do
    for kind in alpha wd; do
        recipe "$net" "$kind" >"${net}_$kind.toml"
        space=(--recipe "${net}_$kind.toml" --device "$device")
        [ "$kind" = wd ] && space+=(--space lr-wd)
        cells=(--lr "$lr" "--$kind" "${!kind}")
        together "$net-$kind-tuned.log" "$fixnorm" tune "${space[@]}" --trials "$trials" --parallel "$workers" \
            --study "$net-$kind-tuned.study"
        "$fixnorm" tune --show --study "$net-$kind-tuned.study" -o "$net-$kind-tuned.toml" >/dev/null
        together "$net-$kind-table.log" "$fixnorm" tune "${space[@]}" --searcher grid "${cells[@]}" --seeds "$cell_seeds" \
            --study "$net-$kind-table.study"
        "$fixnorm" tune --show --study "$net-$kind-table.study" --export-csv "${net}_lr_$kind.csv" >/dev/null
    done
    arms=("$fixnorm" dissect --recipe "$net-alpha-tuned.toml" --seeds "$seeds" --device "$device" --out "$net-arms"
        --wd-lr "$(setting "$net-wd-tuned.toml" optimizer lr)" --wd "$(setting "$net-wd-tuned.toml" optimizer weight_decay)")
    together "$net-arms.log" "${arms[@]}"
    # All runs are there: this one collects them.
    "${arms[@]}" >/dev/null 2>>"$net-arms.log"
    python3 "$summary" "$net-arms/dissection.json" "${net}_arms.csv" | tee "${net}_arms.md"
    "$fixnorm" report "$net-arms" -o "$net-arms.html"
done
