"""Trains a small network on made-up images: ten random patterns with noise. Takes a few seconds on a CPU."""

import torch
from patterns import images
from torch import nn
from torch.nn import functional as F

from fixnorm.torch import FixNorm, probe

torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1, bias=False),
    nn.BatchNorm2d(16),
    nn.ReLU(),
    nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
    nn.BatchNorm2d(32),
    nn.ReLU(),
    nn.Flatten(),
    nn.Linear(32 * 36, 10),
)
x, y = images(64, seed=0)
roles = probe(model, lambda m: F.cross_entropy(m(x), y))
print(roles)
optimizer = FixNorm(torch.optim.SGD, roles, lr=0.1, alpha=1.0, momentum=0.9)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=100)
for step in range(100):
    x, y = images(64, seed=1 + step)
    optimizer.zero_grad()
    F.cross_entropy(model(x), y).backward()
    optimizer.step()
    schedule.step()
model.eval()
x, y = images(1000, seed=1000)
print(f"accuracy {(model(x).argmax(1) == y).float().mean():.3f}, head norm {model[7].weight.norm():.4f}")
