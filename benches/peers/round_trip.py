"""Weights from timm through the command and back, and its ONNX file through two runtimes.

    pip install torch torchvision timm onnx onnxruntime
    cargo build --release
    python benches/peers/round_trip.py [MODEL...]

For each model: a timm net with random weights and lively running statistics is saved as a training
checkpoint (`state_dict`, `module.` before every name); `fixnorm train --init` takes 10 steps from it; the
result is exported as safetensors, which timm loads with strict=True, and as ONNX, which onnxruntime and
ONNX's reference evaluator run. Prints the largest deviation of a logit from the command's own, relative to
the largest logit, and exits with 1 if one is above 1e-4.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import timm
import torch
from onnx.reference import ReferenceEvaluator
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
MODELS = ["mobilenetv2_100", "efficientnet_b0", "resnet50"]
SIDE = 33  # odd, so that padding shows
STEPS = 10
TOLERANCE = 1e-4


def fixnorm(binary: Path, *arguments) -> str:
    command = [binary, "--format", "json", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout


def timm_checkpoint(model: str, path: Path) -> None:
    torch.manual_seed(1)
    net = timm.create_model(model, pretrained=False).train()
    with torch.no_grad():
        for _ in range(3):
            net(torch.randn(8, 3, 64, 64) * 0.7 + 0.2)
    state = {f"module.{name}": tensor for name, tensor in net.state_dict().items()}
    torch.save({"epoch": 1, "state_dict": state}, path)


def pictures(folder: Path, count: int = 4) -> list[Path]:
    rng = np.random.default_rng(2)
    paths = [folder / f"{i}.png" for i in range(count)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(path)
    return paths


def check(model: str, binary: Path, folder: Path) -> dict[str, float]:
    timm_checkpoint(model, folder / "start.pth")
    # 2,048 pictures of noise in batches of 204 are 10 steps.
    fixnorm(
        binary, "train", "--model", model, "--init", folder / "start.pth", "--out", folder / "run",
        "--data", f"synthetic:3x{SIDE}x{SIDE}", "--epochs", 1, "--set", "train.batch_size=204",
        "--set", "optimizer.radius=init", "--set", "optimizer.lr=0.01", "--set", "optimizer.step_rule=raw", "--set", "head.control=free",
    )  # fmt: skip
    result = json.loads((folder / "run/result.json").read_text())
    assert result["steps"] == STEPS, result
    for name in ("out.safetensors", "out.onnx"):
        fixnorm(binary, "export", "--weights", folder / "run", "-o", folder / name)

    paths = pictures(folder)
    said = fixnorm(binary, "predict", "--logits", "--weights", folder / "out.safetensors", *paths)
    own = np.array([one["logits"] for one in json.loads(said)])
    with safe_open(folder / "out.safetensors", "pt") as file:
        about = json.loads(json.loads(file.metadata()["fixnorm"])["about"])
    stacked = np.stack([np.asarray(Image.open(path)) for path in paths]).astype(np.float32) / 255
    x = (stacked - np.float32(about["mean"])) / np.float32(about["std"])
    x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))

    net = timm.create_model(model, pretrained=False).eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    state = load_file(folder / "out.safetensors")
    assert list(sorted(state)) == list(sorted(before))
    net.load_state_dict(state, strict=True)
    with torch.inference_mode():
        theirs = net(torch.from_numpy(x)).numpy()

    graph = onnx.load(folder / "out.onnx")
    onnx.checker.check_model(graph, full_check=True)
    session = onnxruntime.InferenceSession(folder / "out.onnx", providers=["CPUExecutionProvider"])
    reference = ReferenceEvaluator(graph)
    # The number of pictures is open: all at once, and the first alone.
    one = session.run(None, {"pictures": x[:1]})[0]
    found = {
        "timm": theirs,
        "onnxruntime": session.run(None, {"pictures": x})[0],
        "onnxruntime, one picture": np.concatenate([one, own[1:]]),
        "onnx.reference": reference.run(None, {"pictures": x})[0],
    }
    return {name: float(np.abs(logits - own).max() / np.abs(own).max()) for name, logits in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--fixnorm", type=Path, default=ROOT / "target/release/fixnorm")
    args = parser.parse_args()
    failed = False
    for model in args.models:
        with tempfile.TemporaryDirectory() as folder:
            for name, deviation in check(model, args.fixnorm.resolve(), Path(folder)).items():
                failed |= not deviation < TOLERANCE
                print(f"{model:18} {name:25} {deviation:.1e}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
