//! Thirty steps beside PyTorch: the same weights, the same batches, the same optimizer.
//! The numbers to meet are made by `benches/peers/parity_fixture.py`, which states the formulas.

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor, TensorData, activation::relu};
use fixnorm::base::{AdamW, RmsProp};
use fixnorm::{
    BaseUpdate, DecayKind, DecayTarget, FixNormConfig, LrSchedule, Probe, Role, Roles,
    ScheduleShape, Scope, StepRule, UpdateRule, WeightDecay,
};
use serde_json::Value;

const STEPS: usize = 30;
const BATCH: usize = 8;
const SIDE: usize = 8;
const CLASSES: usize = 3;

/// Relative tolerance of a loss. Rounding alone is good for 2e-7 (the fixture's `deviation_from_f64`).
const LOSS_TOLERANCE: f64 = 5e-6;
/// Tolerance of a tensor's values, relative to its largest. Rounding is good for 6e-7, and 2.5e-6 under Adam,
/// which divides small gradients by their own size.
const TENSOR_TOLERANCE: f64 = 1e-5;

fn hash(stream: u64, index: u64) -> u64 {
    let mut z = (stream << 32 | index).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}

fn unit(stream: u64, index: u64) -> f64 {
    (hash(stream, index) >> 11) as f64 * 2f64.powi(-52) - 1.0
}

/// `offset + scale·unit(k, i)` for all i.
fn values(k: u64, count: usize, offset: f64, scale: f64) -> Vec<f32> {
    let indices = 0..count as u64;
    indices.map(|i| (offset + scale * unit(k, i)) as f32).collect()
}

/// Weight number `k`, in PyTorch's layout.
fn weight<const D: usize>(k: u64, shape: [usize; D], device: &Device) -> Tensor<D> {
    let count: usize = shape.iter().product();
    let scale = (6.0 / (count / shape[0]) as f64).sqrt();
    Tensor::from_data(TensorData::new(values(k, count, 0.0, scale), shape), device)
}

/// Gain (offset 1) or bias (offset 0) number `k`.
fn vector(k: u64, count: usize, offset: f64, device: &Device) -> Param<Tensor<1>> {
    let data = TensorData::new(values(k, count, offset, 0.1), [count]);
    Param::from_data(data, device)
}

#[derive(Module, Debug)]
struct Net {
    conv1: Conv2d,
    bn1: BatchNorm,
    conv2: Conv2d,
    bn2: BatchNorm,
    conv3: Conv2d,
    bn3: BatchNorm,
    fc: Linear,
}

impl Net {
    fn new(device: &Device) -> Self {
        let conv = |k, [c_in, c_out]: [usize; 2], stride, groups| {
            let mut conv = Conv2dConfig::new([c_in, c_out], [3, 3])
                .with_stride([stride; 2])
                .with_groups(groups)
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .with_bias(false)
                .init(device);
            conv.weight = Param::from_tensor(weight(k, [c_out, c_in / groups, 3, 3], device));
            conv
        };
        let norm = |k, channels| {
            let mut norm = BatchNormConfig::new(channels).init(device);
            norm.gamma = vector(k, channels, 1.0, device);
            norm.beta = vector(k + 1, channels, 0.0, device);
            norm
        };
        let mut fc = LinearConfig::new(6, CLASSES).init(device);
        fc.weight = Param::from_tensor(weight(9, [CLASSES, 6], device).transpose());
        fc.bias = Some(vector(10, CLASSES, 0.0, device));
        Self {
            conv1: conv(0, [1, 4], 1, 1),
            bn1: norm(1, 4),
            conv2: conv(3, [4, 6], 2, 1),
            bn2: norm(4, 6),
            conv3: conv(6, [6, 6], 1, 6),
            bn3: norm(7, 6),
            fc,
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = relu(self.bn1.forward(self.conv1.forward(x)));
        let x = relu(self.bn2.forward(self.conv2.forward(x)));
        let x = relu(self.bn3.forward(self.conv3.forward(x)));
        self.fc.forward(x.mean_dims(&[2, 3]).flatten(1, 3))
    }

    fn loss(&self, step: usize, device: &Device) -> Tensor<1> {
        let (x, labels) = batch(step, device);
        let loss = CrossEntropyLossConfig::new().with_smoothing(Some(0.1));
        loss.init(device).forward(self.forward(x), labels)
    }

    /// The tensor that PyTorch calls `name`, in PyTorch's layout.
    fn tensor(&self, name: &str) -> Vec<f64> {
        let (conv, norm) = match name.split('.').next() {
            Some("conv1" | "bn1") => (&self.conv1, &self.bn1),
            Some("conv2" | "bn2") => (&self.conv2, &self.bn2),
            _ => (&self.conv3, &self.bn3),
        };
        let data = match name {
            "fc.weight" => self.fc.weight.val().transpose().into_data(),
            "fc.bias" => self.fc.bias.as_ref().unwrap().val().into_data(),
            _ if name.starts_with("conv") => conv.weight.val().into_data(),
            _ if name.ends_with("weight") => norm.gamma.val().into_data(),
            _ if name.ends_with("bias") => norm.beta.val().into_data(),
            _ if name.ends_with("running_mean") => norm.running_mean.value().into_data(),
            _ if name.ends_with("running_var") => norm.running_var.value().into_data(),
            _ => panic!("PyTorch's {name} has no counterpart"),
        };
        data.iter().collect()
    }
}

fn batch(step: usize, device: &Device) -> (Tensor<4>, Tensor<1, Int>) {
    let x = values(1000 + step as u64, BATCH * SIDE * SIDE, 0.0, 1.0);
    let labels = (0..BATCH as u64).map(|i| (hash(2000 + step as u64, i) % CLASSES as u64) as i64);
    let labels = TensorData::new(labels.collect::<Vec<_>>(), [BATCH]);
    (
        Tensor::from_data(TensorData::new(x, [BATCH, 1, SIDE, SIDE]), device),
        Tensor::from_data(labels, device),
    )
}

fn fixture() -> Value {
    serde_json::from_str(include_str!("fixtures/parity.json")).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    let values = value.as_array().unwrap().iter();
    values.map(|value| value.as_f64().unwrap()).collect()
}

/// PyTorch's running variance after the run takes in the unbiased variance of every batch, Burn's
/// the biased one; both start at 1, of which 0.9 is left after every step.
fn with_unbiased_batches(running_var: f64, name: &str) -> f64 {
    let values = match name {
        "bn1.running_var" => BATCH * SIDE * SIDE,
        _ => BATCH * SIDE * SIDE / 4, // after the stride
    } as f64;
    let start = 0.9f64.powi(STEPS as i32);
    start + (running_var - start) * values / (values - 1.0)
}

fn roles(net: &Net, device: &Device) -> Roles {
    let roles = Probe::new().run(net, |net| net.loss(0, device)).unwrap();
    let weights = roles.params.iter().filter(|param| param.is_weight());
    let found: Vec<_> = weights.map(|p| (p.path.as_str(), p.role)).collect();
    let expected = [
        ("conv1.weight", Role::ScaleInvariant),
        ("conv2.weight", Role::ScaleInvariant),
        ("conv3.weight", Role::ScaleInvariant),
        ("fc.weight", Role::Head),
    ];
    assert_eq!(found, expected);
    roles
}

/// Repeats the fixture's run of this name; says how far apart the two were.
fn compare(run: &str, config: &FixNormConfig, schedule: &LrSchedule) {
    let device = Device::flex().autodiff();
    let net = Net::new(&device);
    let roles = roles(&net, &device);
    let (mut net, mut optimizer) = config.init(net, &roles).unwrap();
    let expected = &fixture()["runs"][run];
    let losses = numbers(&expected["losses"]);
    assert_eq!(losses.len(), STEPS);
    let mut worst_loss = 0.0f64;
    for (step, expected) in losses.into_iter().enumerate() {
        let loss = net.loss(step, &device);
        let found = loss.clone().into_scalar::<f64>();
        let apart = (found - expected).abs() / expected;
        // This way round, a NaN fails; so below.
        assert!(
            apart <= LOSS_TOLERANCE,
            "{run}, step {step}: loss {found}, PyTorch has {expected}"
        );
        worst_loss = worst_loss.max(apart);
        let grads = GradientsParams::from_grads(loss.backward(), &net);
        net = optimizer.step(schedule.at_step(step), net, grads);
    }
    // `valid` also brings the running statistics, which lag by a step, up to date.
    let net = net.valid();
    let tensors = expected["tensors"].as_array().unwrap();
    assert_eq!(tensors.len(), 11 + 3 * 2);
    let mut worst = (0.0f64, "");
    for tensor in tensors {
        let name = tensor["name"].as_str().unwrap();
        let (mut found, expected) = (net.tensor(name), numbers(&tensor["values"]));
        assert_eq!(found.len(), expected.len(), "{run}, {name}");
        if name.ends_with("running_var") {
            for var in &mut found {
                *var = with_unbiased_batches(*var, name);
            }
        }
        let size = expected.iter().fold(0.0f64, |size, x| size.max(x.abs()));
        for (index, (found, expected)) in found.into_iter().zip(expected).enumerate() {
            let apart = (found - expected).abs() / size;
            assert!(
                apart <= TENSOR_TOLERANCE,
                "{run}, {name}[{index}]: {found}, PyTorch has {expected}"
            );
            if apart > worst.0 {
                worst = (apart, name);
            }
        }
    }
    let (tensor, name) = worst;
    println!("{run}: loss {worst_loss:.1e}, tensors {tensor:.1e} ({name})");
}

fn decayed(
    base: BaseUpdate,
    rate: f64,
    kind: DecayKind,
    target: DecayTarget,
    lr: f64,
) -> (FixNormConfig, LrSchedule) {
    (
        FixNormConfig::decayed(base, WeightDecay { rate, kind, target }),
        LrSchedule::new(lr, ScheduleShape::Constant, STEPS as f64, 1),
    )
}

fn cosine() -> LrSchedule {
    LrSchedule::new(0.1, ScheduleShape::Cosine, STEPS as f64, 1)
}

#[test]
fn formula_is_the_scripts() {
    let fixture = fixture();
    let expected = fixture["hash_check"].as_array().unwrap().iter();
    let expected: Vec<u64> = expected.map(|v| v.as_str().unwrap().parse().unwrap()).collect();
    let found = [(0, 0), (0, 1), (1, 0), (1029, 511)].map(|(stream, index)| hash(stream, index));
    assert_eq!(found[..], expected[..]);
    for (name, ours) in [("steps", STEPS), ("batch", BATCH), ("side", SIDE)] {
        assert_eq!(fixture[name].as_u64(), Some(ours as u64), "{name}");
    }
}

#[test]
fn sgd_with_weight_decay() {
    let base = BaseUpdate::sgd(0.9);
    let (config, schedule) = decayed(base, 5e-3, DecayKind::L2, DecayTarget::AllWeights, 0.1);
    compare("sgd_wd", &config, &schedule);
}

#[test]
fn nesterov_with_weight_decay_on_everything() {
    let base = BaseUpdate::nesterov(0.9);
    let (config, schedule) = decayed(base, 5e-3, DecayKind::L2, DecayTarget::AllParameters, 0.1);
    compare("sgd_nesterov_wd_all", &config, &schedule);
}

#[test]
fn fixnorm_sgd() {
    compare("fixnorm_sgd", &fixnorm(UpdateRule::held()), &cosine());
}

fn fixnorm(rule: UpdateRule) -> FixNormConfig {
    FixNormConfig::new(BaseUpdate::sgd(0.9))
        .with_scale_invariant(rule)
        .with_head(UpdateRule::row_rms(1.5))
}

#[test]
fn fixnorm_sgd_by_output_channel() {
    let config = fixnorm(UpdateRule::held().with_scope(Scope::OutputChannel));
    compare("fixnorm_sgd_channel", &config, &cosine());
}

#[test]
fn adamw() {
    let base = BaseUpdate::adamw();
    let (kind, target) = (DecayKind::Decoupled, DecayTarget::AllWeights);
    let (config, schedule) = decayed(base, 0.05, kind, target, 0.01);
    compare("adamw", &config, &schedule);
}

#[test]
fn lamb() {
    let base = BaseUpdate::AdamW(AdamW { epsilon: 1e-4, ..AdamW::default() });
    let decay =
        WeightDecay { rate: 0.05, kind: DecayKind::Decoupled, target: DecayTarget::AllWeights };
    let schedule = LrSchedule::new(0.01, ScheduleShape::Constant, STEPS as f64, 1);
    compare("lamb", &FixNormConfig::lamb(base, decay), &schedule);
}

#[test]
fn rmsprop_in_tensorflows_form() {
    let base = BaseUpdate::rmsprop();
    let (config, schedule) = decayed(base, 1e-4, DecayKind::L2, DecayTarget::AllWeights, 0.01);
    compare("rmsprop_tf", &config, &schedule);
}

/// Held weights that turn by the learning rate around this base update, the head's norm at α = 1.5.
fn angular(base: BaseUpdate, scope: Scope, head_turns: bool, scales: [f64; 2]) -> FixNormConfig {
    let held = UpdateRule::held().with_step(StepRule::Angular).with_scope(scope);
    let head_step = if head_turns { StepRule::Angular } else { StepRule::Raw };
    FixNormConfig::new(base)
        .with_scale_invariant(held)
        .with_head(UpdateRule::row_rms(1.5).with_step(head_step).with_lr_scale(scales[0]))
        .with_gains_and_biases(UpdateRule::free().with_lr_scale(scales[1]))
}

fn small_cosine() -> LrSchedule {
    LrSchedule::new(0.05, ScheduleShape::Cosine, STEPS as f64, 1)
}

#[test]
fn angular_sgd() {
    let config = angular(BaseUpdate::sgd(0.9), Scope::Tensor, false, [2.0, 2.0]);
    compare("angular_sgd", &config, &small_cosine());
}

#[test]
fn angular_nesterov_by_output_channel() {
    let gains = UpdateRule::free().with_step(StepRule::RmsNormalized).with_lr_scale(0.25);
    let config = angular(BaseUpdate::nesterov(0.9), Scope::OutputChannel, true, [0.5, 0.25])
        .with_gains_and_biases(gains);
    compare("angular_nesterov_channel", &config, &small_cosine());
}

#[test]
fn angular_rmsprop() {
    let base = BaseUpdate::RmsProp(RmsProp::default());
    compare("angular_rmsprop", &angular(base, Scope::Tensor, true, [1.0, 0.1]), &small_cosine());
}

#[test]
fn angular_adamw() {
    let base = BaseUpdate::AdamW(AdamW { epsilon: 1e-4, ..AdamW::default() });
    compare("angular_adamw", &angular(base, Scope::Tensor, true, [1.0, 0.1]), &small_cosine());
}
