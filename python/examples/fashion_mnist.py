"""Trains timm's resnet18 on Fashion-MNIST: `fashion_mnist.py FOLDER RUN`, then `fixnorm report RUN -o page.html`."""

import gzip
import sys

import timm
import torch
from torch.nn.functional import cross_entropy

from fixnorm.torch import FixNorm, Recorder, probe


def read(name: str, header: int, *shape: int) -> torch.Tensor:
    with gzip.open(f"{sys.argv[1]}/{name}-ubyte.gz") as file:
        return torch.frombuffer(bytearray(file.read()[header:]), dtype=torch.uint8).reshape(-1, *shape)


x, y = read("train-images-idx3", 16, 1, 28, 28) / 128 - 1, read("train-labels-idx1", 8).long()
model = timm.create_model("resnet18", in_chans=1, num_classes=10)
roles = probe(model, lambda model: cross_entropy(model(x[:16]), y[:16]))
optimizer = FixNorm(torch.optim.SGD, roles, lr=0.1, alpha=1.0, momentum=0.9)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=300)
run = {"epochs": 1, "steps_per_epoch": 300, "batch_size": 64, "schedule": "cosine"}
with Recorder(sys.argv[2], optimizer, roles, **run) as recorder:
    for _ in range(300):
        rows = torch.randint(50_000, (64,))
        loss = cross_entropy(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        recorder.step(loss)
        schedule.step()
    logits = model.eval()(x[-1000:]).detach()
    recorder.epoch(cross_entropy(logits, y[-1000:]), (logits.argmax(1) == y[-1000:]).float().mean())
print(roles)
