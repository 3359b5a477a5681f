//! Softmax cross-entropy with label smoothing: one operation of our own on a CPU and, in `gpu/loss.rs`, on a GPU; elsewhere
//! Burn's.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::{DType, Int, Shape, Tensor};
use fixnorm_kernels::{Isa, loss};

#[cfg(feature = "gpu")]
use crate::gpu;
use crate::ops::flex::{contiguous, flex, slice};
use crate::ops::pass::on_cpu;
#[cfg(feature = "gpu")]
use crate::ops::pass::on_gpu;

/// The mean over the images, with this share of each target spread evenly over all classes, as PyTorch's
/// `cross_entropy` with `label_smoothing`.
///
/// # Shapes
/// `logits`: `[n, classes]`, `labels`: `[n]`, the result `[1]`.
///
/// # Panics
/// On a CPU, if there are no images or a label is not below `classes`; a GPU does not check labels.
pub fn cross_entropy(logits: Tensor<2>, labels: Tensor<1, Int>, label_smoothing: f64) -> Tensor<1> {
    if on_cpu(&logits) && logits.dtype() == DType::F32 {
        // A negative label becomes one that no number of classes allows.
        let label = |label: i64| u32::try_from(label).unwrap_or(u32::MAX);
        let labels = labels.into_data().iter().map(label).collect();
        let logits = logits.into_dispatch();
        return Tensor::from_dispatch(Dispatch::cross_entropy(logits, labels, label_smoothing));
    }
    #[cfg(feature = "gpu")]
    if on_gpu(&logits) && logits.dtype() == DType::F32 {
        return gpu::loss::cross_entropy(logits, labels, label_smoothing);
    }
    composed(logits, labels, label_smoothing)
}

fn composed(logits: Tensor<2>, labels: Tensor<1, Int>, label_smoothing: f64) -> Tensor<1> {
    let smoothing = (label_smoothing > 0.0).then_some(label_smoothing as f32);
    let loss = CrossEntropyLossConfig::new().with_smoothing(smoothing).init(&logits.device());
    loss.forward(logits, labels)
}

/// Backends with a cross-entropy operation.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait LossBackend: Backend {
    /// As [`cross_entropy`].
    fn cross_entropy(
        logits: FloatTensor<Self>,
        labels: Vec<u32>,
        label_smoothing: f64,
    ) -> FloatTensor<Self>;
}

/// Returns the loss, `[1]`, and the logits' gradient.
fn with_gradient(logits: FlexTensor, labels: &[u32], smoothing: f64) -> (FlexTensor, FlexTensor) {
    let logits = contiguous(logits);
    let [n, classes] = logits.shape().dims();
    let (loss, gradient) =
        loss::cross_entropy(Isa::current(), slice(&logits), labels, classes, smoothing);
    let loss = flex(vec![loss as f32], Shape::from([1]));
    (loss, flex(gradient, Shape::from([n, classes])))
}

impl LossBackend for Flex {
    fn cross_entropy(logits: FlexTensor, labels: Vec<u32>, label_smoothing: f64) -> FlexTensor {
        with_gradient(logits, &labels, label_smoothing).0
    }
}

impl<C: CheckpointStrategy> LossBackend for Autodiff<Flex, C> {
    fn cross_entropy(
        logits: FloatTensor<Self>,
        labels: Vec<u32>,
        label_smoothing: f64,
    ) -> FloatTensor<Self> {
        let (logits, guard) = logits.into_parts();
        let (loss, gradient) = with_gradient(logits, &labels, label_smoothing);
        match LossBackward.prepare::<C>([guard]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(gradient, loss),
            OpsKind::UnTracked(prep) => prep.finish(loss),
        }
    }
}

#[derive(Debug)]
struct LossBackward;

impl Backward<Flex, 1> for LossBackward {
    /// The logits' gradient.
    type State = FlexTensor;

    fn backward(self, ops: Ops<FlexTensor, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let factor = slice::<f32>(&contiguous(grads.consume::<Flex>(&ops.node)))[0];
        let [parent] = ops.parents;
        let Some(parent) = parent else { return };
        let gradient = match factor {
            1.0 => ops.state,
            _ => {
                let scaled = slice::<f32>(&ops.state).iter().map(|g| factor * g).collect();
                flex::<f32>(scaled, ops.state.shape())
            }
        };
        grads.register::<Flex>(parent.id, gradient);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Distribution};

    #[test]
    fn own_and_composed_losses_agree() {
        let device = Device::flex().autodiff();
        let logits = Tensor::<2>::random([7, 19], Distribution::Normal(0.0, 3.0), &device);
        let labels = Tensor::<1, Int>::from_ints([0, 18, 3, 3, 9, 1, 17], &device);
        for smoothing in [0.0, 0.1] {
            for factor in [1.0, -2.5] {
                let run = |loss: fn(Tensor<2>, Tensor<1, Int>, f64) -> Tensor<1>| {
                    let logits = logits.clone().require_grad();
                    let loss = loss(logits.clone(), labels.clone(), smoothing).mul_scalar(factor);
                    let grads = loss.backward();
                    let dlogits = Tensor::<2>::from_inner(logits.grad(&grads).expect("wanted"));
                    let dlogits: Vec<f32> = dlogits.into_data().iter().collect();
                    (loss.into_scalar::<f32>(), dlogits)
                };
                let (own, burns) = (run(cross_entropy), run(composed));
                assert!((own.0 / burns.0 - 1.0).abs() < 1e-5, "{} {}", own.0, burns.0);
                for (own, burns) in own.1.iter().zip(&burns.1) {
                    assert!((own - burns).abs() < 1e-6, "{own} {burns}");
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "label 3 of row 1 is not one of 3 classes")]
    fn a_label_that_is_no_class_panics() {
        let device = Device::flex();
        let labels = Tensor::<1, Int>::from_ints([0, 3], &device);
        let _ = cross_entropy(Tensor::zeros([2, 3], &device), labels, 0.0);
    }
}
