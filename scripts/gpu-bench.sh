#!/usr/bin/env bash
# What there is to see on a machine with a GPU: twenty steps beside the CPU's, speed beside PyTorch, one whole training.
#
#     scripts/gpu-bench.sh FIXNORM FASHION_MNIST OUT [DEVICE=cuda:0] [MODELS]
#
# FIXNORM is the command, built with the GPU's backend (`cargo build --release --features cuda`), FASHION_MNIST the
# directory of the four files. Builds nothing and needs no network; PyTorch's side needs python3 with torch and timm and is
# left out without. Writes OUT/steps.csv, OUT/train_step.csv, OUT/profile.csv (of the first model), OUT/fashion.csv, with a
# second GPU OUT/steps_devices.csv and OUT/devices.csv, and a log beside each. The first run takes as long as CubeCL takes to
# choose its kernels; what it chose stays in OUT/environment.
set -euo pipefail
fixnorm=$(realpath "${1:?the command fixnorm}")
data=$(realpath "${2:?the directory of Fashion-MNIST}")
mkdir -p "${3:?a directory for the results}"
out=$(realpath "$3")
device=${4:-cuda:0}
models=${5:-mobilenetv2_100:256,efficientnet_b0:256,resnet50:256}
peer=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../benches/peers/train_step.py")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# CubeCL reads its settings from the working directory.
cd "$scratch"
printf '[compilation]\ncache = true\n[environment]\npath = { directory = "%s/environment" }\n' "$out" >cubecl.toml
# A value of the last document.
field() { sed -n "s/^ *\"$1\": \"*\([^\",]*\).*/\1/p" "$scratch/json"; }

echo "== twenty steps of resnet8 on the CPU and on $device"
for run in cpu device; do
    on=$([ "$run" = cpu ] && echo cpu || echo "$device")
    "$fixnorm" train --model resnet8 --epochs 1 --device "$on" --out "$scratch/$run" --set train.batch_size=300 \
        --set optimizer.lr=0.05 --set log.every_steps=1 2>&1 | tee -a "$out/steps.log"
done
losses() { sed -n 's/.*"event":"step".*"loss":\([0-9.e-]*\).*/\1/p' "$scratch/$1/metrics.jsonl"; }
# compare RUN CSV: holds its losses against the CPU's.
compare() {
    paste -d, <(seq 0 19) <(losses cpu) <(losses "$1") | sed '1i step,cpu,device' >"$out/$2.csv"
    awk -F, 'NR > 1 { off = ($3 - $2) / $2; off = off < 0 ? -off : off; worst = off > worst ? off : worst }
             END { printf "largest difference of a loss: %.1e\n", worst; exit !(NR == 21 && worst <= 1e-3) }' "$out/$2.csv"
}
compare device steps

# The device after this one, where there is another of its kind; after a CPU comes the same one.
next=cpu
[ "$device" = cpu ] || next=${device%:*}:$((${device##*:} + 1))
if "$fixnorm" train --dry-run --devices "$device,$next" >/dev/null 2>&1; then
    echo "== the same twenty steps on $device and $next, normalized together; an epoch of Fashion-MNIST on one and on both"
    "$fixnorm" train --model resnet8 --epochs 1 --devices "$device,$next" --out "$scratch/devices" \
        --set train.sync_batch_norm=true --set train.batch_size=300 --set optimizer.lr=0.05 --set log.every_steps=1 \
        2>&1 | tee -a "$out/steps.log"
    compare devices steps_devices
    {
        echo "devices,val_top1,images_per_second,seconds"
        for devices in "$device" "$device,$next"; do
            "$fixnorm" --format json train --recipe fashion_resnet20 --data "fashion-mnist:$data" --epochs 1 --devices "$devices" \
                --out "$scratch/epoch-${devices//,/-}" >"$scratch/json" 2>>"$out/devices.log"
            echo "${devices/,/ },$(field val_top1),$(field images_per_second),$(field seconds)"
        done
    } | tee "$out/devices.csv"
fi

echo "== training steps, 224 px"
if python3 -c "import torch, timm" 2>/dev/null; then
    python3 "$peer" --device "$device" --fixnorm "$fixnorm" --models "$models" --steps 10 --rounds 3 \
        2>&1 >"$out/train_step.csv" | tee "$out/train_step.log"
else
    echo "model,batch,precision,device,images_per_second,device_mib" >"$out/train_step.csv"
    for model in ${models//,/ }; do
        for precision in f32 bf16; do
            "$fixnorm" --format json bench step --model "${model%:*}" --batch "${model#*:}" --precision "$precision" \
                --device "$device" >"$scratch/json" 2>>"$out/train_step.log"
            echo "${model%:*},${model#*:},$precision,$device,$(field images_per_second),$(field device_mib)"
        done
    done | tee -a "$out/train_step.csv"
fi

echo "== where the time goes"
first=${models%%,*}
cp cubecl.toml settings
printf '[profiling]\nlogger = { level = "basic", file = "%s/kernels" }\n' "$scratch" >>cubecl.toml
"$fixnorm" bench step --model "${first%:*}" --batch "${first#*:}" --precision bf16 --device "$device" --steps 3 \
    >"$out/profile.log" 2>&1
mv settings cubecl.toml
# Lines are `| 12.3µs | NAME`; each kernel's launches and milliseconds over five steps, two of them to warm up.
awk -F'|' 'NF >= 3 && $2 ~ /[0-9](s|ms|µs|ns) *$/ {
               time = $2 + 0; if ($2 ~ /µs/) time /= 1e3; else if ($2 ~ /ns/) time /= 1e6; else if ($2 !~ /ms/) time *= 1e3
               name = $3; gsub(/^ +| +$|,/, "", name); launches[name]++; ms[name] += time }
           END { for (name in ms) printf "%s,%d,%.3f\n", name, launches[name], ms[name] }' kernels |
    sort -t, -k3 -rn | sed '1i kernel,launches,ms' | tee "$out/profile.csv" | head -20

echo "== Fashion-MNIST, all of it"
"$fixnorm" --format json train --recipe fashion_resnet20 --data "fashion-mnist:$data" --device "$device" \
    --out "$scratch/fashion" >"$scratch/json" 2> >(tee "$out/fashion.log" >&2)
{
    echo "device,val_top1,test_top1,images_per_second,seconds"
    echo "$device,$(field val_top1),$(field test_top1),$(field images_per_second),$(field seconds)"
} | tee "$out/fashion.csv"
