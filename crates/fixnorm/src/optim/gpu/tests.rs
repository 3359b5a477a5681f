//! The kernels against the composed step on the same device. `BURN_DEVICE` chooses it.

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::{Linear, LinearConfig};
use burn::optim::{GradientsParams, ModuleOptimizer, Optimizer};
use burn::tensor::{Device, Distribution, Tensor, TensorData};
use fixnorm_kernels::update::Moments;

use super::*;
use crate::decay::Decay;
use crate::{BaseUpdate, Constraint, DecayKind, Radius, Scope, StepRule, UpdateRule};

/// One element, less than a vector, an odd number; rows for vectors and for single numbers, longer than a cube takes at once; and
/// whole tensors for several cubes.
const SHAPES: [[usize; 2]; 7] = [[1, 1], [1, 3], [7, 5], [64, 9], [3, 4100], [67, 129], [300, 257]];

const RULES: [StepRule; 4] =
    [StepRule::Raw, StepRule::Angular, StepRule::RmsNormalized, StepRule::TrustRatio];
const CONSTRAINTS: [Constraint; 3] = [Constraint::Free, Constraint::Fixed, Constraint::Capped];

/// Radius, apart from the norms that weights begin with.
const RADIUS: f32 = 1.5;

/// Every rule with this base update and these groups.
fn optimizers(base: BaseUpdate, channel_axis: Option<usize>) -> Vec<NormOptimizer> {
    let mut all = vec![];
    for step in RULES {
        for constraint in CONSTRAINTS {
            for kind in [None, Some(DecayKind::L2), Some(DecayKind::Decoupled)] {
                let rule = UpdateRule {
                    step,
                    constraint,
                    radius: Radius::Value { norm: f64::from(RADIUS) },
                    scope: Scope::Tensor,
                    lr_scale: 1.0,
                };
                let decay = kind.map(|kind| Decay { rate: 0.05, kind });
                all.push(NormOptimizer { base, rule, decay, channel_axis, c_out: 1 });
            }
        }
    }
    all
}

fn groups(shape: [usize; 2], channel_axis: Option<usize>) -> usize {
    channel_axis.map_or(1, |axis| shape[axis])
}

fn random(shape: [usize; 2], scale: f64) -> Tensor<2> {
    Tensor::random(shape, Distribution::Normal(0.0, scale), &Device::default())
}

/// A state in the middle of a training.
fn state(optimizer: &NormOptimizer, w: &Tensor<2>) -> NormState<2> {
    let mut state = optimizer.initial_state(w);
    state.first = random(w.dims(), 0.3);
    state.second = state.second.map(|_| random(w.dims(), 0.3).powi_scalar(2).add_scalar(0.1));
    state.steps = 3;
    state
}

fn floats(tensor: &Tensor<2>) -> Vec<f32> {
    tensor.to_data().iter().collect()
}

fn near(own: &Tensor<2>, composed: &Tensor<2>, what: &str) {
    let (own, composed) = (floats(own), floats(composed));
    let scale = composed.iter().fold(1e-2f32, |most, v| most.max(v.abs()));
    assert_eq!(own.len(), composed.len(), "{what}");
    for (at, (own, composed)) in own.iter().zip(&composed).enumerate() {
        // This way round, a NaN fails.
        assert!((own - composed).abs() <= 1e-5 * scale, "{what} [{at}]: {own}, not {composed}");
    }
}

fn norms(w: &Tensor<2>, groups: usize) -> Vec<f64> {
    let w = floats(w);
    let square = |group: &[f32]| group.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
    w.chunks(w.len() / groups).map(|group| square(group).sqrt()).collect()
}

/// The angular step of a single number, which has nothing to turn to: its direction lies along it. The composed step sees that
/// only in sums that are not rounded to `f32`.
fn without_turn(plan: &StepPlan, w: Tensor<2>) -> Tensor<2> {
    let ww = f64::from(floats(&w)[0]).powi(2);
    let step = plan.coefficients(Moments { ww, wd: ww, dd: ww }, f64::from(RADIUS));
    assert_eq!(step.b, 0.0);
    w.mul_scalar(step.a)
}

/// Three steps by both executors.
fn hold(optimizer: &NormOptimizer, shape: [usize; 2], lr: f64) {
    let what = format!("{optimizer:?} {shape:?}");
    let w = random(shape, 1.0);
    let state = state(optimizer, &w);
    let (mut own, mut composed) = ((w.clone(), state.clone()), (w, state));
    for _ in 0..3 {
        let grad = random(shape, 0.5);
        let plan = optimizer.plan(lr, own.1.steps, &shape);
        own = optimizer.step_on_gpu(plan, own.0, grad.clone(), own.1);
        let before = composed.0.clone();
        composed = optimizer.step_composed(&plan, composed.0, grad, composed.1);
        if shape == [1, 1] && plan.rule == StepRule::Angular {
            composed.0 = without_turn(&plan, before);
        }
        own.1.steps += 1;
        composed.1.steps += 1;
    }
    near(&own.0, &composed.0, &format!("weights: {what}"));
    near(&own.1.first, &composed.1.first, &format!("first states: {what}"));
    assert_eq!(own.1.second.is_some(), composed.1.second.is_some());
    if let (Some(own), Some(composed)) = (&own.1.second, &composed.1.second) {
        near(own, composed, &format!("second states: {what}"));
    }
    for norm in norms(&own.0, groups(shape, optimizer.channel_axis)) {
        let held = norm / f64::from(RADIUS);
        match optimizer.rule.constraint {
            Constraint::Free => {}
            Constraint::Fixed => assert!((held - 1.0).abs() < 1e-6, "{held} {what}"),
            Constraint::Capped => assert!(held < 1.0 + 1e-6, "{held} {what}"),
        }
    }
}

/// All rules of one base.
fn hold_all(base: BaseUpdate, lr: f64) {
    for channel_axis in [None, Some(0)] {
        // A single group is a whole tensor.
        for shape in SHAPES.into_iter().filter(|&shape| channel_axis.is_none() || shape[0] > 1) {
            for optimizer in optimizers(base, channel_axis) {
                hold(&optimizer, shape, lr);
            }
        }
    }
}

#[test]
fn the_device_is_one_with_kernels_of_ours() {
    let device = random([1, 1], 1.0).device();
    let optimizer = optimizers(BaseUpdate::sgd(0.9), None)[0];
    assert!(optimizer.runs_on_gpu(&device), "BURN_DEVICE names no GPU: {device:?}");
    let tracked = Tensor::<2>::zeros([1, 1], &device.clone().autodiff());
    assert!(optimizer.runs_on_gpu(&tracked.inner().device()));
    assert!(!optimizer.runs_on_gpu(&device.autodiff()));
    let scattered = NormOptimizer { channel_axis: Some(1), ..optimizer };
    assert!(!scattered.runs_on_gpu(&Device::default()));
}

#[test]
fn sgd_agrees_with_the_composed_step() {
    hold_all(BaseUpdate::sgd(0.9), 0.02);
}

#[test]
fn nesterovs_momentum_agrees_with_the_composed_step() {
    hold_all(BaseUpdate::nesterov(0.9), 0.02);
}

#[test]
fn rmsprop_agrees_with_the_composed_step() {
    hold_all(BaseUpdate::rmsprop(), 0.005);
}

#[test]
fn adamw_agrees_with_the_composed_step() {
    hold_all(BaseUpdate::adamw(), 0.01);
}

const BASES: [fn() -> BaseUpdate; 4] =
    [|| BaseUpdate::sgd(0.9), || BaseUpdate::nesterov(0.9), BaseUpdate::rmsprop, BaseUpdate::adamw];

/// Runs `check` with optimizers of all bases and rules, on a shape for one cube a group and on one for several.
fn each(check: impl Fn(&NormOptimizer, [usize; 2])) {
    for (i, base) in BASES.iter().enumerate() {
        for (channel_axis, shape) in [(None, [7, 5]), (Some(0), [7, 5]), (None, [67, 129])] {
            let all = optimizers(base(), channel_axis);
            // A fourth of them, another one for each base.
            all.iter().skip(i).step_by(BASES.len()).for_each(|optimizer| check(optimizer, shape));
        }
    }
}

#[test]
fn a_zero_gradient_moves_nothing() {
    each(|optimizer, shape| {
        if optimizer.decay.is_some() {
            return;
        }
        let w = random(shape, 1.0);
        let (next, _) = optimizer.step(0.1, w.clone(), w.zeros_like(), None);
        assert_eq!(floats(&next), floats(&w), "{optimizer:?} {shape:?}");
    });
}

#[test]
fn a_zero_weight_agrees_with_the_composed_step() {
    each(|optimizer, shape| {
        let (w, grad) = (random(shape, 1.0).zeros_like(), random(shape, 0.5));
        let state = state(optimizer, &w);
        let plan = optimizer.plan(0.02, 4, &shape);
        let (own, _) = optimizer.step_on_gpu(plan, w.clone(), grad.clone(), state.clone());
        let (composed, _) = optimizer.step_composed(&plan, w, grad, state);
        near(&own, &composed, &format!("{optimizer:?} {shape:?}"));
    });
}

#[test]
fn a_broken_gradient_breaks_its_group_and_no_other() {
    each(|optimizer, shape| {
        let w = random(shape, 1.0);
        let mut broken = vec![0.1f32; shape[0] * shape[1]];
        broken[shape[1] + 1] = f32::NAN;
        let grad = TensorData::new(broken, shape);
        let grad = Tensor::from_data(grad, &Device::default());
        let plan = optimizer.plan(0.02, 4, &shape);
        let (next, _) = optimizer.step_on_gpu(plan, w.clone(), grad, state(optimizer, &w));
        let free = plan.is_plain();
        for (at, next) in floats(&next).iter().enumerate() {
            let hit = match (free, optimizer.channel_axis) {
                (true, _) => at == shape[1] + 1,
                (false, Some(_)) => at / shape[1] == 1,
                (false, None) => true,
            };
            assert_eq!(next.is_nan(), hit, "{next} [{at}] {optimizer:?} {shape:?}");
        }
    });
}

#[test]
fn what_others_hold_stays_and_the_same_step_has_the_same_bits() {
    each(|optimizer, shape| {
        let (w, grad) = (random(shape, 1.0), random(shape, 0.5));
        let state = state(optimizer, &w);
        let before = [floats(&w), floats(&grad), floats(&state.first)];
        let step = || {
            let plan = optimizer.plan(0.02, 4, &shape);
            let (w, state) = optimizer.step_on_gpu(plan, w.clone(), grad.clone(), state.clone());
            [floats(&w), floats(&state.first)]
        };
        assert_eq!(step(), step(), "{optimizer:?} {shape:?}");
        assert_eq!([floats(&w), floats(&grad), floats(&state.first)], before);
    });
}

#[test]
fn tensors_that_lie_otherwise_are_taken_too() {
    each(|optimizer, shape| {
        let turned = |scale| random([shape[1], shape[0]], scale).transpose();
        for w in [random(shape, 1.0), turned(1.0)] {
            let (grad, state) = (turned(0.5), state(optimizer, &w));
            let plan = optimizer.plan(0.02, 4, &shape);
            let (own, _) = optimizer.step_on_gpu(plan, w.clone(), grad.clone(), state.clone());
            let (composed, _) = optimizer.step_composed(&plan, w, grad, state);
            near(&own, &composed, &format!("{optimizer:?} {shape:?}"));
        }
    });
}

#[test]
fn there_may_be_more_groups_than_cubes() {
    for optimizer in optimizers(BaseUpdate::sgd(0.9), Some(0)).iter().take(4) {
        hold(optimizer, [70_000, 3], 0.02);
    }
}

#[test]
fn a_training_follows_the_cpus() {
    for base in BASES {
        for channel_axis in [None, Some(0), Some(1)] {
            let shape = [40, 129];
            let optimizer = NormOptimizer {
                base: base(),
                rule: UpdateRule::held().with_radius(Radius::Value { norm: f64::from(RADIUS) }),
                decay: None,
                channel_axis,
                c_out: 1,
            };
            let (cpu, gpu) = (Device::flex(), Device::default());
            let at_first = Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &cpu);
            let target = Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &cpu);
            let run = |device: &Device| {
                let (mut w, target) =
                    (at_first.clone().to_device(device), target.clone().to_device(device));
                let mut state = None;
                for _ in 0..10 {
                    let grad = w.clone() - target.clone();
                    (w, state) = optimizer.step(0.01, w, grad, state);
                }
                w
            };
            near(&run(&gpu), &run(&cpu), &format!("{optimizer:?}"));
        }
    }
}

/// A random gradient for each parameter.
struct Gradients(GradientsParams);

impl ModuleVisitor for Gradients {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let w = param.val().inner();
        let noise = Distribution::Normal(0.0, 0.5);
        self.0.register(param.id, Tensor::<D>::random(w.dims(), noise, &w.device()));
    }
}

/// The same gradients again.
struct Copies<'a>(&'a GradientsParams, GradientsParams);

impl ModuleVisitor for Copies<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.0.get::<D>(param.id) {
            self.1.register(param.id, grad);
        }
    }
}

/// All values, parameter by parameter.
fn values(model: &[Linear]) -> Vec<Vec<f32>> {
    let floats = |data: TensorData| data.iter().collect();
    let both = |layer: &Linear| {
        let bias = layer.bias.as_ref().expect("linear layers have one");
        [floats(layer.weight.val().into_data()), floats(bias.val().into_data())]
    };
    model.iter().flat_map(both).collect()
}

#[test]
fn a_model_steps_as_its_parameters_one_by_one() {
    let device = Device::default().autodiff();
    // More than a launch takes, some in vectors and some not, one for several cubes.
    let shapes = (1..=12).map(|i| [i, 4 + i % 5]).chain([[64, 129]]);
    let layer = |[c_in, c_out]: [usize; 2]| LinearConfig::new(c_in, c_out).init(&device);
    let model: Vec<Linear> = shapes.map(layer).collect();
    for base in BASES {
        for optimizer in [None, Some(0)].map(|axis| optimizers(base(), axis)).concat() {
            if optimizer.decay.is_some() {
                continue;
            }
            let optimizers = [(); 2].map(|()| ModuleOptimizer::from(optimizer));
            let [mut alone, mut together] = optimizers;
            let mut models = [model.clone(), model.clone()];
            for _ in 0..3 {
                let mut grads = Gradients(GradientsParams::new());
                model.visit(&mut grads);
                let mut copies = Copies(&grads.0, GradientsParams::new());
                model.visit(&mut copies);
                let copies = copies.1;
                let [one, all] = models;
                models = [
                    alone.step(0.02, one, copies),
                    crate::optim::step_together(&mut together, 0.02, all, grads.0),
                ];
            }
            let [one, all] = models.map(|model| values(&model));
            for (at, (one, all)) in one.iter().zip(&all).enumerate() {
                for (one, all) in one.iter().zip(all) {
                    // This way round, a NaN fails.
                    assert!((one - all).abs() <= 1e-5 * one.abs().max(1.0), "{optimizer:?} {at}");
                }
            }
        }
    }
}
