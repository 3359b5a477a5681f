"""Records a run for the command's report, migration and analysis.

Weights are measured around every k-th step by hooks of the optimizer; other steps cost one addition.
Not here: the files (``run_dir.py``).
"""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from fixnorm.torch.batches import squares
from fixnorm.torch.roles import Roles
from fixnorm.torch.run_dir import RunDir, finite, settings
from fixnorm.torch.sharding import local, sum_over_processes


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
        name = getattr(roles.model, "default_cfg", {}).get("architecture") or type(roles.model).__name__
        self._about = {"model": name, "data": data, "seed": torch.initial_seed() & (2**63 - 1)}
        keys = {"model": name, "data": data, "train.seed": self._about["seed"], "train.epochs": epochs}
        keys |= {"log.every_steps": every, "log.measure_every_steps": every, "log.trajectory": trajectory}
        keys |= {"train.batch_size": batch_size, "schedule.shape": schedule, **settings(optimizer), **(recipe or {})}
        if keys["optimizer.base"] is None:
            raise ValueError(
                f"a recipe has no base update {type(optimizer).__name__}; name the one that is nearest by "
                'recipe={"optimizer.base": "sgd"} (or nesterov, rmsprop, adamw)'
            )
        counts = {"params": sum(params[row.name].numel() for row in roles), "steps_per_epoch": steps_per_epoch}
        classes = [str(label) for label in range(roles.head.c_out)] if roles.head else []
        steps = epochs * steps_per_epoch
        derived = {**counts, "classes": classes, "steps": steps, "train_pictures": steps_per_epoch * batch_size}
        first = not dist.is_available() or not dist.is_initialized() or dist.get_rank() == 0
        self._dir = RunDir(self.out if first else None, derived, keys, roles, tensorboard)
        about = {**self._about, **counts, "epochs": epochs, "step": 0, "out": str(self.out)}
        invariant = sum(row.role == "scale_invariant" for row in self._rows)
        self._dir.log("start", {**about, "weights": len(self._rows), "scale_invariant": invariant})
        self._norms_every_step = trajectory
        self._norms_before: list[tuple[float, Tensor]] = []
        self._before: tuple[list[Tensor], Tensor, Tensor] | None = None
        self._measured: Tensor | None = None
        self._recorded, self._failed, self._total = 0, False, torch.zeros(())
        self._epochs: list[dict[str, float]] = []
        self._start = self._epoch_start = self._last = time.perf_counter()
        before, after = optimizer.register_step_pre_hook, optimizer.register_step_post_hook
        self._hooks = [before(self._before_step), after(self._after_step)]

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
        self._dir.log("step", {"step": step, "epoch": len(self._epochs), "lr": self._lr, "loss": value})
        self._dir.scalars({"train/loss": value, "train/lr": self._lr}, step)
        layers = []
        for row, lr, (norm, angle, gradient) in zip(self._rows, self._lrs, measured, strict=True):
            rate = lr / norm**2 if norm else math.nan
            values = {"norm": norm, "effective_lr": rate, "angular_update": angle, "gradient_norm": gradient}
            self._dir.scalars({f"{key}/{row.name}": value for key, value in values.items()}, step)
            layers.append({"path": row.name, "role": row.role, **{k: finite(v) for k, v in values.items()}})
        self._dir.log("measure", {"step": step, "layers": layers})
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
        self._dir.log("epoch", values)
        board = {
            "val/loss": losses["val_loss"],
            "val/top1": shares["val_top1"],
            "epoch/train_loss": losses["train_loss"],
        }
        self._dir.scalars(board, self.steps - 1)
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
        if self._epochs and not self._failed:
            kept = ("train_loss", "val_loss", "val_top1", "val_top5", "images_per_second")
            result = {**self._about, "epochs": len(self._epochs), "steps": self.steps, "out": str(self.out)}
            result |= {"seconds": time.perf_counter() - self._start, **{key: self._epochs[-1][key] for key in kept}}
            self._dir.log("end", result)
            self._dir.write_json("result.json", result)
        self._dir.close()

    def _fail(self, error: str, kind: str) -> None:
        if not self._failed:
            self._dir.write_json("failure.json", {"error": error, "kind": kind})
        self._failed = True

    def _flush(self) -> None:
        if self._norms_before:
            norms = torch.stack([norms for _, norms in self._norms_before]).tolist()
            for (lr, _), row in zip(self._norms_before, norms, strict=True):
                self._dir.norms(lr, row)
        self._norms_before = []
        self._dir.flush()
