//! The passes of a convolution on a GPU: depthwise ones by kernels of their own, all others as matrix products.

use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use fixnorm_kernels::conv::ConvShape;

use super::conv::{ConvBackend, ConvPartsBackend};
use super::depthwise;
use super::products::{Kind, multiply, pieces, reshaped, transposed};
use super::rows::{floats, small};
use super::windows::{Filters, filters, images, sees_pixels, weight_gradient, windows};

impl ConvBackend for CubeBackend {
    fn convolve(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        shape: ConvShape,
    ) -> FloatTensor<Self> {
        let filters = Self::conv_filters(weight, shape, x.dtype);
        Self::conv_results(x, filters, shape)
    }
}

impl ConvPartsBackend for CubeBackend {
    fn conv_filters(
        weight: FloatTensor<Self>,
        shape: ConvShape,
        dtype: DType,
    ) -> FloatTensor<Self> {
        filters(weight, &shape, dtype)
    }

    fn conv_results(
        x: FloatTensor<Self>,
        filters: FloatTensor<Self>,
        shape: ConvShape,
    ) -> FloatTensor<Self> {
        if shape.groups > 1 {
            return depthwise::results(x, filters, &shape);
        }
        let rows = shape.n * shape.h_out * shape.w_out;
        let y = empty_like(&x, [rows, shape.c_out]);
        multiply(Kind::of_rows(rows), windows(x, &shape), transposed(filters), &y);
        reshaped(y, [shape.n, shape.h_out, shape.w_out, shape.c_out])
    }

    fn conv_dx(
        dout: FloatTensor<Self>,
        filters: FloatTensor<Self>,
        shape: ConvShape,
    ) -> FloatTensor<Self> {
        if shape.groups > 1 {
            return images(dout, Some(filters), &shape);
        }
        let rows = shape.n * shape.h_out * shape.w_out;
        let dwindows = empty_like(&dout, [rows, Filters::of(&shape).dims()[1]]);
        let dout = reshaped(into_contiguous(dout), [rows, shape.c_out]);
        multiply(Kind::of_rows(rows), dout, filters, &dwindows);
        if sees_pixels(&shape) {
            return reshaped(dwindows, [shape.n, shape.h, shape.w, shape.c_in]);
        }
        images(dwindows, None, &shape)
    }

    fn conv_dweight(
        x: FloatTensor<Self>,
        dout: FloatTensor<Self>,
        shape: ConvShape,
    ) -> FloatTensor<Self> {
        if shape.groups > 1 {
            let (partial, cubes) = depthwise::partial_sums(x, dout, &shape);
            return weight_gradient(partial, cubes, &shape);
        }
        let rows = shape.n * shape.h_out * shape.w_out;
        let [c_out, pitch] = Filters::of(&shape).dims();
        let pieces = pieces(rows, c_out, pitch);
        let x = reshaped(windows(x, &shape), [pieces, rows / pieces, pitch]);
        let dout = reshaped(into_contiguous(dout), [pieces, rows / pieces, c_out]);
        let partial = floats(&x, [pieces, c_out, pitch]);
        multiply(Kind::Weights, transposed(dout), x, &partial);
        weight_gradient(partial, small(pieces), &shape)
    }
}

/// An uninitialized tensor of this shape, of the type and on the device of another.
fn empty_like(tensor: &CubeTensor, shape: [usize; 2]) -> CubeTensor {
    let (client, device) = (tensor.client.clone(), tensor.device());
    empty_device_contiguous_dtype(client, device, shape.into(), tensor.dtype)
}
