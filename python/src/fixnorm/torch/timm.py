"""FixNorm by name in timm: ``import fixnorm.torch.timm``, then ``create_optimizer_v2(model, opt="fixnorm", lr=0.1)``.

``python -m fixnorm.torch.timm train.py --opt fixnorm ...`` runs timm's training script with it.
"""

import functools
import runpy
import sys
import warnings
from typing import Any

import torch
from timm.optim import _optim_factory as factory
from torch import Tensor, nn
from torch.nn import functional as F

from fixnorm.torch.direction import base_of
from fixnorm.torch.optimizer import FixNorm
from fixnorm.torch.probe import probe
from fixnorm.torch.roles import Roles

SIDE = 32
"""Side of the probe's images where the model takes any: roles do not depend on it."""


def probe_timm(model: nn.Module, **options: Any) -> Roles:
    """Roles of a timm model by noise of the size that it takes, and its classifier as the head.

    ``options`` are those of ``probe``.
    """
    config = getattr(model, "pretrained_cfg", None) or {"input_size": (3, SIDE, SIDE)}
    channels, *size = config["input_size"]
    if not config.get("fixed_input_size"):
        least = config.get("min_input_size", (0, 0, 0))[1:]
        size = [max(low, min(SIDE, side)) for low, side in zip(least, size, strict=True)]
    size = getattr(getattr(model, "patch_embed", None), "img_size", None) or size
    stem = config.get("first_conv")
    if isinstance(stem, str):
        channels = getattr(model.get_submodule(stem), "in_channels", channels)
    like = next(model.parameters())
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(8, channels, *size, generator=generator).to(like)
    classifier: Any = getattr(model, "get_classifier", lambda: None)()
    names = {id(param): name for name, param in model.named_parameters()}
    options.setdefault("head", names.get(id(getattr(classifier, "weight", None))))

    def loss(model: nn.Module) -> Tensor:
        found = model(images)
        logits = found[0] if isinstance(found, tuple) else found
        return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device) % logits.shape[1])

    return probe(model, loss, **options)


def _create(create: Any, given: Any, opt: str, *args: Any, **options: Any) -> torch.optim.Optimizer:
    if opt.lower() != "fixnorm":
        made: torch.optim.Optimizer = create(given, opt, *args, **options)
        return made
    if not isinstance(given, nn.Module):
        raise TypeError("fixnorm needs the model, not its parameters: roles are found by running it")
    refused = [name for name in ("layer_decay", "param_group_fn") if options.pop(name, None) is not None]
    if refused:
        raise ValueError(f"fixnorm has groups of its own and cannot take {', '.join(refused)}")
    if options.pop("weight_decay", 0.0):
        warnings.warn("fixnorm holds norms; weight_decay is ignored", stacklevel=3)
    base = base_of(options.pop("base", "sgd"))
    unused = {"weight_decay_exclude_1d", "fallback_list", "fallback_no_weight_decay"}
    unused |= {"layer_decay_min_scale", "layer_decay_no_opt_scale"} | ({"momentum", "eps", "betas"} - set(base.options))
    options = {name: value for name, value in options.items() if name not in unused and value is not None}
    found = {name: options.pop(name) for name in ("roles", "hold") if name in options}
    return FixNorm(base.name, probe_timm(given, **found), **options)


registry: Any = factory.default_registry
registry.register(
    factory.OptimInfo("fixnorm", FixNorm, "Norms of weights held instead of decayed", has_eps=False, has_momentum=True)
)
registry.create_optimizer = functools.partial(_create, registry.create_optimizer)

if __name__ == "__main__":
    sys.argv = sys.argv[1:]
    if not sys.argv:
        sys.exit("usage: python -m fixnorm.torch.timm SCRIPT ARGUMENTS, for example train.py --opt fixnorm")
    runpy.run_path(sys.argv[0], run_name="__main__")
