"""Compares fixnorm-data's image decoder with Pillow's (libjpeg-turbo, libpng, libwebp, libtiff) on odd and mutated files.

    cargo build --release -p fixnorm-data --example decode
    python fuzz/differential.py target/release/examples/decode --count 10000 --seed 1 --out DIR

Needs numpy, Pillow and `cjpeg` (Debian: libjpeg-turbo-progs). The same seed makes the same files with the same versions of
these. Prints how often the two agree, a table of disagreements by kind and reason, and exits with 1 where pixels of an
intact file differ (see `compare`), or where the decoder panics or takes longer than ten seconds. Of a damaged file, the
two make up the rest in their own ways: where both decode it, a difference is listed and is no failure. Files that disagree are kept in DIR.
"""

import argparse
import collections
import io
import json
import re
import struct
import subprocess
import sys
import tempfile
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

warnings.simplefilter("ignore")


def drawing(rng, channels=3, size=None):
    """Smooth colours with edges and noise."""
    height, width = size or (int(rng.integers(1, 72)), int(rng.integers(1, 72)))
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x * rng.uniform(0.02, 0.4) + y * rng.uniform(0.02, 0.4) + rng.uniform(0, 6)) for _ in range(channels)]
    pixels = 128 + 100 * np.stack(waves, -1) + rng.normal(0, rng.choice([0, 3, 20]), (height, width, channels))
    if rng.random() < 0.5:
        top, left = rng.integers(0, height), rng.integers(0, width)
        pixels[top:, left:] = rng.integers(0, 256, channels)
    return pixels.clip(0, 255).astype(np.uint8)


def encoded(image, format, **options):
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


# JPEG


def exif(rng):
    tags = Image.Exif()
    tags[0x0112] = int(rng.integers(1, 9))
    return tags.tobytes()


def pillow_jpeg(rng):
    mode = rng.choice(["RGB", "RGB", "RGB", "L", "CMYK"])
    image = Image.fromarray(drawing(rng)).convert(mode)
    options = {"quality": int(rng.integers(5, 100)), "subsampling": int(rng.integers(0, 3))}
    if rng.random() < 0.3:
        options["progressive"] = True
    if rng.random() < 0.3:
        options["optimize"] = True
    if rng.random() < 0.3:
        options["restart_marker_blocks"] = int(rng.integers(1, 9))
    if rng.random() < 0.3:
        options["exif"] = exif(rng)
    if rng.random() < 0.2:
        options["comment"] = b"\xff\xd8\xff\xd9 a comment"
    return encoded(image, "JPEG", **options), f"jpeg {mode}"


SAMPLES = ["1x1", "2x1", "1x2", "2x2", "4x1", "1x4", "4x2", "2x4", "4x4", "3x1", "1x3", "3x3"]


def cjpeg(rng, directory):
    """What cjpeg can write: any sampling factors, scans and restart intervals, arithmetic coding, RGB."""
    grey = rng.random() < 0.1
    pixels = drawing(rng, 1 if grey else 3)
    height, width, channels = pixels.shape
    source = directory / "source.ppm"
    source.write_bytes(b"P%d\n%d %d\n255\n" % (5 if grey else 6, width, height) + pixels.tobytes())
    command = ["cjpeg", "-quality", str(rng.integers(5, 100))]
    kind = []
    if rng.random() < 0.8:
        factors = [str(rng.choice(SAMPLES)) for _ in range(1 if grey else 3)]
        if rng.random() < 0.6:
            factors[1:] = ["1x1"] * (len(factors) - 1)
        if rng.random() < 0.2:
            factors = ["1x1", "2x2", "2x2"][: len(factors)]
        command += ["-sample", ",".join(factors)]
        kind.append("sampling")
    if rng.random() < 0.1:
        command.append("-rgb")
        kind.append("RGB")
    if rng.random() < 0.1:
        command.append("-arithmetic")
        kind.append("arithmetic")
    if rng.random() < 0.3:
        command += ["-restart", str(rng.choice(["1", "2", "1B", "3B", "7B"]))]
    chance = rng.random()
    if chance < 0.3:
        command.append("-progressive")
        kind.append("progressive")
    elif chance < 0.65 and not grey:
        order = [str(component) for component in rng.permutation(3)]
        scans = rng.choice(["a; b; c;", "a; b c;", "a b; c;", "a b c;"])
        for letter, component in zip("abc", order):
            scans = scans.replace(letter, component)
        # Components of a scan are listed in the frame's order.
        scans = ";\n".join(",".join(sorted(scan.split())) for scan in scans.split(";")[:-1]) + ";\n"
        (directory / "scans").write_text(scans)
        command += ["-scans", str(directory / "scans")]
        kind.append("scans")
    if rng.random() < 0.3:
        command.append("-optimize")
    done = subprocess.run([*command, str(source)], capture_output=True)
    if done.returncode or not done.stdout:
        return cjpeg(rng, directory)
    return done.stdout, "jpeg " + " ".join(kind)


def segments(data):
    """Positions of a JPEG file's segments, and where its first scan's data begins."""
    at, places = 2, []
    while at + 4 <= len(data) and data[at] == 0xFF:
        places.append(at)
        length = struct.unpack(">H", data[at + 2 : at + 4])[0]
        if data[at + 1] == 0xDA:
            return places, at + 2 + length
        at += 2 + length
    return places, min(at, len(data))


def strange_jpeg(rng, data):
    """Headers changed in ways that leave the pixels."""
    places, start = segments(data)
    place = int(rng.choice(places)) if places else 2
    change = rng.choice(["extra bytes", "fill", "segment", "trailing", "no APP", "ids", "exif thumbnail"])
    if change == "extra bytes":
        extra = bytes(rng.integers(0, 255, int(rng.integers(1, 9)), dtype=np.uint8))
        data = data[:place] + extra + data[place:]
    elif change == "fill":
        data = data[:place] + b"\xff" * int(rng.integers(1, 9)) + data[place:]
    elif change == "segment":
        body = bytes(rng.integers(0, 256, int(rng.integers(0, 40)), dtype=np.uint8))
        marker = int(rng.choice([0xFE, 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xEF]))
        data = data[:place] + struct.pack(">BBH", 255, marker, len(body) + 2) + body + data[place:]
    elif change == "trailing":
        data += bytes(rng.integers(0, 256, int(rng.integers(1, 200)), dtype=np.uint8))
    elif change == "no APP":
        for place in reversed(places):
            if 0xE0 <= data[place + 1] <= 0xEF:
                length = struct.unpack(">H", data[place + 2 : place + 4])[0]
                data = data[:place] + data[place + 2 + length :]
    elif change == "exif thumbnail":
        thumbnail = encoded(Image.fromarray(drawing(rng)), "JPEG")
        body = b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + thumbnail
        data = data[:2] + struct.pack(">BBH", 255, 0xE1, len(body) + 2) + body + data[2:]
    else:
        ids = rng.choice([b"RGB", b"\0\1\2", b"\1\x22\x23", b"rgb", b"YCC"])
        data = bytearray(data)
        for place in places:
            if data[place + 1] in (0xC0, 0xC1, 0xC2) and data[place + 9] == 3:
                old = [data[place + 10 + 3 * index] for index in range(3)]
                for index in range(3):
                    data[place + 10 + 3 * index] = ids[index]
                for scan in [at for at in range(place, len(data) - 3) if data[at : at + 2] == b"\xff\xda"]:
                    for index in range(data[scan + 4]):
                        at = scan + 5 + 2 * index
                        if at < len(data) and data[at] in old:
                            data[at] = ids[old.index(data[at])]
        data = bytes(data)
    return data, f"jpeg headers: {change}"


def damaged_jpeg(rng, data):
    _, start = segments(data)
    change = rng.choice(["cut", "cut at the end", "cut with EOI", "flip scan", "flip header", "insert", "delete", "marker"])
    inside = int(rng.integers(min(start, len(data) - 1), len(data)))
    if change == "cut":
        data = data[: int(rng.integers(0, len(data)))]
    elif change == "cut at the end":
        data = data[: -int(rng.integers(1, 12))]
    elif change == "cut with EOI":
        data = data[:inside] + b"\xff\xd9"
    elif change == "insert":
        data = data[:inside] + bytes(rng.integers(0, 256, int(rng.integers(1, 5)), dtype=np.uint8)) + data[inside:]
    elif change == "delete":
        data = data[:inside] + data[inside + int(rng.integers(1, 5)) :]
    elif change == "marker":
        marker = int(rng.choice([0xD0, 0xD3, 0xD8, 0xD9, 0xDA, 0xDB, 0xC4, 0xFE, 0x01]))
        data = data[:inside] + bytes([255, marker]) + data[inside:]
    else:
        data = bytearray(data)
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(start, len(data))) if change == "flip scan" and start < len(data) else int(rng.integers(2, max(3, start)))
            at = min(at, len(data) - 1)
            data[at] ^= 1 << int(rng.integers(0, 8)) if rng.random() < 0.7 else int(rng.integers(1, 256))
        data = bytes(data)
    return data, f"jpeg damaged: {change}"


# PNG


def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]


def own_png(rng):
    """Every colour type and depth, interlaced or not; filters at random."""
    color, depth = [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (3, 1), (3, 2), (3, 4), (3, 8), (4, 8), (4, 16), (6, 8), (6, 16)][rng.integers(0, 15)]
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    height, width = int(rng.integers(1, 40)), int(rng.integers(1, 40))
    values = rng.integers(0, 1 << depth, (height, width, channels))
    if depth == 16 and rng.random() < 0.5:
        values = values % 400
    interlaced = int(rng.random() < 0.5)
    raw = b""
    for top, left, down, across in ADAM7 if interlaced else [(0, 0, 1, 1)]:
        part = values[top::down, left::across]
        for row in part if part.size else []:
            if depth == 16:
                line = row.reshape(-1).astype(">u2").tobytes()
            else:
                bits = ((row.reshape(-1, 1) >> np.arange(depth - 1, -1, -1)) & 1).reshape(-1)
                line = np.packbits(bits.astype(np.uint8)).tobytes()
            raw += b"\0" + line
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced))
    if color == 3:
        data += chunk(b"PLTE", rng.integers(0, 256, 3 << depth, dtype=np.uint8).tobytes())
        if rng.random() < 0.4:
            data += chunk(b"tRNS", rng.integers(0, 256, int(rng.integers(1, (1 << depth) + 1)), dtype=np.uint8).tobytes())
    elif color in (0, 2) and rng.random() < 0.3:
        data += chunk(b"tRNS", b"".join(struct.pack(">H", int(value)) for value in values[0, 0]))
    if rng.random() < 0.2:
        data += chunk(b"gAMA", struct.pack(">I", 45455))
    data += chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return data, f"png {color}/{depth}" + (" interlaced" if interlaced else "")


# The rest


def other(rng):
    image = Image.fromarray(drawing(rng))
    format = rng.choice(["PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
    if format == "PNG":
        mode = rng.choice(["1", "L", "LA", "P", "RGB", "RGBA"])
        return encoded(image.convert(mode), "PNG"), f"png by Pillow {mode}"
    if format == "WEBP":
        mode = rng.choice(["RGB", "RGBA"])
        image = image.convert(mode)
        if mode == "RGBA":
            image.putalpha(Image.fromarray(drawing(rng, 1, (image.height, image.width))[:, :, 0]))
        lossless = bool(rng.random() < 0.6)
        options = {"lossless": lossless, "quality": int(rng.integers(1, 100)), "exact": True}
        if rng.random() < 0.15:
            options |= {"save_all": True, "append_images": [image.rotate(180)], "duration": 100}
            return encoded(image, "WEBP", **options), f"webp animated {'lossless' if lossless else 'lossy'}"
        return encoded(image, "WEBP", **options), f"webp {'lossless' if lossless else 'lossy'}"
    if format == "BMP":
        mode = rng.choice(["1", "L", "P", "RGB", "RGBA"])
        return encoded(image.convert(mode), "BMP"), f"bmp {mode}"
    if format == "GIF":
        image = image.convert("P" if rng.random() < 0.7 else "L")
        options = {"interlace": int(rng.integers(0, 2))}
        if rng.random() < 0.3:
            options["transparency"] = int(rng.integers(0, 256))
        if rng.random() < 0.3:
            return encoded(image, "GIF", save_all=True, append_images=[image.rotate(180)], **options), "gif animated"
        data = encoded(image, "GIF", **options)
        return data, "gif transparent" if "transparency" in options else "gif"
    if format == "TIFF":
        mode = str(rng.choice(["1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "F", "LAB", "YCbCr", "LA"]))
        compression = str(rng.choice(["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4"]))
        if compression == "group4":
            mode = "1"
        if compression == "jpeg" and mode not in ("L", "RGB", "CMYK"):
            mode = "RGB"
        image = Image.fromarray(rng.integers(0, 700, (9, 7)).astype(np.uint16)) if mode == "I;16" else image.convert(mode)
        return encoded(image, "TIFF", compression=compression), f"tiff {mode} {compression}"
    kind = int(rng.integers(1, 7))
    height, width = int(rng.integers(1, 30)), int(rng.integers(1, 30))
    most = 1 if kind in (1, 4) else int(rng.choice([255, 255, 255, 15, 100, 65535, 1000]))
    values = rng.integers(0, most + 1, (height, width, 3 if kind in (3, 6) else 1))
    head = f"P{kind}\n# a comment\n{width} {height}\n" + ("" if kind in (1, 4) else f"{most}\n")
    if kind < 4:
        body = "\n".join(" ".join(map(str, row.reshape(-1))) for row in values).encode() + b"\n"
    elif kind == 4:
        body = np.packbits(values[:, :, 0].astype(np.uint8), axis=1).tobytes()
    else:
        body = values.astype(">u2" if most > 255 else "u1").tobytes()
    return head.encode() + body, f"pnm P{kind} maximum {most}"


def damaged(rng, data):
    change = rng.choice(["cut", "flip"])
    if change == "cut":
        return data[: int(rng.integers(0, len(data)))], change
    data = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        data[int(rng.integers(0, len(data)))] ^= 1 << int(rng.integers(0, 8))
    return bytes(data), change


def case(seed, index, directory):
    """Bytes, kind, and whether the file is intact."""
    rng = np.random.default_rng([seed, index])
    chance = rng.random()
    if chance < 0.70:
        data, kind = pillow_jpeg(rng) if rng.random() < 0.4 else cjpeg(rng, directory)
        fate = rng.random()
        if fate < 0.4:
            return data, kind, True
        if fate < 0.6:
            return *strange_jpeg(rng, data), True
        return *damaged_jpeg(rng, data), False
    data, kind = own_png(rng) if chance < 0.82 else other(rng)
    if rng.random() < 0.7:
        return data, kind, True
    data, change = damaged(rng, data)
    return data, f"{kind.split()[0]} damaged: {change}", False


EDGE = "interpolation of chroma at an edge"


def by_pillow(data):
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB")), None
    except Exception as error:  # Pillow raises nearly anything
        return None, f"{type(error).__name__}: {error}"


def by_us(command, files):
    """A record for each file: shape, pixels, error, panic, ms."""
    try:
        names = "".join(f"{file}\n" for file in files).encode()
        done = subprocess.run([command], input=names, stdout=subprocess.PIPE, timeout=300)
    except subprocess.TimeoutExpired:
        if len(files) == 1:
            return [{"hang": True}]
        return [record for file in files for record in by_us(command, [file])]
    out, records = io.BytesIO(done.stdout), []
    for _ in files:
        line = out.readline()
        record = json.loads(line) if line else {"panic": True}
        if "shape" in record:
            shape = record["shape"]
            pixels = np.frombuffer(out.read(int(np.prod(shape))), np.uint8).reshape(shape)
            record["pixels"] = np.repeat(pixels, 3, -1) if shape[-1] == 1 else pixels
        records.append(record)
    return records


def compare(kind, ours, theirs):
    """None where pixels agree, else the difference.

    Lossy formats may differ by rounding: another inverse DCT and colour conversion. At an image's last row and column, and
    in images of at most 4 rows or columns, JPEG decoders differ in how they interpolate chroma, by more.
    """
    if ours.shape != theirs.shape:
        return f"size {ours.shape} and {theirs.shape}"
    difference = np.abs(ours.astype(int) - theirs)
    lossy = kind.startswith("jpeg") or "lossy" in kind or kind.startswith(("webp damaged", "tiff damaged")) or kind.startswith("tiff") and "jpeg" in kind
    scaled = kind.startswith("pnm") and not kind.endswith(("maximum 1", "maximum 255"))
    most, mean = (8, 1.0) if lossy else (1, 1.0) if scaled else (0, 0)
    if difference.max() <= most and difference.mean() <= mean:
        return None
    inner = difference[:-1, :-1]
    if lossy and (min(difference.shape[:2]) <= 4 or inner.max() <= most and inner.mean() <= mean) and difference.max() <= 128:
        return EDGE
    return f"pixels differ: at most {difference.max()}, mean {difference.mean():.2f}"


def reason(text):
    text = re.sub(r"^\S+ cannot be decoded: |/\S+/", "", text)
    return re.sub(r"0x[0-9A-Fa-f]+|\d+", "N", text)[:100]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", help="the built example `decode`")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="index of the first file")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=None, help="keeps files that disagree here")
    args = parser.parse_args()
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
    counts, table, bad = collections.Counter(), collections.Counter(), []
    largest = collections.Counter()
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        for first in range(args.first, args.first + args.count, 500):
            cases = []
            for index in range(first, min(first + 500, args.first + args.count)):
                data, kind, intact = case(args.seed, index, directory)
                file = directory / f"{index:06}.bin"
                file.write_bytes(data)
                cases.append((index, file, data, kind, intact))
            records = by_us(args.command, [file for _, file, *_ in cases])
            for (index, file, data, kind, intact), record in zip(cases, records):
                theirs, error = by_pillow(data)
                ours = record.get("pixels")
                state = "intact" if intact else "damaged"
                problem = None
                if record.get("panic") or record.get("hang") or record.get("ms", 0) > 10_000:
                    outcome, why = "panic or hang", ""
                    problem = f"panic or {record.get('ms')} ms"
                elif ours is None and theirs is None:
                    outcome, why = "both refuse", ""
                elif ours is None:
                    outcome, why = "only Pillow decodes", reason(record["error"])
                elif theirs is None:
                    outcome, why = "only we decode", reason(error)
                else:
                    found = compare(kind, ours, theirs)
                    if ours.shape == theirs.shape and found is None:
                        largest[kind.split()[0]] = max(largest[kind.split()[0]], int(np.abs(ours.astype(int) - theirs).max()))
                    outcome, why = ("agree", "")
                    if found == EDGE:
                        outcome = "agree but for an edge"
                    elif found:
                        outcome = "pixels differ"
                        problem = found
                counts[state, outcome] += 1
                if outcome not in ("agree", "agree but for an edge", "both refuse"):
                    table[outcome, state, kind, why] += 1
                    if problem:
                        bad.append((index, kind, state, problem))
                    if args.out:
                        (args.out / f"{index:06}-{outcome.replace(' ', '_')}.bin").write_bytes(data)
                file.unlink()
            print(f"{first + len(cases) - args.first} files", file=sys.stderr)
    for (state, outcome), count in sorted(counts.items()):
        print(f"{state:8} {outcome:22} {count:6}")
    print(f"largest difference of files that agree: {dict(largest)}")
    for (outcome, state, kind, why), count in sorted(table.items(), key=lambda row: (row[0][0], -row[1])):
        print(f"{count:5}  {outcome}  {state}  {kind}  {why}")
    for index, kind, state, problem in bad:
        print(f"file {index}: {state} {kind}: {problem}")
    return int(any(state == "intact" or "panic" in problem for _, _, state, problem in bad))


if __name__ == "__main__":
    sys.exit(main())
