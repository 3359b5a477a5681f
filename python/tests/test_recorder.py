"""Run directories: what is in them is what happened, and the command reads them as its own."""

import json
import math
import shutil
import struct
import subprocess
import sysconfig
from pathlib import Path

import pytest
import torch
from small import loss, net, roles

from fixnorm.torch import FixNorm, Recorder, Roles

COMMAND = shutil.which("fixnorm", path=sysconfig.get_path("scripts")) or shutil.which("fixnorm")
needs_command = pytest.mark.skipif(COMMAND is None, reason="the command fixnorm is not installed")
SIZES = {"epochs": 2, "steps_per_epoch": 10, "batch_size": 8}


def recorded(out: Path, optimizer: torch.optim.Optimizer, table: Roles, **options: object) -> list[dict]:
    """Trains twice ten steps; the events."""
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
    with Recorder(out, optimizer, table, **{**SIZES, "schedule": "cosine", "every": 5, **options}) as recorder:
        for epoch in range(2):
            for step in range(10):
                optimizer.zero_grad()
                value = loss(table.model, 10 * epoch + step)
                value.backward()
                optimizer.step()
                recorder.step(value)
                cosine.step()
            recorder.epoch(value.item(), 0.25 * (epoch + 1))
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def command(*arguments: object) -> str:
    done = subprocess.run([str(COMMAND), *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _plain(table: Roles) -> list[dict]:
    return [{"params": group["params"], "kind": group["kind"]} for group in table.param_groups()]


def test_measures_are_those_of_the_step(tmp_path: Path) -> None:
    model = net()
    optimizer = FixNorm("sgd", roles(model), lr=0.1, step_rule="angular", head_lr_scale=0.5, head_step_rule="angular")
    with Recorder(tmp_path, optimizer, roles(model), **SIZES, every=1) as recorder:
        value = loss(model)
        value.backward()
        gradient = model.conv1.weight.grad.norm().item()
        optimizer.step()
        recorder.step(value)
    events = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == ["start", "step", "measure"]
    assert events[1] == {"event": "step", "step": 0, "epoch": 0, "lr": 0.1, "loss": pytest.approx(value.item())}
    conv, _, head = events[2]["layers"]
    assert (conv["path"], conv["role"], head["role"]) == ("conv1.weight", "scale_invariant", "head")
    assert conv["norm"] == pytest.approx(2.0, rel=1e-6)
    assert conv["effective_lr"] == pytest.approx(0.1 / 4.0, rel=1e-6)
    assert conv["gradient_norm"] == pytest.approx(gradient, rel=1e-6)
    assert [conv["angular_update"], head["angular_update"]] == pytest.approx([0.1, 0.05], rel=1e-4)
    assert head["effective_lr"] == pytest.approx(0.05 / 3.0, rel=1e-6)


def test_a_trajectory_has_every_step(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    events = recorded(tmp_path, optimizer, roles(model), trajectory=True)
    header, values = (tmp_path / "trajectory.bin").read_bytes().split(b"\n", 1)
    assert json.loads(header) == {"version": 1, "weights": ["conv1.weight", "conv2.weight", "fc.weight"]}
    rows = list(struct.iter_unpack("<4d", values))
    assert [row[0] for row in rows] == pytest.approx([0.05 * (1 + math.cos(math.pi * t / 20)) for t in range(20)])
    measures = {event["step"]: event["layers"] for event in events if event["event"] == "measure"}
    assert sorted(measures) == [0, 5, 10, 15]
    assert list(rows[5][1:]) == [layer["norm"] for layer in measures[5]]


@needs_command
@pytest.mark.parametrize("kind", ["fixnorm", "sgd", "adamw"])
def test_the_command_reads_it(kind: str, tmp_path: Path) -> None:
    model, run = net(), tmp_path / "run"
    table = roles(model)
    optimizer = {
        "fixnorm": lambda: FixNorm("nesterov", table, lr=0.1, step_rule="angular", momentum=0.9, radius=2.0),
        "sgd": lambda: torch.optim.SGD(_plain(table), lr=0.1, weight_decay=0.01, momentum=0.9),
        "adamw": lambda: torch.optim.AdamW(model.parameters(), lr=0.01),
    }[kind]()
    events = recorded(run, optimizer, table, tensorboard=False)
    command("report", run, "-o", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "finished, 2 epochs" in page and "Angular update of" in page and "conv2.weight" in page
    plan = (run / "plan.toml").read_text().splitlines()
    expected = {
        "fixnorm": ['base = "nesterov"', "lr = 0.1", 'constraint = "fixed"', "radius = 2.0", 'step_rule = "angular"'],
        "sgd": ['base = "sgd"', "lr = 0.1", 'constraint = "free"', "weight_decay = 0.01", "momentum = 0.9"],
        "adamw": ['base = "adamw"', "lr = 0.01", 'decay_kind = "decoupled"', "weight_decay = 0.01", "beta2 = 0.999"],
    }[kind]
    head = 'head.control = "fixed"' if kind == "fixnorm" else 'head.control = "free"'
    wanted = [head, 'schedule.shape = "cosine"', "train.batch_size = 8", *(f"optimizer.{line}" for line in expected)]
    assert set(wanted) <= set(plan), plan
    found = json.loads(command("migrate", "--run", run, "--format", "json"))
    last = [event for event in events if event["event"] == "measure"][-1]["layers"]
    assert found["alpha"] == pytest.approx(last[2]["norm"] / math.sqrt(3))
    assert [layer["path"] for layer in found["per_layer"]] == ["conv1.weight", "conv2.weight"]
    if kind == "fixnorm":
        assert (found["angle"], found["angle_shape"]) == (pytest.approx(0.1, rel=1e-3), "cosine")


def test_tensorboard_has_the_commands_tags(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator").EventAccumulator
    model = net()
    recorded(tmp_path, FixNorm("sgd", roles(model)), roles(model), tensorboard=True)
    events = accumulator(str(tmp_path)).Reload()
    assert {"train/loss", "train/lr", "val/top1", "angular_update/conv1.weight"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("val/loss")] == [9, 19]


def test_a_run_that_diverges_or_breaks_says_so(tmp_path: Path) -> None:
    model = net()
    table, optimizer = roles(model), torch.optim.SGD(model.parameters(), lr=0.1)
    with Recorder(tmp_path / "a", optimizer, table, **SIZES) as recorder:
        loss(model).backward()
        optimizer.step()
        recorder.step(float("nan"))
        recorder.epoch(1.0, 0.5)
    failure = json.loads((tmp_path / "a/failure.json").read_text())
    assert failure == {"error": "the loss is nan at step 0", "kind": "diverged"}
    assert not (tmp_path / "a/result.json").exists()
    with pytest.raises(ZeroDivisionError), Recorder(tmp_path / "b", optimizer, table, **SIZES):
        raise ZeroDivisionError("why")
    assert json.loads((tmp_path / "b/failure.json").read_text())["error"] == "ZeroDivisionError: why"


def test_what_cannot_be_recorded_is_refused(tmp_path: Path) -> None:
    model = net()
    table, optimizer = roles(model), torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"does not have conv1\.weight"):
        Recorder(tmp_path, torch.optim.SGD(net().parameters(), lr=0.1), table, **SIZES)
    with pytest.raises(ValueError, match="no base update Adagrad; name the one"):
        Recorder(tmp_path, torch.optim.Adagrad(model.parameters()), table, **SIZES)
    with pytest.raises(ValueError, match="must be at least 1"):
        Recorder(tmp_path, optimizer, table, **{**SIZES, "epochs": 0})
    assert not list(tmp_path.iterdir())
    Recorder(tmp_path, optimizer, table, **SIZES).close()
    with pytest.raises(FileExistsError, match="holds a run already"):
        Recorder(tmp_path, optimizer, table, **SIZES)


def test_other_processes_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"is_available": True, "is_initialized": True, "get_rank": 1}.items():
        monkeypatch.setattr(f"torch.distributed.{name}", lambda value=value: value)
    model = net()
    with Recorder(tmp_path / "a", torch.optim.SGD(model.parameters(), lr=0.1), roles(model), **SIZES) as recorder:
        loss(model).backward()
        recorder.step(1.0)
        recorder.epoch(1.0, 0.5)
    assert not list(tmp_path.iterdir())
