"""Fashion-MNIST with the first N training pictures only, as four IDX files: `--data idx:OUT`.

    python benches/tables/subset.py FASHION_MNIST_DIR OUT [N=12000]
"""

import gzip
import struct
import sys
from pathlib import Path

source, out = Path(sys.argv[1]), Path(sys.argv[2])
count = int(sys.argv[3]) if len(sys.argv) > 3 else 12_000
out.mkdir(parents=True, exist_ok=True)
for name, header, size in (("images-idx3", 16, 28 * 28), ("labels-idx1", 8, 1)):
    whole = gzip.decompress((source / f"train-{name}-ubyte.gz").read_bytes())
    part = whole[:4] + struct.pack(">I", count) + whole[8 : header + count * size]
    (out / f"train-{name}-ubyte").write_bytes(part)
    (out / f"t10k-{name}-ubyte").write_bytes(gzip.decompress((source / f"t10k-{name}-ubyte.gz").read_bytes()))
