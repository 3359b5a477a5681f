"""The probe's findings on models whose roles are known from their structure, and its errors."""

import copy
from collections.abc import Callable

import pytest
import torch
from gpt import Gpt, gpt_loss
from small import batch, loss, net
from torch import Tensor, nn
from torch.nn import functional as F

from fixnorm.torch import Roles, probe
from fixnorm.torch.joint import _null_sums

SEEDS = range(3)
INVARIANT, HEAD, FREE = "scale_invariant", "head", "free"


class Zoo(nn.Module):
    """Every structure the probe must tell apart, in one network."""

    def __init__(self) -> None:
        super().__init__()
        conv = lambda c_in, c_out, groups=1, bias=False: nn.Conv2d(c_in, c_out, 3, 1, 1, 1, groups, bias)  # noqa: E731
        self.plain, self.plain_norm = conv(3, 8), nn.BatchNorm2d(8)
        self.bare = conv(8, 12, bias=True)
        self.grouped, self.grouped_norm = conv(12, 24, 4), nn.BatchNorm2d(24)
        self.depthwise, self.depthwise_norm = conv(24, 24, 24), nn.BatchNorm2d(24)
        self.squeeze, self.excite = nn.Conv2d(24, 6, 1), nn.Linear(6, 24)
        self.biased, self.biased_norm = conv(24, 16, bias=True), nn.BatchNorm2d(16)
        self.tied = conv(16, 16)
        self.tied_norms = nn.ModuleList([nn.BatchNorm2d(16), nn.BatchNorm2d(16)])
        self.tied_residual = conv(16, 16, bias=True)
        self.linear, self.linear_norm = nn.Linear(16, 14, bias=False), nn.LayerNorm(14)
        self.linear_biased, self.linear_biased_norm = nn.Linear(14, 11), nn.LayerNorm(11)
        self.dense, self.dense_norm = nn.Linear(11, 7, bias=False), nn.BatchNorm1d(7)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.plain_norm(self.plain(x)))
        x = F.relu(self.bare(x))
        x = F.relu(self.grouped_norm(self.grouped(x)))
        x = F.relu(self.depthwise_norm(self.depthwise(x)))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True))).flatten(1)))
        x = x * gate[:, :, None, None]
        x = F.relu(self.biased_norm(self.biased(x)))
        for norm in self.tied_norms:
            x = F.relu(norm(self.tied(x)))
        for _ in range(2):
            x = x + F.relu(self.tied_residual(x))
        x = F.relu(self.linear_norm(self.linear(x.mean((2, 3)))))
        x = F.relu(self.linear_biased_norm(self.linear_biased(x)))
        x = F.relu(self.dense_norm(self.dense(x)))
        return self.head(self.dropout(x))


# Each weight's role, and whether each output channel is scale-invariant by itself: as in the Rust library's test.
ZOO = [
    ("plain.weight", INVARIANT, True),
    ("bare.weight", FREE, False),
    ("grouped.weight", INVARIANT, True),
    ("depthwise.weight", INVARIANT, True),
    ("squeeze.weight", FREE, False),
    ("excite.weight", FREE, False),
    # Batch norm takes the bias away again,
    ("biased.weight", INVARIANT, True),
    ("tied.weight", INVARIANT, True),
    ("tied_residual.weight", FREE, False),
    # layer norm does not; and it mixes the channels.
    ("linear.weight", INVARIANT, False),
    ("linear_biased.weight", FREE, False),
    ("dense.weight", INVARIANT, True),
    ("head.weight", HEAD, False),
]


def zoo(seed: int) -> tuple[Zoo, Callable[[nn.Module], Tensor]]:
    torch.manual_seed(seed)
    model, x, y = Zoo(), torch.randn(10, 3, 7, 6), torch.arange(10) % 5
    return model, lambda m: F.cross_entropy(m(x), y)


def weights(roles: Roles) -> list[tuple[str, str, bool]]:
    return [(row.name, row.role, row.channel_invariant) for row in roles if row.is_weight]


# In 2 and 8 hardly any channel before the last batch norm varies more than by its epsilon.
@pytest.mark.parametrize("seed", [0, 1, 2, 8])
def test_every_structure_is_told_apart(seed: int) -> None:
    model, value = zoo(seed)
    roles = probe(model, value)
    assert weights(roles) == ZOO, f"\n{roles}"
    assert all(row.role == FREE and row.deviation is None for row in roles if not row.is_weight)


class Weak(nn.Module):
    """A network whose loss one weight hardly moves, in a branch that ends in a small factor."""

    def __init__(self, factor: float, bias: bool) -> None:
        super().__init__()
        self.stem, self.branch, self.norm = nn.Linear(64, 32), nn.Linear(32, 32, bias=bias), nn.LayerNorm(32)
        self.head, self.factor = nn.Linear(32, 3), factor

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.stem(x.flatten(1)))
        return self.head(x + self.factor * self.norm(self.branch(x)))


@pytest.mark.parametrize("factor", [1.0, 1e-3, 1e-5])
@pytest.mark.parametrize(("bias", "role"), [(True, FREE), (False, INVARIANT)])
def test_the_role_of_a_weight_does_not_hang_on_how_much_it_matters(factor: float, bias: bool, role: str) -> None:
    for seed in SEEDS:
        torch.manual_seed(seed)
        roles = probe(Weak(factor, bias), loss)
        assert roles.get("branch.weight").role == role, f"seed {seed}\n{roles}"
        assert roles.get("stem.weight").role == FREE and not roles.get("branch.weight").channel_invariant


class Pair(nn.Module):
    """Two layers for the cases that differ in what stands between them."""

    def __init__(self, between: Callable[["Pair", Tensor], Tensor], bias: bool = False) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(3, 6, 3, padding=1, bias=bias), nn.BatchNorm2d(6)
        self.second, self.second_norm = nn.Conv2d(6, 7, 3, padding=1, bias=False), nn.BatchNorm2d(7)
        self.head = nn.Linear(7, 5)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.second_norm(self.second(self.between(self, x))))
        return self.head(x.mean((2, 3)))


def residual_before_the_norm(m: Pair, x: Tensor) -> Tensor:
    before = m.first(x)
    return F.relu(m.first_norm(before)) + before


def residual_after_the_norm(m: Pair, x: Tensor) -> Tensor:
    after = m.first_norm(m.first(x))
    return F.relu(after) + after


def zero_gain(model: Pair) -> None:
    nn.init.zeros_(model.first_norm.weight)


def zero_head(model: Pair) -> None:
    nn.init.zeros_(model.head.weight)


def zero_bias(model: Pair) -> None:
    nn.init.zeros_(model.first.bias)


def large_epsilon(model: Pair) -> None:
    for norm in (model.first_norm, model.second_norm):
        norm.eps = 1e-3
    with torch.no_grad():
        model.first.weight.mul_(0.3), model.second.weight.mul_(0.3)


@pytest.mark.parametrize(
    ("between", "bias", "change", "expected"),
    [
        (residual_before_the_norm, False, None, (FREE, False)),
        (residual_after_the_norm, False, None, (INVARIANT, True)),
        (lambda m, x: F.relu(m.first(x)), True, zero_bias, (FREE, False)),
        (lambda m, x: F.relu(m.first(x)), False, None, (INVARIANT, False)),
        (lambda m, x: F.silu(m.first(x)), False, None, (FREE, False)),
        (lambda m, x: F.gelu(m.first(x)), True, None, (FREE, False)),
        (lambda m, x: torch.tanh(m.first(x)), False, None, (FREE, False)),
        (lambda m, x: x.repeat(1, 2, 1, 1), True, None, (FREE, False)),
        (lambda m, x: F.relu(x.repeat(1, 2, 1, 1) + m.first_norm(m.first(x))), False, zero_gain, (INVARIANT, True)),
        (lambda m, x: F.relu(m.first_norm(m.first(x))), False, zero_head, (INVARIANT, True)),
        (lambda m, x: F.relu(m.first_norm(m.first(x))), False, large_epsilon, (INVARIANT, True)),
    ],
)
def test_what_stands_between_two_layers(
    between: Callable[[Pair, Tensor], Tensor],
    bias: bool,
    change: Callable[[Pair], None] | None,
    expected: tuple[str, bool],
) -> None:
    for seed in SEEDS:
        torch.manual_seed(seed)
        model, x, y = Pair(between, bias), torch.randn(10, 3, 7, 6), torch.arange(10) % 5
        if change is not None:
            change(model)
        roles = probe(model, lambda m, x=x, y=y: F.cross_entropy(m(x), y))
        first = roles.get("first.weight")
        assert (first.role, first.channel_invariant) == expected, f"seed {seed}\n{roles}"
        assert roles.get("second.weight").role == INVARIANT, f"seed {seed}\n{roles}"
        assert roles.head is not None and roles.head.name == "head.weight"


def test_roles_are_found_in_half_precision() -> None:
    for seed in SEEDS:
        torch.manual_seed(seed)
        model, x, y = Pair(residual_after_the_norm), torch.randn(10, 3, 7, 6), torch.arange(10) % 5

        def half(m: nn.Module, x: Tensor = x, y: Tensor = y) -> Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return F.cross_entropy(m(x), y)

        roles = probe(model, half, tolerance=1e-3)
        expected = [("first.weight", INVARIANT, True), ("second.weight", INVARIANT, True), ("head.weight", HEAD, False)]
        assert weights(roles) == expected, f"seed {seed}\n{roles}"


def test_the_model_is_left_as_it_was() -> None:
    model, value = zoo(2)
    model.eval()
    model.plain_norm.train()
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    state = torch.random.get_rng_state()
    first = probe(model, value)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert modes == [m.training for m in model.modules()]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert str(probe(model, value)) == str(first)

    calls = iter(range(5))
    with pytest.raises(RuntimeError, match="in the middle"):
        probe(model, lambda m: value(m) if next(calls) < 4 else (_ for _ in ()).throw(RuntimeError("in the middle")))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_overrides_and_heads_by_name_and_pattern() -> None:
    model, value = zoo(5)
    roles = probe(model, value, roles={"linear*.weight": INVARIANT, "plain.weight": FREE, "linear.weight": FREE})
    for name, expected in [("plain.weight", FREE), ("linear_biased.weight", INVARIANT), ("linear.weight", FREE)]:
        assert (roles.get(name).role, roles.get(name).overridden) == (expected, True), name
    assert not roles.get("grouped.weight").overridden
    assert "set by the user" in str(roles)
    roles.set("bare.weight", HEAD)
    assert roles.head.name == "bare.weight" and roles.get("head.weight").role == FREE
    assert probe(model, value, head="excite.weight").head.name == "excite.weight"

    with pytest.raises(KeyError, match=r"nearest is 'depthwise.weight'"):
        probe(model, value, roles={"depthwize.weight": FREE})
    with pytest.raises(KeyError, match=r"no trainable parameter matches 'classifier.weight'"):
        probe(model, value, head="classifier.weight")
    with pytest.raises(ValueError, match=r"dense.weight is scale-invariant"):
        probe(model, value, head="dense.weight")
    with pytest.raises(ValueError, match="one dimension"):
        roles.set("plain_norm.weight", INVARIANT)
    with pytest.raises(ValueError, match="role must be one of"):
        probe(model, value, roles={"plain.weight": "body"})


def test_groups_for_other_optimizers() -> None:
    model = net()
    roles = probe(model, loss)
    groups = roles.param_groups()
    assert [(g["kind"], g["names"]) for g in groups] == [
        (INVARIANT, ["conv1.weight", "conv2.weight"]),
        ("gains_and_biases", ["norm1.weight", "norm1.bias", "conv2.bias", "norm2.weight", "norm2.bias", "fc.bias"]),
        (HEAD, ["fc.weight"]),
    ]
    assert torch.optim.SGD(groups, lr=0.1).param_groups[2]["params"][0] is model.fc.weight
    assert roles.worst_deviation()[0].startswith("conv")


def test_what_is_tied_frozen_or_zero_is_named() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.out = nn.Embedding(3, 4), nn.Linear(4, 3, bias=False)
            self.out.weight = self.table.weight
            self.zero, self.frozen = nn.Linear(4, 4), nn.Linear(4, 4)
            nn.init.zeros_(self.zero.weight)
            self.frozen.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            h = self.table(torch.arange(len(x)) % 3)
            return self.out(h + self.zero(h) + self.frozen(h))

    roles = probe(Tied(), loss, head="table.weight")
    assert "tied with out.weight" in str(roles) and "about zero at the start" in str(roles)
    assert [row.name for row in roles] == ["table.weight", "zero.weight", "zero.bias"]


def test_matrices_can_be_held_without_being_invariant() -> None:
    model, value = zoo(1)
    roles = probe(model, value, hold="matrices")
    together = {"bare.weight", "linear_biased.weight"}
    assert {row.name for row in roles if row.held} == {name for name, role, _ in ZOO if role == FREE} - together
    assert "held without being invariant" in str(roles)
    assert [r.name for r in probe(model, value, hold="exc*") if r.held] == ["excite.weight"]


def groups(roles: Roles) -> list[set[str]]:
    numbers = {row.joint for row in roles if row.joint is not None}
    return [{row.name for row in roles if row.joint == number} for number in sorted(numbers)]


# In the others rounding is coarse at some points: hardly any channel varies there.
@pytest.mark.parametrize("seed", [1, 5, 8, 9])
def test_a_weight_is_invariant_together_with_its_bias(seed: int) -> None:
    model, value = zoo(seed)
    roles = probe(model, value, hold="joint")
    # The scale of the first passes a ReLU on its way to batch norm.
    assert groups(roles) == [{f"{name}.weight", f"{name}.bias"} for name in ("bare", "linear_biased")], f"\n{roles}"
    assert not any(row.held for row in roles) and "scale-invariant together with group 1" in str(roles)
    assert weights(roles) == ZOO
    assert groups(probe(model, value)) == []
    assert groups(probe(model, value, hold="joint", roles={"bare.weight": FREE})) == [
        {"linear_biased.weight", "linear_biased.bias"}
    ]


def test_sums_that_nearly_vanish_are_no_groups() -> None:
    x = torch.randn(30, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for left, expected in [(0.0, [[0, 1]]), (1e-6, [[0, 1]]), (3e-4, []), (1e-2, []), (1.0, [])]:
        points = torch.stack([x[:, 0], left * x[:, 1] - x[:, 0], x[:, 2], x[:, 3]], 1)
        assert _null_sums(points) == expected, left
        # A few points at which rounding is coarse hide nothing.
        points[::10, 1] += 1e-3 * x[::10, 2]
        assert _null_sums(points) == expected, left


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", [F.gelu, F.relu])
def test_what_writes_to_the_residual_stream_is_one_group(bias: bool, activation: Callable[[Tensor], Tensor]) -> None:
    for seed in SEEDS:
        torch.manual_seed(seed)
        model = Gpt(bias=bias, activation=activation)
        before = copy.deepcopy(model.state_dict())
        roles = probe(model, gpt_loss, hold="joint", seed=seed)
        writers = {n for n, _ in model.named_parameters() if n.split(".")[-2] in ("tokens", "positions", "proj", "fc2")}
        assert groups(roles) == [writers], f"\n{roles}"
        assert all(row.role == FREE for row in roles if row.name != "head.weight")
        assert model.norm.eps == 1e-5 and all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
        held = {row.name for row in probe(model, gpt_loss, hold="matrices") if row.held}
        assert held == {f"blocks.{i}.{name}.weight" for i in range(2) for name in ("qkv", "fc1")}


def test_of_groups_that_overlap_the_one_with_more_weights_is_held() -> None:
    class Stream(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # The stream grows with the first norm's gain and bias as it does with the first layer's weight.
            self.first_norm, self.first = nn.LayerNorm(64), nn.Linear(64, 16)
            self.norm, self.inner, self.outer = nn.LayerNorm(16), nn.Linear(16, 24), nn.Linear(24, 16)
            self.last_norm, self.head = nn.LayerNorm(16), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(self.first_norm(x.flatten(1)))
            return self.head(self.last_norm(x + self.outer(torch.tanh(self.inner(self.norm(x))))))

    for seed in SEEDS:
        torch.manual_seed(seed)
        roles = probe(Stream(), loss, hold="joint")
        assert groups(roles) == [{"first.weight", "first.bias", "outer.weight", "outer.bias"}], f"seed {seed}\n{roles}"


def test_a_tied_embedding_leaves_no_group() -> None:
    torch.manual_seed(0)
    model = Gpt()
    model.head.weight = model.tokens.weight
    assert groups(probe(model, gpt_loss, hold="joint", head="tokens.weight")) == []


def test_a_token_too_small_to_matter_is_not_taken_for_unused() -> None:
    class Token(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.table, self.head = (
                nn.Parameter(torch.full((1, 9), 1e-6)),
                nn.Linear(64, 9),
                nn.Linear(9, 3),
            )

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.tanh(self.table(x.flatten(1)) + self.token))

    roles = probe(Token(), loss)
    assert roles.get("token").role == FREE and "does not depend" not in str(roles)
    assert "about zero at the start" in roles.get("token").notes


def test_losses_that_say_nothing_are_refused() -> None:
    model = net()
    x, y = batch()
    with pytest.raises(TypeError, match=r"must return a scalar tensor, got a tensor of shape \(8,\)"):
        probe(model, lambda m: F.cross_entropy(m(x), y, reduction="none"))
    with pytest.raises(TypeError, match="got float"):
        probe(model, lambda m: 1.0)
    with pytest.raises(ValueError, match="has no gradient"):
        probe(model, lambda m: loss(m).detach())
    with pytest.raises(ValueError, match="loss is nan"):
        probe(model, lambda m: F.cross_entropy(m(x * torch.nan), y))
    seeds = iter(range(100))
    with pytest.raises(ValueError, match="not repeatable"):
        probe(model, lambda m: loss(m, next(seeds)))
    complex_model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3, dtype=torch.complex64))
    with pytest.raises(TypeError, match=r"1.weight is torch.complex64"):
        probe(complex_model, loss)
    with pytest.raises(ValueError, match="no trainable parameter"):
        probe(net().requires_grad_(False), loss)
