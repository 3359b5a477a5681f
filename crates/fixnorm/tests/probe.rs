//! The probe's findings on models whose roles are known from their structure, and its errors.

use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{
    BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Initializer, LayerNorm, LayerNormConfig,
    Linear, LinearConfig, PaddingConfig2d,
};
use burn::tensor::activation::{gelu, log_softmax, relu, sigmoid, silu, tanh};
use burn::tensor::{Device, Distribution, Int, Tensor};
use fixnorm::{BaseUpdate, FixNormConfig, Probe, Role, Roles, Scope, SetupError, UpdateRule};

use Role::{Free, Head, ScaleInvariant};

const SEEDS: std::ops::Range<u64> = 0..6;

/// The device with its random numbers at a known place. They belong to the process, so whoever
/// draws some must hold this.
struct Seeded {
    device: Device,
    _turn: MutexGuard<'static, ()>,
}

fn seeded(seed: u64) -> Seeded {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let device = Device::flex().autodiff();
    device.seed(seed);
    Seeded { device, _turn }
}

impl Seeded {
    fn conv(&self, channels: [usize; 2], groups: usize, bias: bool) -> Conv2d {
        Conv2dConfig::new(channels, [3, 3])
            .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
            .with_groups(groups)
            .with_bias(bias)
            .init(&self.device)
    }

    fn pointwise(&self, channels: [usize; 2]) -> Conv2d {
        Conv2dConfig::new(channels, [1, 1]).init(&self.device)
    }

    fn linear(&self, d_in: usize, d_out: usize, bias: bool) -> Linear {
        LinearConfig::new(d_in, d_out).with_bias(bias).init(&self.device)
    }

    fn norm(&self, channels: usize) -> BatchNorm {
        BatchNormConfig::new(channels).init(&self.device)
    }

    /// A convolution followed by batch norm, and a head.
    fn small(&self) -> Small {
        Small {
            conv: self.conv([3, 6], 1, false),
            norm: self.norm(6),
            head: self.linear(6, 5, true),
        }
    }

    /// Two convolutions, the first with a bias or not, the second followed by batch norm.
    fn pair(&self, bias: bool) -> Pair {
        Pair {
            first: self.conv([3, 6], 1, bias),
            first_norm: self.norm(6),
            second: self.conv([6, 7], 1, false),
            second_norm: self.norm(7),
            head: self.linear(7, 5, true),
        }
    }

    fn images(&self) -> Tensor<4> {
        Tensor::random([10, 3, 7, 6], Distribution::Normal(0.0, 1.0), &self.device)
    }
}

/// Cross-entropy with made-up labels, one value a sample.
fn cross_entropy(logits: Tensor<2>) -> Tensor<1> {
    let [n, classes] = logits.dims();
    let labels = Tensor::<1, Int>::arange(0..n as i64, &logits.device())
        .remainder_scalar(classes as i64)
        .reshape([n, 1]);
    log_softmax(logits, 1).gather(1, labels).reshape([n]).neg()
}

fn pool(x: Tensor<4>) -> Tensor<2> {
    x.mean_dims(&[2, 3]).flatten(1, 3)
}

fn role(roles: &Roles, path: &str) -> Role {
    roles.get(path).unwrap_or_else(|| panic!("no {path}")).role
}

/// Every structure that the probe must distinguish, in one network.
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
    excite: Linear,
    biased: Conv2d,
    biased_norm: BatchNorm,
    tied: Conv2d,
    tied_norms: [BatchNorm; 2],
    tied_residual: Conv2d,
    linear: Linear,
    linear_norm: LayerNorm,
    linear_biased: Linear,
    linear_biased_norm: LayerNorm,
    dense: Linear,
    dense_norm: BatchNorm,
    head: Linear,
}

/// Each weight's role, and whether each of its output channels is scale-invariant by itself.
const ZOO: [(&str, Role, bool); 13] = [
    ("plain.weight", ScaleInvariant, true),
    ("bare.weight", Free, false),
    ("grouped.weight", ScaleInvariant, true),
    ("depthwise.weight", ScaleInvariant, true),
    ("squeeze.weight", Free, false),
    ("excite.weight", Free, false),
    // Batch norm takes the bias away again,
    ("biased.weight", ScaleInvariant, true),
    ("tied.weight", ScaleInvariant, true),
    ("tied_residual.weight", Free, false),
    // layer norm does not; and it mixes the channels.
    ("linear.weight", ScaleInvariant, false),
    ("linear_biased.weight", Free, false),
    ("dense.weight", ScaleInvariant, true),
    ("head.weight", Head, false),
];

impl Zoo {
    fn new(seeded: &Seeded) -> Self {
        let layer_norm = |d| LayerNormConfig::new(d).init(&seeded.device);
        Self {
            plain: seeded.conv([3, 8], 1, false),
            plain_norm: seeded.norm(8),
            bare: seeded.conv([8, 12], 1, true),
            grouped: seeded.conv([12, 24], 4, false),
            grouped_norm: seeded.norm(24),
            depthwise: seeded.conv([24, 24], 24, false),
            depthwise_norm: seeded.norm(24),
            squeeze: seeded.pointwise([24, 6]),
            excite: seeded.linear(6, 24, true),
            biased: seeded.conv([24, 16], 1, true),
            biased_norm: seeded.norm(16),
            tied: seeded.conv([16, 16], 1, false),
            tied_norms: [seeded.norm(16), seeded.norm(16)],
            tied_residual: seeded.conv([16, 16], 1, true),
            linear: seeded.linear(16, 14, false),
            linear_norm: layer_norm(14),
            linear_biased: seeded.linear(14, 11, true),
            linear_biased_norm: layer_norm(11),
            dense: seeded.linear(11, 7, false),
            dense_norm: seeded.norm(7),
            head: seeded.linear(7, 5, true),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = relu(self.plain_norm.forward(self.plain.forward(x)));
        let x = relu(self.bare.forward(x));
        let x = relu(self.grouped_norm.forward(self.grouped.forward(x)));
        let x = relu(self.depthwise_norm.forward(self.depthwise.forward(x)));
        let [n, channels, ..] = x.dims();
        let squeezed = relu(self.squeeze.forward(x.clone().mean_dims(&[2, 3])));
        let gate = sigmoid(self.excite.forward(squeezed.flatten::<2>(1, 3)));
        let x = x * gate.reshape([n, channels, 1, 1]);
        let mut x = relu(self.biased_norm.forward(self.biased.forward(x)));
        for norm in &self.tied_norms {
            x = relu(norm.forward(self.tied.forward(x)));
        }
        for _ in 0..2 {
            x = x.clone() + relu(self.tied_residual.forward(x));
        }
        let x = relu(self.linear_norm.forward(self.linear.forward(pool(x))));
        let x = self.linear_biased.forward(x);
        let x = relu(self.linear_biased_norm.forward(x));
        let x = relu(self.dense_norm.forward(self.dense.forward(x)));
        self.head.forward(x)
    }

    fn losses(&self, x: &Tensor<4>) -> Tensor<1> {
        cross_entropy(self.forward(x.clone()))
    }
}

#[test]
fn every_structure_is_distinguished() {
    for seed in SEEDS {
        let seeded = seeded(seed);
        let (net, x) = (Zoo::new(&seeded), seeded.images());
        let roles = Probe::new().run(&net, |net| net.losses(&x)).unwrap();
        let weights = roles.params.iter().filter(|param| param.is_weight());
        let found: Vec<_> =
            weights.map(|p| (p.path.as_str(), p.role, p.channel_invariant)).collect();
        assert_eq!(found, ZOO, "seed {seed}: {roles:#?}");
        let vectors = roles.params.iter().filter(|param| !param.is_weight());
        assert!(vectors.clone().count() > 0);
        assert!(vectors.clone().all(|p| p.role == Free && p.deviation.is_none()));
    }
}

#[test]
fn channels_that_depend_on_each_other_are_held_as_a_whole() {
    let seeded = seeded(0);
    let (zoo, x) = (Zoo::new(&seeded), seeded.images());
    let roles = Probe::new().run(&zoo, |zoo| zoo.losses(&x)).unwrap();
    let held = UpdateRule::held().with_scope(Scope::OutputChannel);
    let config = FixNormConfig::new(BaseUpdate::sgd(0.9)).with_scale_invariant(held);
    let (zoo, _) = config.init(zoo, &roles).unwrap();
    // A linear weight is [d_in, d_out]; layer norm sees its channels together, batch norm each by itself.
    let norms = |weight: Tensor<2>| -> Vec<f32> {
        weight.powi_scalar(2).sum_dim(0).sqrt().into_data().iter().collect()
    };
    let (together, alone) = (norms(zoo.linear.weight.val()), norms(zoo.dense.weight.val()));
    assert!(alone.iter().all(|norm| (norm - 1.0).abs() < 1e-6), "{alone:?}");
    assert!(together.iter().any(|norm| (norm - 1.0).abs() > 1e-3), "{together:?}");
    let square: f32 = together.iter().map(|norm| norm * norm).sum();
    assert!((square / together.len() as f32 - 1.0).abs() < 1e-5, "{together:?}");
}

/// Conv, batch norm and head.
#[derive(Module, Debug)]
struct Small {
    conv: Conv2d,
    norm: BatchNorm,
    head: Linear,
}

impl Small {
    fn losses(&self, x: &Tensor<4>) -> Tensor<1> {
        let x = relu(self.norm.forward(self.conv.forward(x.clone())));
        cross_entropy(self.head.forward(pool(x)))
    }
}

/// Two layers for the cases that differ in what stands between them.
#[derive(Module, Debug)]
struct Pair {
    first: Conv2d,
    first_norm: BatchNorm,
    second: Conv2d,
    second_norm: BatchNorm,
    head: Linear,
}

impl Pair {
    /// The losses from the first layer's output on, whatever it was made into.
    fn losses(&self, x: Tensor<4>) -> Tensor<1> {
        let x = relu(self.second_norm.forward(self.second.forward(x)));
        cross_entropy(self.head.forward(pool(x)))
    }
}

/// The role and the channels' invariance of `first.weight`, for many seeds.
fn first_is(
    expected: (Role, bool),
    make: impl Fn(&Seeded) -> Pair,
    losses: impl Fn(&Pair, Tensor<4>) -> Tensor<1>,
) {
    for seed in SEEDS {
        let seeded = seeded(seed);
        let (net, x) = (make(&seeded), seeded.images());
        let roles = Probe::new().run(&net, |net| losses(net, x.clone())).unwrap();
        let first = roles.get("first.weight").unwrap();
        assert_eq!((first.role, first.channel_invariant), expected, "seed {seed}: {first:?}");
        assert_eq!(role(&roles, "second.weight"), ScaleInvariant, "seed {seed}: {roles:#?}");
        assert_eq!(role(&roles, "head.weight"), Head, "seed {seed}");
    }
}

#[test]
fn shortcut_taken_before_the_norm_makes_a_weight_free() {
    let shortcut = |net: &Pair, x| {
        let before = net.first.forward(x);
        net.losses(relu(net.first_norm.forward(before.clone())) + before)
    };
    first_is((Free, false), |seeded| seeded.pair(false), shortcut);
    let taken_after = |net: &Pair, x| {
        let after = net.first_norm.forward(net.first.forward(x));
        net.losses(relu(after.clone()) + after)
    };
    first_is((ScaleInvariant, true), |seeded| seeded.pair(false), taken_after);
}

#[test]
fn zero_biases_do_not_hide_that_they_will_move() {
    let zero_bias = |seeded: &Seeded| {
        let mut net = seeded.pair(true);
        net.first.bias = Some(Initializer::Zeros.init([6], &seeded.device));
        net
    };
    first_is((Free, false), zero_bias, |net, x| net.losses(relu(net.first.forward(x))));
    // Without any bias a ReLU passes the scale on to the norm behind the second layer.
    let without = |seeded: &Seeded| seeded.pair(false);
    first_is((ScaleInvariant, false), without, |net, x| net.losses(relu(net.first.forward(x))));
}

#[test]
fn smooth_activation_makes_a_weight_free() {
    for activation in [silu, gelu, tanh] {
        for bias in [false, true] {
            let pair = |seeded: &Seeded| seeded.pair(bias);
            first_is((Free, false), pair, |net, x| net.losses(activation(net.first.forward(x))));
        }
    }
}

#[test]
fn unused_weight_is_free() {
    first_is(
        (Free, false),
        |seeded| seeded.pair(true),
        |net, x| net.losses(x.clone().repeat_dim(1, 2)),
    );
}

#[test]
fn zero_gain_of_a_residual_branch_does_not_hide_its_weight() {
    let zero_gain = |seeded: &Seeded| {
        let mut net = seeded.pair(false);
        net.first_norm.gamma = Initializer::Zeros.init([6], &seeded.device);
        net
    };
    let residual = |net: &Pair, x: Tensor<4>| {
        let branch = net.first_norm.forward(net.first.forward(x.clone()));
        net.losses(relu(x.repeat_dim(1, 2) + branch))
    };
    first_is((ScaleInvariant, true), zero_gain, residual);
}

#[test]
fn zero_head_does_not_hide_the_weights_before_it() {
    let zero_head = |seeded: &Seeded| {
        let mut net = seeded.pair(false);
        net.head.weight = Initializer::Zeros.init([7, 5], &seeded.device);
        net
    };
    first_is((ScaleInvariant, true), zero_head, |net, x| {
        net.losses(relu(net.first_norm.forward(net.first.forward(x))))
    });
}

#[test]
fn large_epsilon_and_small_weights_do_not_hide_scale_invariance() {
    for size in [1.0, 0.3] {
        let make = |seeded: &Seeded| {
            let mut net = seeded.pair(false);
            for norm in [&mut net.first_norm, &mut net.second_norm] {
                norm.epsilon = 1e-3;
            }
            for conv in [&mut net.first, &mut net.second] {
                let smaller = conv.weight.val().mul_scalar(size).detach();
                conv.weight = Param::from_tensor(smaller);
            }
            net
        };
        first_is((ScaleInvariant, true), make, |net, x| {
            net.losses(relu(net.first_norm.forward(net.first.forward(x))))
        });
    }
}

#[test]
fn deviations_are_those_of_rounding() {
    let seeded = seeded(1);
    let (net, x) = (seeded.small(), seeded.images());
    let roles = Probe::new().run(&net, |net| net.losses(&x)).unwrap();
    let (path, worst) = roles.worst_deviation().unwrap();
    assert_eq!(path, "conv.weight");
    assert!(worst < 1e-3, "{worst}");
    assert!(role(&roles, "head.weight") == Head && roles.params[3].deviation > Some(0.01));
}

/// The bits of every parameter and of every running statistic.
fn bits(net: &impl Module) -> Vec<u32> {
    #[derive(Default)]
    struct Bits(Vec<u32>);
    impl ModuleVisitor for Bits {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.extend(param.val().into_data().iter::<f32>().map(f32::to_bits));
        }
    }
    let mut bits = Bits::default();
    net.visit(&mut bits);
    bits.0
}

#[test]
fn model_is_left_as_it_was() {
    let seeded = seeded(2);
    let (net, x) = (Zoo::new(&seeded), seeded.images());
    // Statistics that are neither initial nor free of an update still to be taken in.
    for _ in 0..3 {
        net.losses(&x);
    }
    let before = bits(&net.valid());
    Probe::new().run(&net, |net| net.losses(&x)).unwrap();
    assert!(before == bits(&net) && before == bits(&net.valid()));
    net.losses(&x);
    assert!(before != bits(&net.valid()), "the comparison does not see the statistics");
}

#[test]
fn probe_repeats_itself() {
    let seeded = seeded(3);
    let (net, x) = (Zoo::new(&seeded), seeded.images());
    let probe = || Probe::new().run(&net, |net| net.losses(&x)).unwrap();
    assert_eq!(probe(), probe());
}

#[test]
fn frozen_weight_has_no_role() {
    let seeded = seeded(4);
    let (mut net, x) = (seeded.small(), seeded.images());
    net.conv = net.conv.freeze();
    let roles = Probe::new().run(&net, |net| net.losses(&x)).unwrap();
    let paths: Vec<_> = roles.params.iter().map(|param| param.path.as_str()).collect();
    assert_eq!(paths, ["norm.gamma", "norm.beta", "head.weight", "head.bias"]);
}

#[test]
fn overrides_by_path_and_pattern() {
    let seeded = seeded(5);
    let (net, x) = (Zoo::new(&seeded), seeded.images());
    let run = |probe: Probe| probe.run(&net, |net| net.losses(&x));
    let roles = run(Probe::new()
        .with_role("linear*.weight", ScaleInvariant)
        .with_role("plain.weight", Free)
        .with_role("linear.weight", Free))
    .unwrap();
    for (path, expected) in [
        ("plain.weight", Free),
        ("linear_biased.weight", ScaleInvariant),
        // The later one wins.
        ("linear.weight", Free),
    ] {
        let param = roles.get(path).unwrap();
        assert_eq!((param.role, param.overridden), (expected, true), "{path}");
    }
    assert!(!roles.get("grouped.weight").unwrap().overridden);
    // Gains are matched as well where the pattern says so.
    assert!(roles.get("linear_norm.gamma").is_some_and(|param| !param.overridden));

    let error = run(Probe::new().with_role("depthwize.weight", Free)).unwrap_err();
    let SetupError::NoSuchParameter { pattern, nearest } = error else { panic!("{error}") };
    assert_eq!((pattern.as_str(), nearest.as_str()), ("depthwize.weight", "depthwise.weight"));
}

#[test]
fn head_is_the_last_linear_layer_or_the_one_named() {
    let seeded = seeded(6);
    let (net, x) = (Zoo::new(&seeded), seeded.images());
    let run = |head: &str| Probe::new().with_head(head).run(&net, |net| net.losses(&x));
    let roles = run("excite.weight").unwrap();
    assert_eq!(roles.head().unwrap().path, "excite.weight");
    assert_eq!(role(&roles, "head.weight"), Free);
    // A convolution can be the head, too.
    assert_eq!(run("bare.weight").unwrap().head().unwrap().path, "bare.weight");

    for misnamed in ["classifier.weight", "head", "head.bias"] {
        let error = run(misnamed).unwrap_err();
        let SetupError::HeadNotFound { reason, candidates } = error else { panic!("{error}") };
        assert!(reason.contains(misnamed), "{reason}");
        let linear =
            "excite.weight, linear.weight, linear_biased.weight, dense.weight, head.weight";
        assert_eq!(candidates, linear);
    }
    let error = run("dense.weight").unwrap_err();
    assert!(
        matches!(&error, SetupError::HeadNotFound { reason, .. } if reason.contains("`dense.weight` is scale-invariant")),
        "{error}"
    );
}

#[test]
fn normalized_last_layer_is_refused_as_head() {
    let seeded = seeded(7);
    let (mut net, x) = (seeded.small(), seeded.images());
    net.norm = seeded.norm(5);
    let losses = |net: &Small| {
        let x = net.head.forward(pool(relu(net.conv.forward(x.clone()))));
        cross_entropy(net.norm.forward(x))
    };
    net.head = seeded.linear(6, 5, true);
    let error = Probe::new().run(&net, losses).unwrap_err();
    assert!(matches!(error, SetupError::HeadNotFound { .. }), "{error}");
}

#[test]
fn a_model_without_linear_layers_has_no_head() {
    #[derive(Module, Debug)]
    struct Convolutional {
        conv: Conv2d,
    }
    let seeded = seeded(8);
    let (net, x) = (Convolutional { conv: seeded.conv([3, 5], 1, true) }, seeded.images());
    let losses = |net: &Convolutional| cross_entropy(pool(net.conv.forward(x.clone())));
    assert_eq!(Probe::new().run(&net, losses).unwrap().head(), None);
    let error = Probe::new().with_head("fc.weight").run(&net, losses).unwrap_err();
    assert!(
        matches!(&error, SetupError::HeadNotFound { candidates, .. } if candidates == "none"),
        "{error}"
    );
}

#[test]
fn active_dropout_is_refused() {
    let seeded = seeded(9);
    let (net, x) = (seeded.small(), seeded.images());
    let dropout = DropoutConfig::new(0.5).init();
    let losses = |net: &Small, dropout: &Dropout| net.losses(&dropout.forward(x.clone()));
    let error = Probe::new().run(&net, |net| losses(net, &dropout)).unwrap_err();
    assert!(matches!(error, SetupError::NotRepeatable { .. }), "{error}");
    // The way out that the message names: the same numbers at every call.
    let again = |net: &Small| {
        seeded.device.seed(9);
        losses(net, &dropout)
    };
    assert_eq!(role(&Probe::new().run(&net, again).unwrap(), "conv.weight"), ScaleInvariant);
}

#[test]
fn broken_batch_is_refused() {
    let seeded = seeded(10);
    let (net, x) = (seeded.small(), seeded.images());
    for broken in [f32::NAN, f32::INFINITY] {
        let x = x.clone().mul_scalar(broken);
        let error = Probe::new().run(&net, |net| net.losses(&x)).unwrap_err();
        assert!(matches!(error, SetupError::NotFinite(loss) if !loss.is_finite()), "{error}");
    }
}

#[test]
fn one_parameter_at_two_places_is_refused() {
    #[derive(Module, Debug)]
    struct Shared {
        encoder: Linear,
        decoder: Linear,
    }
    let seeded = seeded(11);
    let encoder = seeded.linear(4, 4, false);
    let net = Shared { decoder: encoder.clone(), encoder };
    let losses = |net: &Shared| {
        let x = net.encoder.forward(Tensor::<2>::ones([3, 4], &seeded.device));
        cross_entropy(net.decoder.forward(x))
    };
    let error = Probe::new().run(&net, losses).unwrap_err();
    let SetupError::SharedParameter { first, second } = error else { panic!("{error}") };
    assert_eq!((first.as_str(), second.as_str()), ("encoder.weight", "decoder.weight"));
}

#[test]
fn head_can_be_set_by_role() {
    let seeded = seeded(10);
    let (net, x) = (Zoo::new(&seeded), seeded.images());
    let run = |probe: Probe| probe.run(&net, |net| net.losses(&x));
    let roles = run(Probe::new().with_role("bare.weight", Head)).unwrap();
    assert_eq!(roles.head().unwrap().path, "bare.weight");
    assert_eq!(role(&roles, "head.weight"), Free);
    assert!(roles.to_string().contains("set by the user"), "{roles}");
    let error = run(Probe::new().with_role("b*e.weight", Head).with_role("tied.weight", Head));
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("more than one") && error.contains("bare.weight, tied.weight"),
        "{error}"
    );
}
