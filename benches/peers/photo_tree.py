"""Make a tree of photographs to measure loading with: OUT/{train,val}/CLASS/NAME.jpg, a class a photograph.

    pip install scikit-image scikit-learn pillow numpy
    python benches/peers/photo_tree.py OUT                                   # as ImageNet's: 500 x 375, 86 KiB
    python benches/peers/photo_tree.py OUT --size 4000x3000 --noise 5 --quality 90 --per-class 16   # as a phone's

An image is a random crop of a photograph that scikit-image or scikit-learn ships, resized to the size or, one in four,
to its upright form, and saved as a baseline JPEG with 4:2:0 chroma. Noise as of a sensor is added before: without
it an enlarged crop would compress far too well. The same arguments give the same pixels.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_images

NAMES = ("astronaut", "coffee", "chelsea", "rocket", "immunohistochemistry", "retina")


def photographs():
    for name in NAMES:
        try:
            yield name, Image.fromarray(getattr(data, name)()).convert("RGB")
        except Exception:  # one that this version does not ship
            continue
    for path, pixels in zip(("china", "flower"), load_sample_images().images):
        yield path, Image.fromarray(pixels)


def noisy(image: Image.Image, deviation: float, rng: np.random.Generator) -> Image.Image:
    pixels = np.asarray(image, np.float32)
    pixels = pixels + deviation * rng.standard_normal(pixels.shape, np.float32)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", default="500x375", help="width x height of three in four images")
    parser.add_argument("--noise", type=float, default=7, help="standard deviation, of 255")
    parser.add_argument("--quality", type=int, default=94)
    parser.add_argument("--per-class", type=int, default=120, help="training images; validation has a sixth more")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    width, height = (int(side) for side in args.size.split("x"))
    rng = np.random.default_rng(args.seed)
    sizes = []
    for name, photo in photographs():
        for split, count in (("train", args.per_class), ("val", max(1, args.per_class // 6))):
            folder = args.out / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(count):
                (w, h), side = photo.size, rng.uniform(0.45, 1.0)
                cw, ch = int(w * side), int(h * side)
                x, y = rng.integers(0, w - cw + 1), rng.integers(0, h - ch + 1)
                target = (width, height) if rng.random() < 0.75 else (height, width)
                image = photo.crop((x, y, x + cw, y + ch)).resize(target, Image.BICUBIC)
                path = folder / f"{name}_{index:05d}.jpg"
                noisy(image, args.noise, rng).save(path, quality=args.quality, subsampling="4:2:0")
                sizes.append(path.stat().st_size)
    print(f"{len(sizes)} images, {np.mean(sizes) / 1024:.0f} KiB each on average")


if __name__ == "__main__":
    main()
