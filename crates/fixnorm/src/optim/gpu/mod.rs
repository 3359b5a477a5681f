//! The step of one parameter as one operation of a GPU: at most two launches, where the tensor operations that it is composed
//! of elsewhere are about twenty.
//! Not here: which kernels take it (`launch.rs`), the kernels (`kernels.rs`), the composed step that the tests hold them against
//! (`optim.rs`).

mod kernels;
mod launch;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, DispatchDevice, ExtensionType, backend_extension};
use burn::tensor::{Device, Tensor};

use super::plan::StepPlan;
use super::{NormOptimizer, NormState};

/// Inputs of a step besides tensors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepSpec {
    plan: StepPlan,
    /// Groups that have a norm each, one after the other in memory.
    groups: usize,
}

/// A tensor that not every optimizer has.
#[derive(ExtensionType)]
#[extension_type(fusion)]
pub(crate) enum Optional<B: Backend> {
    Absent,
    Present(FloatTensor<B>),
}

/// Backends that take the step themselves.
#[backend_extension(Cube, Fusion)]
pub(crate) trait StepBackend: Backend {
    /// The next weight, first and second state. All tensors are in `f32`.
    #[fusion(meta = |w, _grad, first, second, _radius, _spec| (w.clone(), first.clone(), second.clone()))]
    fn norm_step(
        w: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        first: FloatTensor<Self>,
        #[extension_type] second: Optional<Self>,
        #[extension_type] radius: Optional<Self>,
        spec: StepSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, Optional<Self>);
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
        let spec = StepSpec { plan, groups: self.channel_axis.map_or(1, |axis| w.dims()[axis]) };
        let second = match state.second {
            None if plan.base.has_second() => self.initial_second(&w),
            second => second.filter(|_| plan.base.has_second()),
        };
        let (w, first, second) = Dispatch::norm_step(
            w.into_dispatch(),
            grad.into_dispatch(),
            state.first.into_dispatch(),
            optional(second),
            optional(state.radius.clone()),
            spec,
        );
        let second = match second {
            Optional::Absent => None,
            Optional::Present(second) => Some(Tensor::from_dispatch(second)),
        };
        let first = Tensor::from_dispatch(first);
        (Tensor::from_dispatch(w), NormState { first, second, ..state })
    }
}

fn optional<const D: usize>(tensor: Option<Tensor<D>>) -> Optional<Dispatch> {
    tensor.map_or(Optional::Absent, |tensor| Optional::Present(tensor.into_dispatch()))
}

#[cfg(test)]
mod tests;
