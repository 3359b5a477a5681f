//! The probe on a net that has one of everything, and on the cases made to fool it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{
    BatchNorm, BatchNormConfig, Dropout, DropoutConfig, LayerNorm, LayerNormConfig, Linear,
    LinearConfig, PaddingConfig2d,
};
use burn::tensor::activation::{log_softmax, relu, sigmoid};
use burn::tensor::{Device, Distribution, Tensor};
use fixnorm::{Probe, Role, Roles, SetupError};

use Role::{Free, Head, ScaleInvariant};

fn conv(channels: [usize; 2], kernel: usize, groups: usize, bias: bool, device: &Device) -> Conv2d {
    let config = Conv2dConfig::new(channels, [kernel; 2]).with_groups(groups).with_bias(bias);
    let padding = kernel / 2;
    config.with_padding(PaddingConfig2d::Explicit(padding, padding, padding, padding)).init(device)
}

fn norm(channels: usize, device: &Device) -> BatchNorm {
    BatchNormConfig::new(channels).init(device)
}

/// One of everything.
#[derive(Module, Debug)]
struct Zoo {
    plain: Conv2d,
    plain_norm: BatchNorm,
    bare: Conv2d,
    grouped: Conv2d,
    grouped_norm: BatchNorm,
    depthwise: Conv2d,
    depthwise_norm: BatchNorm,
    squeeze: Conv2d,
    excite: Conv2d,
    leaky: Conv2d,
    leaky_norm: BatchNorm,
    tied: Conv2d,
    tied_norms: Vec<BatchNorm>,
    tied_free: Linear,
    hidden: Linear,
    hidden_norm: LayerNorm,
    head: Linear,
}

impl Zoo {
    fn new(device: &Device) -> Self {
        Self {
            plain: conv([2, 6], 3, 1, false, device),
            plain_norm: norm(6, device),
            bare: conv([6, 8], 3, 1, true, device),
            grouped: conv([8, 8], 3, 2, false, device),
            grouped_norm: norm(8, device),
            depthwise: conv([8, 8], 3, 8, false, device),
            depthwise_norm: norm(8, device),
            squeeze: conv([8, 4], 1, 1, true, device),
            excite: conv([4, 8], 1, 1, true, device),
            leaky: conv([8, 8], 1, 1, false, device),
            leaky_norm: norm(8, device),
            tied: conv([8, 8], 3, 1, false, device),
            tied_norms: vec![norm(8, device), norm(8, device)],
            tied_free: LinearConfig::new(8, 8).init(device),
            hidden: LinearConfig::new(8, 10).with_bias(false).init(device),
            hidden_norm: LayerNormConfig::new(10).init(device),
            head: LinearConfig::new(10, 3).init(device),
        }
    }

    fn loss(&self, x: Tensor<4>) -> Tensor<1> {
        let x = relu(self.plain_norm.forward(self.plain.forward(x)));
        let x = relu(self.bare.forward(x));
        let x = relu(self.grouped_norm.forward(self.grouped.forward(x)));
        let x = relu(self.depthwise_norm.forward(self.depthwise.forward(x)));
        let gate = relu(self.squeeze.forward(x.clone().mean_dims(&[2, 3])));
        let x = x * sigmoid(self.excite.forward(gate));
        // Its output goes into a norm, but around it as well.
        let y = self.leaky.forward(x);
        let x = relu(self.leaky_norm.forward(y.clone()) + y);
        let x = relu(self.tied_norms[0].forward(self.tied.forward(x)));
        let x = relu(self.tied_norms[1].forward(self.tied.forward(x)));
        let x = pool(x);
        let x = x.clone() + relu(self.tied_free.forward(x));
        let x = x.clone() + relu(self.tied_free.forward(x));
        let x = relu(self.hidden_norm.forward(self.hidden.forward(x)));
        per_sample(self.head.forward(x))
    }
}

fn pool(x: Tensor<4>) -> Tensor<2> {
    let [n, c, _, _] = x.dims();
    x.mean_dims(&[2, 3]).reshape([n, c])
}

/// Cross-entropy of each sample against the first class.
fn per_sample(logits: Tensor<2>) -> Tensor<1> {
    let [n, _] = logits.dims();
    log_softmax(logits, 1).slice([0..n, 0..1]).neg().reshape([n])
}

fn pictures(channels: usize, device: &Device) -> Tensor<4> {
    Tensor::random([6, channels, 7, 5], Distribution::Normal(0.0, 1.0), device)
}

/// A device whose random numbers begin at `seed`. Burn has one generator for all threads: the guard
/// keeps other tests from it.
fn device(seed: u64) -> (Device, MutexGuard<'static, ()>) {
    static ALONE: Mutex<()> = Mutex::new(());
    let guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let device = Device::flex().autodiff();
    device.seed(seed);
    (device, guard)
}

fn table(roles: &Roles) -> Vec<(&str, Role, bool)> {
    let weights = roles.params.iter().filter(|param| param.is_weight());
    weights.map(|param| (param.path.as_str(), param.role, param.channel_invariant)).collect()
}

#[test]
fn every_kind_of_weight_is_told_apart() {
    for seed in 0..20 {
        let (device, _alone) = device(seed);
        let (net, x) = (Zoo::new(&device), pictures(2, &device));
        let roles = Probe::new().run(&net, |net| net.loss(x.clone())).unwrap();
        #[rustfmt::skip]
        let expected = [
            // weight             role            each output channel by itself
            ("plain.weight",      ScaleInvariant, true),
            ("bare.weight",       Free,           false),
            ("grouped.weight",    ScaleInvariant, true),
            ("depthwise.weight",  ScaleInvariant, true),
            ("squeeze.weight",    Free,           false),
            ("excite.weight",     Free,           false),
            ("leaky.weight",      Free,           false),
            ("tied.weight",       ScaleInvariant, true),
            ("tied_free.weight",  Free,           false),
            ("hidden.weight",     ScaleInvariant, false),
            ("head.weight",       Head,           false),
        ];
        assert_eq!(table(&roles), expected, "seed {seed}: {roles:#?}");
        let (path, deviation) = roles.worst_deviation().unwrap();
        assert!(deviation < 1e-3, "seed {seed}: {path} {deviation}");
        // Gains and biases are not probed.
        assert!(
            roles.params.iter().filter(|param| !param.is_weight()).all(|param| param.role == Free)
        );
    }
}

#[test]
fn mean_loss_is_sharp_enough() {
    let (device, _alone) = device(8);
    let (net, x) = (Zoo::new(&device), pictures(2, &device));
    let probed = |mean: bool| {
        let loss = |net: &Zoo| match mean {
            true => net.loss(x.clone()).mean(),
            false => net.loss(x.clone()),
        };
        Probe::new().run(&net, loss).unwrap()
    };
    assert_eq!(table(&probed(true)), table(&probed(false)));
}

#[test]
fn model_is_left_as_it_was() {
    let (device, _alone) = device(1);
    let (net, x) = (Zoo::new(&device), pictures(2, &device));
    let bytes = |net: &Zoo| net.valid().into_record().into_bytes().unwrap();
    // A running statistic that is not at its start.
    net.loss(x.clone());
    let before = bytes(&net);
    Probe::new().run(&net, |net| net.loss(x.clone())).unwrap();
    assert_eq!(before, bytes(&net));
}

/// Two convolutions, of which the first is made to look harmless.
#[derive(Module, Debug)]
struct Trap {
    first: Conv2d,
    second: Conv2d,
    norm: BatchNorm,
    unused: Linear,
    dropout: Dropout,
    head: Linear,
}

impl Trap {
    fn new(device: &Device) -> Self {
        Self {
            first: conv([1, 4], 3, 1, true, device),
            second: conv([4, 5], 3, 1, false, device),
            norm: norm(5, device),
            unused: LinearConfig::new(5, 5).init(device),
            dropout: DropoutConfig::new(0.5).init(),
            head: LinearConfig::new(5, 3).init(device),
        }
    }

    fn features(&self, x: Tensor<4>) -> Tensor<2> {
        let x = relu(self.first.forward(x));
        pool(relu(self.norm.forward(self.second.forward(x))))
    }

    fn loss(&self, x: Tensor<4>) -> Tensor<1> {
        per_sample(self.head.forward(self.features(x)))
    }
}

fn scaled<const D: usize>(param: Param<Tensor<D>>, factor: f64) -> Param<Tensor<D>> {
    param.map(|value| Tensor::from_inner(value.inner().mul_scalar(factor)).require_grad())
}

fn trap_roles(net: &Trap, device: &Device) -> Roles {
    let x = pictures(1, device);
    Probe::new().run(net, |net| net.loss(x.clone())).unwrap()
}

#[test]
fn zero_biases_and_gains_do_not_fool_it() {
    for seed in 0..20 {
        let (device, _alone) = device(seed);
        let mut net = Trap::new(&device);
        // With a zero bias the first convolution is scale-invariant, until the bias moves.
        net.first.bias = net.first.bias.map(|bias| scaled(bias, 0.0));
        // With a zero gain nothing before it has an effect: zero-initialized residual branches.
        net.norm.gamma = scaled(net.norm.gamma, 0.0);
        let roles = trap_roles(&net, &device);
        assert_eq!(roles.get("first.weight").unwrap().role, Free, "seed {seed}: {roles:#?}");
        assert_eq!(roles.get("second.weight").unwrap().role, ScaleInvariant, "seed {seed}");
    }
}

#[test]
fn unused_weight_is_free() {
    let (device, _alone) = device(3);
    let roles = trap_roles(&Trap::new(&device), &device);
    assert_eq!(roles.get("unused.weight").unwrap().role, Free);
}

#[test]
fn large_epsilon_and_small_weights_are_seen_through() {
    for seed in 0..20 {
        let (device, _alone) = device(seed);
        let mut net = Trap::new(&device);
        net.norm = BatchNormConfig::new(5).with_epsilon(1e-3).init(&device);
        net.second.weight = scaled(net.second.weight, 0.5);
        let roles = trap_roles(&net, &device);
        let second = roles.get("second.weight").unwrap();
        assert_eq!(second.role, ScaleInvariant, "seed {seed}: {roles:#?}");
        // The table says how inexact it is all the same.
        assert!(second.deviation.unwrap() > 1e-3, "seed {seed}: {second:?}");
        assert_eq!(roles.get("first.weight").unwrap().role, Free, "seed {seed}: {roles:#?}");
    }
}

#[test]
fn overrides_and_head_by_name() {
    let (device, _alone) = device(5);
    let (net, x) = (Trap::new(&device), pictures(1, &device));
    let run = |probe: Probe| probe.run(&net, |net| net.loss(x.clone()));
    let roles = run(Probe::new().with_role("sec*", Free).with_head("first.weight")).unwrap();
    assert_eq!(roles.get("second.weight").unwrap().role, Free);
    assert!(roles.get("second.weight").unwrap().overridden);
    assert_eq!(roles.head().unwrap().path, "first.weight");
    assert_eq!(roles.get("head.weight").unwrap().role, Free);

    let error = run(Probe::new().with_role("third.weight", Free)).unwrap_err();
    assert!(matches!(error, SetupError::NoSuchParameter { .. }), "{error}");
    let error = run(Probe::new().with_head("heat.weight")).unwrap_err().to_string();
    assert!(error.contains("`heat.weight`") && error.contains("head.weight"), "{error}");
    let error = run(Probe::new().with_head("second.weight")).unwrap_err().to_string();
    assert!(error.contains("a normalization follows"), "{error}");
}

#[test]
fn losses_that_cannot_be_probed_are_refused() {
    let (device, _alone) = device(6);
    let (net, x) = (Trap::new(&device), pictures(1, &device));
    let dropped =
        |net: &Trap| per_sample(net.head.forward(net.dropout.forward(net.features(x.clone()))));
    let error = Probe::new().run(&net, dropped).unwrap_err();
    assert!(matches!(error, SetupError::NotRepeatable { .. }), "{error}");
    let error = Probe::new().run(&net, |net| net.loss(x.clone()) / 0.0).unwrap_err();
    assert!(matches!(error, SetupError::NotFinite(_)), "{error}");
}

#[derive(Module, Debug)]
struct Shared {
    one: Linear,
    other: Linear,
}

#[test]
fn one_parameter_at_two_places_is_refused() {
    let (device, _alone) = device(7);
    let one: Linear = LinearConfig::new(3, 3).init(&device);
    let net = Shared { other: one.clone(), one };
    let x = Tensor::<2>::ones([2, 3], &device);
    let loss = |net: &Shared| per_sample(net.other.forward(net.one.forward(x.clone())));
    let error = Probe::new().run(&net, loss).unwrap_err();
    assert!(matches!(error, SetupError::SharedParameter { .. }), "{error}");
}
