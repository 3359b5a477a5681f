"""Cross-boundary risk by the command."""

import json
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from test_recorder import COMMAND, needs_command
from torch import nn

from fixnorm.torch import cross_boundary_risk


def sample() -> tuple[torch.Tensor, torch.Tensor, nn.Linear]:
    torch.manual_seed(0)
    labels = torch.arange(60) % 3
    return 3.0 * torch.eye(3, 5)[labels] + torch.randn(60, 5), labels, nn.Linear(5, 3)


@needs_command
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_commands(bias: bool, tmp_path: Path) -> None:
    features, labels, head = sample()
    if not bias:
        head.bias = None
    tensors = {"features": features, "labels": labels, "head.weight": head.weight.detach().clone()}
    if bias:
        tensors["head.bias"] = head.bias.detach().clone()
    path = tmp_path / "f.safetensors"
    save_file(tensors, path)
    arguments = ["--features", path, "--format", "json", "--tau", "0.5,1", "--draws", "2000", "--seed", "3"]
    expected = subprocess.run([COMMAND, "risk", *arguments], capture_output=True, check=True)
    # Other types, other layouts: the same numbers.
    found = cross_boundary_risk(features.double().T.contiguous().T, labels.int(), head, tau="0.5,1", draws=2000, seed=3)
    assert found == json.loads(expected.stdout)
    assert [at["tau"] for at in found["risk"]] == [0.5, 1.0]


@needs_command
def test_tensors_that_do_not_fit_are_named() -> None:
    features, labels, head = sample()
    with pytest.raises(ValueError, match="sample 0 has label 7"):
        cross_boundary_risk(features, labels + 7, head)
    with pytest.raises(ValueError, match=r"head\.weight has shape"):
        cross_boundary_risk(features[:, :4], labels, head)


def test_without_the_command_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(FileNotFoundError, match="install the wheel"):
        cross_boundary_risk(*sample())
