#!/usr/bin/env python3
"""Draws fashion-mnist-mini from the full Fashion-MNIST.

    ./make_fashion_mnist_mini.py IDX_DIR OUT_DIR

IDX_DIR holds the four official files, gzipped. OUT_DIR gets six: 6,000 training and 1,000 validation
pictures, both from the official training set and disjoint, and 1,000 test pictures from the official
test set, each with as many of every class. Standard library only; the same input gives the same bytes
with any version of Python, as long as it has zlib itself and not a rewrite of it.

Which pictures: those of a class are ordered by SHA-256("fashion-mnist-mini/<file>/<index>"), the first
600 are for training, the next 100 for validation; the first 100 of the test set for testing. Within a
file they keep their original order. `<file>` is `train` or `t10k`.
"""
import argparse
import gzip
import hashlib
import pathlib
import struct
import zlib

CLASSES = 10
SIDE = 28
# Deflate, no flags, time 0, best compression, Unix. Python's own header differs between its versions.
GZIP_HEADER = bytes([0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 2, 3])


def read(path, dimensions):
    data = gzip.decompress(path.read_bytes())
    zero, kind, rank = struct.unpack(">HBB", data[:4])
    if (zero, kind, rank) != (0, 8, dimensions):
        raise SystemExit(f"{path}: expected {dimensions} dimensions of unsigned bytes")
    shape = struct.unpack(f">{rank}I", data[4 : 4 + 4 * rank])
    return shape, data[4 + 4 * rank :]


def write(path, shape, body):
    data = struct.pack(">HBB", 0, 8, len(shape)) + struct.pack(f">{len(shape)}I", *shape) + body
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    trailer = struct.pack("<II", zlib.crc32(data), len(data))
    path.write_bytes(GZIP_HEADER + deflate.compress(data) + deflate.flush() + trailer)


def draw(labels, name, counts):
    """For each count the original indices, class-balanced and in ascending order."""
    drawn = [[] for _ in counts]
    for wanted in range(CLASSES):
        own = [i for i, label in enumerate(labels) if label == wanted]
        own.sort(key=lambda i: hashlib.sha256(f"fashion-mnist-mini/{name}/{i}".encode()).digest())
        start = 0
        for part, count in zip(drawn, counts):
            part += own[start : start + count // CLASSES]
            start += count // CLASSES
        if len(own) < start:
            raise SystemExit(f"{name}: expected at least {start} pictures of class {wanted}, found {len(own)}")
    return [sorted(part) for part in drawn]


def main():
    parser = argparse.ArgumentParser(description="Draws fashion-mnist-mini from the full Fashion-MNIST.")
    parser.add_argument("source", metavar="IDX_DIR", type=pathlib.Path, help="has the four official files, gzipped")
    parser.add_argument("target", metavar="OUT_DIR", type=pathlib.Path, help="gets the six files")
    options = parser.parse_args()
    options.target.mkdir(parents=True, exist_ok=True)
    for name, parts in (("train", {"train": 6000, "val": 1000}), ("t10k", {"test": 1000})):
        shape, pixels = read(options.source / f"{name}-images-idx3-ubyte.gz", 3)
        (count,), labels = read(options.source / f"{name}-labels-idx1-ubyte.gz", 1)
        size = SIDE * SIDE
        if shape != (count, SIDE, SIDE) or len(pixels) != count * size or len(labels) != count:
            raise SystemExit(f"{name}: {count} labels do not fit pictures of dimensions {shape}")
        for part, indices in zip(parts, draw(labels, name, list(parts.values()))):
            body = b"".join(pixels[i * size : (i + 1) * size] for i in indices)
            write(options.target / f"{part}-images-idx3-ubyte.gz", (len(indices), SIDE, SIDE), body)
            write(options.target / f"{part}-labels-idx1-ubyte.gz", (len(indices),), bytes(labels[i] for i in indices))


if __name__ == "__main__":
    main()
