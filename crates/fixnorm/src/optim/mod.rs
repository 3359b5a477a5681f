//! The optimizer of one parameter group, as a Burn [`Optimizer`].
//! Not here: which parameter gets which rule (`config.rs`), the scalars of a step (`plan.rs`).
//!
//! A step is planned once (`plan.rs`) and carried out by one of three executors: on Burn's CPU backend (Flex) by the
//! kernel of `fixnorm-kernels` on the tensors' own memory, in two passes (`host.rs`); on a GPU by kernels of this crate
//! (`gpu/`); everywhere else by tensor operations (`composed.rs`), which the tests hold the other two against.

mod composed;
#[cfg(feature = "gpu")]
mod gpu;
#[cfg(feature = "flex")]
mod host;
mod plan;
mod together;

use burn::optim::{LearningRate, Optimizer, RecordState, StateSink, StateSource};
use burn::tensor::{DType, Device, Tensor, TensorData};
use fixnorm_kernels::update::{Groups, norms};

use crate::decay::{Decay, DecayKind};
use crate::{BaseUpdate, Constraint, UpdateRule};
use plan::StepPlan;
pub use together::step_together;

/// Base update, rule and decay of one parameter.
///
/// Made by [`FixNormConfig::init`](crate::FixNormConfig::init), which also checks it.
#[derive(Clone, Copy, Debug)]
pub struct NormOptimizer {
    pub(crate) base: BaseUpdate,
    pub(crate) rule: UpdateRule,
    pub(crate) decay: Option<Decay>,
    /// The dimension whose indices have a norm each; none for the whole tensor.
    pub(crate) channel_axis: Option<usize>,
    /// Number of output channels, which the radius may depend on.
    pub(crate) c_out: usize,
}

/// The optimizer's state of one parameter.
#[derive(Clone)]
pub struct NormState<const D: usize> {
    /// Momentum buffer, or Adam's first moment.
    pub first: Tensor<D>,
    /// Average of squared gradients, for the bases that have one.
    pub second: Option<Tensor<D>>,
    /// Steps taken.
    pub steps: usize,
    /// The norms that are held, one for each group: stored at the first step and never read from the
    /// weight again, whose rounding would make them drift.
    pub radius: Option<Tensor<1>>,
}

// Written out: Burn's derive works only inside Burn.
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
        #[cfg(feature = "gpu")]
        match gpu::together::begin_step() {
            gpu::together::Turn::Step => {}
            gpu::together::Turn::Keep => return (tensor, state),
            gpu::together::Turn::Take(stepped) => return stepped.into_state(state),
        }
        let mut state = state.unwrap_or_else(|| self.initial_state(&tensor));
        state.steps += 1;
        let plan = self.plan(lr, state.steps, &tensor.dims());
        let f32_throughout =
            [&tensor, &grad, &state.first].iter().all(|tensor| tensor.dtype() == DType::F32);
        #[cfg(feature = "flex")]
        if f32_throughout && tensor.device() == Device::flex() {
            let (tensor, state) = self.step_on_host(&plan, tensor, grad, state);
            return (tensor, Some(state));
        }
        #[cfg(feature = "gpu")]
        if f32_throughout && self.runs_on_gpu(&tensor.device()) {
            let (tensor, state) = self.step_or_collect(plan, tensor, grad, state);
            return (tensor, Some(state));
        }
        #[cfg(not(any(feature = "flex", feature = "gpu")))]
        let _ = f32_throughout;
        let (tensor, state) = self.step_composed(&plan, tensor, grad, state);
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

impl NormOptimizer {
    /// The scalars of step number `step`, counted from 1, of a parameter of this shape.
    fn plan(&self, lr: f64, step: usize, shape: &[usize]) -> StepPlan {
        let decay = match self.decay {
            Some(Decay { rate, kind: DecayKind::L2 }) => (rate, 0.0),
            Some(Decay { rate, kind: DecayKind::Decoupled }) => (0.0, rate),
            None => (0.0, 0.0),
        };
        let len = shape.iter().product::<usize>() / self.channel_axis.map_or(1, |axis| shape[axis]);
        let UpdateRule { step: rule, constraint, lr_scale, .. } = self.rule;
        StepPlan::new(self.base.step(step), lr * lr_scale, decay, rule, constraint, len)
    }

    /// The elements that share a norm.
    pub(crate) fn groups(&self, shape: &[usize]) -> Groups {
        match self.channel_axis {
            Some(axis) => Groups::along(shape, axis),
            None => Groups::whole(shape.iter().product()),
        }
    }

    /// The norms that a weight's groups are held at, where `norms` are those at setup.
    pub(crate) fn radii(&self, norms: &[f64]) -> Vec<f64> {
        let UpdateRule { radius, scope, .. } = self.rule;
        norms.iter().map(|&norm| radius.of_group(scope, self.c_out, norm)).collect()
    }

    fn initial_state<const D: usize>(&self, tensor: &Tensor<D>) -> NormState<D> {
        let radius = (self.rule.constraint != Constraint::Free).then(|| {
            let values: Vec<f32> = tensor.to_data().convert::<f32>().iter().collect();
            let norms = norms(&values, self.groups(&tensor.dims()));
            let radii: Vec<_> =
                self.radii(&norms).into_iter().map(|radius| radius as f32).collect();
            let data = TensorData::new(radii, [norms.len()]);
            Tensor::from_data(data, (&tensor.device(), DType::F32))
        });
        NormState {
            first: tensor.zeros_like(),
            second: self.initial_second(tensor),
            steps: 0,
            radius,
        }
    }

    /// The second state at the start, where the base update has one.
    fn initial_second<const D: usize>(&self, tensor: &Tensor<D>) -> Option<Tensor<D>> {
        self.base.second_start().map(|start| tensor.full_like(start))
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests;
