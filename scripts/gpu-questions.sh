#!/usr/bin/env bash
# What a faster way to train on NVIDIA's GPUs could be built of, in one call of at most nine minutes, from the bundle that
# `scripts/gpu-bench.sh pack` made.
#
#     scripts/gpu-questions.sh BUNDLE OUT
#
# Writes OUT/questions_{properties,depthwise,products,statistics}.csv and OUT/device.json by benches/peers/gpu_questions.py, which
# says what each is. Needs python3 with PyTorch for CUDA; `statistics` the package cudnn-frontend, too. Every part has a limit, and
# one that fails or runs past it is noted in OUT/failed.txt and ends no other. LIMIT (seconds of the whole) may be set. With
# DRY_RUN=1 it prints each part and executes none; with CHECK=1 it compiles the prototype, which needs no GPU.
set -uo pipefail
[ $# -ge 2 ] || { sed -n '5p' "${BASH_SOURCE[0]}" | sed 's/^# *//' >&2; exit 2; }
bundle=$(realpath "$1") out=$(realpath -m "$2")
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
question 30 properties
question 120 depthwise
question 120 products
question 120 statistics

[ -n "${DRY_RUN:-}" ] || [ ! -s "$out/failed.txt" ]
