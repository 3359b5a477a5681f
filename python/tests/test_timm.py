"""FixNorm by name in timm."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small import norm_error

from fixnorm.torch import FixNorm

timm = pytest.importorskip("timm")
pytest.importorskip("fixnorm.torch.timm")
from timm.optim import create_optimizer_v2, list_optimizers  # noqa: E402

from fixnorm.torch.timm import probe_timm  # noqa: E402


def test_it_is_made_by_name() -> None:
    assert "fixnorm" in list_optimizers()
    model = timm.create_model("test_resnet", in_chans=1, num_classes=7)
    optimizer = create_optimizer_v2(model, opt="fixnorm", lr=0.2, momentum=0.8, alpha=2.0)
    assert isinstance(optimizer, FixNorm) and norm_error(optimizer) < 1e-6
    kinds = {group["kind"]: group for group in optimizer.param_groups}
    assert sorted(kinds) == ["gains_and_biases", "head", "scale_invariant"]
    assert kinds["head"]["param_names"] == ["fc.weight"]
    assert (kinds["head"]["lr"], kinds["head"]["momentum"], kinds["head"]["alpha"]) == (0.2, 0.8, 2.0)
    # Others are made as before.
    assert type(create_optimizer_v2(model, opt="sgd", lr=0.1)) is torch.optim.SGD


def test_options_of_the_probe_and_of_other_bases() -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=5)
    optimizer = create_optimizer_v2(model, opt="fixnorm", lr=0.01, base="adamw", betas=(0.8, 0.9), hold="matrices")
    groups = {group["kind"]: group for group in optimizer.param_groups}
    assert "blocks.0.attn.qkv.weight" in groups["held"]["param_names"]
    assert (groups["head"]["param_names"], groups["head"]["betas"]) == (["head.weight"], (0.8, 0.9))


# Initializations in which a weight's scale changes the loss by rounding, and its direction by little more.
@pytest.mark.parametrize(("name", "seed"), [("test_vit", 5), ("test_vit", 6), ("test_convnext", 0)])
def test_a_weight_that_hardly_moves_the_loss_is_not_taken_for_scale_invariant(name: str, seed: int) -> None:
    torch.manual_seed(seed)
    roles = probe_timm(timm.create_model(name, num_classes=5))
    assert [row.name for row in roles if row.role == "scale_invariant"] == [], f"\n{roles}"


@pytest.mark.parametrize("name", ["test_efficientnet", "test_convnext"])
def test_the_probe_finds_size_and_head(name: str) -> None:
    model = timm.create_model(name, num_classes=4, in_chans=2)
    head = probe_timm(model).head
    assert head is not None and dict(model.named_parameters())[head.name] is model.get_classifier().weight


def test_what_does_not_fit_is_refused() -> None:
    model = timm.create_model("test_resnet", num_classes=3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(TypeError, match="needs the model"):
        create_optimizer_v2(model.parameters(), opt="fixnorm", lr=0.1)
    with pytest.raises(ValueError, match="cannot take layer_decay"):
        create_optimizer_v2(model, opt="fixnorm", lr=0.1, layer_decay=0.7)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.warns(UserWarning, match="weight_decay is ignored"):
        create_optimizer_v2(model, opt="fixnorm", lr=0.1, weight_decay=1e-4)


def test_a_script_runs_with_it(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import sys, timm.optim\n"
        "assert __name__ == '__main__' and 'fixnorm' in timm.optim.list_optimizers()\n"
        "print(sys.argv[1:])\n"
    )
    run = [sys.executable, "-m", "fixnorm.torch.timm"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [*run, script, "--opt", "fixnorm"], capture_output=True, text=True, check=False, env=environment
    )
    assert done.stdout.strip() == "['--opt', 'fixnorm']"
    assert "usage" in subprocess.run(run, capture_output=True, text=True, check=False, env=environment).stderr
