//! The contract every optimizer keeps, and the kernel against the composed step.

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{Distribution, Tensor};

use super::*;
use crate::{
    DecayTarget, FixNormConfig, Probe, Radius, Role, Roles, Scope, SetupError, StepRule,
    WeightDecay,
};

#[derive(Module, Debug)]
struct Model {
    conv: Conv2d,
    norm: BatchNorm,
    head: Linear,
}

impl Model {
    /// With weights of its own: random numbers belong to the process, and tests run side by side.
    fn new(device: &Device) -> Self {
        let weight = |factor: usize, len: usize| {
            let values = (1..=len).map(|i| (i * i * factor % 101) as f32 / 150.0 - 0.33).collect();
            TensorData::new::<f32, _>(values, [len])
        };
        let mut model = Self {
            conv: Conv2dConfig::new([2, 5], [3, 3]).with_bias(false).init(device),
            norm: BatchNormConfig::new(5).init(device),
            head: LinearConfig::new(5, 3).init(device),
        };
        let conv = Tensor::<1>::from_data(weight(29, 5 * 2 * 3 * 3), device);
        model.conv.weight = Param::from_tensor(conv.reshape([5, 2, 3, 3]));
        let head = Tensor::<1>::from_data(weight(43, 5 * 3), device);
        model.head.weight = Param::from_tensor(head.reshape([5, 3]));
        model.head.bias = Some(Param::from_tensor(Tensor::from_data(weight(17, 3), device)));
        model
    }

    fn loss(&self, x: Tensor<4>) -> Tensor<1> {
        let h = burn::tensor::activation::relu(self.norm.forward(self.conv.forward(x)));
        let h: Tensor<2> = h.mean_dims(&[2, 3]).reshape([0, 5]);
        let target = Tensor::<1>::from_floats([1.0, -1.0, 0.5], &h.device());
        (self.head.forward(h) - target.unsqueeze()).powi_scalar(2).mean()
    }
}

fn batch(device: &Device) -> Tensor<4> {
    let values: Vec<f32> = (0..8 * 2 * 6 * 7).map(|i| ((i * i % 97) as f32 / 48.0) - 1.0).collect();
    Tensor::from_data(TensorData::new(values, [8, 2, 6, 7]), device)
}

fn setup() -> (Model, Tensor<4>, Roles) {
    let device = Device::flex().autodiff();
    let (model, x) = (Model::new(&device), batch(&device));
    let roles = Probe::new().run(&model, |model| model.loss(x.clone())).unwrap();
    (model, x, roles)
}

fn step(model: Model, optimizer: &mut ModuleOptimizer, x: &Tensor<4>, lr: f64) -> (Model, f64) {
    let loss = model.loss(x.clone());
    let value = loss.clone().into_scalar::<f64>();
    let grads = GradientsParams::from_grads(loss.backward(), &model);
    (optimizer.step(lr, model, grads), value)
}

fn bases() -> Vec<(BaseUpdate, f64)> {
    vec![
        (BaseUpdate::sgd(0.9), 0.02),
        (BaseUpdate::sgd(0.0), 0.1),
        (BaseUpdate::nesterov(0.9), 0.02),
        (BaseUpdate::rmsprop(), 0.005),
        (BaseUpdate::adamw(), 0.01),
    ]
}

/// Every optimizer this crate can make, with a learning rate that suits it.
fn configs() -> Vec<(FixNormConfig, f64)> {
    let mut all = vec![];
    for (base, lr) in bases() {
        let held = UpdateRule::held();
        let fixnorm = FixNormConfig::new(base).with_head(UpdateRule::row_rms(0.8));
        for radius in [Radius::Unit, Radius::Init, Radius::SqrtCOut, Radius::Value { norm: 2.5 }] {
            for scope in [Scope::Tensor, Scope::OutputChannel] {
                let rule = held.with_radius(radius).with_scope(scope);
                all.push((fixnorm.clone().with_scale_invariant(rule), lr));
            }
        }
        let capped = held.with_constraint(Constraint::Capped);
        all.push((fixnorm.clone().with_scale_invariant(capped), lr));
        for constraint in [Constraint::Fixed, Constraint::Free] {
            let angular = held.with_step(StepRule::Angular).with_constraint(constraint);
            all.push((fixnorm.clone().with_scale_invariant(angular), 0.02));
            let head = UpdateRule::row_rms(0.8).with_step(StepRule::Angular);
            let both = fixnorm.clone().with_scale_invariant(angular).with_head(head);
            all.push((both, 0.02));
        }
        let rms = UpdateRule::free().with_step(StepRule::RmsNormalized).with_lr_scale(0.5);
        all.push((fixnorm.clone().with_gains_and_biases(rms), lr));
        let capped = UpdateRule::row_rms(0.5).with_constraint(Constraint::Capped);
        all.push((fixnorm.clone().with_head(capped), lr));
        let decayed = WeightDecay { rate: 1e-2, kind: DecayKind::L2, target: DecayTarget::Head };
        let head = fixnorm.with_head(UpdateRule::free()).with_weight_decay(vec![decayed]);
        all.push((head, lr));
        for kind in [DecayKind::L2, DecayKind::Decoupled] {
            for target in [
                DecayTarget::AllWeights,
                DecayTarget::ScaleInvariant,
                DecayTarget::Head,
                DecayTarget::AllParameters,
            ] {
                let decay = WeightDecay { rate: 1e-3, kind, target };
                all.push((FixNormConfig::decayed(base, decay), lr));
            }
        }
    }
    all
}

fn norm_of<const D: usize>(param: &Param<Tensor<D>>) -> f64 {
    param.val().powi_scalar(2).sum().sqrt().into_scalar::<f64>()
}

#[test]
fn every_optimizer_converges_and_keeps_its_norms() {
    let (model, x, roles) = setup();
    for (config, lr) in configs() {
        let (mut model, mut optimizer) = config.init(model.valid().train(), &roles).unwrap();
        let held = norm_of(&model.conv.weight);
        let first = model.loss(x.clone()).into_scalar::<f64>();
        let mut last = f64::NAN;
        for _ in 0..60 {
            (model, last) = step(model, &mut optimizer, &x, lr);
        }
        assert!(last < 0.9 * first, "{config:?}: {first} to {last}");
        if config.scale_invariant.constraint == Constraint::Fixed {
            let norm = norm_of(&model.conv.weight);
            assert!((norm / held - 1.0).abs() < 1e-5, "{config:?}: {held} to {norm}");
        }
        let alpha = norm_of(&model.head.weight) / 3f64.sqrt();
        match (config.head.constraint, config.head.radius) {
            (Constraint::Fixed, Radius::RowRms { alpha: wanted }) => {
                assert!((alpha / wanted - 1.0).abs() < 1e-5, "{config:?}: {alpha}")
            }
            (Constraint::Capped, Radius::RowRms { alpha: limit }) => {
                assert!(alpha < limit * (1.0 + 1e-5), "{config:?}: {alpha}")
            }
            _ => {}
        }
    }
}

/// The default configuration with another rule of scale-invariant weights.
fn with_rule(rule: UpdateRule) -> FixNormConfig {
    FixNormConfig::new(BaseUpdate::sgd(0.9)).with_scale_invariant(rule)
}

#[test]
fn radius_means_what_it_says() {
    let (model, x, roles) = setup();
    let initial = norm_of(&model.conv.weight);
    for (radius, expected) in [
        (Radius::Unit, 1.0),
        (Radius::Init, initial),
        (Radius::SqrtCOut, 5f64.sqrt()),
        (Radius::Value { norm: 2.5 }, 2.5),
    ] {
        let config = with_rule(UpdateRule::held().with_radius(radius));
        let (mut model, mut optimizer) = config.init(model.valid().train(), &roles).unwrap();
        for _ in 0..3 {
            assert!((norm_of(&model.conv.weight) / expected - 1.0).abs() < 1e-6, "{radius:?}");
            (model, _) = step(model, &mut optimizer, &x, 0.05);
        }
    }
    let config = with_rule(UpdateRule::held().with_scope(Scope::OutputChannel));
    let (model, mut optimizer) = config.init(model, &roles).unwrap();
    let (model, _) = step(model, &mut optimizer, &x, 0.05);
    let squares: Tensor<4> =
        model.conv.weight.val().powi_scalar(2).sum_dim(1).sum_dim(2).sum_dim(3);
    for square in squares.into_data().iter::<f64>() {
        assert!((square - 1.0).abs() < 1e-5, "{square}");
    }
}

#[test]
fn save_load_step_equals_an_uninterrupted_run() {
    let (model, x, roles) = setup();
    for (config, lr) in configs() {
        let (mut straight, mut optimizer) = config.init(model.valid().train(), &roles).unwrap();
        for _ in 0..3 {
            (straight, _) = step(straight, &mut optimizer, &x, lr);
        }
        let model_bytes = straight.valid().into_record().into_bytes().unwrap();
        let optimizer_bytes = optimizer.into_bytes().unwrap();

        // A new process: other weights, other parameter identities.
        let fresh = Model::new(&Device::flex().autodiff());
        let (fresh, empty) = config.init(fresh, &roles).unwrap();
        let record = burn::store::ModuleRecord::from_bytes(model_bytes).unwrap();
        let mut resumed = fresh.load_record(record);
        let mut restored = empty.from_bytes(optimizer_bytes).unwrap();
        for _ in 0..3 {
            (straight, _) = step(straight, &mut optimizer, &x, lr);
            (resumed, _) = step(resumed, &mut restored, &x, lr);
        }
        for (a, b) in [
            (straight.conv.weight.val().into_data(), resumed.conv.weight.val().into_data()),
            (straight.head.weight.val().into_data(), resumed.head.weight.val().into_data()),
            (straight.norm.gamma.val().into_data(), resumed.norm.gamma.val().into_data()),
        ] {
            assert_eq!(a.as_slice::<f32>().unwrap(), b.as_slice::<f32>().unwrap(), "{config:?}");
        }
    }
}

#[test]
fn radius_comes_from_the_record_after_loading() {
    let (model, x, roles) = setup();
    let radius = |norm| with_rule(UpdateRule::held().with_radius(Radius::Value { norm }));
    let config = radius(2.5);
    let (model, mut optimizer) = config.init(model, &roles).unwrap();
    let (model, _) = step(model, &mut optimizer, &x, 0.05);
    // Another radius in the configuration does not move the one that the run began with.
    let other = radius(7.0);
    let (_, empty) = other.init(Model::new(&Device::flex().autodiff()), &roles).unwrap();
    let mut restored = empty.load_record(optimizer.to_record());
    let (model, _) = step(model, &mut restored, &x, 0.05);
    assert!((norm_of(&model.conv.weight) / 2.5 - 1.0).abs() < 1e-6);
}

#[test]
fn zero_gradient_moves_nothing() {
    let (model, _, roles) = setup();
    for (config, lr) in configs().into_iter().filter(|(config, _)| config.weight_decay.is_empty()) {
        let (model, mut optimizer) = config.init(model.valid().train(), &roles).unwrap();
        let before = model.conv.weight.val().into_data();
        let mut grads = GradientsParams::new();
        grads.register(model.conv.weight.id, model.conv.weight.val().inner().zeros_like());
        let model = optimizer.step(lr, model, grads);
        assert_eq!(model.conv.weight.val().into_data(), before, "{config:?}");
    }
}

/// One step by the host's executor and by the composed one, from states that are not empty.
fn both_executors<const D: usize>(optimizer: &NormOptimizer, shape: [usize; D], lr: f64) {
    let device = Device::flex();
    let random = |scale| Tensor::<D>::random(shape, Distribution::Normal(0.0, scale), &device);
    let (w, g) = (random(1.0), random(0.5));
    let mut state = optimizer.initial_state(&w);
    state.first = random(0.3);
    state.second = state.second.map(|_| random(0.3).powi_scalar(2).add_scalar(0.1));
    state.steps = 3;
    let plan = optimizer.plan(lr, state.steps, &shape);
    let (fast, fast_state) = optimizer.step_on_host(&plan, w.clone(), g.clone(), state.clone());
    let (composed, composed_state) = optimizer.step_composed(&plan, w, g, state);
    let near = |a: Tensor<D>, b: Tensor<D>, what: &str| {
        let far = (a - b.clone()).abs() / b.abs().add_scalar(1.0);
        let far = far.max().into_scalar::<f64>();
        assert!(far < 5e-6, "{what} {far} apart: {optimizer:?} {shape:?}");
    };
    near(fast, composed, "weights");
    near(fast_state.first, composed_state.first, "first states");
    if let (Some(a), Some(b)) = (fast_state.second, composed_state.second) {
        near(a, b, "second states");
    }
}

#[test]
fn kernel_agrees_with_composed_step() {
    let rules = [StepRule::Raw, StepRule::Angular, StepRule::RmsNormalized, StepRule::TrustRatio];
    for (base, lr) in bases() {
        for step in rules {
            for constraint in [Constraint::Free, Constraint::Fixed, Constraint::Capped] {
                for kind in [None, Some(DecayKind::L2), Some(DecayKind::Decoupled)] {
                    for channel_axis in [None, Some(0), Some(1)] {
                        let optimizer = NormOptimizer {
                            base,
                            rule: UpdateRule::held()
                                .with_step(step)
                                .with_constraint(constraint)
                                .with_radius(Radius::Value { norm: 1.5 }),
                            decay: kind.map(|kind| Decay { rate: 0.05, kind }),
                            channel_axis,
                            c_out: 1,
                        };
                        both_executors(&optimizer, [3, 5, 2, 7], lr);
                        both_executors(&optimizer, [11, 4], lr);
                    }
                }
            }
        }
    }
}

/// The angle between two tensors, in radians.
fn angle<const D: usize>(before: Tensor<D>, after: Tensor<D>) -> f64 {
    let dot = |a: &Tensor<D>, b: &Tensor<D>| {
        let pairs = a.to_data().iter::<f64>().zip(b.to_data().iter::<f64>()).collect::<Vec<_>>();
        pairs.into_iter().map(|(a, b)| a * b).sum::<f64>()
    };
    let (aa, ab, bb) = (dot(&before, &before), dot(&before, &after), dot(&after, &after));
    (aa * bb - ab * ab).max(0.0).sqrt().atan2(ab)
}

#[test]
fn held_weights_turn_by_the_learning_rate() {
    let (model, x, roles) = setup();
    for (base, _) in bases() {
        for lr in [0.003, 0.05, 0.2] {
            for constraint in [Constraint::Fixed, Constraint::Capped, Constraint::Free] {
                let held = UpdateRule::held().with_constraint(constraint);
                let rule = held.with_step(StepRule::Angular);
                let head = UpdateRule::row_rms(0.8).with_step(StepRule::Angular).with_lr_scale(0.5);
                let config = FixNormConfig::new(base).with_scale_invariant(rule).with_head(head);
                let (mut model, mut optimizer) =
                    config.init(model.valid().train(), &roles).unwrap();
                for _ in 0..4 {
                    let before = model.clone();
                    (model, _) = step(model, &mut optimizer, &x, lr);
                    let conv = angle(before.conv.weight.val(), model.conv.weight.val());
                    assert!((conv / lr - 1.0).abs() < 1e-3, "{base:?} {lr}: {conv}");
                    let head = angle(before.head.weight.val(), model.head.weight.val());
                    assert!((head / (0.5 * lr) - 1.0).abs() < 1e-3, "{base:?} {lr}: {head}");
                }
            }
        }
    }
}

/// As of a channel behind a ReLU that is never positive: its momentum dies away until it is no longer normal in `f32`.
#[test]
fn weights_without_a_gradient_stay_where_they_are() {
    let (model, x, roles) = setup();
    for (base, lr) in bases() {
        for rule in [StepRule::Angular, StepRule::RmsNormalized, StepRule::TrustRatio] {
            for scope in [Scope::Tensor, Scope::OutputChannel] {
                let held = UpdateRule::held().with_step(rule).with_scope(scope);
                let config = FixNormConfig::new(base).with_scale_invariant(held);
                let (model, mut optimizer) = config.init(model.valid().train(), &roles).unwrap();
                let (mut model, _) = step(model, &mut optimizer, &x, lr);
                let norm = norm_of(&model.conv.weight);
                for _ in 0..1100 {
                    let mut grads = GradientsParams::new();
                    let zeros = model.conv.weight.val().inner().zeros_like();
                    grads.register(model.conv.weight.id, zeros);
                    model = optimizer.step(lr, model, grads);
                }
                let after = norm_of(&model.conv.weight);
                assert!((after / norm - 1.0).abs() < 1e-3, "{base:?} {rule:?} {scope:?}: {after}");
            }
        }
    }
}

/// Its direction once held the learning rate, which a trust ratio cancels: the norm left every bound.
#[test]
fn the_learning_rate_reaches_a_trust_ratio_around_rmsprop() {
    let (model, x, roles) = setup();
    let none = WeightDecay { rate: 0.0, kind: DecayKind::L2, target: DecayTarget::AllWeights };
    let config = FixNormConfig::lamb(BaseUpdate::rmsprop(), none);
    let (mut model, mut optimizer) = config.init(model, &roles).unwrap();
    let before = norm_of(&model.conv.weight);
    for _ in 0..80 {
        (model, _) = step(model, &mut optimizer, &x, 1e-4);
    }
    // 80 steps of 1e-4 of the norm.
    let change = norm_of(&model.conv.weight) / before;
    assert!((change - 1.0).abs() < 0.01, "{change}");
}

#[test]
fn decay_spares_gains_and_biases_unless_asked() {
    let (model, _, roles) = setup();
    let zero_grads = |model: &Model| {
        let mut grads = GradientsParams::new();
        grads.register(model.conv.weight.id, model.conv.weight.val().inner().zeros_like());
        grads.register(model.norm.gamma.id, model.norm.gamma.val().inner().zeros_like());
        grads.register(model.head.weight.id, model.head.weight.val().inner().zeros_like());
        grads
    };
    for (target, [conv, gain, head]) in [
        (DecayTarget::AllWeights, [true, false, true]),
        (DecayTarget::ScaleInvariant, [true, false, false]),
        (DecayTarget::Head, [false, false, true]),
        (DecayTarget::AllParameters, [true, true, true]),
    ] {
        for kind in [DecayKind::L2, DecayKind::Decoupled] {
            let decay = WeightDecay { rate: 0.5, kind, target };
            let config = FixNormConfig::decayed(BaseUpdate::sgd(0.0), decay);
            let (before, mut optimizer) = config.init(model.valid().train(), &roles).unwrap();
            let after = optimizer.step(0.1, before.clone(), zero_grads(&before));
            let shrunk = |a: f64, b: f64| {
                assert!((b / a - 1.0).abs() < 1e-6 || (b / a - 0.95).abs() < 1e-6, "{a} to {b}");
                (b / a - 0.95).abs() < 1e-6
            };
            assert_eq!(shrunk(norm_of(&before.conv.weight), norm_of(&after.conv.weight)), conv);
            assert_eq!(shrunk(norm_of(&before.norm.gamma), norm_of(&after.norm.gamma)), gain);
            assert_eq!(shrunk(norm_of(&before.head.weight), norm_of(&after.head.weight)), head);
        }
    }
}

#[test]
fn setup_errors_come_before_the_first_step() {
    let (model, _, roles) = setup();
    let config =
        |alpha| FixNormConfig::new(BaseUpdate::sgd(0.9)).with_head(UpdateRule::row_rms(alpha));
    for alpha in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = config(alpha).init(model.clone(), &roles).err().unwrap();
        assert!(matches!(error, SetupError::OutOfRange { name: "head.alpha", .. }), "{error}");
    }
    let error = FixNormConfig::new(BaseUpdate::sgd(1.0)).init(model.clone(), &roles).err().unwrap();
    assert!(matches!(error, SetupError::OutOfRange { name: "optimizer.momentum", .. }), "{error}");

    let mut dead = model.clone();
    dead.conv.weight =
        dead.conv.weight.map(|w| Tensor::from_inner(w.inner().zeros_like()).require_grad());
    let error = config(1.0).init(dead, &roles).err().unwrap();
    assert_eq!(error, SetupError::ZeroNorm { path: "conv.weight".to_owned() });

    let mut headless = roles.clone();
    headless.set("head.weight", Role::Free).unwrap();
    let error = config(1.0).init(model.clone(), &headless).err().unwrap();
    assert!(matches!(error, SetupError::HeadNotFound { .. }), "{error}");
    config(1.0).with_head(UpdateRule::free()).init(model.clone(), &headless).unwrap();

    let mut foreign = roles;
    foreign.params.pop();
    let error = config(1.0).init(model, &foreign).err().unwrap();
    assert!(matches!(error, SetupError::RolesMismatch(_)), "{error}");
}
