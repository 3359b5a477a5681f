//! Every base update, step rule, constraint and scope, beside the plain reference that the Python package is held to as well.
//! `benches/peers/steps_fixture.py` makes the numbers and states the formulas.

use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use fixnorm::base::{BaseName, Coefficients};
use fixnorm::{
    Constraint, FixNormConfig, ParamRole, Radius, Role, Roles, Scope, StepRule, UpdateRule,
};
use serde::Deserialize;

/// Tolerance of a weight's elements, relative to its largest. Rounding is good for 1e-6.
const TOLERANCE: f64 = 5e-6;

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
            depthwise: Param::from_tensor(values(1, [6, 1, 2, 2], device)),
            head: Param::from_tensor(values(2, [3, 5], device).transpose()),
            gain: Param::from_tensor(values(3, [5], device)),
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
            param("depthwise", &[6, 1, 2, 2], Role::ScaleInvariant, Some(0)),
            param("head", &[5, 3], Role::Head, Some(1)),
            param("gain", &[5], Role::Free, None),
        ];
        Roles { params }
    }

    /// A loss whose gradients are the fixture's.
    fn loss(&self, step: u64, device: &Device) -> Tensor<1> {
        let stream = 100 + 10 * step;
        (self.conv.val() * values(stream, [4, 2, 3, 3], device)).sum()
            + (self.depthwise.val() * values(stream + 1, [6, 1, 2, 2], device)).sum()
            + (self.head.val() * values(stream + 2, [3, 5], device).transpose()).sum()
            + (self.gain.val() * values(stream + 3, [5], device)).sum()
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

#[test]
fn steps_are_the_references() {
    let fixture: Fixture = serde_json::from_str(include_str!("fixtures/steps.json")).unwrap();
    assert_eq!(fixture.cases.len(), 4 * 4 * 3 * 2);
    let device = Device::flex().autodiff();
    let mut worst = 0.0f64;
    for case in &fixture.cases {
        let Case { base, step_rule, constraint, scope, radius, .. } = case;
        let name = format!("{base:?} {step_rule:?} {constraint:?} {scope:?} {radius:?}");
        let (mut weights, mut optimizer) =
            fixture.config(case).init(Weights::new(&device), &Weights::roles()).unwrap();
        for step in 0..fixture.steps {
            let grads =
                GradientsParams::from_grads(weights.loss(step, &device).backward(), &weights);
            weights = optimizer.step(fixture.lr, weights, grads);
        }
        let found = [
            ("conv", weights.conv.val().into_data(), &case.weights.conv),
            ("depthwise", weights.depthwise.val().into_data(), &case.weights.depthwise),
            ("head", weights.head.val().transpose().into_data(), &case.weights.head),
            ("gain", weights.gain.val().into_data(), &case.weights.gain),
        ];
        for (weight, found, expected) in found {
            let found: Vec<f64> = found.iter().collect();
            assert_eq!(found.len(), expected.len());
            let size = expected.iter().fold(0.0f64, |size, x| size.max(x.abs()));
            for (found, expected) in found.iter().zip(expected) {
                let apart = (found - expected).abs() / size;
                // This way round, a NaN fails.
                assert!(apart <= TOLERANCE, "{name}, {weight}: {found}, expected {expected}");
                worst = worst.max(apart);
            }
        }
    }
    println!("largest difference {worst:.1e}");
}
