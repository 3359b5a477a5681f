//! What the probe finds on nets whose roles are known from their structure, and what it refuses.

use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{
    BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Initializer, LayerNorm, LayerNormConfig,
    Linear, LinearConfig, PaddingConfig2d,
};
use burn::tensor::activation::{log_softmax, relu, sigmoid};
use burn::tensor::{Device, Distribution, Int, Tensor};
use fixnorm::{Probe, Role, Roles, SetupError};

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

    fn pictures(&self) -> Tensor<4> {
        let normal = Distribution::Normal(0.0, 1.0);
        Tensor::random([10, 3, 9, 8], normal, &self.device)
    }

    fn table(&self) -> Tensor<2> {
        Tensor::random([16, 6], Distribution::Normal(0.0, 1.0), &self.device)
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

/// Every structure the probe must tell apart, in one net.
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
fn every_structure_is_told_apart() {
    for seed in SEEDS {
        let seeded = seeded(seed);
        let (net, x) = (Zoo::new(&seeded), seeded.pictures());
        for mean in [false, true] {
            let roles = Probe::new().run(&net, |net| match mean {
                true => net.losses(&x).mean(),
                false => net.losses(&x),
            });
            let roles = roles.unwrap();
            for p in roles.params.iter().filter(|p| p.is_weight()) {
                println!(
                    "SEED {seed} {mean} {} {:?} {} {:?}",
                    p.path, p.role, p.channel_invariant, p.deviation
                );
            }
        }
    }
}
