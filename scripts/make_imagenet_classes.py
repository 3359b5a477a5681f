"""The names of ImageNet-1k's classes, in the order of the logits, from timm's files.

    python scripts/make_imagenet_classes.py

writes crates/fixnorm-train/assets/imagenet_classes.txt. Needs timm.
"""

from pathlib import Path

import timm
from timm.data import ImageNetInfo

OUT = Path(__file__).resolve().parents[1] / "crates/fixnorm-train/assets/imagenet_classes.txt"


def main() -> None:
    info = ImageNetInfo("imagenet1k")
    names = [info.index_to_description(index) for index in range(info.num_classes())]
    assert len(names) == 1000 and all(name and "\n" not in name for name in names)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text("\n".join(names) + "\n")
    print(f"{OUT}: {len(names)} names, timm {timm.__version__}")


if __name__ == "__main__":
    main()
