//! Softmax cross-entropy on a GPU, as one operation that keeps the gradient of the logits for the backward pass. Burn's
//! operations for it are about thirty launches.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{DType, Int, Tensor};
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::{CubeBackend, cubecl};

use super::rows::{UNITS, add_up, elem, floats, small};

/// The mean over the images, with this share of each target spread evenly over all classes. A label that is no class counts as
/// no target.
///
/// # Shapes
/// `logits`: `[n, classes]`, in `f32`; `labels`: `[n]`, the result `[1]`.
pub(crate) fn cross_entropy(
    logits: Tensor<2>,
    labels: Tensor<1, Int>,
    label_smoothing: f64,
) -> Tensor<1> {
    let (logits, labels) = (logits.into_dispatch(), labels.into_dispatch());
    Tensor::from_dispatch(Dispatch::softmax_loss(logits, labels, label_smoothing as f32).0)
}

/// Backends with this loss.
#[backend_extension(Cube, Fusion, Autodiff)]
pub(crate) trait SoftmaxLossBackend: Backend {
    /// As [`cross_entropy`]. The second result is the gradient of the logits.
    #[fusion(meta = |logits, _labels, _label_smoothing| (mean_loss(), logits.clone()))]
    fn softmax_loss(
        logits: FloatTensor<Self>,
        labels: IntTensor<Self>,
        label_smoothing: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

fn mean_loss() -> TensorSpec {
    TensorSpec::new([1].into(), DType::F32)
}

impl<B: SoftmaxLossBackend, C: CheckpointStrategy> SoftmaxLossBackend for Autodiff<B, C> {
    fn softmax_loss(
        logits: FloatTensor<Self>,
        labels: IntTensor<Self>,
        label_smoothing: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (logits, node) = logits.into_parts();
        let (loss, gradient) = B::softmax_loss(logits, labels, label_smoothing);
        let loss = match SoftmaxLossBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(gradient.clone(), loss),
            OpsKind::UnTracked(prep) => prep.finish(loss),
        };
        (loss, FloatTensor::<Self>::new(gradient))
    }
}

#[derive(Debug)]
struct SoftmaxLossBackward;

impl<B: SoftmaxLossBackend> Backward<B, 1> for SoftmaxLossBackward {
    /// The gradient of the logits.
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let factor = B::float_reshape(grads.consume::<B>(&ops.node), [1, 1].into());
        let [parent] = ops.parents;
        if let Some(parent) = parent {
            grads.register::<B>(parent.id, B::float_mul(ops.state, factor));
        }
    }
}

impl SoftmaxLossBackend for CubeBackend {
    fn softmax_loss(
        logits: FloatTensor<Self>,
        labels: IntTensor<Self>,
        label_smoothing: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (logits, labels) = (into_contiguous(logits), into_contiguous(labels));
        let [n, classes] = logits.shape().dims();
        let [losses, loss] = [n, 1].map(|len| floats(&logits, [len]));
        let gradient = floats(&logits, [n, classes]);
        let (client, dtype) = (logits.client.clone(), elem(&labels));
        let cubes = small(n).clamp(1, u32::from(u16::MAX));
        image_losses::launch(
            &client,
            CubeCount::Static(cubes, 1, 1),
            CubeDim::new_2d(1, UNITS),
            logits.into_buffer_arg(),
            labels.into_buffer_arg(),
            losses.clone().into_buffer_arg(),
            gradient.clone().into_buffer_arg(),
            small(n),
            small(classes),
            label_smoothing,
            dtype,
        );
        mean::launch(
            &client,
            CubeCount::Static(1, 1, 1),
            CubeDim::new_2d(1, UNITS),
            losses.into_buffer_arg(),
            loss.clone().into_buffer_arg(),
            small(n),
        );
        (loss, gradient)
    }
}

/// Adds up the values of a cube's units, for all of them.
#[cube]
fn over_units(value: f32, shared: &mut Shared<[Vector<f32, Const<1>>]>) -> f32 {
    shared[UNIT_POS as usize] = Vector::<f32, Const<1>>::new(value);
    add_up::<Const<1>>(shared);
    let sum = shared[0usize].extract(0usize);
    // The next sum goes to the same place.
    sync_cube();
    sum
}

/// The largest of the values of a cube's units, for all of them.
#[cube]
fn largest_of_units(value: f32, shared: &mut Shared<[Vector<f32, Const<1>>]>) -> f32 {
    shared[UNIT_POS as usize] = Vector::<f32, Const<1>>::new(value);
    sync_cube();
    let mut half = CUBE_DIM_Y / 2;
    while half > 0 {
        if UNIT_POS < half {
            let other = shared[(UNIT_POS + half) as usize].extract(0usize);
            let own = shared[UNIT_POS as usize].extract(0usize);
            shared[UNIT_POS as usize] =
                Vector::<f32, Const<1>>::new(select(other > own, other, own));
        }
        sync_cube();
        half /= 2;
    }
    let most = shared[0usize].extract(0usize);
    sync_cube();
    most
}

/// The loss of each image, and the gradient of the mean loss. A cube for each image, while there are enough.
#[cube(launch)]
fn image_losses<I: Numeric>(
    logits: &[f32],
    labels: &[I],
    losses: &mut [f32],
    gradient: &mut [f32],
    n: u32,
    classes: u32,
    label_smoothing: f32,
    #[define(I)] _dtype: ElemType,
) {
    let mut shared = Shared::<[Vector<f32, Const<1>>]>::new_slice(comptime!(UNITS as usize));
    let sharp = 1.0f32 - label_smoothing;
    let even = label_smoothing / f32::cast_from(classes);
    let mut image = CUBE_POS_X;
    while image < n {
        let start = image * classes;
        let label = u32::cast_from(labels[image as usize]);
        let mut most = logits[start as usize];
        let mut class = UNIT_POS;
        while class < classes {
            let logit = logits[(start + class) as usize];
            most = select(logit > most, logit, most);
            class += CUBE_DIM_Y;
        }
        let most = largest_of_units(most, &mut shared);
        let mut powers = 0.0f32;
        let mut target = 0.0f32;
        let mut class = UNIT_POS;
        while class < classes {
            let logit = logits[(start + class) as usize] - most;
            powers += logit.exp();
            target += logit * (even + select(class == label, sharp, 0.0f32));
            class += CUBE_DIM_Y;
        }
        let powers = over_units(powers, &mut shared);
        let target = over_units(target, &mut shared);
        if UNIT_POS == 0 {
            losses[image as usize] = powers.ln() - target;
        }
        let mut class = UNIT_POS;
        while class < classes {
            let at = (start + class) as usize;
            let share = (logits[at] - most).exp() / powers;
            let wanted = even + select(class == label, sharp, 0.0f32);
            gradient[at] = (share - wanted) / f32::cast_from(n);
            class += CUBE_DIM_Y;
        }
        image += CUBE_COUNT_X;
    }
}

/// The mean of all values, by one cube.
#[cube(launch)]
fn mean(values: &[f32], out: &mut [f32], count: u32) {
    let mut shared = Shared::<[Vector<f32, Const<1>>]>::new_slice(comptime!(UNITS as usize));
    let mut sum = 0.0f32;
    let mut at = UNIT_POS;
    while at < count {
        sum += values[at as usize];
        at += CUBE_DIM_Y;
    }
    let sum = over_units(sum, &mut shared);
    if UNIT_POS == 0 {
        out[0usize] = sum / f32::cast_from(count);
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;
    use crate::loss::cross_entropy as on_device;

    /// The loss times `factor`, and the gradient of the logits.
    fn run(logits: &Tensor<2>, labels: &[i32], smoothing: f64, device: &Device) -> (f32, Vec<f32>) {
        let device = device.clone().autodiff();
        let logits = Tensor::<2>::from_data(logits.to_data(), &device).require_grad();
        let labels = Tensor::<1, Int>::from_ints(labels, &device);
        let loss = on_device(logits.clone(), labels, smoothing).mul_scalar(-2.5);
        let grads = loss.backward();
        let gradient = logits.grad(&grads).expect("wanted").into_data().iter().collect();
        (loss.into_scalar::<f32>(), gradient)
    }

    #[test]
    fn losses_and_gradients_are_the_cpus() {
        // Fewer classes than units, more; one image, more than one.
        for [n, classes] in [[1usize, 3], [7, 19], [5, 1000]] {
            let noise = Distribution::Normal(0.0, 3.0);
            let logits = Tensor::<2>::random([n, classes], noise, &Device::flex()).add_scalar(40.0);
            let labels: Vec<i32> = (0..n).map(|i| (i * 7 % classes) as i32).collect();
            for smoothing in [0.0, 0.1] {
                let gpu = run(&logits, &labels, smoothing, &Device::default());
                let cpu = run(&logits, &labels, smoothing, &Device::flex());
                assert!((gpu.0 / cpu.0 - 1.0).abs() < 1e-5, "{} {}", gpu.0, cpu.0);
                assert_eq!(gpu.1.len(), cpu.1.len());
                for (gpu, cpu) in gpu.1.iter().zip(&cpu.1) {
                    // Written so that a NaN fails.
                    assert!((gpu - cpu).abs() < 1e-6, "{n}x{classes}: {gpu}, {cpu} on the CPU");
                }
            }
        }
    }

    #[test]
    fn a_nan_breaks_the_loss() {
        let device = Device::default();
        let logits = Tensor::<2>::from_floats([[f32::NAN, 1.0], [2.0, 3.0]], &device);
        let labels = Tensor::<1, Int>::from_ints([1, 0], &device);
        assert!(cross_entropy(logits, labels, 0.0).into_scalar::<f32>().is_nan());
    }
}
