//! Kernels of a depthwise convolution: its results and the gradient of its weight. Products are in `f32`, whatever the
//! precision of the images. The gradient of its images is in `windows.rs`.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use fixnorm_kernels::conv::ConvShape;

use super::rows::{CUBES, ROWS, Rows, UNITS, add_up, elem, floats, high};
use super::windows::{Sizes, sizes};

/// Sums that a unit keeps: more would not fit its registers.
const SUMS: usize = 100;

/// The results, with filters `[1, k·k·c]`.
pub(super) fn results(x: CubeTensor, filters: CubeTensor, shape: &ConvShape) -> CubeTensor {
    let x = Rows::new(x);
    let (client, device) = (x.tensor.client.clone(), x.tensor.device.clone());
    let ConvShape { n, h_out, w_out, c_out, .. } = *shape;
    let (dims, dtype) = ([n, h_out, w_out, c_out], x.tensor.dtype);
    let y = Rows::new(empty_device_contiguous_dtype(client.clone(), device, dims.into(), dtype));
    // One pixel a unit: as many cubes as possible.
    let (count, dim) = y.cubes(1, u32::from(u16::MAX));
    convolve::launch(
        &client,
        count,
        dim,
        x.lanes,
        x.tensor.clone().into_buffer_arg(),
        filters.into_buffer_arg(),
        y.tensor.clone().into_buffer_arg(),
        y.rows,
        y.columns,
        x.pitch,
        sizes(shape),
        shape.kernel,
        elem(&x.tensor),
    );
    y.tensor
}

/// Partial gradients of the weight as filters, and their number.
pub(super) fn partial_sums(
    x: CubeTensor,
    dout: CubeTensor,
    shape: &ConvShape,
) -> (CubeTensor, u32) {
    let taps = shape.kernel * shape.kernel;
    let [x, dout] = [x, dout].map(|tensor| Rows::new(tensor).narrow((SUMS / taps).max(1)));
    let (count, dim) = dout.cubes(ROWS, CUBES);
    let cubes = high(&count);
    let partial = floats(&x.tensor, [cubes as usize, taps * shape.c_in]);
    sum_products::launch(
        &x.tensor.client.clone(),
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
        sizes(shape),
        shape.kernel,
        elem(&x.tensor),
    );
    (partial, cubes)
}

/// The sum over a filter's positions for each output pixel.
#[cube(launch)]
fn convolve<E: Float, N: Size>(
    x: &[Vector<E, N>],
    filters: &[Vector<E, N>],
    y: &mut [Vector<E, N>],
    rows: u32,
    columns: u32,
    pitch: u32,
    sizes: &Sizes,
    #[comptime] kernel: usize,
    #[define(E)] _dtype: ElemType,
) {
    let column = CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X;
    if column < columns {
        let mut row = CUBE_POS_Y * CUBE_DIM_Y + UNIT_POS_Y;
        while row < rows {
            let down = (row / sizes.w_out) % sizes.h_out * sizes.stride;
            let along = row % sizes.w_out * sizes.stride;
            let image = row / (sizes.w_out * sizes.h_out);
            let mut sum = Vector::<f32, N>::new(0.0f32);
            #[unroll]
            for i in 0..kernel {
                let i = i as u32;
                let y = down + i;
                if y >= sizes.top && y - sizes.top < sizes.h {
                    let line = image * sizes.h + y - sizes.top;
                    #[unroll]
                    for j in 0..kernel {
                        let j = j as u32;
                        let z = along + j;
                        if z >= sizes.left && z - sizes.left < sizes.w {
                            let at = (line * sizes.w + z - sizes.left) * pitch + column;
                            let tap = (i * comptime!(kernel as u32) + j) * columns + column;
                            sum += Vector::<f32, N>::cast_from(x[at as usize])
                                * Vector::<f32, N>::cast_from(filters[tap as usize]);
                        }
                    }
                }
            }
            y[(row * columns + column) as usize] = Vector::<E, N>::cast_from(sum);
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
    sizes: &Sizes,
    #[comptime] kernel: usize,
    #[define(E)] _dtype: ElemType,
) {
    let column = CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X;
    let mut sums = Array::<Vector<f32, N>>::new(comptime!(kernel * kernel));
    if column < columns {
        let mut row = CUBE_POS_Y * CUBE_DIM_Y + UNIT_POS_Y;
        while row < rows {
            let down = ((row / sizes.w_out) % sizes.h_out) * sizes.stride;
            let along = (row % sizes.w_out) * sizes.stride;
            let image = row / (sizes.w_out * sizes.h_out);
            let dy = Vector::<f32, N>::cast_from(dout[(row * dout_pitch + column) as usize]);
            #[unroll]
            for i in 0..kernel {
                let y = down + i as u32;
                if y >= sizes.top && y - sizes.top < sizes.h {
                    let line = image * sizes.h + y - sizes.top;
                    #[unroll]
                    for j in 0..kernel {
                        let z = along + j as u32;
                        if z >= sizes.left && z - sizes.left < sizes.w {
                            let at = (line * sizes.w + z - sizes.left) * pitch + column;
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
