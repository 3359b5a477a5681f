//! The optimizer of one parameter group, as a Burn [`Optimizer`].
//! Not here: which parameter gets which constraint (`config.rs`).
//!
//! Three ways compute the same step. On Burn's CPU backend (Flex) the kernel of `fixnorm-kernels`
//! works on the tensors' own memory, in two passes. On a GPU kernels of our own do (`gpu/`).
//! Everywhere else the step is composed of tensor operations, without reading anything back; the
//! tests use it as the oracle of both.

#[cfg(feature = "gpu")]
mod gpu;

use burn::optim::{LearningRate, Optimizer, RecordState, StateSink, StateSource};
use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::BaseUpdate;
use crate::constraint::{Constraint, Step, StepRule};
use crate::decay::DecayKind;

/// Base update, step rule and constraint of the parameters that share them.
///
/// Made by [`FixNormConfig::init`](crate::FixNormConfig::init), which also checks it.
#[derive(Clone, Debug)]
pub struct NormOptimizer {
    pub(crate) base: BaseUpdate,
    pub(crate) rule: StepRule,
    pub(crate) constraint: Constraint,
    pub(crate) decay: Option<(f64, DecayKind)>,
    /// The dimension whose indices have a norm each; none for the whole tensor.
    pub(crate) channel_axis: Option<usize>,
    /// One for each group; empty where nothing is held.
    pub(crate) radius: Vec<f32>,
}

/// What the optimizer keeps for one parameter.
#[derive(Clone)]
pub struct NormState<const D: usize> {
    /// Momentum buffer, or Adam's first moment.
    pub first: Tensor<D>,
    /// Average of squared gradients, for the bases that have one.
    pub second: Option<Tensor<D>>,
    /// Steps taken.
    pub steps: usize,
    /// The norms that are held, one for each group: stored when first set and never read from the
    /// weight again, whose rounding would make them drift.
    pub radius: Option<Tensor<1>>,
}

// By hand: Burn's derive works only inside Burn.
impl<const D: usize> RecordState for NormState<D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        out.push_tensor(prefix, "first", self.first.to_data());
        if let Some(second) = &self.second {
            out.push_tensor(prefix, "second", second.to_data());
        }
        out.push_scalar(prefix, "steps", self.steps.into());
        if let Some(radius) = &self.radius {
            out.push_tensor(prefix, "radius", radius.to_data());
        }
    }

    fn state_unflatten(prefix: &str, src: &mut StateSource, device: &Device) -> Option<Self> {
        let mut take = |leaf| src.take_tensor(prefix, leaf);
        let (first, second, radius) = (take("first")?, take("second"), take("radius"));
        Some(Self {
            first: Tensor::from_data(first, device),
            second: second.map(|second| Tensor::from_data(second, device)),
            steps: src.take_scalar(prefix, "steps")?.try_into().ok()?,
            radius: radius.map(|radius| Tensor::from_data(radius, (device, DType::F32))),
        })
    }
}

impl Optimizer for NormOptimizer {
    type State<const D: usize> = NormState<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<NormState<D>>,
    ) -> (Tensor<D>, Option<NormState<D>>) {
        let mut state = state.unwrap_or_else(|| self.initial_state(&tensor));
        state.steps += 1;
        let f32_throughout =
            [&tensor, &grad, &state.first].iter().all(|tensor| tensor.dtype() == DType::F32);
        let device = tensor.device();
        let (tensor, state) = match f32_throughout {
            true if is_host(&device) => self.step_in_memory(lr, tensor, grad, state),
            #[cfg(feature = "gpu")]
            true if gpu::takes(&device) && self.is_for_gpu() => {
                self.step_on_gpu(lr, tensor, grad, state)
            }
            _ => self.step_composed(lr, tensor, grad, state),
        };
        (tensor, Some(state))
    }

    fn to_device<const D: usize>(state: NormState<D>, device: &Device) -> NormState<D> {
        NormState {
            first: state.first.to_device(device),
            second: state.second.map(|second| second.to_device(device)),
            steps: state.steps,
            radius: state.radius.map(|radius| radius.to_device(device)),
        }
    }
}

/// Whether tensors of this device are plain memory of this process.
#[cfg(feature = "flex")]
fn is_host(device: &Device) -> bool {
    *device == Device::flex()
}

#[cfg(not(feature = "flex"))]
fn is_host(_device: &Device) -> bool {
    false
}

impl NormOptimizer {
    fn initial_state<const D: usize>(&self, tensor: &Tensor<D>) -> NormState<D> {
        let device = tensor.device();
        let radius = (!self.radius.is_empty()).then(|| {
            let data = TensorData::new(self.radius.clone(), [self.radius.len()]);
            Tensor::from_data(data, (&device, DType::F32))
        });
        NormState {
            first: tensor.zeros_like(),
            second: self.initial_second(tensor),
            steps: 0,
            radius,
        }
    }

    fn initial_second<const D: usize>(&self, tensor: &Tensor<D>) -> Option<Tensor<D>> {
        match self.base {
            BaseUpdate::Sgd { .. } => None,
            BaseUpdate::RmsProp { .. } => Some(tensor.ones_like()),
            BaseUpdate::AdamW { .. } => Some(tensor.zeros_like()),
        }
    }

    /// The scalars of this step.
    fn scalars(&self, lr: f64) -> Step {
        Step {
            lr,
            lr_in_direction: matches!(self.base, BaseUpdate::RmsProp { .. }),
            decay: match self.decay {
                Some((rate, DecayKind::Decoupled)) => rate,
                _ => 0.0,
            },
            rule: self.rule,
            constraint: self.constraint,
        }
    }

    fn l2(&self) -> f64 {
        match self.decay {
            Some((rate, DecayKind::L2)) => rate,
            _ => 0.0,
        }
    }

    /// The step composed of tensor operations, for any backend.
    fn step_composed<const D: usize>(
        &self,
        lr: f64,
        w: Tensor<D>,
        grad: Tensor<D>,
        state: NormState<D>,
    ) -> (Tensor<D>, NormState<D>) {
        let step = self.scalars(lr);
        let grad = match self.l2() {
            0.0 => grad,
            l2 => grad + w.clone().mul_scalar(l2),
        };
        let (direction, state) = self.direction(lr, grad, state);
        if let (StepRule::Raw, Constraint::Free) = (step.rule, step.constraint) {
            // No norm is asked for.
            let lr = if step.lr_in_direction { 1.0 } else { step.lr };
            let kept = w.mul_scalar(1.0 - step.lr * step.decay);
            return (kept + direction.mul_scalar(-lr), state);
        }
        // As few sums as there can be, each of many numbers at once: on a GPU the launches are what a small tensor costs.
        let shape = w.dims();
        let sum = |x: Tensor<D>| {
            let axis = self.channel_axis.unwrap_or(0);
            let mut kept = [1; D];
            kept[axis] = shape[axis];
            let rows = shape[axis];
            let sums = x.swap_dims(0, axis).reshape([rows, shape.iter().product::<usize>() / rows]);
            match self.channel_axis {
                Some(_) => sums.sum_dim(1).reshape(kept),
                None => sums.sum_dim(1).sum_dim(0).reshape([1; D]),
            }
        };
        let ww = sum(w.clone() * w.clone());
        let wd = sum(w.clone() * direction.clone());
        let dd = sum(direction.clone() * direction.clone());
        let radius = match &state.radius {
            Some(radius) => radius.clone().cast(w.dtype()).reshape(ww.shape()),
            None => ww.ones_like(),
        };
        let trust = match step.rule {
            StepRule::Raw | StepRule::Normalized => dd.ones_like(),
            StepRule::TrustRatio => {
                let mixed = wd.clone().mul_scalar(2.0 * step.decay);
                let square = dd.clone() + mixed + ww.clone().mul_scalar(step.decay * step.decay);
                let none = square.clone().lower_equal_scalar(0.0);
                let none = none.bool_or(ww.clone().equal_scalar(0.0));
                (ww.clone() / square).sqrt().mask_fill(none, 1.0)
            }
        };
        let a = trust.clone().mul_scalar(-step.lr * step.decay).add_scalar(1.0);
        let still = dd.clone().equal_scalar(0.0);
        let b = match step.rule {
            StepRule::Raw | StepRule::TrustRatio if step.lr_in_direction => trust.neg(),
            StepRule::Raw | StepRule::TrustRatio => trust.mul_scalar(-step.lr),
            StepRule::Normalized => (radius.clone().mul_scalar(-step.lr) / dd.clone().sqrt())
                .mask_fill(still.clone(), 0.0),
        };
        let crossed = wd * a.clone() * b.clone().mul_scalar(2.0);
        let square = ww * a.clone() * a.clone() + crossed + dd * b.clone() * b.clone();
        // Not `clamp_min`: it would turn a NaN into a step.
        let norm = square.clone().mask_fill(square.lower_scalar(0.0), 0.0).sqrt();
        let ratio = (radius.clone() / norm.clone()).mask_fill(norm.clone().equal_scalar(0.0), 1.0);
        let scale = match step.constraint {
            Constraint::Free => norm.ones_like(),
            Constraint::Fixed => ratio,
            Constraint::Capped => ratio.mask_fill(norm.lower_equal(radius), 1.0),
        };
        let scale = match step.decay == 0.0 {
            true => scale.mask_fill(still, 1.0),
            false => scale,
        };
        let next = w * (scale.clone() * a) + direction * (scale * b);
        (next, state)
    }

    fn direction<const D: usize>(
        &self,
        lr: f64,
        grad: Tensor<D>,
        state: NormState<D>,
    ) -> (Tensor<D>, NormState<D>) {
        let NormState { first, second, steps, radius } = state;
        let (first, second, direction) = match self.base {
            BaseUpdate::Sgd { momentum, nesterov } => {
                let u = first.mul_scalar(momentum) + grad.clone();
                let direction = match nesterov {
                    true => grad + u.clone().mul_scalar(momentum),
                    false => u.clone(),
                };
                (u, None, direction)
            }
            BaseUpdate::RmsProp { alpha, momentum, epsilon } => {
                let s = second.unwrap_or_else(|| grad.ones_like());
                let s = s.mul_scalar(alpha) + (grad.clone() * grad.clone()).mul_scalar(1.0 - alpha);
                let scaled = grad.mul_scalar(lr) / s.clone().add_scalar(epsilon).sqrt();
                let u = first.mul_scalar(momentum) + scaled;
                (u.clone(), Some(s), u)
            }
            BaseUpdate::AdamW { betas, epsilon } => {
                let (c1, c2) = corrections(betas, steps);
                let m = first.mul_scalar(betas.0) + grad.clone().mul_scalar(1.0 - betas.0);
                let v = second.unwrap_or_else(|| grad.zeros_like());
                let v = v.mul_scalar(betas.1) + (grad.clone() * grad).mul_scalar(1.0 - betas.1);
                let root = v.clone().div_scalar(c2).sqrt().add_scalar(epsilon);
                (m.clone(), Some(v), m.div_scalar(c1) / root)
            }
        };
        let state = NormState { first, second, steps, radius };
        (direction, state)
    }

    /// The step on the tensors' own memory: the tensors give up their buffers and get them back.
    /// A tensor that someone else still holds is copied first.
    fn step_in_memory<const D: usize>(
        &self,
        lr: f64,
        w: Tensor<D>,
        grad: Tensor<D>,
        state: NormState<D>,
    ) -> (Tensor<D>, NormState<D>) {
        use fixnorm_kernels::update::{Base, Groups, update};

        let device = w.device();
        let shape = w.dims();
        let groups = match self.channel_axis {
            Some(axis) => Groups::along(&shape, axis),
            None => Groups::whole(shape.iter().product()),
        };
        let radius = state.radius.clone().map(|radius| radius.into_data());
        let radius = radius.as_ref().map_or(&[][..], floats);
        let step = self.scalars(lr);
        let (mut w, mut grad) = (w.into_data(), grad.into_data());
        let mut first = state.first.into_data();
        let mut second = state.second.map(|second| second.into_data());
        let mut base = match (self.base, &mut second) {
            (BaseUpdate::Sgd { momentum, nesterov }, _) => {
                Base::Sgd { velocity: floats_mut(&mut first), momentum: momentum as f32, nesterov }
            }
            (BaseUpdate::RmsProp { alpha, momentum, epsilon }, Some(second)) => Base::RmsProp {
                square_average: floats_mut(second),
                velocity: floats_mut(&mut first),
                alpha: alpha as f32,
                momentum: momentum as f32,
                epsilon: epsilon as f32,
                lr: lr as f32,
            },
            (BaseUpdate::AdamW { betas, epsilon }, Some(second)) => Base::Adam {
                first_moment: floats_mut(&mut first),
                second_moment: floats_mut(second),
                betas: (betas.0 as f32, betas.1 as f32),
                epsilon: epsilon as f32,
                // Of the betas as rounded, which the averages are taken with: 1 − β₂ of 0.999 is off
                // by 1.3e-5 in f32, and Adam makes that 1e-4 of a weight in 30 steps.
                corrections: corrections(
                    (f64::from(betas.0 as f32), f64::from(betas.1 as f32)),
                    state.steps,
                ),
            },
            (_, None) => unreachable!("the initial state has a second buffer for this base"),
        };
        update(
            floats_mut(&mut w),
            floats_mut(&mut grad),
            &mut base,
            self.l2() as f32,
            groups,
            |group, moments| {
                let radius = radius.get(group).map_or(1.0, |&radius| f64::from(radius));
                step.coefficients(moments, radius)
            },
        );
        let state = NormState {
            first: Tensor::from_data(first, (&device, DType::F32)),
            second: second.map(|second| Tensor::from_data(second, (&device, DType::F32))),
            steps: state.steps,
            radius: state.radius,
        };
        (Tensor::from_data(w, (&device, DType::F32)), state)
    }
}

/// Adam's bias corrections after `steps` steps.
fn corrections(betas: (f64, f64), steps: usize) -> (f64, f64) {
    let after = |beta: f64| 1.0 - beta.powi(i32::try_from(steps).unwrap_or(i32::MAX));
    (after(betas.0), after(betas.1))
}

fn floats(data: &TensorData) -> &[f32] {
    data.as_slice().expect("the caller has checked that the data is f32")
}

fn floats_mut(data: &mut TensorData) -> &mut [f32] {
    data.as_mut_slice().expect("the caller has checked that the data is f32")
}

#[cfg(test)]
mod tests;
