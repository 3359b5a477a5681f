"""Small PyTorch checkpoints of every kind, for crates/fixnorm-nn/tests/all/checkpoints.rs.

    python benches/peers/checkpoint_fixture.py

writes crates/fixnorm-nn/tests/fixtures/*.pth and *.ckpt. Values come from a formula that the test has too. The two
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


def averaged() -> OrderedDict:
    """The entries of `torch.optim.swa_utils.AveragedModel.state_dict`."""
    return OrderedDict({"n_averaged": torch.tensor(3)}) | state("module.")


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
        "swa": averaged(),
        "torchvision_ema": {
            "epoch": 3,
            "model": {"other": values(2)},
            "model_ema": averaged(),
            "optimizer": momentum,
            "classes": ["cat", "dog"],
        },
        "compiled": state("_orig_mod.module."),
        "averaged": {"model": {"other": values(2)}, "state_dict_ema": state("module.")},
        "code_root": RunsCode(),
        "code_beside": {"state_dict": state(), "hook": [RunsCode()]},
    }
    for name, document in documents.items():
        torch.save(document, OUT / f"{name}.pth")
    # The entries of a Lightning checkpoint.
    lightning = {
        "epoch": 3,
        "global_step": 120,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": state("model.")
        | {
            "criterion.weight": values(2),
            "train_accuracy.tp": torch.zeros(2, dtype=torch.long),
        },
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val_loss'}": {"best_model_score": torch.tensor(0.5)}},
        "optimizer_states": [momentum],
        "lr_schedulers": [{"base_lrs": [0.1], "last_epoch": 3}],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 0.1, "class_to_idx": {"dog": 1, "cat": 0}},
    }
    torch.save(lightning, OUT / "lightning.ckpt")
    # As PyTorch wrote before 1.6.
    torch.save(state(), OUT / "legacy.pth", _use_new_zipfile_serialization=False)
    # A view of one number that claims to be a hundred million.
    torch.save({"small": values(1), "huge": values(1).expand(100_000_000)}, OUT / "repeated.pth")
    for path in sorted([*OUT.glob("*.pth"), *OUT.glob("*.ckpt")]):
        print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
