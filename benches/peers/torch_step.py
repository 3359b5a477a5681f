#!/usr/bin/env python3
"""PyTorch's side of `train_step.py`: warms a step up, then measures it each time it is told to.

    torch_step.py MODEL BATCH RESOLUTION fp32|bf16 eager|compile THREADS STEPS train|inference cpu|cuda

timm model, channels_last. A training step is with SGD, momentum and weight decay; inference is with batch norms folded
into the convolutions. Prints `ready`, then for each line read from stdin the median milliseconds of STEPS steps and the
peak memory in MiB, on a GPU its own. Needs torch and timm.
"""
import resource
import statistics
import sys
import time

import timm
import torch
from torch.fx.experimental.optimization import fuse

name, batch, side, precision, mode, threads, steps, kind, device = sys.argv[1:10]
batch, side, steps = int(batch), int(side), int(steps)
torch.set_num_threads(int(threads))
torch.manual_seed(0)
model = timm.create_model(name, num_classes=1000)
model = fuse(model.eval()) if kind == "inference" else model.train()
model = model.to(device, memory_format=torch.channels_last)
x = torch.randn(batch, 3, side, side).to(device, memory_format=torch.channels_last)
y = torch.randint(0, 1000, (batch,)).to(device)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
forward = torch.compile(model) if mode == "compile" else model


def infer():
    start = time.perf_counter()
    with torch.inference_mode(), torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16"):
        forward(x)[0, 0].item()
    return 1e3 * (time.perf_counter() - start)


def train():
    start = time.perf_counter()
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16"):
        loss = torch.nn.functional.cross_entropy(forward(x), y)
    loss.backward()
    optimizer.step()
    loss.item()
    return 1e3 * (time.perf_counter() - start)


def peak_mib():
    if device == "cuda":
        return torch.cuda.max_memory_reserved() // 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


step = infer if kind == "inference" else train
for _ in range(3):
    step()
print("ready", flush=True)
for _ in sys.stdin:
    median = statistics.median(step() for _ in range(steps))
    print(median, peak_mib(), flush=True)
