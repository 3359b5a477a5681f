"""Records a run as the command ``fixnorm`` does, for its report, migration and analysis.

Weights are measured around every k-th step by hooks of the optimizer; other steps cost one addition. The names of
files, events and keys are those of crates/fixnorm-train/src/run_dir.
"""

import json
import math
import struct
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from fixnorm.torch.batches import squares
from fixnorm.torch.roles import ParamRole, Roles
from fixnorm.torch.sharding import local, sum_over_processes

BASES = {"Adam": "adamw", "AdamW": "adamw", "RMSprop": "rmsprop", "SGD": "sgd", "rmsprop_tf": "rmsprop"}
BASES |= {name: name for name in ("adamw", "rmsprop", "sgd")}
"""Base updates as a recipe names them, by optimizer."""


class Recorder:
    """Writes a run directory. Of several processes the first writes; all must have one.

    Example::

        with Recorder("runs/a", optimizer, roles, epochs=2, steps_per_epoch=100, batch_size=64) as recorder:
            for epoch in range(2):
                for images, labels in loader:
                    ...
                    optimizer.step()
                    recorder.step(loss)
                recorder.epoch(val_loss, val_top1)

    Args:
        out: the directory; made, and refused where it holds a run.
        optimizer: FixNorm or any other, for example with weight decay.
        data: name of the data.
        schedule: shape of the learning rate: ``constant``, ``linear``, ``step``, ``cosine`` or ``sqrt_cosine``.
        every: steps between two records of loss and weights.
        trajectory: also record learning rate and norms of every step.
        tensorboard: also write events for TensorBoard, by ``torch.utils.tensorboard.SummaryWriter``.
        recipe: further keys of the recipe, such as ``{"train.label_smoothing": 0.1, "schedule.warmup_epochs": 1}``.
    """

    def __init__(
        self,
        out: str | Path,
        optimizer: Optimizer,
        roles: Roles,
        *,
        epochs: int,
        steps_per_epoch: int,
        batch_size: int,
        data: str = "",
        schedule: str = "constant",
        every: int = 10,
        trajectory: bool = False,
        tensorboard: bool = False,
        recipe: Mapping[str, Any] | None = None,
    ) -> None:
        if min(epochs, steps_per_epoch, batch_size, every) < 1:
            raise ValueError("epochs, steps_per_epoch, batch_size and every must be at least 1")
        self.out, self.steps, self._every, self._batch_size = Path(out), 0, every, batch_size
        params = dict(roles.model.named_parameters())
        groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
        self._rows = [row for row in roles if row.is_weight]
        self._weights: list[Tensor] = [params[row.name] for row in self._rows]
        for row in self._rows:
            if id(params[row.name]) not in groups:
                raise ValueError(f"the optimizer does not have {row.name}: make it of the model that was probed")
        self._groups = [groups[id(weight)] for weight in self._weights]
        seed = torch.initial_seed() & (2**63 - 1)
        name = getattr(roles.model, "default_cfg", {}).get("architecture") or type(roles.model).__name__
        keys = {"model": name, "data": data, "train.epochs": epochs, "train.batch_size": batch_size, "train.seed": seed}
        keys |= {"log.every_steps": every, "log.measure_every_steps": every, "log.trajectory": trajectory}
        keys |= {"schedule.shape": schedule, **_settings(optimizer), **(recipe or {})}
        if keys["optimizer.base"] is None:
            raise ValueError(
                f"a recipe has no base update {type(optimizer).__name__}; name the one that is nearest by "
                'recipe={"optimizer.base": "sgd"} (or nesterov, rmsprop, adamw)'
            )
        counts = {"params": sum(params[row.name].numel() for row in roles), "steps_per_epoch": steps_per_epoch}
        self._about = {"model": name, "data": data, "seed": seed}
        self._writes = not dist.is_available() or not dist.is_initialized() or dist.get_rank() == 0
        self._files: list[Any] = []
        self._trajectory: Any = None
        self._board: Any = None
        if self._writes:
            derived = {"classes": [str(label) for label in range(roles.head.c_out)] if roles.head else [], **counts}
            derived |= {"steps": epochs * steps_per_epoch, "train_pictures": steps_per_epoch * batch_size}
            self._open(derived, keys, roles)
            if tensorboard:
                from torch.utils.tensorboard import SummaryWriter

                self._board = SummaryWriter(str(self.out))
                self._files.append(self._board)
        about = {**self._about, **counts, "epochs": epochs, "step": 0, "out": str(self.out)}
        invariant = sum(row.role == "scale_invariant" for row in self._rows)
        self._log("start", {**about, "weights": len(self._rows), "scale_invariant": invariant})
        self._norms_every_step = trajectory
        self._norms_before: list[tuple[float, Tensor]] = []
        self._before: tuple[list[Tensor], Tensor, Tensor] | None = None
        self._measured: Tensor | None = None
        self._recorded, self._failed, self._total = 0, False, torch.zeros(())
        self._epochs: list[dict[str, float]] = []
        self._start = self._epoch_start = self._last = time.perf_counter()
        before, after = optimizer.register_step_pre_hook, optimizer.register_step_post_hook
        self._hooks = [before(self._before_step), after(self._after_step)]

    def _open(self, derived: dict[str, Any], keys: dict[str, Any], roles: Roles) -> None:
        if (self.out / "plan.toml").exists():
            raise FileExistsError(f"{self.out} holds a run already: give another directory, or remove it")
        self.out.mkdir(parents=True, exist_ok=True)
        device = "cuda" if self._weights and self._weights[0].is_cuda else "cpu"
        made_by = {"version": _version(), "commit": f"PyTorch {torch.__version__}", "device": device}
        unknown: dict[str, Any] = {"picture": [0, 0, 0], "train_picture": [0, 0, 0], "mean": [], "std": [], "macs": 0}
        derived |= {"val_pictures": 0, "test_pictures": 0, **unknown}
        text = "".join(
            f"[{n}]\n{_toml(v)}\n" for n, v in [("made_by", made_by), ("derived", derived), ("recipe", keys)]
        )
        (self.out / "plan.toml").write_text(text, encoding="utf-8")
        self._write_json("roles.json", {"params": [_role(row) for row in roles]})
        self._metrics = (self.out / "metrics.jsonl").open("w", encoding="utf-8")
        self._files.append(self._metrics)
        if keys["log.trajectory"]:
            self._trajectory = (self.out / "trajectory.bin").open("wb")
            names = [row.name for row in self._rows]
            self._trajectory.write(json.dumps({"version": 1, "weights": names}).encode() + b"\n")
            self._files.append(self._trajectory)

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self._fail(f"{type(error).__name__}: {error}", "other")
        self.close()

    @torch.no_grad()
    def _before_step(self, *_: object) -> None:
        self._lr = float(self._groups[0]["lr"])
        measures = self.steps % self._every == 0
        if measures or self._norms_every_step:
            norms = self._norms(self._weights)
        if self._norms_every_step:
            self._norms_before.append((self._lr, norms))
        if measures:
            self._lrs = [group["lr"] * group.get("lr_factor", 1.0) for group in self._groups]
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._weights]
            self._before = [local(p).clone() for p in self._weights], norms, self._norms(gradients)

    @torch.no_grad()
    def _after_step(self, *_: object) -> None:
        self.steps += 1
        if self._before is not None:
            change, norms, gradients = self._before
            torch._foreach_sub_(change, [local(p) for p in self._weights])
            after, changed = self._norms(self._weights), self._norms(change)
            # The distance of the two directions, by a difference that is exact.
            apart = ((changed.square() - (after - norms).square()) / (norms * after)).clamp_min(0.0).sqrt()
            angles = 2.0 * torch.asin((0.5 * apart).clamp_max(1.0))
            self._before, self._measured = None, torch.stack([norms, angles, gradients], 1)

    def _norms(self, tensors: list[Tensor]) -> Tensor:
        return sum_over_processes(squares([local(t) for t in tensors]), self._weights[0]).sqrt()

    def step(self, loss: Tensor | float) -> None:
        """Records the step that the optimizer has taken, and its loss; nothing where it took none."""
        if self.steps == self._recorded or self._failed:
            return
        self._recorded, self._last, step = self.steps, time.perf_counter(), self.steps - 1
        loss = torch.as_tensor(loss).detach()
        self._total = self._total.to(loss.device) + loss
        if self._measured is None:
            return
        measured, self._measured, value = self._measured.tolist(), None, float(loss)
        if not math.isfinite(value):
            return self._fail(f"the loss is {value} at step {step}", "diverged")
        self._log("step", {"step": step, "epoch": len(self._epochs), "lr": self._lr, "loss": value})
        self._scalars({"train/loss": value, "train/lr": self._lr}, step)
        layers = []
        for row, lr, (norm, angle, gradient) in zip(self._rows, self._lrs, measured, strict=True):
            rate = lr / norm**2 if norm else math.nan
            values = {"norm": norm, "effective_lr": rate, "angular_update": angle, "gradient_norm": gradient}
            self._scalars({f"{key}/{row.name}": value for key, value in values.items()}, step)
            layers.append({"path": row.name, "role": row.role, **{k: _finite(v) for k, v in values.items()}})
        self._log("measure", {"step": step, "layers": layers})
        self._flush()

    def epoch(self, val_loss: float, val_top1: float, *, train_top1: float = 0.0, val_top5: float = 0.0) -> None:
        """Records the end of an epoch: validation loss, and accuracies as shares of 1."""
        done = self.steps - int(self._epochs[-1]["step"] if self._epochs else 0)
        losses = {"train_loss": float(self._total) / max(done, 1), "val_loss": float(val_loss)}
        shares = {"train_top1": float(train_top1), "val_top1": float(val_top1), "val_top5": float(val_top5)}
        if not math.isfinite(sum(losses.values())):
            self._fail(f"the loss of epoch {len(self._epochs) + 1} is not finite", "diverged")
        if self._failed:
            return
        speed = done * self._batch_size / max(self._last - self._epoch_start, 1e-9)
        values = {"epoch": len(self._epochs), "step": self.steps, **losses, **shares, "images_per_second": speed}
        self._log("epoch", values)
        board = {
            "val/loss": losses["val_loss"],
            "val/top1": shares["val_top1"],
            "epoch/train_loss": losses["train_loss"],
        }
        self._scalars(board, self.steps - 1)
        self._epochs.append(values)
        self._flush()
        self._total, self._epoch_start = torch.zeros(()), time.perf_counter()

    def close(self) -> None:
        """Ends the run, with a result where an epoch was recorded; ``with`` calls it."""
        if not self._hooks:
            return
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self._flush()
        if self._epochs and not self._failed and self._writes:
            kept = ("train_loss", "val_loss", "val_top1", "val_top5", "images_per_second")
            result = {**self._about, "epochs": len(self._epochs), "steps": self.steps, "out": str(self.out)}
            result |= {"seconds": time.perf_counter() - self._start, **{key: self._epochs[-1][key] for key in kept}}
            self._log("end", result)
            self._write_json("result.json", result)
        for file in self._files:
            file.close()

    def _fail(self, error: str, kind: str) -> None:
        if self._writes and not self._failed:
            self._write_json("failure.json", {"error": error, "kind": kind})
        self._failed = True

    def _log(self, event: str, values: Mapping[str, Any]) -> None:
        if self._writes:
            self._metrics.write(json.dumps({"event": event, **values}, allow_nan=False) + "\n")

    def _scalars(self, values: Mapping[str, float], step: int) -> None:
        for tag, value in values.items() if self._board else ():
            self._board.add_scalar(tag, value, step)

    def _flush(self) -> None:
        if self._trajectory is not None and self._norms_before:
            norms = torch.stack([norms for _, norms in self._norms_before]).tolist()
            for (lr, _), row in zip(self._norms_before, norms, strict=True):
                self._trajectory.write(struct.pack(f"<{len(row) + 1}d", lr, *row))
        self._norms_before = []
        for file in self._files:
            file.flush()

    def _write_json(self, name: str, value: object) -> None:
        (self.out / name).write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _settings(optimizer: Optimizer) -> dict[str, Any]:
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
    return {"path": row.name, "deviation": _finite(row.deviation), **{key: getattr(row, key) for key in keys}}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _toml(values: Mapping[str, Any]) -> str:
    # Numbers, texts and lists are written alike in JSON and TOML.
    return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())


def _version() -> str:
    try:
        return version("fixnorm")
    except PackageNotFoundError:
        return "not installed"
