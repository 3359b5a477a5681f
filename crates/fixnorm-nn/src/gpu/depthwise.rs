//! Depthwise convolution of NHWC images: Burn's in the forward pass, our own in the backward pass, which Burn computes as
//! a convolution with a filter as large as the image.
//! Not here: the kernels (`depthwise_kernels.rs`).

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, Tensor};
use fixnorm_kernels::conv::ConvShape;

/// A depthwise convolution, in the precision of `x`.
///
/// # Shapes
/// `x`: `[n, h, w, c]` to `[n, h_out, w_out, c]`; `weight`: `[c, 1, k, k]`, in `f32`.
pub(crate) fn depthwise(
    x: Tensor<4>,
    weight: Tensor<4>,
    shape: ConvShape,
    options: ConvOptions<2>,
) -> Tensor<4> {
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(Dispatch::depthwise(x, weight, shape, options))
}

/// Backends with a depthwise convolution of NHWC images.
#[backend_extension(Cube, Fusion, Autodiff)]
pub(crate) trait DepthwiseBackend: Backend {
    /// As [`depthwise`](self::depthwise).
    #[fusion(default)]
    fn depthwise(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        _shape: ConvShape,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        let weight = match x.dtype() {
            DType::F32 => weight,
            dtype => Self::float_cast(weight, dtype.into()),
        };
        let y = Self::conv2d(Self::float_permute(x, &[0, 3, 1, 2]), weight, None, options);
        Self::float_permute(y, &[0, 2, 3, 1])
    }
}

/// Backends with its backward pass. Weights are `[k·k, c]`, in `f32`.
#[backend_extension(Cube, Fusion)]
pub(crate) trait DepthwiseGradBackend: Backend {
    /// The gradient of the images.
    #[fusion(meta = |dout, _weight, shape| images(dout, shape))]
    fn depthwise_dx(
        dout: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        shape: ConvShape,
    ) -> FloatTensor<Self>;

    /// The gradient of the weight.
    #[fusion(meta = |_x, _dout, shape| taps(shape))]
    fn depthwise_dweight(
        x: FloatTensor<Self>,
        dout: FloatTensor<Self>,
        shape: ConvShape,
    ) -> FloatTensor<Self>;
}

fn images(dout: &TensorSpec, shape: &ConvShape) -> TensorSpec {
    TensorSpec::new([shape.n, shape.h, shape.w, shape.c_in].into(), dout.dtype)
}

fn taps(shape: &ConvShape) -> TensorSpec {
    TensorSpec::new([shape.kernel * shape.kernel, shape.c_in].into(), DType::F32)
}

impl<B: DepthwiseBackend + DepthwiseGradBackend, C: CheckpointStrategy> DepthwiseBackend
    for Autodiff<B, C>
{
    fn depthwise(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        shape: ConvShape,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        let [(x, x_node), (weight, weight_node)] = [x, weight].map(|tensor| tensor.into_parts());
        let y = B::depthwise(x.clone(), weight.clone(), shape, options);
        match DepthwiseBackward.prepare::<C>([x_node, weight_node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((x, weight, shape), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}

#[derive(Debug)]
struct DepthwiseBackward;

impl<B: DepthwiseGradBackend> Backward<B, 2> for DepthwiseBackward {
    /// Images and weight.
    type State = (FloatTensor<B>, FloatTensor<B>, ConvShape);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dout = grads.consume::<B>(&ops.node);
        let (x, weight, shape) = ops.state;
        let (c, taps) = (shape.c_in, shape.kernel * shape.kernel);
        let [x_node, weight_node] = ops.parents;
        if let Some(node) = weight_node {
            let found = B::float_swap_dims(B::depthwise_dweight(x, dout.clone(), shape), 0, 1);
            grads.register::<B>(node.id, B::float_reshape(found, weight.shape()));
        }
        if let Some(node) = x_node {
            let rows = B::float_reshape(weight, [c, taps].into());
            let dx = B::depthwise_dx(dout, B::float_swap_dims(rows, 0, 1), shape);
            grads.register::<B>(node.id, dx);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::composed::{to_nchw, to_nhwc};
    use burn::tensor::{Device, Distribution, module};

    fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.cast(DType::F32).into_data().iter().collect()
    }

    /// The result and the gradients of images and weight, by our operation on the default device or by Burn's on the CPU.
    fn run(x: &Tensor<4>, weight: &Tensor<4>, shape: ConvShape, own: bool) -> [Vec<f32>; 3] {
        let device = if own { Device::default() } else { Device::flex() }.autodiff();
        let on = |t: &Tensor<4>| Tensor::<4>::from_data(t.to_data(), &device).require_grad();
        let (x, weight) = (on(x), on(weight));
        let end = |out: usize, size: usize, before: usize| {
            ((out - 1) * shape.stride + shape.kernel).saturating_sub(size + before)
        };
        let padding = [
            (shape.top, end(shape.h_out, shape.h, shape.top)),
            (shape.left, end(shape.w_out, shape.w, shape.left)),
        ];
        let options = ConvOptions::new_with_padding([shape.stride; 2], padding, [1; 2], shape.c_in);
        let y = if own {
            depthwise(x.clone(), weight.clone(), shape, options)
        } else {
            to_nhwc(module::conv2d(to_nchw(x.clone()), weight.clone(), None, options))
        };
        let len = y.dims().iter().product::<usize>();
        let factors: Vec<f32> = (0..len).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
        let factors = Tensor::<1>::from_floats(&factors[..], &device).reshape(y.dims());
        let grads = (y.clone() * factors).sum().backward();
        let grad = |of: &Tensor<4>| floats(of.grad(&grads).expect("wanted"));
        [floats(y), grad(&x), grad(&weight)]
    }

    #[test]
    fn forward_and_backward_pass_are_burns_on_the_cpu() {
        let device = Device::flex();
        for (i, (kernel, stride)) in
            [(3, 1), (3, 2), (5, 1), (5, 2), (1, 1)].into_iter().enumerate()
        {
            for (j, c) in [2, 8, 17, 24, 100].into_iter().enumerate() {
                let [n, h, w] = [[1, 1, 1], [2, 5, 8], [3, 14, 11]][(i + j) % 3];
                let mut shape = ConvShape::symmetric([n, h, w, c], c, kernel, stride, c);
                if (i + j) % 2 == 1 && stride == 2 {
                    // TensorFlow's padding.
                    let before = |size: usize, out: usize| {
                        ((out - 1) * stride + kernel).saturating_sub(size) / 2
                    };
                    let (top, left) = (before(h, shape.h_out), before(w, shape.w_out));
                    shape = ConvShape { top, left, ..shape };
                }
                let noise = Distribution::Normal(0.0, 1.0);
                let x = Tensor::<4>::random([n, h, w, c], noise, &device);
                let weight = Tensor::<4>::random([c, 1, kernel, kernel], noise, &device);
                let found = run(&x, &weight, shape, true);
                let expected = run(&x, &weight, shape, false);
                for (what, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    assert_eq!(found.len(), expected.len(), "{shape:?} {what}");
                    let scale = expected.iter().fold(1e-2f32, |most, v| most.max(v.abs()));
                    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
                        let off = (found - expected).abs();
                        // Written so that a NaN fails.
                        assert!(
                            off <= 2e-4 * scale,
                            "{shape:?} {what} [{at}]: {found}, Burn has {expected}"
                        );
                    }
                }
            }
        }
    }
}
