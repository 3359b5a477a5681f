//! Images as the factors of a matrix product, and back: the windows that a filter sees as rows, the gradients of such rows
//! added up to that of the images, weights as filters. A window's values are ordered by position, then channel.
//! Not here: the products (`products.rs`).

use burn::tensor::DType;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use fixnorm_kernels::conv::ConvShape;

use super::products::reshaped;
use super::rows::{Rows, UNITS, elem, finishing, floats, over_cubes, small};

/// The layout of a weight as filters: `rows` of `taps · channels` values, with zeros up to `pitch`. A depthwise weight is
/// one row.
pub(super) struct Filters {
    rows: usize,
    channels: usize,
    taps: usize,
    pitch: usize,
}

impl Filters {
    pub(super) fn of(shape: &ConvShape) -> Self {
        let taps = shape.kernel * shape.kernel;
        let rows = if shape.groups == 1 { shape.c_out } else { 1 };
        let len = taps * shape.c_in;
        // Rows of a product begin at multiples of 16 bytes, where they are not images themselves.
        let copied = shape.groups == 1 && !sees_pixels(shape);
        let pitch = if copied { len.next_multiple_of(8) } else { len };
        Self { rows, channels: shape.c_in, taps, pitch }
    }

    /// Rows and their pitch.
    pub(super) fn dims(&self) -> [usize; 2] {
        [self.rows, self.pitch]
    }
}

/// Whether a filter sees each pixel once and alone: the images are the factor of the product.
pub(super) fn sees_pixels(shape: &ConvShape) -> bool {
    shape.kernel == 1 && shape.stride == 1
}

/// A weight `[c_out, c_in / groups, k, k]` as filters.
pub(super) fn filters(weight: CubeTensor, shape: &ConvShape, dtype: DType) -> CubeTensor {
    let weight = into_contiguous(weight);
    let layout = Filters::of(shape);
    if layout.taps == 1 && layout.pitch == layout.channels && dtype == DType::F32 {
        return reshaped(weight, layout.dims());
    }
    let (client, device) = (weight.client.clone(), weight.device.clone());
    let out = empty_device_contiguous_dtype(client.clone(), device, layout.dims().into(), dtype);
    let values = small(layout.rows * layout.pitch);
    let (count, dim) = spread_over(values);
    arrange::launch(
        &client,
        count,
        dim,
        weight.into_buffer_arg(),
        out.clone().into_buffer_arg(),
        values,
        small(layout.pitch),
        small(layout.channels),
        small(layout.taps),
        elem(&out),
    );
    out
}

/// The gradient of a weight, from partial sums in the layout of filters, `[pieces, rows, pitch]`.
pub(super) fn weight_gradient(partial: CubeTensor, pieces: u32, shape: &ConvShape) -> CubeTensor {
    let layout = Filters::of(shape);
    let dims = [shape.c_out, shape.c_in / shape.groups, shape.kernel, shape.kernel];
    if pieces == 1 && layout.taps == 1 && layout.pitch == layout.channels {
        return reshaped(partial, dims);
    }
    let dweight = floats(&partial, dims);
    let values = layout.rows * layout.pitch;
    let (count, dim) = finishing(values);
    finish_sums::launch(
        &partial.client.clone(),
        count,
        dim,
        partial.into_buffer_arg(),
        dweight.clone().into_buffer_arg(),
        small(values),
        pieces,
        small(layout.pitch),
        small(layout.channels),
        small(layout.taps),
    );
    dweight
}

/// Images as a factor, `[n·h_out·w_out, pitch]`: themselves if a filter sees pixels, their windows otherwise.
pub(super) fn windows(x: CubeTensor, shape: &ConvShape) -> CubeTensor {
    let rows = shape.n * shape.h_out * shape.w_out;
    if sees_pixels(shape) {
        return reshaped(into_contiguous(x), [rows, shape.c_in]);
    }
    let x = Rows::new(x);
    let pitch = Filters::of(shape).pitch;
    let (client, device) = (x.tensor.client.clone(), x.tensor.device.clone());
    let dtype = x.tensor.dtype;
    let out = empty_device_contiguous_dtype(client.clone(), device, [rows, pitch].into(), dtype);
    let width = small(pitch / x.lanes);
    let vectors = small(rows) * width;
    let (count, dim) = spread_over(vectors);
    gather::launch(
        &client,
        count,
        dim,
        x.lanes,
        x.tensor.clone().into_buffer_arg(),
        out.clone().into_buffer_arg(),
        vectors,
        width,
        x.columns,
        x.pitch,
        sizes(shape),
        shape.kernel,
        elem(&x.tensor),
    );
    out
}

/// The gradient of images, from that of their windows, `[n·h_out·w_out, pitch]`, or with the filters of a depthwise convolution
/// from that of its results.
pub(super) fn images(
    rows: CubeTensor,
    filters: Option<CubeTensor>,
    shape: &ConvShape,
) -> CubeTensor {
    let ConvShape { n, h, w, c_in: c, h_out, w_out, .. } = *shape;
    let dtype = rows.dtype;
    let (client, device) = (rows.client.clone(), rows.device.clone());
    let dx = empty_device_contiguous_dtype(client.clone(), device, [n, h, w, c].into(), dtype);
    let dx = Rows::new(dx);
    let (rows, pitch) = match &filters {
        Some(_) => {
            let dout = Rows::new(rows);
            (dout.tensor, dout.pitch)
        }
        None => {
            let pitch = Filters::of(shape).pitch;
            (reshaped(rows, [n, h_out, w_out, pitch]), small(pitch / dx.lanes))
        }
    };
    // One pixel a unit: as many cubes as possible.
    let (count, dim) = dx.cubes(1, u32::from(u16::MAX));
    scatter::launch(
        &client,
        count,
        dim,
        dx.lanes,
        rows.into_buffer_arg(),
        filters.map(CubeTensor::into_buffer_arg).into(),
        dx.tensor.clone().into_buffer_arg(),
        dx.rows,
        dx.columns,
        pitch,
        sizes(shape),
        shape.kernel,
        elem(&dx.tensor),
    );
    dx.tensor
}

/// Number and size of cubes for `values` independent values.
fn spread_over(values: u32) -> (CubeCount, CubeDim) {
    let cubes = values.div_ceil(UNITS).clamp(1, u32::from(u16::MAX));
    (CubeCount::Static(cubes, 1, 1), CubeDim::new_1d(UNITS))
}

/// The sizes of a convolution that kernels compute with.
#[derive(CubeType, CubeLaunch)]
pub(super) struct Sizes {
    pub(super) h: u32,
    pub(super) w: u32,
    pub(super) h_out: u32,
    pub(super) w_out: u32,
    pub(super) top: u32,
    pub(super) left: u32,
    pub(super) stride: u32,
}

pub(super) fn sizes(shape: &ConvShape) -> SizesLaunch {
    SizesLaunch::new(
        small(shape.h),
        small(shape.w),
        small(shape.h_out),
        small(shape.w_out),
        small(shape.top),
        small(shape.left),
        small(shape.stride),
    )
}

/// Weights in the order of filters.
#[cube(launch)]
fn arrange<E: Float>(
    weight: &[f32],
    out: &mut [E],
    values: u32,
    pitch: u32,
    channels: u32,
    taps: u32,
    #[define(E)] _dtype: ElemType,
) {
    let mut at = ABSOLUTE_POS as u32;
    while at < values {
        let row = at / pitch;
        let tap = (at % pitch) / channels;
        let channel = (at % pitch) % channels;
        let mut value = 0.0f32;
        if tap < taps {
            value = weight[((row * channels + channel) * taps + tap) as usize];
        }
        out[at as usize] = E::cast_from(value);
        at += CUBE_COUNT_X * CUBE_DIM_X;
    }
}

/// Adds up the sums of all pieces, which are in the order of filters.
#[cube(launch)]
fn finish_sums(
    partial: &[f32],
    dweight: &mut [f32],
    values: u32,
    pieces: u32,
    pitch: u32,
    channels: u32,
    taps: u32,
) {
    let at = (CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X) * CUBE_DIM_X + UNIT_POS_X;
    let sum = over_cubes(partial, values, pieces, at);
    let tap = (at % pitch) / channels;
    if UNIT_POS_Y == 0 && at < values && tap < taps {
        let channel = (at % pitch) % channels;
        dweight[((at / pitch * channels + channel) * taps + tap) as usize] = sum;
    }
}

/// Windows, a vector of channels a unit; zeros around the images and behind a window's values.
#[cube(launch)]
fn gather<E: Float, N: Size>(
    x: &[Vector<E, N>],
    out: &mut [Vector<E, N>],
    vectors: u32,
    width: u32,
    columns: u32,
    pitch: u32,
    sizes: &Sizes,
    #[comptime] kernel: usize,
    #[define(E)] _dtype: ElemType,
) {
    let side = comptime!(kernel as u32);
    let mut at = ABSOLUTE_POS as u32;
    while at < vectors {
        let row = at / width;
        let tap = (at % width) / columns;
        let column = (at % width) % columns;
        let y = (row / sizes.w_out) % sizes.h_out * sizes.stride + tap / side;
        let z = row % sizes.w_out * sizes.stride + tap % side;
        let mut value = Vector::<E, N>::cast_from(Vector::<f32, N>::new(0.0f32));
        if tap < side * side
            && y >= sizes.top
            && y - sizes.top < sizes.h
            && z >= sizes.left
            && z - sizes.left < sizes.w
        {
            let line = row / (sizes.w_out * sizes.h_out) * sizes.h + y - sizes.top;
            value = x[((line * sizes.w + z - sizes.left) * pitch + column) as usize];
        }
        out[at as usize] = value;
        at += CUBE_COUNT_X * CUBE_DIM_X;
    }
}

/// The gradient of each input pixel: the sum over the windows that it is in.
#[cube(launch)]
fn scatter<E: Float, N: Size>(
    rows_in: &[Vector<E, N>],
    filters: ComptimeOption<&[Vector<E, N>]>,
    dx: &mut [Vector<E, N>],
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
            let down = (row / sizes.w) % sizes.h + sizes.top;
            let along = row % sizes.w + sizes.left;
            let image = row / (sizes.w * sizes.h);
            let mut sum = Vector::<f32, N>::new(0.0f32);
            #[unroll]
            for i in 0..kernel {
                let i = i as u32;
                // The position of the filter when its row i was on this pixel, if there is one.
                let y = (down - i) / sizes.stride;
                if down >= i && y * sizes.stride + i == down && y < sizes.h_out {
                    let line = image * sizes.h_out + y;
                    #[unroll]
                    for j in 0..kernel {
                        let j = j as u32;
                        let z = (along - j) / sizes.stride;
                        if along >= j && z * sizes.stride + j == along && z < sizes.w_out {
                            let start = (line * sizes.w_out + z) * pitch + column;
                            let tap = (i * comptime!(kernel as u32) + j) * columns;
                            sum += part::<E, N>(rows_in, &filters, start, tap, column);
                        }
                    }
                }
            }
            dx[(row * columns + column) as usize] = Vector::<E, N>::cast_from(sum);
            row += CUBE_COUNT_Y * CUBE_DIM_Y;
        }
    }
}

/// A window's part of a pixel's gradient: its value there, or the result's gradient times the filter.
#[cube]
fn part<E: Float, N: Size>(
    rows: &[Vector<E, N>],
    filters: &ComptimeOption<&[Vector<E, N>]>,
    start: u32,
    tap: u32,
    column: u32,
) -> Vector<f32, N> {
    #[comptime]
    match filters {
        ComptimeOption::Some(filters) => {
            Vector::<f32, N>::cast_from(rows[start as usize])
                * Vector::<f32, N>::cast_from(filters[(tap + column) as usize])
        }
        ComptimeOption::None => Vector::<f32, N>::cast_from(rows[(start + tap) as usize]),
    }
}
