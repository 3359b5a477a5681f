"""The optimizer's contract: norms, states, and everything that a training loop does with an optimizer."""

import copy
import io
import math

import pytest
import torch
from gpt import Gpt, gpt_loss
from small import Net, loss, net, norm_error, roles, train
from torch import nn
from torch.nn import functional as F

from fixnorm.torch import FixNorm, probe
from fixnorm.torch.batches import stacks

BASES = [
    (torch.optim.SGD, {"momentum": 0.9}),
    (torch.optim.SGD, {}),
    ("nesterov", {"momentum": 0.9}),
    (torch.optim.RMSprop, {"momentum": 0.5}),
    (torch.optim.AdamW, {}),
]
if hasattr(torch.optim, "Muon"):
    BASES.append((torch.optim.Muon, {}))
STEP_RULES = ["raw", "angular", "rms_normalized", "trust_ratio"]


def made(model: nn.Module, base: object = torch.optim.SGD, **options: object) -> FixNorm:
    return FixNorm(base, roles(model), **{"lr": 0.01, **options})


@pytest.mark.parametrize("scope", ["tensor", "output_channel"])
@pytest.mark.parametrize("step_rule", STEP_RULES)
@pytest.mark.parametrize(("base", "options"), BASES)
def test_norms_are_held_and_the_loss_falls(base: object, options: dict, step_rule: str, scope: str) -> None:
    model = net()
    optimizer = made(model, base, step_rule=step_rule, scope=scope, alpha=2.0, **options)
    assert norm_error(optimizer) < 1e-6
    start = loss(model).item()
    for _ in range(10):
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()
    assert norm_error(optimizer) < 1e-6
    assert loss(model).item() < start
    assert model.fc.weight.norm().item() == pytest.approx(2.0 * math.sqrt(3), rel=1e-6)
    expected = 1.0 if scope == "output_channel" else math.sqrt(6)
    found = model.conv2.weight.flatten(1).norm(dim=1).max() if expected == 1.0 else model.conv2.weight.norm()
    assert found.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("base", "options"), [b for b in BASES if b[0] not in ("nesterov", getattr(torch.optim, "Muon", None))]
)
def test_without_constraints_it_is_the_base_optimizer(base: type, options: dict) -> None:
    ours, theirs = net(), net()
    optimizer = made(ours, base, constraint="free", head="free", **options)
    reference = base(theirs.parameters(), lr=0.01, **{"weight_decay": 0.0, **options})
    for _ in range(5):
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            p.grad, q.grad = (gradient := torch.randn_like(p)), gradient.clone()
        optimizer.step()
        reference.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this PyTorch has no Muon")
def test_muon_is_pytorchs() -> None:
    ours, theirs = nn.Linear(7, 5, bias=False), nn.Linear(7, 5, bias=False)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(9, 7)
    rule = probe(ours, lambda m: F.cross_entropy(m(x), torch.arange(9) % 5))
    optimizer = FixNorm(torch.optim.Muon, rule, lr=0.1, head="free")
    reference = torch.optim.Muon(theirs.parameters(), lr=0.1, weight_decay=0.0)
    for _ in range(3):
        for model, by in ((ours, optimizer), (theirs, reference)):
            by.zero_grad()
            F.cross_entropy(model(x), torch.arange(9) % 5).backward()
            by.step()
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("angle", [1e-3, 0.05, 0.5])
@pytest.mark.parametrize("scope", ["tensor", "output_channel"])
def test_an_angular_step_turns_by_the_learning_rate(angle: float, scope: str) -> None:
    model = net(dtype=torch.float64)
    optimizer = made(model, lr=angle, step_rule="angular", scope=scope, momentum=0.9)
    for seed in range(3):
        before = model.conv2.weight.detach().clone()
        optimizer.zero_grad()
        loss(model, seed).backward()
        optimizer.step()
        rows = 6 if scope == "output_channel" else 1
        u, v = (
            w.reshape(rows, -1) / w.reshape(rows, -1).norm(dim=1, keepdim=True) for w in (before, model.conv2.weight)
        )
        turned = 2 * torch.atan2((u - v).norm(dim=1), (u + v).norm(dim=1))
        torch.testing.assert_close(turned, torch.full_like(turned, angle), rtol=1e-6, atol=0)


@pytest.mark.parametrize("step_rule", STEP_RULES)
def test_a_zero_gradient_moves_nothing(step_rule: str) -> None:
    model = net()
    optimizer = made(model, step_rule=step_rule, momentum=0.9)
    before = copy.deepcopy(model.state_dict())
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    for _ in range(3):
        optimizer.step()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("step_rule", ["angular", "rms_normalized", "trust_ratio"])
@pytest.mark.parametrize("scope", ["tensor", "output_channel"])
def test_weights_whose_gradient_has_died_away_stay(step_rule: str, scope: str) -> None:
    model = net()
    optimizer = FixNorm(torch.optim.SGD, roles(model), lr=0.02, momentum=0.9, step_rule=step_rule, scope=scope)
    train(model, optimizer, 1)
    for param in model.parameters():
        param.grad = torch.zeros_like(param)
    for _ in range(1100):
        optimizer.step()
    assert all(torch.isfinite(param).all() for param in model.parameters())
    assert norm_error(optimizer) < 1e-4


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_broken_gradient_is_not_hidden(bad: float) -> None:
    for step_rule in STEP_RULES:
        model = net()
        optimizer = made(model, step_rule=step_rule, momentum=0.9)
        for p in model.parameters():
            p.grad = torch.full_like(p, bad)
        optimizer.step()
        assert model.conv1.weight.isnan().any(), step_rule


@pytest.mark.parametrize(("base", "options"), BASES)
def test_a_saved_run_resumes_to_the_same_bits(base: object, options: dict) -> None:
    model = net()
    optimizer = made(model, base, step_rule="angular", scope="output_channel", radius="init", **options)
    train(model, optimizer, 3)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    losses = train(model, optimizer, 3, start=3)

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = net(seed=5)
    again = made(resumed, base, step_rule="angular", scope="output_channel", radius="init", **options)
    resumed.load_state_dict(saved["model"])
    again.load_state_dict(saved["optimizer"])
    assert train(resumed, again, 3, start=3) == losses
    for p, q in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(p, q)


def test_states_of_other_models_are_refused_and_change_nothing() -> None:
    optimizer = made(net(), momentum=0.9)
    good = copy.deepcopy(optimizer.state_dict())

    def broken(change: str) -> dict:
        state = copy.deepcopy(good)
        first = state["state"][0]
        if change == "missing":
            del first["radius"]
        elif change == "unknown":
            state["state"][len(state["state"]) - 1]["radius"] = torch.tensor(1.0)
        elif change == "shape":
            first["momentum_buffer"] = torch.zeros(2)
        elif change == "names":
            state["param_groups"][0]["param_names"][0] = "stem.weight"
        else:
            state["param_groups"].pop()
        return state

    for change, message in [
        ("missing", "conv1.weight has no radius"),
        ("unknown", "has an unexpected radius"),
        ("shape", "momentum_buffer of conv1.weight has shape"),
        ("names", "stem.weight"),
        ("groups", "groups"),
    ]:
        with pytest.raises(ValueError, match=message):
            optimizer.load_state_dict(broken(change))
    after = optimizer.state_dict()
    for key, state in good["state"].items():
        for name, value in state.items():
            assert torch.equal(after["state"][key][name], value)


def test_schedulers_closures_accumulation_and_group_rates() -> None:
    model = net()
    optimizer = made(model, lr=0.1, momentum=0.9, head_lr_scale=0.5)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        for seed in (0, 1):
            (loss(model, seed) / 2).backward()
        return loss(model)

    for _ in range(4):
        assert optimizer.step(closure).requires_grad
        schedule.step()
    assert {group["lr"] for group in optimizer.param_groups} == {0.0}
    before = copy.deepcopy(model.state_dict())
    closure()
    for group in optimizer.param_groups:
        group["momentum"] = 0.0
    optimizer.step()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p, before[name], rtol=1e-6, atol=0)
    assert norm_error(optimizer) < 1e-6


def test_the_state_is_one_scalar_a_tensor_above_the_base_optimizers() -> None:
    ours, theirs = net(), net()
    optimizer, reference = made(ours, momentum=0.9), torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9)
    train(ours, optimizer, 1), train(theirs, reference, 1)

    def elements(by: torch.optim.Optimizer) -> int:
        return sum(value.numel() for state in by.state.values() for value in state.values())

    assert elements(optimizer) == elements(reference) + 3


def test_parameters_without_a_gradient_are_left_out() -> None:
    for step_rule in STEP_RULES:
        model = net()
        optimizer = made(model, step_rule=step_rule, momentum=0.9)
        before = model.conv1.weight.detach().clone()
        loss(model).backward()
        model.conv1.weight.grad = None
        optimizer.step()
        assert torch.equal(model.conv1.weight, before)
        assert norm_error(optimizer) < 1e-6


def test_copies_and_pickles_step_alike() -> None:
    model = net()
    optimizer = made(model, torch.optim.AdamW)
    train(model, optimizer, 2)
    twin, twins = copy.deepcopy((model, optimizer))
    assert train(model, optimizer, 2) == train(twin, twins, 2)


def test_grad_scaler_and_autocast() -> None:
    model = net()
    optimizer = made(model, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    before = model.conv1.weight.detach().clone()
    for step in range(2):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = loss(model, step)
        scaler.scale(value).backward()
        if step == 1:
            before = model.conv1.weight.detach().clone()
            model.fc.weight.grad[0, 0] = math.inf
        scaler.step(optimizer)
        scaler.update()
        # The second step had an overflow and is skipped.
        assert torch.equal(model.conv1.weight, before) == (step == 1)
    assert norm_error(optimizer) < 1e-6


@pytest.mark.parametrize("step_rule", STEP_RULES)
def test_weights_in_sixteen_bits_are_held(step_rule: str) -> None:
    model = net(dtype=torch.bfloat16)
    found = probe(model, loss, tolerance=0.02, roles={"conv*.weight": "scale_invariant"})
    optimizer = FixNorm(torch.optim.SGD, found, lr=0.01, momentum=0.9, step_rule=step_rule)
    train(model, optimizer, 20)
    assert norm_error(optimizer) < 2e-3
    state = optimizer.state_dict()
    optimizer.load_state_dict(state)
    assert all(s["radius"].dtype == torch.float32 for s in optimizer.state.values() if "radius" in s)


def test_channels_last_steps_alike() -> None:
    for step_rule in ("raw", "angular"):
        losses = []
        for memory_format in (torch.contiguous_format, torch.channels_last):
            model = net().to(memory_format=memory_format)
            losses.append(train(model, made(model, step_rule=step_rule, momentum=0.9), 3))
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_large_weights_are_held_exactly() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1200, 1500, bias=False), nn.BatchNorm1d(1500), nn.Linear(1500, 3))
    x, y = torch.randn(4, 1200), torch.arange(4) % 3
    found = probe(model, lambda m: F.cross_entropy(m(x), y), roles={"0.weight": "scale_invariant"})
    optimizer = FixNorm(torch.optim.SGD, found, lr=0.1)
    F.cross_entropy(model(x), y).backward()
    optimizer.step()
    assert norm_error(optimizer) < 1e-6


@pytest.mark.parametrize("mode", ["free", "capped", "decayed"])
def test_head_modes(mode: str) -> None:
    model = net()
    before = model.fc.weight.norm().item()
    decay = {"head_weight_decay": 0.5} if mode == "decayed" else {}
    optimizer = made(model, head=mode, alpha=10.0, lr=0.1, **decay)
    assert model.fc.weight.norm().item() == pytest.approx(before)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    expected = before * (1 - 0.1 * 0.5) if mode == "decayed" else before
    assert model.fc.weight.norm().item() == pytest.approx(expected)
    if mode == "capped":
        made(model, head=mode, alpha=1e-3)
        assert model.fc.weight.norm().item() == pytest.approx(1e-3 * math.sqrt(3))


@pytest.mark.parametrize(("base", "options"), [b for b in BASES if b[0] is not getattr(torch.optim, "Muon", None)])
@pytest.mark.parametrize("step_rule", STEP_RULES)
def test_a_joint_group_has_one_norm(base: object, options: dict, step_rule: str) -> None:
    torch.manual_seed(0)
    model = Gpt()
    found = probe(model, gpt_loss, hold="joint")
    before = copy.deepcopy(model.state_dict())
    optimizer = FixNorm(base, found, 0.01, head="free", step_rule=step_rule, **options)
    members = [p for name, p in model.named_parameters() if found.get(name).joint]
    radii = {optimizer.state[p]["radius"].item() for p in members}

    def norm(of: list[torch.Tensor]) -> float:
        return torch.cat([p.detach().double().flatten() for p in of]).norm().item()

    assert len(radii) == 1 and norm(members) == pytest.approx(*radii, rel=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    start = gpt_loss(model).item()
    for _ in range(5):
        optimizer.zero_grad()
        gpt_loss(model).backward()
        # A member without a gradient is part of the norm.
        model.positions.weight.grad = None
        earlier = [p.detach().clone() for p in members]
        optimizer.step()
        assert norm(members) == pytest.approx(*radii, rel=1e-6)
        if step_rule == "angular":
            chord = norm([p - q for p, q in zip(members, earlier, strict=True)]) / norm(members)
            assert 2 * math.asin(chord / 2) == pytest.approx(0.01, rel=1e-3)
    assert gpt_loss(model).item() < start
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


def test_joint_groups_and_muon_are_refused_together() -> None:
    if hasattr(torch.optim, "Muon"):
        found = probe(Gpt(), gpt_loss, hold="joint")
        with pytest.raises(ValueError, match="joint groups have vectors"):
            FixNorm(torch.optim.Muon, found, head="free")


def test_parameters_added_later_are_stepped_by_the_base() -> None:
    model, extra = net(), nn.Parameter(torch.ones(3))
    optimizer = made(model, momentum=0.9, lr=0.1)
    optimizer.add_param_group({"params": [("extra", extra)]})
    for _ in range(2):
        extra.grad = torch.ones(3)
        optimizer.step()
    torch.testing.assert_close(extra.detach(), torch.full((3,), 1 - 0.1 - 0.19))


def test_nothing_is_copied_on_a_cpu() -> None:
    params = [torch.randn(shape) for shape in ((8, 4, 3, 3), (8, 4, 3, 3), (5, 7), (6,))]
    found = stacks(params, [torch.randn_like(p) for p in params])
    assert [stack.w.data_ptr() for stack in found] == [p.data_ptr() for p in params]


@pytest.mark.parametrize("step_rule", ["raw", "angular"])
def test_a_compiled_step_is_the_same(step_rule: str) -> None:
    pytest.importorskip("torch._inductor")
    losses = []
    for backend in (None, "aot_eager"):
        torch._dynamo.reset()
        model = net()
        optimizer = made(model, step_rule=step_rule, momentum=0.9)
        if backend is not None:
            optimizer.step = torch.compile(optimizer.step, backend=backend, fullgraph=False)
        losses.append(train(model, optimizer, 3))
        assert norm_error(optimizer) < 1e-6
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def refused(
    error: type, message: str, model: Net | None = None, base: object = torch.optim.SGD, **options: object
) -> None:
    model = model or net()
    found = roles(model)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=message):
        FixNorm(base, found, **options)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_bad_settings_are_refused_and_change_nothing() -> None:
    refused(TypeError, "lr must be a Python number, got a tensor", lr=torch.tensor(0.1))
    refused(ValueError, "alpha must be above 0", alpha=0.0)
    refused(ValueError, "step_rule must be one of raw, angular", step_rule="normal")
    refused(ValueError, "radius must be one of unit", radius="large")
    refused(ValueError, "radius must be above 0", radius=-1.0)
    refused(ValueError, "scope must be one of", scope="row")
    refused(ValueError, "weight_decay must be 0", weight_decay=1e-4)
    refused(ValueError, "head_weight_decay above 0", head="decayed")
    refused(ValueError, "sgd has no option beta", beta=0.9)
    refused(ValueError, "momentum must be at least 0", momentum=-0.1)
    refused(ValueError, "the base must be torch.optim.SGD", base=torch.optim.Adagrad)
    refused(ValueError, "betas must be two numbers", base=torch.optim.AdamW, betas=(0.9, 1.0))
    model = net()
    with torch.no_grad():
        model.conv2.weight.zero_()
    refused(ValueError, "weight conv2.weight: its norm is zero", model)


def test_models_that_cannot_be_held_are_refused() -> None:
    model = net()
    found = roles(model)
    model.conv1.weight.requires_grad_(False)
    with pytest.raises(TypeError, match=r"conv1.weight was frozen after the probe"):
        FixNorm(torch.optim.SGD, found)
    model = net()
    found = roles(model)
    model.conv1 = nn.Conv2d(1, 4, 5)
    with pytest.raises(ValueError, match=r"roles are not this model's: conv1.weight"):
        FixNorm(torch.optim.SGD, found)
    convolutional = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    found = probe(convolutional, loss)
    with pytest.raises(ValueError, match="no weight has the role head"):
        FixNorm(torch.optim.SGD, found)
    with pytest.raises(TypeError, match="roles must come from"):
        FixNorm(torch.optim.SGD, list(convolutional.parameters()))

    class Sparse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.fc = nn.Embedding(5, 4, sparse=True), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.table(torch.arange(len(x)) % 5))

    model = Sparse()
    optimizer = FixNorm(torch.optim.SGD, probe(model, loss))
    before = copy.deepcopy(model.state_dict())
    loss(model).backward()
    with pytest.raises(TypeError, match=r"table.weight has a sparse gradient"):
        optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
