//! Equilibrium of a scale-invariant weight under decay, by simulation: theory and measurement within 5 %.
//!
//! The loss of step t is −⟨w/‖w‖, x_t⟩ with x_t ~ N(0, I), so that gradients of different steps are uncorrelated
//! and that at ‖w‖ = 1 has the mean square d − 1.

use burn::module::{Module, Param};
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use fixnorm::base::AdamW;
use fixnorm::{
    BaseUpdate, DecayKind, DecayTarget, FixNormConfig, ParamRole, Role, Roles, WeightDecay,
};
use fixnorm_analysis::{Equilibrium, WeightSnapshot};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};

const DIM: usize = 400;

#[derive(Module, Debug)]
struct Toy {
    weight: Param<Tensor<2>>,
}

fn toy(norm: f64) -> (Toy, Roles) {
    let device = Device::flex().autodiff();
    let values: Vec<f32> = (0..DIM).map(|i| if i % 3 == 0 { 1.0 } else { -0.5 }).collect();
    let length = values.iter().map(|x| f64::from(x * x)).sum::<f64>().sqrt();
    let values: Vec<f32> = values.iter().map(|x| (f64::from(*x) * norm / length) as f32).collect();
    let weight = Tensor::<2>::from_data(TensorData::new(values, [DIM, 1]), &device);
    let role = ParamRole {
        path: "weight".to_owned(),
        shape: vec![DIM, 1],
        role: Role::ScaleInvariant,
        channel_axis: None,
        channel_invariant: false,
        deviation: None,
        overridden: true,
    };
    (Toy { weight: Param::from_tensor(weight) }, Roles { params: vec![role] })
}

/// Norm before and angular update of each of `steps` steps, from the norm `start`.
fn train(
    base: BaseUpdate,
    kind: DecayKind,
    (lr, rate): (f64, f64),
    start: f64,
    steps: usize,
) -> Vec<(f64, f64)> {
    let decay = WeightDecay { rate, kind, target: DecayTarget::ScaleInvariant };
    let (toy, roles) = toy(start);
    let (mut toy, mut optimizer) = FixNormConfig::decayed(base, decay).init(toy, &roles).unwrap();
    let device = Device::flex().autodiff();
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let mut measures = vec![];
    for _ in 0..steps {
        let x: Vec<f32> = (0..DIM).map(|_| StandardNormal.sample(&mut random)).collect();
        let x = Tensor::<2>::from_data(TensorData::new(x, [DIM, 1]), &device);
        let w = toy.weight.val();
        let loss = ((w.clone() * x).sum() / w.powi_scalar(2).sum().sqrt()).neg();
        let grads = GradientsParams::from_grads(loss.backward(), &toy);
        let before = WeightSnapshot::take(&toy, &roles);
        toy = optimizer.step(lr, toy, grads);
        let measured = before.measure(&toy, &roles, |_| lr).remove(0);
        assert!((measured.effective_lr * measured.norm.powi(2) / lr - 1.0).abs() < 1e-12);
        measures.push((measured.norm, measured.angular_update));
    }
    measures
}

/// Mean norm and root mean square angular update over the second half of `steps` steps.
fn settle(
    base: BaseUpdate,
    kind: DecayKind,
    rates: (f64, f64),
    start: f64,
    steps: usize,
) -> (f64, f64) {
    let measures = &train(base, kind, rates, start, steps)[steps / 2..];
    let count = measures.len() as f64;
    let norm = measures.iter().map(|(norm, _)| norm).sum::<f64>() / count;
    let square = measures.iter().map(|(_, angle)| angle * angle).sum::<f64>() / count;
    (norm, square.sqrt())
}

#[test]
fn angle_and_norm_settle_where_theory_says() {
    for (base, kind, lr, rate) in [
        (BaseUpdate::sgd(0.9), DecayKind::L2, 0.1, 0.01),
        (BaseUpdate::sgd(0.0), DecayKind::L2, 0.5, 0.02),
        (BaseUpdate::nesterov(0.9), DecayKind::L2, 0.1, 0.01),
        (BaseUpdate::sgd(0.9), DecayKind::Decoupled, 0.05, 0.2),
        (BaseUpdate::adamw(), DecayKind::Decoupled, 0.01, 1.0),
    ] {
        let theory = Equilibrium::of(&base, kind, lr, rate).unwrap();
        let expected = theory.norm(((DIM - 1) as f64).sqrt());
        // From twice the norm, for long enough to get there in the first half.
        let steps = (48.0 * theory.lag_steps) as usize;
        let start = 2.0 * expected.unwrap_or(1.0);
        let (norm, angle) = settle(base, kind, (lr, rate), start, steps);
        let off = (angle / theory.angular_update - 1.0).abs();
        assert!(off < 0.05, "{base:?} {kind:?}: {angle} against {theory:?}");
        if let Some(expected) = expected {
            let off = (norm / expected - 1.0).abs();
            assert!(off < 0.05, "{base:?} {kind:?}: norm {norm} against {expected}");
        }
    }
}

#[test]
fn the_lag_is_how_long_it_takes() {
    // Lags of 125, 125 and 1,250 steps, long against the memory of momentum and of the mean square, which
    // for Adam is shortened for that.
    let adamw = BaseUpdate::AdamW(AdamW { beta2: 0.99, ..AdamW::default() });
    for (base, kind, (lr, rate), power) in [
        (BaseUpdate::sgd(0.9), DecayKind::L2, (0.1, 0.002), 4),
        (BaseUpdate::sgd(0.0), DecayKind::L2, (0.1, 0.02), 4),
        (adamw, DecayKind::Decoupled, (0.01, 0.04), 2),
    ] {
        let theory = Equilibrium::of(&base, kind, lr, rate).unwrap();
        let lag = theory.lag_steps;
        // Adam's norm has no formula here: where it settles is measured.
        let settled = theory.norm(((DIM - 1) as f64).sqrt());
        let settled =
            settled.unwrap_or_else(|| settle(base, kind, (lr, rate), 14.0, (8.0 * lag) as usize).0);
        // Adam's direction has a part along the weight, and its norm wanders: start far above.
        let starts = if power == 2 { [2.0f64, 3.0] } else { [0.5, 2.0] };
        for start in starts {
            let measures = train(base, kind, (lr, rate), start * settled, lag as usize + 1);
            let distance = |step: f64| (measures[step as usize].0 / settled).powi(power) - 1.0;
            let fallen = distance(lag) / distance(0.0);
            println!("{base:?} from {start}: {fallen}");
            assert!((fallen - (-1.0f64).exp()).abs() < 0.06, "{base:?} from {start}: {fallen}");
        }
    }
}

/// A norm that layer norm makes irrelevant: the gradient shrinks as the weight grows.
#[test]
fn gradient_norm_times_weight_norm_does_not_depend_on_the_norm() {
    #[derive(Module, Debug)]
    struct Model {
        hidden: Linear,
        norm: LayerNorm,
    }
    let device = Device::flex().autodiff();
    let model = Model {
        hidden: LinearConfig::new(4, 8).with_bias(false).init(&device),
        norm: LayerNormConfig::new(8).with_epsilon(1e-12).init(&device),
    };
    let values: Vec<f32> = (0..64).map(|i| (i * i % 17) as f32 - 8.0).collect();
    let x = Tensor::<2>::from_data(TensorData::new(values, [16, 4]), &device);
    let loss = |model: &Model| {
        let h = burn::tensor::activation::relu(model.norm.forward(model.hidden.forward(x.clone())));
        (h.sum_dim(1) - 1.0).powi_scalar(2).mean()
    };
    let role = |path: &str, shape: Vec<usize>, role| ParamRole {
        path: path.to_owned(),
        shape,
        role,
        channel_axis: None,
        channel_invariant: false,
        deviation: None,
        overridden: true,
    };
    let roles = Roles { params: vec![role("hidden.weight", vec![4, 8], Role::ScaleInvariant)] };
    let product = |norm: f64| {
        let model = fixnorm_analysis::replay::with_norms(model.clone(), &[("hidden.weight", norm)]);
        let grads = GradientsParams::from_grads(loss(&model).backward(), &model);
        let found = fixnorm_analysis::measure::gradient_norms(&model, &roles, &grads);
        assert_eq!(found.len(), 1);
        found[0].1 * norm
    };
    let (one, five) = (product(1.0), product(5.0));
    assert!((one / five - 1.0).abs() < 1e-3 && one > 0.0, "{one} {five}");
}
