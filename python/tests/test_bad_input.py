"""Bad input: each case gives one error that says what is wrong, and changes nothing."""

from collections.abc import Callable

import pytest
import torch
from small import Net, batch, loss, net, roles, train
from torch import nn
from torch.nn import functional as F

from fixnorm.torch import FixNorm, probe


class Other(nn.Module):
    """A model with a weight of a kind that cannot be held."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight, self.fc = weight, nn.Linear(64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.flatten(1)) + torch.view_as_real((self.weight.to_dense().sum() + 0j).to(torch.complex64))[0]


def optimized(model: nn.Module, **options: object) -> FixNorm:
    return FixNorm(torch.optim.SGD, probe(model, loss), **options)


def frozen_after_the_probe(model: nn.Module) -> FixNorm:
    table = probe(model, loss)
    model.conv1.weight.requires_grad_(False)
    return FixNorm(torch.optim.SGD, table)


def without_head() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def no_scalar(model: nn.Module) -> torch.Tensor:
    x, y = batch()
    return F.cross_entropy(model(x), y, reduction="none")


CASES = {
    "no head": (without_head, optimized, ValueError, "no weight has the role head; name one by"),
    "no scalar": (net, lambda m: probe(m, no_scalar), TypeError, r"scalar tensor, got a tensor of shape \(8,\)"),
    "frozen": (net, frozen_after_the_probe, TypeError, r"conv1\.weight was frozen after the probe"),
    "all frozen": (lambda: net().requires_grad_(False), optimized, ValueError, "no trainable parameter"),
    "sparse": (lambda: Other(nn.Parameter(torch.eye(3).to_sparse())), optimized, TypeError, "weight is .*sparse"),
    "complex": (lambda: Other(nn.Parameter(torch.ones(2, 2) * 1j)), optimized, TypeError, "weight is .*complex64"),
    "lr": (net, lambda m: optimized(m, lr=torch.tensor(0.1)), TypeError, "lr must be a Python number, got a tensor"),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_and_nothing_changes(case: str) -> None:
    make: Callable[[], nn.Module]
    make, use, error, message = CASES[case]
    torch.manual_seed(1)
    model = make().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    with pytest.raises(error, match=message) as caught:
        use(model)
    assert "\n" not in str(caught.value) and caught.value.__context__ is None
    assert not model.training and torch.equal(torch.random.get_rng_state(), state)
    for name, value in model.state_dict().items():
        assert torch.equal(value.to_dense(), before[name].to_dense()), name


def test_a_checkpoint_of_another_model_is_refused_and_nothing_changes() -> None:
    class Wider(Net):
        def __init__(self) -> None:
            super().__init__()
            self.extra = nn.Linear(6, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x)

    optimizers = []
    for model in (net(), Wider()):
        optimizers.append(FixNorm(torch.optim.SGD, roles(model), lr=0.01, momentum=0.9))
        train(model, optimizers[-1], 2)
    ours, theirs = optimizers
    before = [value.clone() for state in ours.state.values() for value in state.values()]
    with pytest.raises(ValueError, match="the optimizer's state is not this model's: "):
        ours.load_state_dict(theirs.state_dict())
    with pytest.raises(ValueError, match="the optimizer's state is not this model's: "):
        ours.load_state_dict(torch.optim.SGD(net().parameters(), lr=0.1).state_dict())
    assert all(map(torch.equal, before, [value for state in ours.state.values() for value in state.values()]))
