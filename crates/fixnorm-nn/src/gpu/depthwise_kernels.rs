//! Kernels of the backward pass of a depthwise convolution. Products are in `f32`, whatever the precision of the images.

use burn::backend::tensor::FloatTensor;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::{CubeBackend, cubecl};
use fixnorm_kernels::conv::ConvShape;

use super::depthwise::{DepthwiseBackend, DepthwiseGradBackend};
use super::rows::{
    CUBES, ROWS, Rows, UNITS, add_up, elem, finishing, floats, high, over_cubes, small,
};

/// Sums that a unit keeps: more would not fit its registers.
const SUMS: usize = 100;

impl DepthwiseBackend for CubeBackend {}

impl DepthwiseGradBackend for CubeBackend {
    fn depthwise_dx(
        dout: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        shape: ConvShape,
    ) -> FloatTensor<Self> {
        let dout = Rows::new(dout);
        let (client, device) = (dout.tensor.client.clone(), dout.tensor.device.clone());
        let ConvShape { n, h, w, c_in: c, .. } = shape;
        let dtype = dout.tensor.dtype;
        let dx = empty_device_contiguous_dtype(client.clone(), device, [n, h, w, c].into(), dtype);
        let dx = Rows::new(dx);
        // One pixel a unit: as many cubes as possible.
        let (count, dim) = dx.cubes(1, u32::from(u16::MAX));
        spread::launch(
            &client,
            count,
            dim,
            dx.lanes,
            dout.tensor.clone().into_buffer_arg(),
            into_contiguous(weight).into_buffer_arg(),
            dx.tensor.clone().into_buffer_arg(),
            dx.rows,
            dx.columns,
            dout.pitch,
            small(h),
            small(w),
            small(shape.h_out),
            small(shape.w_out),
            small(shape.top),
            small(shape.left),
            small(shape.stride),
            shape.kernel,
            elem(&dout.tensor),
        );
        dx.tensor
    }

    fn depthwise_dweight(
        x: FloatTensor<Self>,
        dout: FloatTensor<Self>,
        shape: ConvShape,
    ) -> FloatTensor<Self> {
        let taps = shape.kernel * shape.kernel;
        let [x, dout] = [x, dout].map(|tensor| Rows::new(tensor).narrow((SUMS / taps).max(1)));
        let client = x.tensor.client.clone();
        let values = taps * shape.c_in;
        let (count, dim) = dout.cubes(ROWS, CUBES);
        let cubes = high(&count);
        let partial = floats(&x.tensor, [cubes as usize, values]);
        sum_products::launch(
            &client,
            count,
            dim,
            dout.lanes,
            x.tensor.clone().into_buffer_arg(),
            dout.tensor.clone().into_buffer_arg(),
            partial.clone().into_buffer_arg(),
            dout.rows,
            dout.columns,
            x.pitch,
            dout.pitch,
            small(shape.h),
            small(shape.w),
            small(shape.h_out),
            small(shape.w_out),
            small(shape.top),
            small(shape.left),
            small(shape.stride),
            shape.kernel,
            elem(&x.tensor),
        );
        let dweight = floats(&x.tensor, [taps, shape.c_in]);
        let (count, dim) = finishing(values);
        finish_sums::launch(
            &client,
            count,
            dim,
            partial.into_buffer_arg(),
            dweight.clone().into_buffer_arg(),
            small(values),
            cubes,
        );
        dweight
    }
}

/// The gradient of each input pixel: the sum of products of weights with the gradients of the output pixels that it
/// contributes to.
#[cube(launch)]
fn spread<E: Float, N: Size>(
    dout: &[Vector<E, N>],
    weight: &[Vector<f32, N>],
    dx: &mut [Vector<E, N>],
    rows: u32,
    columns: u32,
    pitch: u32,
    h: u32,
    w: u32,
    h_out: u32,
    w_out: u32,
    top: u32,
    left: u32,
    stride: u32,
    #[comptime] kernel: usize,
    #[define(E)] _dtype: ElemType,
) {
    let column = CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X;
    if column < columns {
        let mut row = CUBE_POS_Y * CUBE_DIM_Y + UNIT_POS_Y;
        while row < rows {
            let down = (row / w) % h + top;
            let along = row % w + left;
            let image = row / (w * h);
            let mut sum = Vector::<f32, N>::new(0.0f32);
            #[unroll]
            for i in 0..kernel {
                let i = i as u32;
                // The position of the filter when its row i was on this pixel, if there is one.
                let y = (down - i) / stride;
                if down >= i && y * stride + i == down && y < h_out {
                    let line = image * h_out + y;
                    #[unroll]
                    for j in 0..kernel {
                        let j = j as u32;
                        let z = (along - j) / stride;
                        if along >= j && z * stride + j == along && z < w_out {
                            let at = (line * w_out + z) * pitch + column;
                            let tap = (i * comptime!(kernel as u32) + j) * columns + column;
                            let dy = Vector::<f32, N>::cast_from(dout[at as usize]);
                            sum += dy * weight[tap as usize];
                        }
                    }
                }
            }
            dx[(row * columns + column) as usize] = Vector::<E, N>::cast_from(sum);
            row += CUBE_COUNT_Y * CUBE_DIM_Y;
        }
    }
}

/// Partial gradients of the weights: for each channel and position of the filter the sum of products of input pixels with
/// output gradients, over the pixels of this cube.
#[cube(launch)]
fn sum_products<E: Float, N: Size>(
    x: &[Vector<E, N>],
    dout: &[Vector<E, N>],
    partial: &mut [Vector<f32, N>],
    rows: u32,
    columns: u32,
    pitch: u32,
    dout_pitch: u32,
    h: u32,
    w: u32,
    h_out: u32,
    w_out: u32,
    top: u32,
    left: u32,
    stride: u32,
    #[comptime] kernel: usize,
    #[define(E)] _dtype: ElemType,
) {
    let column = CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X;
    let mut sums = Array::<Vector<f32, N>>::new(comptime!(kernel * kernel));
    if column < columns {
        let mut row = CUBE_POS_Y * CUBE_DIM_Y + UNIT_POS_Y;
        while row < rows {
            let down = ((row / w_out) % h_out) * stride;
            let along = (row % w_out) * stride;
            let image = row / (w_out * h_out);
            let dy = Vector::<f32, N>::cast_from(dout[(row * dout_pitch + column) as usize]);
            #[unroll]
            for i in 0..kernel {
                let y = down + i as u32;
                if y >= top && y - top < h {
                    let line = image * h + y - top;
                    #[unroll]
                    for j in 0..kernel {
                        let z = along + j as u32;
                        if z >= left && z - left < w {
                            let at = (line * w + z - left) * pitch + column;
                            sums[i * kernel + j] +=
                                Vector::<f32, N>::cast_from(x[at as usize]) * dy;
                        }
                    }
                }
            }
            row += CUBE_COUNT_Y * CUBE_DIM_Y;
        }
    }
    let mut shared = Shared::<[Vector<f32, N>]>::new_slice(comptime!(UNITS as usize));
    #[unroll]
    for tap in 0..comptime!(kernel * kernel) {
        shared[UNIT_POS as usize] = sums[tap];
        add_up::<N>(&mut shared);
        if UNIT_POS_Y == 0 && column < columns {
            let at =
                (CUBE_POS_Y * comptime!((kernel * kernel) as u32) + tap as u32) * columns + column;
            partial[at as usize] = shared[UNIT_POS as usize];
        }
    }
}

/// Adds up the sums of all cubes.
#[cube(launch)]
fn finish_sums(partial: &[f32], sums: &mut [f32], numbers: u32, cubes: u32) {
    let number = CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X;
    let sum = over_cubes(partial, numbers, cubes, number);
    if UNIT_POS_Y == 0 && number < numbers {
        sums[number as usize] = sum;
    }
}
