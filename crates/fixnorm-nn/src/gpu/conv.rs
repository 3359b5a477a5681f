//! Convolution of NHWC images as one operation of a GPU: a matrix product, or depthwise, with its backward pass.
//! Not here: the kernels (`conv_kernels.rs`).

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{DType, Tensor};
use fixnorm_kernels::conv::ConvShape;

use super::windows::Filters;

/// Whether this operation has the convolution: dense or depthwise.
pub(crate) fn has(shape: &ConvShape) -> bool {
    shape.groups == 1 || (shape.groups == shape.c_in && shape.c_in == shape.c_out)
}

/// A convolution, in the precision of `x`; sums are in `f32`.
///
/// # Shapes
/// `x`: `[n, h, w, c_in]` to `[n, h_out, w_out, c_out]`; `weight`: `[c_out, c_in / groups, k, k]`, in `f32`.
pub(crate) fn convolve(x: Tensor<4>, weight: Tensor<4>, shape: ConvShape) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::convolve(x.into_dispatch(), weight.into_dispatch(), shape))
}

/// A linear layer without bias.
///
/// # Shapes
/// `x`: `[n, c_in]` to `[n, c_out]`; `weight`: `[c_out, c_in]`, in `f32`.
pub(crate) fn linear(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    let ([n, c_in], [c_out, _]) = (x.dims(), weight.dims());
    let shape = ConvShape::symmetric([n, 1, 1, c_in], c_out, 1, 1, 1);
    let weight = weight.reshape([c_out, c_in, 1, 1]);
    convolve(x.reshape([n, 1, 1, c_in]), weight, shape).reshape([n, c_out])
}

/// Backends with a convolution of NHWC images.
#[backend_extension(Cube, Fusion, Autodiff)]
pub(crate) trait ConvBackend: Backend {
    /// As [`convolve`](self::convolve).
    #[fusion(meta = |x, _weight, shape| results(x, shape))]
    fn convolve(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        shape: ConvShape,
    ) -> FloatTensor<Self>;
}

/// Backends with the parts of its passes. Filters are a weight as its factor of a product, in the precision of the images.
#[backend_extension(Cube, Fusion)]
pub(crate) trait ConvPartsBackend: Backend {
    /// The filters of a weight.
    #[fusion(meta = |_weight, shape, dtype| filters(shape, *dtype))]
    fn conv_filters(weight: FloatTensor<Self>, shape: ConvShape, dtype: DType)
    -> FloatTensor<Self>;

    /// The results.
    #[fusion(meta = |x, _filters, shape| results(x, shape))]
    fn conv_results(
        x: FloatTensor<Self>,
        filters: FloatTensor<Self>,
        shape: ConvShape,
    ) -> FloatTensor<Self>;

    /// The gradient of the images.
    #[fusion(meta = |dout, _filters, shape| images(dout, shape))]
    fn conv_dx(
        dout: FloatTensor<Self>,
        filters: FloatTensor<Self>,
        shape: ConvShape,
    ) -> FloatTensor<Self>;

    /// The gradient of the weight, in `f32`.
    #[fusion(meta = |_x, _dout, shape| weight(shape))]
    fn conv_dweight(
        x: FloatTensor<Self>,
        dout: FloatTensor<Self>,
        shape: ConvShape,
    ) -> FloatTensor<Self>;
}

fn results(x: &TensorSpec, shape: &ConvShape) -> TensorSpec {
    TensorSpec::new([shape.n, shape.h_out, shape.w_out, shape.c_out].into(), x.dtype)
}

fn images(dout: &TensorSpec, shape: &ConvShape) -> TensorSpec {
    TensorSpec::new([shape.n, shape.h, shape.w, shape.c_in].into(), dout.dtype)
}

fn filters(shape: &ConvShape, dtype: DType) -> TensorSpec {
    TensorSpec::new(Filters::of(shape).dims().into(), dtype)
}

fn weight(shape: &ConvShape) -> TensorSpec {
    let dims = [shape.c_out, shape.c_in / shape.groups, shape.kernel, shape.kernel];
    TensorSpec::new(dims.into(), DType::F32)
}

impl<B: ConvBackend + ConvPartsBackend, C: CheckpointStrategy> ConvBackend for Autodiff<B, C> {
    fn convolve(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        shape: ConvShape,
    ) -> FloatTensor<Self> {
        let [(x, x_node), (weight, weight_node)] = [x, weight].map(|tensor| tensor.into_parts());
        let filters = B::conv_filters(weight, shape, x.dtype());
        let y = B::conv_results(x.clone(), filters.clone(), shape);
        match ConvBackward.prepare::<C>([x_node, weight_node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((x, filters, shape), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}

#[derive(Debug)]
struct ConvBackward;

impl<B: ConvPartsBackend> Backward<B, 2> for ConvBackward {
    /// Images and filters.
    type State = (FloatTensor<B>, FloatTensor<B>, ConvShape);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dout = grads.consume::<B>(&ops.node);
        let (x, filters, shape) = ops.state;
        let [x_node, weight_node] = ops.parents;
        if let Some(node) = weight_node {
            grads.register::<B>(node.id, B::conv_dweight(x, dout.clone(), shape));
        }
        if let Some(node) = x_node {
            grads.register::<B>(node.id, B::conv_dx(dout, filters, shape));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::products::pieces;
    use crate::ops::composed::{to_nchw, to_nhwc};
    use burn::tensor::ops::ConvOptions;
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
        let y = if own {
            convolve(x.clone(), weight.clone(), shape)
        } else {
            let padding = [
                (shape.top, end(shape.h_out, shape.h, shape.top)),
                (shape.left, end(shape.w_out, shape.w, shape.left)),
            ];
            let (strides, groups) = ([shape.stride; 2], shape.groups);
            let options = ConvOptions::new_with_padding(strides, padding, [1; 2], groups);
            to_nhwc(module::conv2d(to_nchw(x.clone()), weight.clone(), None, options))
        };
        let len = y.dims().iter().product::<usize>();
        let factors: Vec<f32> = (0..len).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
        let factors = Tensor::<1>::from_floats(&factors[..], &device).reshape(y.dims());
        let grads = (y.clone() * factors).sum().backward();
        let grad = |of: &Tensor<4>| floats(of.grad(&grads).expect("wanted"));
        [floats(y), grad(&x), grad(&weight)]
    }

    /// Holds our operation against Burn's on the CPU.
    fn compare(shape: ConvShape) {
        let (device, noise) = (Device::flex(), Distribution::Normal(0.0, 1.0));
        let ConvShape { n, h, w, c_in, c_out, kernel, groups, .. } = shape;
        let x = Tensor::<4>::random([n, h, w, c_in], noise, &device);
        let weight = Tensor::<4>::random([c_out, c_in / groups, kernel, kernel], noise, &device);
        let (found, expected) = (run(&x, &weight, shape, true), run(&x, &weight, shape, false));
        for (what, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(found.len(), expected.len(), "{shape:?} {what}");
            let scale = expected.iter().fold(1e-2f32, |most, v| most.max(v.abs()));
            for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
                let off = (found - expected).abs();
                // Written so that a NaN fails.
                let same = off <= 2e-4 * scale;
                assert!(same, "{shape:?} {what} [{at}]: {found}, Burn has {expected}");
            }
        }
    }

    /// With TensorFlow's padding.
    fn same_padding(shape: ConvShape) -> ConvShape {
        let before = |size: usize, out: usize| {
            ((out - 1) * shape.stride + shape.kernel).saturating_sub(size) / 2
        };
        let (top, left) = (before(shape.h, shape.h_out), before(shape.w, shape.w_out));
        ConvShape { top, left, ..shape }
    }

    const IMAGES: [[usize; 3]; 3] = [[1, 1, 1], [2, 5, 8], [3, 14, 11]];

    #[test]
    fn depthwise_passes_are_burns_on_the_cpu() {
        let kinds = [(3, 1), (3, 2), (5, 1), (5, 2), (1, 1)];
        for (i, (kernel, stride)) in kinds.into_iter().enumerate() {
            for (j, c) in [2, 8, 17, 24, 100].into_iter().enumerate() {
                let [n, h, w] = IMAGES[(i + j) % 3];
                let shape = ConvShape::symmetric([n, h, w, c], c, kernel, stride, c);
                let shifted = (i + j) % 2 == 1 && stride == 2;
                compare(if shifted { same_padding(shape) } else { shape });
            }
        }
    }

    #[test]
    fn dense_passes_are_burns_on_the_cpu() {
        let kinds = [(1, 1), (3, 1), (3, 2), (1, 2), (7, 2)];
        for (i, (kernel, stride)) in kinds.into_iter().enumerate() {
            for (j, (c_in, c_out)) in
                [(3, 8), (16, 24), (17, 5), (1, 1), (64, 40)].into_iter().enumerate()
            {
                let [n, h, w] = IMAGES[(i + 2 * j) % 3];
                let shape = ConvShape::symmetric([n, h, w, c_in], c_out, kernel, stride, 1);
                let shifted = (i + j) % 2 == 1 && stride == 2;
                compare(if shifted { same_padding(shape) } else { shape });
            }
        }
    }

    #[test]
    fn sums_over_many_pixels_are_cut_into_pieces() {
        for kernel in [1, 3] {
            let shape = ConvShape::symmetric([2, 48, 48, 8], 12, kernel, 1, 1);
            assert!(pieces(2 * 48 * 48, 12, 8 * kernel * kernel) > 1);
            compare(shape);
        }
    }

    #[test]
    fn linear_layers_are_products() {
        let device = Device::default();
        let floats = |count: i64| Tensor::<1, burn::tensor::Int>::arange(0..count, &device).float();
        let x = floats(6).reshape([2, 3]);
        let weight = floats(12).reshape([4, 3]) / 8.0;
        let found: Vec<f32> = linear(x, weight).into_data().iter().collect();
        let expected = [5, 14, 23, 32, 14, 50, 86, 122].map(|v| v as f32 / 8.0);
        assert_eq!(found, expected);
    }
}
