"""A run directory, as the command ``fixnorm`` writes it: crates/fixnorm-train/src/run_dir has its files and events.

Not here: what is measured (``recorder.py``).
"""

import json
import math
import struct
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from fixnorm.torch.roles import ParamRole, Roles

BASES = {"Adam": "adamw", "AdamW": "adamw", "RMSprop": "rmsprop", "SGD": "sgd", "rmsprop_tf": "rmsprop"}
BASES |= {name: name for name in ("adamw", "rmsprop", "sgd")}
"""Base updates as a recipe names them, by optimizer."""


IMAGES = ("train_pictures", "val_pictures", "test_pictures", "macs")
UNKNOWN = {"picture": [0, 0, 0], "train_picture": [0, 0, 0], "mean": [], "std": [], **dict.fromkeys(IMAGES, 0)}
"""What a plan says of model and data that is not known here."""


class RunDir:
    """The open files of a run; where ``out`` is ``None``, as in all processes but the first, nothing is written."""

    def __init__(
        self, out: Path | None, derived: Mapping[str, Any], recipe: Mapping[str, Any], roles: Roles, tensorboard: bool
    ) -> None:
        self.out = out
        self._files: dict[str, Any] = {}
        if out is None:
            return
        if (out / "plan.toml").exists():
            raise FileExistsError(f"{out} holds a run already: give another directory, or remove it")
        out.mkdir(parents=True, exist_ok=True)
        device = next(roles.model.parameters()).device.type
        made_by = {"version": _version(), "commit": f"PyTorch {torch.__version__}", "device": device}
        sections = {"made_by": made_by, "derived": {**UNKNOWN, **derived}, "recipe": recipe}
        text = "".join(f"[{section}]\n{_toml(values)}\n" for section, values in sections.items())
        (out / "plan.toml").write_text(text, encoding="utf-8")
        self.write_json("roles.json", {"params": [_role(row) for row in roles]})
        self._files["metrics"] = (out / "metrics.jsonl").open("w", encoding="utf-8")
        if recipe["log.trajectory"]:
            self._files["trajectory"] = (out / "trajectory.bin").open("wb")
            header = {"version": 1, "weights": [row.name for row in roles if row.is_weight]}
            self._files["trajectory"].write(json.dumps(header).encode() + b"\n")
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._files["tensorboard"] = SummaryWriter(str(out))

    def log(self, event: str, values: Mapping[str, Any]) -> None:
        """Adds an event to the metrics."""
        if file := self._files.get("metrics"):
            file.write(json.dumps({"event": event, **values}, allow_nan=False) + "\n")

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Adds points to TensorBoard's curves."""
        if file := self._files.get("tensorboard"):
            for tag, value in values.items():
                file.add_scalar(tag, value, step)

    def norms(self, lr: float, norms: list[float]) -> None:
        """Adds a step to the trajectory."""
        if file := self._files.get("trajectory"):
            file.write(struct.pack(f"<{len(norms) + 1}d", lr, *norms))

    def write_json(self, name: str, value: object) -> None:
        """Writes a file of its own."""
        if self.out is not None:
            (self.out / name).write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")

    def flush(self) -> None:
        """Hands everything to the system."""
        for file in self._files.values():
            file.flush()

    def close(self) -> None:
        """Closes the files."""
        for file in self._files.values():
            file.close()


def settings(optimizer: Optimizer) -> dict[str, Any]:
    """The optimizer's settings as keys of a recipe."""
    groups = {group.get("kind", ""): group for group in reversed(optimizer.param_groups)}
    kinds = [kind for kind in ("scale_invariant", "joint_1", "held") if kind in groups]
    first = groups[kinds[0]] if kinds else optimizer.param_groups[0]
    base, plain = first.get("base", type(optimizer).__name__), "constraint" not in first
    base = "nesterov" if BASES.get(base) == "sgd" and first.get("nesterov") else BASES.get(base)
    names = ("momentum", "weight_decay", "constraint", "radius", "scope", "step_rule")
    found = {
        "base": base,
        "lr": float(first.get("initial_lr", first["lr"])),
        **{n: first[n] for n in names if n in first},
    }
    renamed = {"alpha" if plain else "rms_decay": "rms_decay", "eps": "epsilon"}
    found |= {key: first[name] for name, key in renamed.items() if name in first}
    found |= zip(("beta1", "beta2"), first.get("betas", ()), strict=False)
    if plain:
        decay = "decoupled" if type(optimizer) is torch.optim.AdamW else "l2"
        found |= {"constraint": "free", "step_rule": "raw", "decay_kind": decay}
        return {f"optimizer.{key}": value for key, value in found.items()} | {"head.control": "free"}
    found["scope"] = "tensor" if found["scope"] == "group" else found["scope"]
    if free := groups.get("free", groups.get("gains_and_biases")):
        found |= {"free_step_rule": free["step_rule"], "free_lr_scale": free["lr_factor"]}
    keys = {f"optimizer.{key}": value for key, value in found.items()}
    if head := groups.get("head"):
        decay = head["weight_decay"]
        keys |= {"head.control": "decayed" if decay else head["constraint"], "head.alpha": head["alpha"]}
        keys |= {"head.weight_decay": decay, "head.step_rule": head["step_rule"], "head.lr_scale": head["lr_factor"]}
    return keys


def _role(row: ParamRole) -> dict[str, Any]:
    keys = ("shape", "role", "channel_axis", "channel_invariant", "overridden")
    return {"path": row.name, "deviation": finite(row.deviation), **{key: getattr(row, key) for key in keys}}


def finite(value: float | None) -> float | None:
    """The value, or ``None`` for what JSON does not have."""
    return value if value is not None and math.isfinite(value) else None


def _toml(values: Mapping[str, Any]) -> str:
    # Numbers, texts and lists are written alike in JSON and TOML.
    return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())


def _version() -> str:
    try:
        return version("fixnorm")
    except PackageNotFoundError:
        return "not installed"
