"""Every example runs; those of packages that are not installed are left out."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize(
    ("name", "package", "least"),
    [("digits", "torch", 0.9), ("lightning_module", "lightning", 0.95), ("huggingface_trainer", "transformers", 0.8)],
)
def test_examples_learn_and_hold_the_head(name: str, package: str, least: float) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = [sys.executable, EXAMPLES / f"{name}.py"]
    done = subprocess.run(run, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    _, accuracy, _, _, norm = done.stdout.splitlines()[-1].replace(",", "").split()
    assert float(accuracy) > least and norm == "3.1623", done.stdout
