"""Writes crates/fixnorm-data/tests/fixtures/odd: JPEG files of unusual kinds, other formats, and Pillow's pixels of each as PNG.

Needs numpy, Pillow and `cjpeg` (Debian: libjpeg-turbo-progs), as `differential.py` does.
"""

import io
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from differential import drawing, encoded

OUT = Path(__file__).resolve().parents[1] / "crates/fixnorm-data/tests/fixtures/odd"


def cjpeg(pixels, *options, scans=None):
    height, width, _ = pixels.shape
    with tempfile.TemporaryDirectory() as directory:
        if scans:
            (Path(directory) / "scans").write_text(scans)
            options += ("-scans", f"{directory}/scans")
        ppm = b"P6\n%d %d\n255\n" % (width, height) + pixels.tobytes()
        command = ["cjpeg", "-quality", "90", *options]
        return subprocess.run(command, input=ppm, capture_output=True, check=True).stdout


def main():
    pixels = drawing(np.random.default_rng(3), 3, (37, 51))
    image = Image.fromarray(pixels)
    separate = "0;\n1;\n2;\n"
    plain = cjpeg(pixels)
    tables = plain.index(b"\xff\xdb")
    files = {
        "scans_420.jpg": cjpeg(pixels, "-sample", "2x2", scans=separate),
        "scans_422.jpg": cjpeg(pixels, "-sample", "2x1", scans=separate),
        "scans_444.jpg": cjpeg(pixels, "-sample", "1x1", scans=separate),
        "scans_chroma_first.jpg": cjpeg(pixels, "-sample", "2x2", scans="1;\n2;\n0;\n"),
        "scans_two.jpg": cjpeg(pixels, "-sample", "2x2", scans="0;\n1,2;\n"),
        "scans_restart.jpg": cjpeg(pixels, "-sample", "2x2", "-restart", "3B", scans=separate),
        "chroma_finer.jpg": cjpeg(pixels, "-sample", "1x1,2x2,2x2"),
        "chroma_same.jpg": cjpeg(pixels, "-sample", "2x1,2x1,2x1"),
        "chroma_mixed.jpg": cjpeg(pixels, "-sample", "2x2,2x1,1x2"),
        "luma_4x1.jpg": cjpeg(pixels, "-sample", "4x1,1x1,1x1"),
        "luma_4x2_progressive.jpg": cjpeg(pixels, "-sample", "4x2,1x1,1x1", "-progressive"),
        "rgb.jpg": cjpeg(pixels, "-rgb"),
        "extra_bytes.jpg": plain[:tables] + b"\0\x11\x22" + plain[tables:],
        "image.bmp": encoded(image, "BMP"),
        "image.gif": encoded(image.convert("P"), "GIF"),
        "image.tif": encoded(image, "TIFF", compression="tiff_lzw"),
        "image.ppm": encoded(image, "PPM"),
        "grey.pgm": encoded(image.convert("L"), "PPM"),
    }
    OUT.mkdir(exist_ok=True)
    for name, data in files.items():
        (OUT / name).write_bytes(data)
        with Image.open(io.BytesIO(data)) as decoded:
            decoded.convert("RGB").save(OUT / f"{name}.png", optimize=True)
    (OUT.parent / "arithmetic.jpg").write_bytes(cjpeg(pixels, "-arithmetic"))


if __name__ == "__main__":
    main()
