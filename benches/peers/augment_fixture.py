"""What Pillow and torchvision make of pictures, for fixnorm-data: tests/augment.rs, tests/decode.rs, augment/crop.rs.

    python benches/peers/augment_fixture.py

writes crates/fixnorm-data/tests/fixtures/augment.json (every operation of the augmentation policies on a picture
by a formula that the test has too), crop.json (how often torchvision's random resized crop has which place and
size) and decode.json with the files in images/ (validation crops of files of many kinds). Bytes are in hex.

Needs numpy, pillow, torch, torchvision and timm.
"""

import json
from pathlib import Path

import numpy as np
import PIL
import timm
import torch
import torchvision
from PIL import Image, ImageEnhance, ImageOps
from timm.data import auto_augment as timm_ops
from torchvision import transforms as T
from torchvision.transforms import functional as F

OUT = Path(__file__).resolve().parents[2] / "crates/fixnorm-data/tests/fixtures"
BY = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}
FILL = (124, 116, 104)


def picture(height: int, width: int, channels: int) -> np.ndarray:
    i = np.arange(height * width * channels, dtype=np.uint64)
    y, x, c = i // channels // width, i // channels % width, i % channels
    ramp = (x * 3 + y * 2 + c * 40) % 256
    noise = (i * 2654435761) % 2**32 >> 26
    return (30 + (ramp * 3 // 4 + noise) % 200).astype(np.uint8).reshape(height, width, channels)


def image(height: int, width: int, channels: int) -> Image.Image:
    pixels = picture(height, width, channels)
    return Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)


def operations(fill):
    plain = {
        "identity": lambda p: p,
        "auto_contrast": ImageOps.autocontrast,
        "equalize": ImageOps.equalize,
        "invert": ImageOps.invert,
    }
    for name, op in plain.items():
        yield name, None, op
    for bits in (1, 2, 4, 7, 8):
        yield "posterize", bits, lambda p: ImageOps.posterize(p, bits)
    for threshold in (0, 26, 141.66667, 256):
        yield "solarize", threshold, lambda p: ImageOps.solarize(p, threshold)
    for add in (0, 55, 110):
        yield "solarize_add", add, lambda p: timm_ops.solarize_add(p, add)
    enhancers = {
        "color": ImageEnhance.Color,
        "contrast": ImageEnhance.Contrast,
        "brightness": ImageEnhance.Brightness,
        "sharpness": ImageEnhance.Sharpness,
    }
    for name, enhancer in enhancers.items():
        for factor in (0.0, 0.1, 0.73, 1.0, 1.37, 1.9):
            yield name, factor, lambda p: enhancer(p).enhance(factor)
    for turn in (-0.5, -0.13, 0.0, 0.09, 0.4):
        yield "hue", turn, lambda p: F.adjust_hue(p, turn)
    for by, resample in BY.items():
        moved = dict(resample=resample, fillcolor=fill)
        for factor in (-0.3, 0.0, 0.17):
            yield f"shear_x {by}", factor, lambda p: timm_ops.shear_x(p, factor, **moved)
            yield f"shear_y {by}", factor, lambda p: timm_ops.shear_y(p, factor, **moved)
        for pixels in (-11.5, 4.0, 7.3):
            yield f"translate_x {by}", pixels, lambda p: timm_ops.translate_x_abs(p, pixels, **moved)
            yield f"translate_y {by}", pixels, lambda p: timm_ops.translate_y_abs(p, pixels, **moved)
        for degrees in (-30.0, 0.0, 13.7, 90.0, 135.0, 180.0):
            yield f"rotate {by}", degrees, lambda p: timm_ops.rotate(p, degrees, **moved)


def augment() -> dict:
    cases = []
    for size in ((11, 15, 3), (10, 10, 3), (9, 12, 1)):
        source = image(*size)
        # Pillow takes one number for a grey picture.
        for name, strength, op in operations(FILL if source.mode == "RGB" else FILL[0]):
            changed = op(source)
            assert changed.size == source.size and changed.mode == source.mode
            pixels = np.asarray(changed).tobytes().hex()
            cases.append({"image": size, "op": name, "strength": strength, "pixels": pixels})
    return {"made_with": f"Pillow {PIL.__version__}", "fill": FILL, "cases": cases}


def crops(draws: int = 100_000) -> dict:
    torch.manual_seed(0)
    cases = []
    for height, width in ((375, 500), (500, 333), (60, 200)):
        blank = Image.new("L", (width, height))
        drawn = np.array(
            [T.RandomResizedCrop.get_params(blank, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(draws)]
        )
        case = {"size": [height, width]}
        for name, values, most in zip(("top", "left", "height", "width"), drawn.T, (height, width) * 2):
            case[name] = np.cumsum(np.bincount(values, minlength=most + 1)).tolist()
        cases.append(case)
    return {"made_with": f"torchvision {torchvision.__version__}", "draws": draws, "cases": cases}


def photo(height: int, width: int) -> Image.Image:
    """Smooth colours with edges and a little noise: what codecs are made for."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = [np.sin(x / 9 + c) * np.cos(y / (11 + c)) * 70 + 128 for c in range(3)]
    pixels = np.stack(waves, -1)
    pixels[height // 3 : height // 2, width // 4 : width // 2] = (220, 40, 90)
    noise = picture(height, width, 3).astype(np.float64) % 9 - 4
    return Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))


def files():
    rgb = photo(75, 101)
    exif = Image.Exif()
    exif[0x0112] = 6
    jpeg = {
        "420": dict(quality=94),
        "422": dict(quality=90, subsampling=1),
        "444": dict(quality=80, subsampling=0),
        "progressive": dict(quality=85, progressive=True),
        "restart": dict(quality=85, restart_marker_blocks=3),
        "exif": dict(quality=90, exif=exif),
        "optimized": dict(quality=97, optimize=True),
    }
    for name, options in jpeg.items():
        yield f"{name}.jpg", rgb, options
    yield "odd.jpg", photo(67, 33), dict(quality=90)
    yield "tiny.jpg", photo(3, 5), dict(quality=90)
    yield "wide.jpg", photo(9, 130), dict(quality=90)
    yield "grey.jpg", rgb.convert("L"), dict(quality=90)
    yield "grey_progressive.jpg", rgb.convert("L"), dict(quality=90, progressive=True)
    yield "cmyk.jpg", rgb.convert("CMYK"), dict(quality=90)
    yield "rgb.png", rgb, {}
    alpha = rgb.convert("RGBA")
    alpha.putalpha(Image.fromarray(picture(75, 101, 1)[:, :, 0]))
    yield "rgba.png", alpha, {}
    yield "grey_alpha.png", alpha.convert("LA"), {}
    palette = rgb.quantize(40)
    yield "palette.png", palette, {}
    yield "palette_transparent.png", palette, dict(transparency=bytes([0, 128] * 20))
    yield "bits.png", rgb.convert("1"), {}
    sixteen = np.asarray(rgb.convert("L")).astype(np.uint16) * 257 - 100
    yield "grey16.png", Image.fromarray(sixteen), {}
    yield "lossy.webp", rgb, dict(quality=90)
    yield "lossless.webp", rgb, dict(lossless=True)
    yield "alpha.webp", alpha, dict(quality=90)


def decoded() -> dict:
    folder = OUT / "images"
    folder.mkdir(exist_ok=True)
    cases = []
    for name, source, options in files():
        source.save(folder / name, **options)
        case = {"file": name}
        for by, interpolation in (("bilinear", F.InterpolationMode.BILINEAR), ("bicubic", F.InterpolationMode.BICUBIC)):
            transform = T.Compose([T.Resize(24, interpolation), T.CenterCrop(21), T.PILToTensor()])
            loaded = torchvision.datasets.folder.default_loader(folder / name)
            tensor = transform(loaded).permute(1, 2, 0)
            case[by] = tensor.numpy().tobytes().hex()
        cases.append(case)
    made_with = f"torchvision {torchvision.__version__}, Pillow {PIL.__version__}"
    return {"made_with": made_with, "side": 21, "crop_ratio": 0.875, "cases": cases}


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    assert timm.__version__
    for name, document in (("augment", augment()), ("crop", crops()), ("decode", decoded())):
        path = OUT / f"{name}.json"
        path.write_text(json.dumps(document, separators=(",", ":")) + "\n")
        print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
