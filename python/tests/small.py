"""A small network and its batch, for the other tests."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fixnorm.torch import FixNorm, Roles, probe


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.norm2 = nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(self.norm2(self.conv2(x)))
        return self.fc(x.mean(dim=(2, 3)))


def net(seed: int = 0, **kwargs: torch.dtype) -> Net:
    torch.manual_seed(seed)
    return Net().to(**kwargs)


def batch(seed: int = 0, n: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, 8, 8, generator=generator), torch.arange(n) % 3


def loss(model: nn.Module, seed: int = 0) -> Tensor:
    x, y = batch(seed)
    return F.cross_entropy(model(x.to(next(model.parameters()).dtype)), y)


def roles(model: nn.Module) -> Roles:
    return probe(model, loss)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, start: int = 0) -> list[float]:
    losses = []
    for step in range(start, start + steps):
        optimizer.zero_grad()
        value = loss(model, step)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return losses


def norm_error(optimizer: FixNorm) -> float:
    """The largest relative distance of a held norm from its radius."""
    worst = 0.0
    for param, state in optimizer.state.items():
        if "radius" in state:
            dims = None if state["radius"].ndim == 0 else tuple(range(1, param.ndim))
            norm = torch.linalg.vector_norm(param.detach().double(), dim=dims)
            worst = max(worst, ((norm / state["radius"].double() - 1).abs().max()).item())
    return worst
