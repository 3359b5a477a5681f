//! Pooling of NHWC images: on a CPU one operation of our own, elsewhere composed of Burn's.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::nn::PaddingConfig2d;
use burn::nn::pool::MaxPool2dConfig;
use burn::tensor::{DType, Shape, Tensor};
use fixnorm_kernels::pool::{self, PoolShape};
use fixnorm_kernels::{Isa, bf16};

use super::composed::{to_nchw, to_nhwc};
use super::flex::{Stored, contiguous, flex, slice};
use super::pass::Pass;

/// The maximum of each 3×3 window, at every second pixel.
///
/// # Shapes
/// `x`: `[n, h, w, c]` to `[n, ⌈h/2⌉, ⌈w/2⌉, c]`.
pub(crate) fn max_pool(x: Tensor<4>, pass: Pass<'_>) -> Tensor<4> {
    if pass.is_fused(&x) {
        Tensor::from_dispatch(Dispatch::max_pool_nhwc(x.into_dispatch()))
    } else {
        max_pool_composed(x)
    }
}

fn max_pool_composed(x: Tensor<4>) -> Tensor<4> {
    let pool = MaxPool2dConfig::new([3, 3])
        .with_strides([2, 2])
        .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1));
    to_nhwc(pool.init().forward(to_nchw(x)))
}

/// The mean over the pixels, in `f32` whatever the precision of `x`.
///
/// # Shapes
/// `x`: `[n, h, w, c]` to `[n, c]`.
pub(crate) fn global_average(x: Tensor<4>, pass: Pass<'_>) -> Tensor<2> {
    if pass.is_fused(&x) {
        return Tensor::from_dispatch(Dispatch::global_average_nhwc(x.into_dispatch()));
    }
    let x = if x.dtype() == DType::F32 { x } else { x.cast(DType::F32) };
    let [n, _, _, c] = x.dims();
    x.mean_dims(&[1, 2]).reshape([n, c])
}

/// Backends with pooling operations for NHWC images.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait PoolBackend: Backend {
    /// As [`max_pool`].
    fn max_pool_nhwc(x: FloatTensor<Self>) -> FloatTensor<Self>;
    /// As [`global_average`].
    fn global_average_nhwc(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

fn sizes(x: &FlexTensor) -> [usize; 4] {
    x.shape().dims()
}

fn shape_of(x: &FlexTensor) -> PoolShape {
    let [n, h, w, c] = sizes(x);
    PoolShape { n, h, w, c, kernel: 3, stride: 2, padding: 1 }
}

/// Calls a function for the element type of a tensor.
macro_rules! by_element {
    ($x:expr, $function:ident($($argument:expr),*)) => {
        match $x.dtype() {
            DType::BF16 => $function::<bf16>($($argument),*),
            _ => $function::<f32>($($argument),*),
        }
    };
}

fn max_forward<T: Stored>(x: &FlexTensor) -> FlexTensor {
    let shape = shape_of(x);
    let y = pool::max_pool::<T>(Isa::current(), &shape, slice(x));
    flex(y, Shape::from([shape.n, shape.h_out(), shape.w_out(), shape.c]))
}

fn max_backward<T: Stored>(x: &FlexTensor, dy: &FlexTensor) -> FlexTensor {
    let dx = pool::max_pool_backward::<T>(Isa::current(), &shape_of(x), slice(x), slice(dy));
    flex(dx, x.shape())
}

fn average_forward<T: Stored>(x: &FlexTensor) -> FlexTensor {
    let [n, _, _, c] = sizes(x);
    let y = pool::global_average::<T>(Isa::current(), sizes(x), slice(x));
    flex(y, Shape::from([n, c]))
}

fn average_backward<T: Stored>(shape: [usize; 4], dy: &FlexTensor) -> FlexTensor {
    let dx = pool::global_average_backward::<T>(Isa::current(), shape, slice(dy));
    flex(dx, Shape::from(shape))
}

impl PoolBackend for Flex {
    fn max_pool_nhwc(x: FlexTensor) -> FlexTensor {
        let x = contiguous(x);
        by_element!(x, max_forward(&x))
    }

    fn global_average_nhwc(x: FlexTensor) -> FlexTensor {
        let x = contiguous(x);
        by_element!(x, average_forward(&x))
    }
}

impl<C: CheckpointStrategy> PoolBackend for Autodiff<Flex, C> {
    fn max_pool_nhwc(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, guard) = x.into_parts();
        let x = contiguous(x);
        let y = by_element!(x, max_forward(&x));
        match MaxBackward.prepare::<C>([guard]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(MaxPoolInput(Arc::new(x)), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn global_average_nhwc(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, guard) = x.into_parts();
        let x = contiguous(x);
        let y = by_element!(x, average_forward(&x));
        let state = (sizes(&x), x.dtype());
        match AverageBackward.prepare::<C>([guard]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(state, y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}

/// The input of a maximum, for its backward pass.
#[derive(Clone, Debug)]
struct MaxPoolInput(Arc<FlexTensor>);

#[derive(Debug)]
struct MaxBackward;

impl Backward<Flex, 1> for MaxBackward {
    type State = MaxPoolInput;

    fn backward(self, ops: Ops<MaxPoolInput, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = contiguous(grads.consume::<Flex>(&ops.node));
        let [parent] = ops.parents;
        if let Some(parent) = parent {
            let x = &*ops.state.0;
            grads.register::<Flex>(parent.id, by_element!(x, max_backward(x, &dy)));
        }
    }
}

#[derive(Debug)]
struct AverageBackward;

impl Backward<Flex, 1> for AverageBackward {
    type State = ([usize; 4], DType);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = contiguous(grads.consume::<Flex>(&ops.node));
        let [parent] = ops.parents;
        let (shape, dtype) = ops.state;
        if let Some(parent) = parent {
            let dx = match dtype {
                DType::BF16 => average_backward::<bf16>(shape, &dy),
                _ => average_backward::<f32>(shape, &dy),
            };
            grads.register::<Flex>(parent.id, dx);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::pass::BlockExecution;
    use burn::tensor::{Device, Distribution};

    const FUSED: Pass<'static> = Pass::alone(BlockExecution::Fused);
    const COMPOSED: Pass<'static> = Pass::alone(BlockExecution::Composed);

    #[test]
    fn own_and_composed_operations_agree() {
        let device = Device::flex().autodiff();
        let x = Tensor::<4>::random([3, 7, 10, 17], Distribution::Default, &device);
        let floats = |t: Tensor<4>| -> Vec<f32> { t.into_data().iter().collect() };
        let run = |pass: Pass<'_>| {
            let x = x.clone().require_grad();
            let pooled = max_pool(x.clone(), pass);
            let mean = global_average(pooled.clone(), pass);
            let grads = (mean.clone() * mean.clone()).sum().backward();
            let dx = x.grad(&grads).expect("wanted");
            (
                floats(pooled),
                mean.into_data().iter::<f32>().collect::<Vec<_>>(),
                floats(Tensor::from_inner(dx)),
            )
        };
        let (own, burns) = (run(FUSED), run(COMPOSED));
        assert_eq!(own.0, burns.0);
        for (own, burns) in own.1.iter().zip(&burns.1).chain(own.2.iter().zip(&burns.2)) {
            assert!((own - burns).abs() < 1e-6, "{own} {burns}");
        }
    }

    #[test]
    fn bf16_images_are_averaged_in_f32() {
        let device = Device::flex();
        let x = Tensor::<4>::random([2, 5, 4, 9], Distribution::Default, &device).cast(DType::BF16);
        for pass in [FUSED, COMPOSED] {
            let mean = global_average(x.clone(), pass);
            assert_eq!(mean.dtype(), DType::F32);
            let exact = x.clone().cast(DType::F32).mean_dims(&[1, 2]).reshape([2, 9]);
            let worst = (mean - exact).abs().max().into_scalar::<f32>();
            assert!(worst < 1e-6, "{worst}");
        }
    }
}
