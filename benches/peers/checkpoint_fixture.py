"""Small PyTorch checkpoints of every kind, for crates/fixnorm-nn/tests/checkpoints.rs.

    python benches/peers/checkpoint_fixture.py

writes crates/fixnorm-nn/tests/fixtures/*.pth. Values come from a formula that the test has too. The two
`code_*.pth` would create a file `fixnorm-ran-code` in the working directory if anybody unpickled them.

Needs torch.
"""

import argparse
import os
from collections import OrderedDict
from pathlib import Path

import torch

OUT = Path(__file__).resolve().parents[2] / "crates/fixnorm-nn/tests/fixtures"


def values(*shape: int) -> torch.Tensor:
    count = int(torch.tensor(shape).prod())
    return (torch.arange(count, dtype=torch.float32) * 0.25 - 1).reshape(shape)


def state(prefix: str = "") -> OrderedDict:
    """Every kind of float, a transposed view, a view with an offset, and a counter."""
    tensors = {
        "conv.weight": values(2, 3, 1, 2),
        "half": values(5).half(),
        "brain": values(5).bfloat16(),
        "double": values(5).double(),
        "turned": values(4, 3).t(),
        "behind": values(10)[4:],
        "parameter": torch.nn.Parameter(values(3)),
        "bn.num_batches_tracked": torch.tensor(7),
    }
    return OrderedDict((prefix + name, tensor) for name, tensor in tensors.items())


class RunsCode:
    def __reduce__(self):
        return os.system, ("touch fixnorm-ran-code",)


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    momentum = {"state": {0: {"momentum_buffer": values(2)}}, "param_groups": [{"lr": 0.1}]}
    documents = {
        "state_dict": state(),
        "wrapped": {
            "epoch": 3,
            "args": argparse.Namespace(model="resnet8", lr=0.1),
            "optimizer": momentum,
            "state_dict": state("module."),
        },
        "averaged": {"model": {"other": values(2)}, "state_dict_ema": state("module.")},
        "code_root": RunsCode(),
        "code_beside": {"state_dict": state(), "hook": [RunsCode()]},
    }
    for name, document in documents.items():
        torch.save(document, OUT / f"{name}.pth")
    # As PyTorch wrote before 1.6.
    torch.save(state(), OUT / "legacy.pth", _use_new_zipfile_serialization=False)
    # A view of one number that claims to be a hundred million.
    torch.save({"small": values(1), "huge": values(1).expand(100_000_000)}, OUT / "repeated.pth")
    for path in sorted(OUT.glob("*.pth")):
        print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
