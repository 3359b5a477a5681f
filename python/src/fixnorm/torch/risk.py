"""Cross-boundary risk, by the command ``fixnorm risk``: one definition for both languages."""

import json
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from torch import Tensor, nn


def cross_boundary_risk(features: Tensor, labels: Tensor, head: nn.Linear, **options: object) -> dict[str, Any]:
    """What ``fixnorm risk --format json`` prints: risk by size of the noise, margins, calibration, class means.

    Args:
        features: the head's inputs, ``[n, d]``.
        labels: classes, ``[n]``.
        options: those of the command: ``tau="0.5,1"``, ``draws=200_000``, ``seed=0``.

    Raises:
        FileNotFoundError: the command is not installed.
        ValueError: tensors that do not fit, or whose risk is undefined; the message names the tensor.
    """
    from safetensors.torch import save_file

    command = shutil.which("fixnorm", path=sysconfig.get_path("scripts")) or shutil.which("fixnorm")
    if command is None:
        raise FileNotFoundError("the command fixnorm is not found: install the wheel, or put it on PATH")
    tensors = {"features": features.float(), "labels": labels.long(), "head.weight": head.weight.float()}
    if head.bias is not None:
        tensors["head.bias"] = head.bias.float()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.safetensors"
        save_file({name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}, path)
        given = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        run = [command, "risk", "--features", str(path), "--format", "json", *given]
        done = subprocess.run(run, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ValueError(done.stderr.strip().replace(f"{path}: ", ""))
    found: dict[str, Any] = json.loads(done.stdout)
    return found
