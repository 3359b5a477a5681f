//! The steps of parameters as one operation of a GPU: a launch for several of them, where the tensor operations that a step is
//! composed of elsewhere are about twenty for each.
//! Not here: which kernels take a step (`launch.rs`), the kernels (`kernels.rs`), the steps of a whole model (`together.rs`),
//! the composed step that the tests hold them against (`composed.rs`).

mod kernels;
mod launch;
mod many;
pub(super) mod together;

use burn::backend::fusion::custom::TensorSpec;
use burn::backend::{Backend, Dispatch, DispatchDevice, DispatchTensor, backend_extension};
use burn::tensor::{Device, Tensor};

use super::plan::StepPlan;
use super::{NormOptimizer, NormState};
use many::Many;

/// Inputs of a parameter's step besides tensors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepSpec {
    plan: StepPlan,
    /// Groups that have a norm each, one after the other in memory.
    groups: usize,
    /// Whether the last tensor is the norms that the groups are held at.
    has_radius: bool,
}

impl StepSpec {
    /// Tensors of a step: weight, gradient, first and second state, radius.
    fn inputs(&self) -> usize {
        3 + usize::from(self.plan.base.has_second()) + usize::from(self.has_radius)
    }
}

/// Backends that take the steps themselves.
#[backend_extension(Cube, Fusion)]
pub(crate) trait StepBackend: Backend {
    /// Of each parameter the next weight, first and, if it has one, second state. `tensors` are those of the first parameter,
    /// then those of the next. All are in `f32`.
    #[fusion(meta = |tensors, specs| next_of(tensors, specs))]
    fn norm_steps(#[extension_type] tensors: Many<Self>, specs: Vec<StepSpec>) -> Many<Self>;
}

fn next_of(tensors: &[TensorSpec], specs: &[StepSpec]) -> Vec<TensorSpec> {
    let (mut next, mut start) = (vec![], 0);
    for spec in specs {
        let states = start + 2..start + 3 + usize::from(spec.plan.base.has_second());
        next.push(tensors[start].clone());
        next.extend_from_slice(&tensors[states]);
        start += spec.inputs();
    }
    next
}

/// A parameter's step that is to be taken.
struct Pending {
    tensors: Vec<DispatchTensor>,
    spec: StepSpec,
}

/// A parameter's next weight, first and second state.
pub(super) struct Stepped(Vec<DispatchTensor>);

/// Takes these steps, on one device.
fn take(steps: Vec<Pending>) -> impl Iterator<Item = Stepped> {
    let specs: Vec<StepSpec> = steps.iter().map(|step| step.spec).collect();
    let tensors = Many(steps.into_iter().flat_map(|step| step.tensors).collect());
    let mut next = Dispatch::norm_steps(tensors, specs.clone()).0.into_iter();
    specs.into_iter().map(move |spec| {
        let count = 2 + usize::from(spec.plan.base.has_second());
        Stepped(next.by_ref().take(count).collect())
    })
}

impl Stepped {
    /// The same, where the state has the rest of what a step leaves.
    pub(super) fn into_state<const D: usize>(
        self,
        state: Option<NormState<D>>,
    ) -> (Tensor<D>, Option<NormState<D>>) {
        let state = state.expect("a step that was collected left its state");
        let (w, state) = self.into_tensors(state);
        (w, Some(state))
    }

    fn into_tensors<const D: usize>(self, state: NormState<D>) -> (Tensor<D>, NormState<D>) {
        let mut tensors = self.0.into_iter().map(Tensor::from_dispatch);
        let mut tensor = || tensors.next().expect("a weight and a first state at least");
        let (w, first) = (tensor(), tensor());
        (w, NormState { first, second: tensors.next(), ..state })
    }
}

impl<const D: usize> NormState<D> {
    /// The same with another tensor of the same shape for its moments: who steps may hold no more of them, so that they change
    /// in place.
    fn without_moments(&self, other: &Tensor<D>) -> Self {
        let (first, radius) = (other.clone(), self.radius.clone());
        Self { first, second: None, steps: self.steps, radius }
    }
}

impl NormOptimizer {
    /// Whether these kernels take tensors of this device. Tensors that autodiff tracks are excluded: a step has no
    /// gradient. So are groups along a later axis: their elements lie scattered, and no cube has one to itself.
    pub(super) fn runs_on_gpu(&self, device: &Device) -> bool {
        matches!(device.as_dispatch(), DispatchDevice::Cube(_))
            && self.channel_axis.is_none_or(|axis| axis == 0)
    }

    /// The step by kernels of this crate, for `f32` on a device that they run on.
    pub(super) fn step_on_gpu<const D: usize>(
        &self,
        plan: StepPlan,
        w: Tensor<D>,
        grad: Tensor<D>,
        state: NormState<D>,
    ) -> (Tensor<D>, NormState<D>) {
        let kept = state.without_moments(&grad);
        let step = self.pending(plan, w, grad, state);
        take(vec![step]).next().expect("one step was given").into_tensors(kept)
    }

    fn pending<const D: usize>(
        &self,
        plan: StepPlan,
        w: Tensor<D>,
        grad: Tensor<D>,
        state: NormState<D>,
    ) -> Pending {
        let groups = self.channel_axis.map_or(1, |axis| w.dims()[axis]);
        let second = match state.second {
            None if plan.base.has_second() => self.initial_second(&w),
            second => second.filter(|_| plan.base.has_second()),
        };
        let mut tensors =
            vec![w.into_dispatch(), grad.into_dispatch(), state.first.into_dispatch()];
        tensors.extend(second.map(Tensor::into_dispatch));
        let spec = StepSpec { plan, groups, has_radius: state.radius.is_some() };
        tensors.extend(state.radius.map(Tensor::into_dispatch));
        Pending { tensors, spec }
    }
}

#[cfg(test)]
mod tests;
