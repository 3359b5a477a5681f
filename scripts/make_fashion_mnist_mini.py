#!/usr/bin/env python3
"""Draws fashion-mnist-mini from the full Fashion-MNIST.

    ./make_fashion_mnist_mini.py IDX_DIR OUT_DIR

IDX_DIR holds the four official files, gzipped. OUT_DIR gets six: 6,000 training and 1,000 validation
pictures, both from the official training set and disjoint, and 1,000 test pictures from the official
test set, each with as many of every class. Standard library only; the same input gives the same bytes.

Which pictures: those of a class are ordered by SHA-256("fashion-mnist-mini/<file>/<index>"), the first
600 are for training, the next 100 for validation; the first 100 of the test set for testing. Within a
file they keep their original order.
"""
import gzip
import hashlib
import pathlib
import struct
import sys

CLASSES = 10
SIDE = 28


def read(path, dimensions):
    data = gzip.decompress(path.read_bytes())
    zero, kind, rank = struct.unpack(">HBB", data[:4])
    assert (zero, kind, rank) == (0, 8, dimensions), path
    shape = struct.unpack(f">{rank}I", data[4 : 4 + 4 * rank])
    return shape, data[4 + 4 * rank :]


def write(path, shape, body):
    header = struct.pack(">HBB", 0, 8, len(shape)) + struct.pack(f">{len(shape)}I", *shape)
    path.write_bytes(gzip.compress(header + body, compresslevel=9, mtime=0))


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
    return [sorted(part) for part in drawn]


def main():
    source, target = map(pathlib.Path, sys.argv[1:3])
    target.mkdir(parents=True, exist_ok=True)
    for name, parts in (("train", {"train": 6000, "val": 1000}), ("t10k", {"test": 1000})):
        shape, pixels = read(source / f"{name}-images-idx3-ubyte.gz", 3)
        assert shape[1:] == (SIDE, SIDE)
        _, labels = read(source / f"{name}-labels-idx1-ubyte.gz", 1)
        for part, indices in zip(parts, draw(labels, name, list(parts.values()))):
            size = SIDE * SIDE
            body = b"".join(pixels[i * size : (i + 1) * size] for i in indices)
            write(target / f"{part}-images-idx3-ubyte.gz", (len(indices), SIDE, SIDE), body)
            write(target / f"{part}-labels-idx1-ubyte.gz", (len(indices),), bytes(labels[i] for i in indices))


if __name__ == "__main__":
    main()
