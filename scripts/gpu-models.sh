#!/usr/bin/env bash
# Every model, two training steps and a validation beside the CPU's: few and small images, for what takes time is choosing
# kernels.
#
#     scripts/gpu-models.sh FIXNORM OUT [DEVICE=cuda:0] [MODELS=all]
#
# FIXNORM is the command, built with the GPU's backend; python3 makes the images. Writes OUT/models.csv, a line as soon as a model
# is done, and fails if a loss is off by more than 5e-3 of itself. Minutes a model the first time; what was chosen stays in
# OUT/environment.
#
# The CPU takes its blocks composed, as a GPU does. Deep in a net such images are single pixels, and a norm over sixteen of them
# makes so much of rounding that the CPU's own two ways differ by 4e-3 after a step of semnasnet_100.
set -euo pipefail
fixnorm=$(realpath "${1:?the command fixnorm}")
mkdir -p "${2:?a directory for the results}"
out=$(realpath "$2")
device=${3:-cuda:0}
models=${4:-$("$fixnorm" models | awk 'NR > 1 { print $1 }')}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
printf '[compilation]\ncache = true\n[environment]\npath = { directory = "%s/environment" }\n' "$out" >cubecl.toml
# 32 images of noise to train on, which make two steps, and 16 to validate.
python3 - <<'PYTHON'
import random, struct
from pathlib import Path

random.seed(0)
Path("images").mkdir()
for part, count in (("train", 48), ("t10k", 16)):
    for name, shape, limit in (("images-idx3", (count, 32, 32), 256), ("labels-idx1", (count,), 4)):
        size = count * 1024 if len(shape) > 1 else count
        values = bytes(random.randrange(limit) for _ in range(size))
        header = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)
        Path(f"images/{part}-{name}-ubyte").write_bytes(header + values)
PYTHON
csv=$out/models.csv
[ -f "$csv" ] || echo "model,device,train_loss_cpu,train_loss,val_loss_cpu,val_loss,off" >"$csv"
# The values of a run's last document.
losses() { sed -n "s/^ *\"\(train\|val\)_loss\": *\([^,]*\).*/\2/p" "$1" | paste -sd' '; }

for model in ${models//,/ }; do
    grep -q "^$model,$device," "$csv" && continue
    for run in cpu device; do
        on=$([ "$run" = cpu ] && echo cpu || echo "$device")
        FIXNORM_BLOCKS=$([ "$run" = cpu ] && echo composed || echo fused) \
            "$fixnorm" --format json train --model "$model" --data idx:images --epochs 1 --device "$on" \
            --out "$scratch/$model-$run" --set train.batch_size=16 --set optimizer.lr=0.002 \
            >"$scratch/$run.json" 2>>"$out/models.log"
    done
    read -r train_cpu val_cpu < <(losses "$scratch/cpu.json")
    read -r train val < <(losses "$scratch/device.json")
    awk -v OFS=, -v m="$model" -v d="$device" -v tc="$train_cpu" -v t="$train" -v vc="$val_cpu" -v v="$val" '
        function off(a, b) { return a > b ? (a - b) / a : (b - a) / a }
        BEGIN { worst = off(tc, t) > off(vc, v) ? off(tc, t) : off(vc, v)
                print m, d, tc, t, vc, v, sprintf("%.1e", worst); exit !(worst <= 5e-3) }' | tee -a "$csv"
done
