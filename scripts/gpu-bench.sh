#!/usr/bin/env bash
# Speed on a GPU beside PyTorch, in one call of at most nine minutes that finds everything it needs in one folder.
#
#     scripts/gpu-bench.sh pack FIXNORM BUNDLE              on the machine that builds
#     scripts/gpu-bench.sh run BUNDLE OUT [DEVICE=cuda:0]   on the machine with the GPU
#
# FIXNORM is the command, built with the GPU's backend (`cargo build --release --features cuda`). `pack` strips and compresses it and
# fails if the bundle has more than 64 MiB. `run` builds nothing and needs no network; the comparison needs python3 with torch and
# timm. Every part has a limit, and one that fails or runs past it is noted in OUT/failed.txt and ends no other.
# Writes, as soon as a part is done:
#
#     OUT/device.csv       the GPU, its driver, the programs' versions
#     OUT/steps.csv        twenty losses of resnet8 beside the CPU's
#     OUT/train_step.csv   images a second and memory in bf16, batch 256, 224 px: ours, PyTorch eager and compiled, in turns
#     OUT/first_step.csv   seconds to the first step, launches a step, with nothing kept from earlier runs
#     OUT/profile.csv      each kernel's launches and milliseconds a step
#
# MODELS (MODEL:BATCH,…), ROUNDS and LIMIT (seconds of the whole) may be set. With DRY_RUN=1 `run` prints each part and executes none.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
limit_mib=64

usage() {
    sed -n '2,6p' "${BASH_SOURCE[0]}" | sed 's/^# \{0,1\}//' >&2
    exit 2
}

pack() {
    set -e
    local command=$1 bundle=$2
    mkdir -p "$bundle"
    cp "$command" "$bundle/fixnorm"
    strip "$bundle/fixnorm"
    xz -T0 -f "$bundle/fixnorm"
    cp "${BASH_SOURCE[0]}" "$here/gpu-questions.sh" "$here"/../benches/peers/{train_step,torch_step,gpu_questions}.py "$bundle/"
    git -C "$here" rev-parse --short=12 HEAD >"$bundle/commit"
    local mib=$(($(du -sk "$bundle" | cut -f1) / 1024 + 1))
    echo "$bundle: $mib MiB of $limit_mib"
    [ "$mib" -le "$limit_mib" ]
}

# part SECONDS NAME COMMAND…: runs a command within these seconds and those that are left.
part() {
    local most=$1 name=$2 left=$((end - SECONDS))
    shift 2
    [ "$most" -le "$left" ] || most=$left
    echo "== $name ($most s)" >&2
    if [ -n "${DRY_RUN:-}" ]; then
        echo "   $*" >&2
        return 0
    fi
    local status=0
    if [ "$most" -le 0 ]; then status=124; else timeout -k 5 "$most" "$@" || status=$?; fi
    [ "$status" -eq 0 ] || echo "$name: exit code $status" | tee -a "$out/failed.txt" >&2
    return 0
}

# The parts, each run as `bash gpu-bench.sh part-NAME`.
part_device() {
    echo "gpu,driver,cuda,torch,fixnorm,commit"
    local gpu torch
    gpu=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | head -1 | sed 's/, /,/') || true
    torch=$(python3 -c 'import torch; print(torch.version.cuda, torch.__version__, sep=",")' 2>/dev/null) || torch=,
    echo "${gpu:-,},$torch,$("$fixnorm" --version | cut -d' ' -f2),$(cat "$bundle/commit")"
}

part_steps() {
    local run on
    for run in cpu device; do
        on=$([ "$run" = cpu ] && echo cpu || echo "$device")
        "$fixnorm" train --model resnet8 --epochs 1 --device "$on" --out "$scratch/$run" --set train.batch_size=300 \
            --set optimizer.lr=0.05 --set log.every_steps=1 >/dev/null 2>>"$out/log.txt" || return
    done
    losses() { sed -n 's/.*"event":"step".*"loss":\([0-9.e-]*\).*/\1/p' "$scratch/$1/metrics.jsonl"; }
    paste -d, <(seq 0 19) <(losses cpu) <(losses device) | sed '1i step,cpu,device' >"$out/steps.csv"
    awk -F, 'NR > 1 { off = ($3 - $2) / $2; off = off < 0 ? -off : off; worst = off > worst ? off : worst }
             END { printf "largest difference of a loss: %.1e\n", worst; exit !(NR == 21 && worst <= 1e-3) }' "$out/steps.csv" >&2
}

# bench_step MODEL:BATCH OPTION…
bench_step() {
    local model=$1
    shift
    "$fixnorm" --format json bench step --model "${model%:*}" --batch "${model#*:}" --precision bf16 --device "$device" "$@" 2>>"$out/log.txt"
}

part_first_step() {
    local json
    json=$(bench_step "$1" --steps 2) || return
    field() { sed -n "s/^ *\"$1\": \([0-9.]*\).*/\1/p" <<<"$json" | head -1; }
    echo "$1,$(field first_step_ms),$(field first_step_kernels),$(field launches),$(field step_ms)" | tee -a "$out/first_step.csv" >&2
}

part_profile() {
    bench_step "$1" --steps 2 --profile >"$scratch/profile.json" || return
    # Entries of `kernels`, which come before any `profile`.
    awk -v model="$1" '/"kernels": \[/ { inside = 1 } /"profile": \[/ { inside = 0 }
        inside && /"name"/ { name = $0; sub(/^[^:]*: "/, "", name); sub(/",?$/, "", name); gsub(/,/, ";", name) }
        inside && /"launches"/ { launches = $2 + 0 }
        inside && /"ms"/ { printf "%s,%s,%d,%.4f\n", model, name, launches, $2 }' "$scratch/profile.json" >>"$out/profile.csv"
}

part_train_step() {
    python3 "$bundle/train_step.py" --fixnorm "$fixnorm" --device "$device" --models "$1" --precisions bf16 --in-turns \
        --steps 10 --rounds "$rounds" >"$scratch/train_step.csv" 2>>"$out/log.txt"
    local status=$?
    [ -s "$out/train_step.csv" ] || head -1 "$scratch/train_step.csv" >"$out/train_step.csv"
    tail -n +2 "$scratch/train_step.csv" | tee -a "$out/train_step.csv" >&2
    return $status
}

run() {
    end=$((SECONDS + ${LIMIT:-540}))
    if [ -z "${DRY_RUN:-}" ]; then
        mkdir -p "$out"
        xz -dc "$bundle/fixnorm.xz" >"$scratch/fixnorm"
        chmod +x "$scratch/fixnorm"
        echo "model,first_step_ms,first_step_kernels,launches,step_ms" >"$out/first_step.csv"
        echo "model,kernel,launches,ms" >"$out/profile.csv"
    fi
    local me="$bundle/gpu-bench.sh" model
    # shellcheck disable=SC2016 # The inner shell expands its own arguments.
    part 20 device bash -c 'bash "$1" part-device >"$2/device.csv"' - "$me" "$out"
    part 90 steps bash "$me" part-steps
    for model in ${models//,/ }; do part 60 "first step of $model" bash "$me" part-first_step "$model"; done
    for model in ${models//,/ }; do part 150 "speed of $model" bash "$me" part-train_step "$model"; done
    for model in ${models//,/ }; do part 40 "profile of $model" bash "$me" part-profile "$model"; done
    [ -n "${DRY_RUN:-}" ] || [ ! -s "$out/failed.txt" ]
}

models=${MODELS:-mobilenetv2_100:256,resnet50:256,efficientnet_b0:256}
rounds=${ROUNDS:-2}
case "${1:-}" in
    pack) [ $# -eq 3 ] || usage; pack "$2" "$3" ;;
    run)
        [ $# -ge 3 ] || usage
        bundle=$(realpath "$2") out=$(realpath -m "$3") device=${4:-cuda:0}
        scratch=$(mktemp -d)
        trap 'rm -rf "$scratch"' EXIT
        fixnorm=$scratch/fixnorm
        export bundle out device scratch fixnorm
        # CubeCL reads its settings from the working directory.
        cd "$scratch"
        printf '[compilation]\ncache = true\n[environment]\npath = { directory = "%s/environment" }\n' "$scratch" >cubecl.toml
        run
        ;;
    part-*) "part_${1#part-}" "${@:2}" ;;
    *) usage ;;
esac
