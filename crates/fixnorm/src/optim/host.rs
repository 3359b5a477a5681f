//! The step on the tensors' own memory, by the kernel of `fixnorm-kernels`.

use burn::tensor::{DType, Tensor, TensorData};
use fixnorm_kernels::update::{States, update};

use super::plan::StepPlan;
use super::{NormOptimizer, NormState};

impl NormOptimizer {
    /// Takes the tensors' buffers, updates them in place and gives them back. A tensor that something else still holds is
    /// copied first. All tensors are `f32` on Flex.
    pub(super) fn step_on_host<const D: usize>(
        &self,
        plan: &StepPlan,
        w: Tensor<D>,
        grad: Tensor<D>,
        state: NormState<D>,
    ) -> (Tensor<D>, NormState<D>) {
        let device = w.device();
        let groups = self.groups(&w.dims());
        let radius = state.radius.clone().map(|radius| radius.into_data());
        let radius = radius.as_ref().map_or(&[][..], values);
        let second = match state.second {
            None if plan.base.has_second() => self.initial_second(&w),
            second => second,
        };
        let (mut w, mut grad) = (w.into_data(), grad.into_data());
        let mut first = state.first.into_data();
        let mut second = second.map(|second| second.into_data());
        let states = States {
            first: values_mut(&mut first),
            second: second.as_mut().map_or(&mut [], values_mut),
        };
        update(
            values_mut(&mut w),
            values_mut(&mut grad),
            states,
            &plan.base,
            plan.l2 as f32,
            groups,
            |group, moments| {
                let radius = radius.get(group).map_or(1.0, |&radius| f64::from(radius));
                plan.coefficients(moments, radius)
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

fn values(data: &TensorData) -> &[f32] {
    data.as_slice().expect("the caller has checked that the data is f32")
}

fn values_mut(data: &mut TensorData) -> &mut [f32] {
    data.as_mut_slice().expect("the caller has checked that the data is f32")
}
