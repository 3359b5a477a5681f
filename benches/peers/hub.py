"""Directories for the Hugging Face hub, loaded by timm: the logits against the command's own.

    pip install torch timm pillow
    cargo build --release
    python benches/peers/hub.py [MODEL...]

For each model: `fixnorm train` takes 4 steps on noise (grey for one of them), `fixnorm export -o DIR/` writes the
directory, `timm.create_model("local-dir:DIR", pretrained=True)` loads it, and images go through timm's own transform of
that configuration. Prints the largest deviation of a logit from `fixnorm predict --logits`,
relative to the largest logit, and exits with 1 if one is above 1e-4 or the configuration disagrees with timm's model.
Images have the size that the weights are for; how images of other sizes are resized is tested elsewhere
(preprocessing_fixture.py).
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
# Model and channels of its images.
MODELS = [("efficientnet_b0", 3), ("mobilenetv2_100", 3), ("resnet50", 3), ("resnet18", 1), ("mobilenetv3_large_100", 3)]
SIDE = 32
TOLERANCE = 1e-4


def fixnorm(binary: Path, *arguments) -> str:
    command = [binary, "--format", "json", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout


def images(folder: Path, channels: int) -> list[Path]:
    rng = np.random.default_rng(2)
    paths = []
    for number in range(3):
        pixels = rng.integers(0, 256, (SIDE, SIDE, 3)[: 2 + (channels == 3)], dtype=np.uint8)
        paths.append(folder / f"{number}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


def check(model: str, channels: int, binary: Path, folder: Path) -> float:
    fixnorm(
        binary, "train", "--model", model, "--out", folder / "run", "--epochs", 1,
        "--data", f"synthetic:{channels}x{SIDE}x{SIDE}", "--set", "train.batch_size=512",
        "--set", "optimizer.lr=0.01", "--set", "schedule.warmup_epochs=0",
    )  # fmt: skip
    fixnorm(binary, "export", "--weights", folder / "run", "-o", f"{folder}/hub/")
    paths = images(folder, channels)
    own = json.loads(fixnorm(binary, "predict", "--logits", "--weights", folder / "hub", *paths))
    own = np.array([one["logits"] for one in own])

    net = timm.create_model(f"local-dir:{folder}/hub", pretrained=True).eval()
    written = json.loads((folder / "hub/config.json").read_text())
    assert net.num_classes == written["num_classes"] == own.shape[1]
    assert net.pretrained_cfg["first_conv"] == timm.get_pretrained_cfg(model).first_conv
    assert net.pretrained_cfg["classifier"] == timm.get_pretrained_cfg(model).classifier
    assert list(net.pretrained_cfg["label_names"]) == written["label_names"]
    # What goes into the last layer, also in models where timm's num_features is what comes out of the last stage.
    assert net.get_classifier().in_features == written["num_features"]
    data = timm.data.resolve_model_data_config(net)
    transform = timm.data.create_transform(**data, is_training=False)
    mode = "RGB" if channels == 3 else "L"
    x = torch.stack([transform(Image.open(path).convert(mode)) for path in paths])
    assert x.shape[1:] == (channels, SIDE, SIDE), x.shape
    with torch.inference_mode():
        theirs = net(x).numpy()
    return float(np.abs(theirs - own).max() / np.abs(own).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", help="of the list, by default all")
    parser.add_argument("--fixnorm", type=Path, default=ROOT / "target/release/fixnorm")
    args = parser.parse_args()
    failed = False
    for model, channels in MODELS:
        if args.models and model not in args.models:
            continue
        with tempfile.TemporaryDirectory() as folder:
            deviation = check(model, channels, args.fixnorm.resolve(), Path(folder))
            failed |= not deviation < TOLERANCE
            print(f"{model:24} {channels} channels  {deviation:.1e}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
