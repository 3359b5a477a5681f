#!/usr/bin/env bash
# What a faster way to train on NVIDIA's GPUs could be built of, in one call of at most nine minutes, from the bundle that
# `scripts/gpu-bench.sh pack` made.
#
#     scripts/gpu-questions.sh BUNDLE OUT [DEVICE=cuda:0]
#
# Writes OUT/questions_{properties,depthwise,products,statistics}.csv and OUT/device.json by benches/peers/gpu_questions.py, which
# says what each is, and OUT/tables.csv: a step of a model with each routine for its products that FIXNORM_TUNE can choose, how many
# products it has, and how many of them another kernel took because the routine could not.
# Needs python3 with PyTorch for CUDA; `statistics` the package cudnn-frontend, too. Every part has a limit, and one that
# fails or runs past it is noted in OUT/failed.txt and ends no other. LIMIT (seconds of the whole) and MODEL (MODEL:BATCH) may be set.
# With DRY_RUN=1 it prints each part and executes none; with CHECK=1 it compiles the prototype, which needs no GPU.
set -uo pipefail
[ $# -ge 2 ] || { sed -n '5p' "${BASH_SOURCE[0]}" | sed 's/^# *//' >&2; exit 2; }
bundle=$(realpath "$1") out=$(realpath -m "$2") device=${3:-cuda:0}
model=${MODEL:-mobilenetv2_100:256}
end=$((SECONDS + ${LIMIT:-540}))
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit
[ -n "${DRY_RUN:-}" ] || mkdir -p "$out"

# part SECONDS NAME FILE COMMAND…: a command's output as a file, within these seconds and those that are left.
part() {
    local most=$1 name=$2 file=$3 left=$((end - SECONDS)) status=0
    shift 3
    [ "$most" -le "$left" ] || most=$left
    echo "== $name ($most s)" >&2
    if [ -n "${DRY_RUN:-}" ]; then
        echo "   $* >$file" >&2
        return
    fi
    if [ "$most" -le 0 ]; then status=124; else timeout -k 5 "$most" "$@" >"$out/$file" 2>>"$out/log.txt" || status=$?; fi
    [ "$status" -eq 0 ] || echo "$name: exit code $status" | tee -a "$out/failed.txt" >&2
}

question() {
    part "$1" "$2" "questions_$2.csv" python3 "$bundle/gpu_questions.py" "$2" --out "$out" ${CHECK:+--check}
}

if [ -n "${CHECK:-}" ]; then
    question 540 depthwise
    exit
fi
question 20 properties
question 60 depthwise
question 70 products
question 70 statistics

if [ -z "${DRY_RUN:-}" ]; then
    xz -dc "$bundle/fixnorm.xz" >fixnorm
    chmod +x fixnorm
    echo "kind,routine,first_step_ms,step_ms,products,replaced" >"$out/tables.csv"
fi
printf '[compilation]\ncache = true\n[environment]\npath = { directory = "%s/environment" }\n' "$scratch" >cubecl.toml

# table SECONDS KIND ROUTINE [FIXNORM_TUNE=…]: a step, and how many of its products another kernel took than the one asked for.
table() {
    local most=$1 kind=$2 routine=$3 json=$out/step.json
    part "$most" "$kind=$routine" step.json env "${@:4}" ./fixnorm --format json bench step --model "${model%:*}" \
        --batch "${model#*:}" --precision bf16 --device "$device" --steps 5 --profile
    [ -z "${DRY_RUN:-}" ] || return
    field() { sed -n "s/^ *\"$1\": \([0-9.]*\).*/\1/p" "$json" | head -1; }
    # Kernels without tensor cores are what replaces a routine that the device lacks or that has no place for a product's sizes.
    products() { awk -v of="$1" '/"name"/ { is = $0 ~ of } /"launches"/ && is { sum += $2; is = 0 } END { print sum + 0 }' "$json"; }
    echo "$kind,$routine,$(field first_step_ms),$(field step_ms),$(products 'Matmul'),$(products 'Matmul.*(UnitPartitioner|Naive)|NaiveMatmul')" |
        tee -a "$out/tables.csv" >&2
    rm -f "$json"
}

# The first one compiles the kernels that all have in common.
table 60 all default
for kind in images weights; do
    for routine in simple-cmma simple-mma simple-mma-rows double-cmma double-mma tma-mma specialized-mma; do
        table 18 "$kind" "$routine" FIXNORM_TUNE="$kind=$routine"
    done
done
[ -n "${DRY_RUN:-}" ] || [ ! -s "$out/failed.txt" ]
