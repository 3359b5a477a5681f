//! A small network trained under every base update, step rule, constraint and scope, beside the plain reference that the Python
//! package is held to as well.
//! `benches/peers/steps_fixture.py` makes the numbers and states the formulas.

use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::activation::{log_softmax, tanh};
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Int, Tensor, TensorData};
use fixnorm::base::{BaseName, Coefficients};
use fixnorm::{
    Constraint, FixNormConfig, ParamRole, Radius, Role, Roles, Scope, StepRule, UpdateRule,
};
use serde::Deserialize;

/// Relative difference of a loss.
const LOSS: f64 = 1e-5;
/// Relative difference of a held norm.
const NORM: f64 = 1e-6;
/// Difference of an element after the last step, relative to its weight's largest.
const ELEMENT: f64 = 1e-4;

#[derive(Deserialize)]
struct Fixture {
    steps: u64,
    lr: f64,
    alpha: f64,
    head_lr_scale: f64,
    free_lr_scale: f64,
    momentum: f64,
    rms_decay: f64,
    rms_epsilon: f64,
    betas: [f64; 2],
    adam_epsilon: f64,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    base: BaseName,
    step_rule: StepRule,
    constraint: Constraint,
    scope: Scope,
    radius: Radius,
    free_step_rule: StepRule,
    losses: Vec<f64>,
    weights: Expected,
}

#[derive(Deserialize)]
struct Expected {
    conv: Vec<f64>,
    depthwise: Vec<f64>,
    head: Vec<f64>,
    gain: Vec<f64>,
}

fn unit(stream: u64, index: u64) -> f64 {
    let mut z = (stream << 32 | index).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ z >> 31) >> 11) as f64 * 2f64.powi(-52) - 1.0
}

fn values<const D: usize>(stream: u64, shape: [usize; D], device: &Device) -> Tensor<D> {
    let count = shape.iter().product::<usize>() as u64;
    let values: Vec<f32> = (0..count).map(|index| unit(stream, index) as f32).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// The fixture's weights. The head is in Burn's layout, the transposed one of PyTorch's.
#[derive(Module, Debug)]
struct Weights {
    conv: Param<Tensor<4>>,
    depthwise: Param<Tensor<4>>,
    head: Param<Tensor<2>>,
    gain: Param<Tensor<1>>,
}

impl Weights {
    fn new(device: &Device) -> Self {
        Self {
            conv: Param::from_tensor(values(0, [4, 2, 3, 3], device)),
            depthwise: Param::from_tensor(values(1, [8, 1, 2, 2], device)),
            head: Param::from_tensor(values(2, [3, 8], device).transpose()),
            gain: Param::from_tensor(values(3, [8], device)),
        }
    }

    fn roles() -> Roles {
        let param = |path: &str, shape: &[usize], role, channel_axis| ParamRole {
            path: path.to_owned(),
            shape: shape.to_vec(),
            role,
            channel_axis,
            channel_invariant: role == Role::ScaleInvariant,
            deviation: None,
            overridden: false,
        };
        let params = vec![
            param("conv", &[4, 2, 3, 3], Role::ScaleInvariant, Some(0)),
            param("depthwise", &[8, 1, 2, 2], Role::ScaleInvariant, Some(0)),
            param("head", &[8, 3], Role::Head, Some(1)),
            param("gain", &[8], Role::Free, None),
        ];
        Roles { params }
    }

    fn loss(&self, step: u64, device: &Device) -> Tensor<1> {
        let x = values(100 + step, [6, 2, 4, 4], device);
        let options = |groups| ConvOptions::new([1; 2], [0; 2], [1; 2], groups);
        let z = conv2d(x, self.conv.val(), None, options(1));
        let z = conv2d(z, self.depthwise.val(), None, options(4)).reshape([6, 8]);
        let centered = z.clone() - z.mean_dim(0);
        let variance = centered.clone().square().mean_dim(0);
        let z = centered / (variance + 1e-5).sqrt();
        let logits = tanh(z * self.gain.val().unsqueeze()).matmul(self.head.val());
        let labels: Vec<i64> = (0..6).map(|n| (n + step as i64) % 3).collect();
        let labels = Tensor::<2, Int>::from_data(TensorData::new(labels, [6, 1]), device);
        log_softmax(logits, 1).gather(1, labels).mean().neg()
    }
}

impl Fixture {
    fn config(&self, case: &Case) -> FixNormConfig {
        let epsilon = match case.base {
            BaseName::Adamw => self.adam_epsilon,
            _ => self.rms_epsilon,
        };
        let [beta1, beta2] = self.betas;
        let (momentum, rms_decay) = (self.momentum, self.rms_decay);
        let given = Coefficients { momentum, rms_decay, beta1, beta2, epsilon: Some(epsilon) };
        let held = UpdateRule::held().with_step(case.step_rule).with_constraint(case.constraint);
        let free = UpdateRule::free().with_step(case.free_step_rule);
        FixNormConfig::new(case.base.with(&given))
            .with_scale_invariant(held.with_radius(case.radius).with_scope(case.scope))
            .with_head(
                held.with_radius(Radius::RowRms { alpha: self.alpha })
                    .with_lr_scale(self.head_lr_scale),
            )
            .with_gains_and_biases(free.with_lr_scale(self.free_lr_scale))
    }
}

/// Compares a weight's elements, and the norms of `rows` equal parts of it where they are held.
fn compare(name: &str, found: &TensorData, expected: &[f64], held: Option<usize>) -> f64 {
    let found: Vec<f64> = found.iter().collect();
    assert_eq!(found.len(), expected.len());
    let size = expected.iter().fold(0.0f64, |size, x| size.max(x.abs()));
    let mut worst = 0.0f64;
    for (found, expected) in found.iter().zip(expected) {
        let apart = (found - expected).abs() / size;
        // This way round, a NaN fails.
        assert!(apart <= ELEMENT, "{name}: {found}, expected {expected}");
        worst = worst.max(apart);
    }
    if let Some(rows) = held {
        let norm = |part: &[f64]| part.iter().map(|x| x * x).sum::<f64>().sqrt();
        let length = found.len() / rows;
        for (found, expected) in found.chunks(length).zip(expected.chunks(length)) {
            let apart = (norm(found) / norm(expected) - 1.0).abs();
            assert!(apart <= NORM, "{name}: norm {}, expected {}", norm(found), norm(expected));
        }
    }
    worst
}

#[test]
fn losses_and_weights_are_the_references() {
    let fixture: Fixture = serde_json::from_str(include_str!("fixtures/steps.json")).unwrap();
    assert_eq!(fixture.cases.len(), 4 * 4 * 3 * 2);
    let device = Device::flex().autodiff();
    let (mut worst_loss, mut worst) = (0.0f64, 0.0f64);
    for case in &fixture.cases {
        let Case { base, step_rule, constraint, scope, radius, weights: expected, .. } = case;
        let name = format!("{base:?} {step_rule:?} {constraint:?} {scope:?} {radius:?}");
        let (mut weights, mut optimizer) =
            fixture.config(case).init(Weights::new(&device), &Weights::roles()).unwrap();
        assert_eq!(case.losses.len() as u64, fixture.steps);
        for (step, expected) in (0..).zip(&case.losses) {
            let loss = weights.loss(step, &device);
            let found = f64::from(loss.clone().into_scalar::<f32>());
            let apart = (found / expected - 1.0).abs();
            assert!(apart <= LOSS, "{name}, step {step}: loss {found}, expected {expected}");
            worst_loss = worst_loss.max(apart);
            let grads = GradientsParams::from_grads(loss.backward(), &weights);
            weights = optimizer.step(fixture.lr, weights, grads);
        }
        let rows = |c_out| if *scope == Scope::OutputChannel { c_out } else { 1 };
        let fixed = *constraint == Constraint::Fixed;
        for (weight, found, expected, held) in [
            ("conv", weights.conv.val().into_data(), &expected.conv, fixed.then(|| rows(4))),
            (
                "depthwise",
                weights.depthwise.val().into_data(),
                &expected.depthwise,
                fixed.then(|| rows(8)),
            ),
            (
                "head",
                weights.head.val().transpose().into_data(),
                &expected.head,
                fixed.then_some(1),
            ),
            ("gain", weights.gain.val().into_data(), &expected.gain, None),
        ] {
            worst = worst.max(compare(&format!("{name}, {weight}"), &found, expected, held));
        }
    }
    println!("largest relative difference of a loss {worst_loss:.1e}, of an element {worst:.1e}");
}
