"""Peer for the input pipeline: torchvision's ImageFolder, pictures a second as a training loop receives them.

    pip install torch torchvision
    python benches/peers/torch_data.py TREE/train [--workers 2] [--seconds 20] [--pipeline crop|rand|auto] [--draft]

`crop` is a random resized crop to 224 pixels, a flip and normalization; `rand` adds RandAugment and `auto`
AutoAugment's policy for ImageNet, both bilinear, as in torchvision's reference scripts. Batches of 64. The first
epoch, which starts the workers and fills the file cache, is not measured. With `--draft`, Pillow decodes at the smallest
scale at which the crop, which is drawn first, still has as many pixels as it is resized to. Prints one JSON object.
"""

import argparse
import json
import time

import torch
import torchvision
from PIL import Image
from torchvision import datasets
from torchvision import transforms as T

BILINEAR = T.InterpolationMode.BILINEAR
POLICIES = {
    "crop": [],
    "rand": [T.RandAugment(interpolation=BILINEAR)],
    "auto": [T.AutoAugment(interpolation=BILINEAR)],
}


class DraftedCrop(T.RandomResizedCrop):
    """A random resized crop of a file, decoded no larger than the crop needs."""

    def forward(self, image):
        top, left, height, width = self.get_params(image, self.scale, self.ratio)
        whole, (small_height, small_width) = image.size, self.size
        # Of the whole, so that the crop is at least as large as it is to become.
        image.draft("RGB", (whole[0] * small_width // width, whole[1] * small_height // height))
        x, y = image.size[0] / whole[0], image.size[1] / whole[1]
        box = (left * x, top * y, (left + width) * x, (top + height) * y)
        return image.convert("RGB").resize((small_width, small_height), Image.BILINEAR, box=box)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tree")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--pipeline", choices=POLICIES, default="crop")
    parser.add_argument("--draft", action="store_true", help="decode at a smaller scale where that is enough")
    args = parser.parse_args()
    normalize = T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    crop = DraftedCrop(224) if args.draft else T.RandomResizedCrop(224)
    steps = [crop, T.RandomHorizontalFlip(), *POLICIES[args.pipeline], T.ToTensor(), normalize]
    opened = {"loader": Image.open} if args.draft else {}
    loader = torch.utils.data.DataLoader(
        datasets.ImageFolder(args.tree, T.Compose(steps), **opened),
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
        "program": f"torchvision {torchvision.__version__}{' with draft' if args.draft else ''}",
        "pipeline": args.pipeline,
        "workers": args.workers,
        "pictures": pictures,
        "images_per_second": pictures / seconds,
        "seconds": seconds,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
