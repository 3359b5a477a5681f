"""What timm's evaluation transform makes of pictures, for crates/fixnorm-data/tests/preprocessing.rs.

    python benches/peers/preprocessing_fixture.py

writes crates/fixnorm-data/tests/fixtures/preprocessing.json. Pictures come from a formula that the test
has too. Of each the fixture holds the bytes after resizing and cropping (RGB, row by row, in hex) and the
first values of the normalized tensor, in the order height, width, channel.

Needs numpy, pillow, torch, torchvision and timm.
"""

import json
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from timm.data import create_transform

OUT = Path(__file__).resolve().parents[2] / "crates/fixnorm-data/tests/fixtures/preprocessing.json"

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
INCEPTION = ([0.5] * 3, [0.5] * 3)

# Height, width and channels of the picture; side of the crop; crop ratio; interpolation; mean and std.
CASES = [
    ((37, 53, 3), 16, 0.875, "bilinear", IMAGENET),
    ((37, 53, 3), 16, 0.875, "bicubic", IMAGENET),
    ((53, 37, 3), 16, 0.95, "bicubic", IMAGENET),
    ((200, 90, 3), 15, 0.875, "bilinear", INCEPTION),
    ((90, 201, 3), 15, 0.875, "bicubic", INCEPTION),
    ((9, 7, 3), 16, 0.875, "bicubic", IMAGENET),
    ((9, 7, 3), 16, 1.0, "bilinear", IMAGENET),
    ((41, 40, 1), 12, 0.875, "bicubic", IMAGENET),
    ((41, 40, 4), 12, 0.95, "bilinear", IMAGENET),
    ((16, 16, 3), 16, 1.0, "bicubic", IMAGENET),
]


def picture(height: int, width: int, channels: int) -> Image.Image:
    i = np.arange(height * width * channels, dtype=np.uint64)
    y, x, c = i // channels // width, i // channels % width, i % channels
    ramp = (x * 3 + y * 2 + c * 40) % 256
    noise = (i * 2654435761) % 2**32 >> 26
    pixels = ((ramp + noise) % 256).astype(np.uint8).reshape(height, width, channels)
    return Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)


def case(size, side, crop_ratio, interpolation, normalization) -> dict:
    mean, std = normalization
    transform = create_transform(
        (3, side, side), crop_pct=crop_ratio, interpolation=interpolation, mean=mean, std=std
    )
    tensor = transform(picture(*size).convert("RGB")).permute(1, 2, 0)
    pixels = (tensor * torch.tensor(std) + torch.tensor(mean)) * 255
    assert (pixels - pixels.round()).abs().max() < 1e-3
    return {
        "image": size,
        "side": side,
        "crop_ratio": crop_ratio,
        "interpolation": interpolation,
        "mean": mean,
        "std": std,
        "pixels": bytes(pixels.round().to(torch.uint8).flatten().tolist()).hex(),
        "first_values": [round(value, 7) for value in tensor.flatten()[:12].tolist()],
    }


def main() -> None:
    import PIL

    document = {
        "made_with": f"timm {timm.__version__}, Pillow {PIL.__version__}",
        "cases": [case(*arguments) for arguments in CASES],
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(document, separators=(",", ":")) + "\n")
    print(f"{OUT}: {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
