#!/usr/bin/env python3
"""Times an optimizer step on the parameters of ResNet-50 and ViT-S: FixNorm beside torch.optim, alternately.

    pip install torch timm
    PYTHONPATH=python/src python benches/peers/torch_step_cost.py [--threads 2] [--rounds 60] [--device cpu]

writes CSV to standard output: median and quartiles of a step in ms over the rounds, the median of the ratio to
`torch.optim.SGD(foreach=True)` within a round, bytes of state above the base optimizer's, and the load before and after.
Each round takes one step of every optimizer, in an order that rotates. Gradients are random and stay the same.
"""

import argparse
import copy
import csv
import os
import statistics
import sys
import time

import timm
import torch

from fixnorm.torch import FixNorm, ParamRole, Roles

MODELS = {"resnet50": {}, "vit_small_patch16_224": {}}


def roles_of(model, head):
    """Roles as the probe finds them (resnet50), or every matrix held (ViT): no forward pass is needed here."""
    rows = []
    for name, p in model.named_parameters():
        role = "head" if name == head else "scale_invariant" if p.ndim > 1 else "free"
        rows.append(ParamRole(name, tuple(p.shape), role, 0 if p.ndim > 1 else None, p.ndim > 1))
    return Roles(model, rows)


def optimizers(name, device):
    """Name -> (step, optimizer) on models of their own."""
    torch.manual_seed(0)
    original = timm.create_model(name, **MODELS[name]).to(device)
    grads = [1e-3 * torch.randn_like(p) for p in original.parameters()]

    def made(make):
        model = copy.deepcopy(original)
        for p, g in zip(model.parameters(), grads):
            p.grad = g.clone()
        return make(model)

    def fixnorm(base, **options):
        head = "fc.weight" if name == "resnet50" else "head.weight"
        return made(lambda model: FixNorm(base, roles_of(model, head), lr=1e-3, **options))

    def plain(kind, **options):
        return made(lambda model: kind(model.parameters(), lr=1e-3, **options))

    sgd, adamw = torch.optim.SGD, torch.optim.AdamW
    return {
        "sgd foreach": plain(sgd, momentum=0.9, foreach=True),
        "sgd fused": plain(sgd, momentum=0.9, fused=True),
        "fixnorm sgd raw": fixnorm(sgd, momentum=0.9),
        "fixnorm sgd angular": fixnorm(sgd, momentum=0.9, step_rule="angular"),
        "fixnorm sgd angular channels": fixnorm(sgd, momentum=0.9, step_rule="angular", scope="output_channel"),
        "adamw foreach": plain(adamw, foreach=True),
        "fixnorm adamw raw": fixnorm(adamw),
        "fixnorm adamw angular": fixnorm(adamw, step_rule="angular"),
    }


def state_bytes(optimizer):
    return sum(t.numel() * t.element_size() for state in optimizer.state.values() for t in state.values())


def timed(optimizer, device):
    started = time.perf_counter()
    optimizer.step()
    if device != "cpu":
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - started)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    out = csv.writer(sys.stdout)
    header = "model,device,threads,optimizer,median_ms,lower_ms,upper_ms,ratio_to_sgd_foreach,state_bytes_above,load_before,load_after"
    out.writerow(header.split(","))
    for model in arguments.models:
        load = os.getloadavg()[0]
        made = optimizers(model, arguments.device)
        times = {name: [] for name in made}
        order = list(made)
        for optimizer in made.values():
            for _ in range(3):
                timed(optimizer, arguments.device)
        for index in range(arguments.rounds):
            start = index % len(order)
            for name in order[start:] + order[:start]:
                times[name].append(timed(made[name], arguments.device))
        for name, optimizer in made.items():
            base = made["adamw foreach" if "adamw" in name else "sgd foreach"]
            lower, median, upper = statistics.quantiles(times[name], n=4)
            ratio = statistics.median(a / b for a, b in zip(times[name], times["sgd foreach"], strict=True))
            row = [model, arguments.device, arguments.threads, name, *(f"{t:.2f}" for t in (median, lower, upper))]
            above = state_bytes(optimizer) - state_bytes(base)
            out.writerow([*row, f"{ratio:.3f}", above, f"{load:.2f}", f"{os.getloadavg()[0]:.2f}"])
        sys.stdout.flush()


if __name__ == "__main__":
    main()
