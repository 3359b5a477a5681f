//! Any number of tensors as an argument or a result of an operation on Burn's backends, for which Burn's derive has no form.

use burn::backend::fusion::custom::{
    ExtensionMetadata, Float, FusionValueAdapter, HandleContainer, OutputTensor, TensorId,
    TensorIr, TensorSpec,
};
use burn::backend::fusion::{ExecutionError, Fusion, FusionBackend, FusionRuntime, FusionTensor};
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Backend, BackendTensor, Dispatch, DispatchAutodiffContext, DispatchTensor, DispatchTensorKind,
    ExtensionType,
};

/// Float tensors, in order.
pub(crate) struct Many<B: Backend>(pub(crate) Vec<FloatTensor<B>>);

impl<B: Backend> ExtensionType<B> for Many<B> {
    type Target = Many<Dispatch>;

    fn map_to_dispatch<F>(self, map_kind: F, autodiff: DispatchAutodiffContext) -> Many<Dispatch>
    where
        F: Fn(BackendTensor<B>) -> DispatchTensorKind,
    {
        let wrap =
            |tensor| DispatchTensor { kind: map_kind(BackendTensor::Float(tensor)), autodiff };
        Many(self.0.into_iter().map(wrap).collect())
    }

    fn map_from_dispatch<F>(target: Many<Dispatch>, unwrap_kind: F) -> Self
    where
        F: Fn(DispatchTensor) -> BackendTensor<B>,
    {
        Self(target.0.into_iter().map(|tensor| unwrap_kind(tensor).float()).collect())
    }

    fn routing_tensor(target: &Many<Dispatch>) -> Option<&DispatchTensor> {
        target.0.first()
    }

    fn routing_float_tensor(target: &Many<Dispatch>) -> Option<&DispatchTensor> {
        target.0.first()
    }

    fn autodiff_context(target: &Many<Dispatch>) -> DispatchAutodiffContext {
        let contexts = target.0.iter().map(|tensor| tensor.autodiff);
        contexts.fold(DispatchAutodiffContext::Disabled, |all, one| all.merge(one))
    }
}

impl<B: Backend> ExtensionMetadata for Many<B> {
    type Metadata = Vec<TensorSpec>;
    type Input = Vec<TensorIr>;
    type Output = Vec<OutputTensor>;
}

type Handles<B> =
    HandleContainer<<<B as FusionBackend>::FusionRuntime as FusionRuntime>::FusionHandle>;

impl<B: FusionBackend> FusionValueAdapter<B> for Many<B> {
    type Metadata = Vec<TensorSpec>;
    type Input = Vec<TensorIr>;
    type Output = Vec<OutputTensor>;
    type Inner = Self;
    type Fused = Many<Fusion<B>>;

    fn to_metadata(value: &Self::Fused) -> Vec<TensorSpec> {
        value.0.iter().map(<Float as FusionValueAdapter<B>>::to_metadata).collect()
    }

    fn visit_fused_tensors(
        value: &Self::Fused,
        visit: &mut impl FnMut(&FusionTensor<B::FusionRuntime>),
    ) {
        value.0.iter().for_each(visit);
    }

    fn tensor_count(meta: &Vec<TensorSpec>) -> usize {
        meta.len()
    }

    fn append_input_ir(value: Self::Fused, inputs: &mut Vec<TensorIr>) -> Vec<TensorIr> {
        let append = |tensor| <Float as FusionValueAdapter<B>>::append_input_ir(tensor, inputs);
        value.0.into_iter().map(append).collect()
    }

    fn resolve_inputs(input: &Vec<TensorIr>, handles: &mut Handles<B>) -> Self {
        let resolve = |input| <Float as FusionValueAdapter<B>>::resolve_inputs(input, handles);
        Self(input.iter().map(resolve).collect())
    }

    fn append_output_ir(
        meta: &Vec<TensorSpec>,
        out: &mut Vec<TensorIr>,
        create: &mut impl FnMut() -> TensorId,
    ) -> Vec<OutputTensor> {
        let append = |meta| <Float as FusionValueAdapter<B>>::append_output_ir(meta, out, create);
        meta.iter().map(append).collect()
    }

    fn validate_outputs(
        value: &Self,
        output: &Vec<OutputTensor>,
        device: Option<&B::Device>,
    ) -> Result<(), ExecutionError> {
        value.0.iter().zip(output).try_for_each(|(value, output)| {
            <Float as FusionValueAdapter<B>>::validate_outputs(value, output, device)
        })
    }

    fn register_output_handles(value: Self, output: &Vec<OutputTensor>, handles: &mut Handles<B>) {
        for (value, output) in value.0.into_iter().zip(output) {
            <Float as FusionValueAdapter<B>>::register_output_handles(value, output, handles);
        }
    }

    fn build_fused_output(
        meta: &Vec<TensorSpec>,
        tensors: &mut std::vec::IntoIter<FusionTensor<B::FusionRuntime>>,
    ) -> Self::Fused {
        let build = |meta| <Float as FusionValueAdapter<B>>::build_fused_output(meta, tensors);
        Many(meta.iter().map(build).collect())
    }
}
