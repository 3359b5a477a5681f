"""The names and synsets of ImageNet-1k's classes, in the order of the logits, from timm's files.

    python scripts/make_imagenet_classes.py

writes classes.txt and synsets.txt in crates/fixnorm-data/assets/imagenet. Needs timm.
"""

from pathlib import Path

import timm
from timm.data import ImageNetInfo

OUT = Path(__file__).resolve().parents[1] / "crates/fixnorm-data/assets/imagenet"


def main() -> None:
    info = ImageNetInfo("imagenet1k")
    names = [info.index_to_description(index) for index in range(info.num_classes())]
    assert len(names) == 1000 and all(name and "\n" not in name for name in names)
    synsets = [info.index_to_label_name(index) for index in range(info.num_classes())]
    assert synsets == sorted(synsets)
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "classes.txt").write_text("\n".join(names) + "\n")
    (OUT / "synsets.txt").write_text("\n".join(synsets) + "\n")
    print(f"{OUT}: {len(names)} names, timm {timm.__version__}")


if __name__ == "__main__":
    main()
