"""Peer for the input pipeline: torchvision's ImageFolder, pictures a second as a training loop receives them.

    pip install torch torchvision
    python benches/peers/torch_data.py TREE/train [--workers 2] [--seconds 20] [--pipeline crop|rand|auto]

`crop` is a random resized crop to 224 pixels, a flip and normalization; `rand` adds RandAugment and `auto`
AutoAugment's policy for ImageNet, both bilinear, as in torchvision's reference scripts. Batches of 64. The first
epoch, which starts the workers and fills the file cache, is not measured. Prints one JSON object.
"""

import argparse
import json
import time

import torch
import torchvision
from torchvision import datasets
from torchvision import transforms as T

BILINEAR = T.InterpolationMode.BILINEAR
POLICIES = {
    "crop": [],
    "rand": [T.RandAugment(interpolation=BILINEAR)],
    "auto": [T.AutoAugment(interpolation=BILINEAR)],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tree")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--pipeline", choices=POLICIES, default="crop")
    args = parser.parse_args()
    normalize = T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    steps = [T.RandomResizedCrop(224), T.RandomHorizontalFlip(), *POLICIES[args.pipeline], T.ToTensor(), normalize]
    loader = torch.utils.data.DataLoader(
        datasets.ImageFolder(args.tree, T.Compose(steps)),
        batch_size=64,
        shuffle=True,
        num_workers=args.workers,
        persistent_workers=args.workers > 0,
    )
    for _ in loader:
        pass
    pictures, start = 0, time.time()
    while time.time() - start < args.seconds:
        for x, _ in loader:
            pictures += len(x)
    seconds = time.time() - start
    report = {
        "program": f"torchvision {torchvision.__version__}",
        "pipeline": args.pipeline,
        "workers": args.workers,
        "pictures": pictures,
        "images_per_second": pictures / seconds,
        "seconds": seconds,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
