//! Kernels of the normalization, in CubeCL: column sums over rows of pixels, and the operations on each pixel that use
//! them. Sums are in `f32`, of differences to the first row: a large mean loses no precision.

use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::{CubeBackend, cubecl};
use fixnorm_kernels::Activation;

use super::norm::{NormBackend, NormGradBackend, NormSpec};
use super::rows::{
    CUBES, ROWS, Rows, UNITS, add_up, elem, finishing, floats, high, over_cubes, small,
};

impl NormBackend for CubeBackend {
    fn norm_act(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        var: FloatTensor<Self>,
        spec: NormSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let x = Rows::new(x);
        let (client, dtype) = (x.tensor.client.clone(), elem(&x.tensor));
        let [gamma, beta, mean, var] = [gamma, beta, mean, var].map(into_contiguous);
        let c = gamma.shape()[0];
        let (count, dim) = x.cubes(ROWS, CUBES);
        let cubes = high(&count);
        let partial = floats(&x.tensor, [cubes as usize, 2, c]);
        sum_moments::launch(
            &client,
            count,
            dim,
            x.lanes,
            x.tensor.clone().into_buffer_arg(),
            partial.clone().into_buffer_arg(),
            x.rows,
            x.columns,
            x.pitch,
            dtype,
        );
        let moments = floats(&x.tensor, [2, c]);
        let [next_mean, next_var] = [0, 1].map(|_| floats(&x.tensor, [c]));
        let (count, dim) = finishing(c);
        finish_moments::launch(
            &client,
            count,
            dim,
            x.tensor.clone().into_buffer_arg(),
            partial.into_buffer_arg(),
            mean.into_buffer_arg(),
            var.into_buffer_arg(),
            moments.clone().into_buffer_arg(),
            next_mean.clone().into_buffer_arg(),
            next_var.clone().into_buffer_arg(),
            small(c),
            cubes,
            x.rows,
            spec.momentum,
            dtype,
        );
        let out = x.empty_like();
        let (count, dim) = x.cubes(ROWS, u32::from(u16::MAX));
        normalize::launch(
            &client,
            count,
            dim,
            x.lanes,
            x.tensor.clone().into_buffer_arg(),
            moments.clone().into_buffer_arg(),
            gamma.into_buffer_arg(),
            beta.into_buffer_arg(),
            out.tensor.clone().into_buffer_arg(),
            x.rows,
            x.columns,
            x.pitch,
            spec.epsilon,
            spec.activation,
            dtype,
        );
        (out.tensor, moments, next_mean, next_var)
    }
}

impl NormGradBackend for CubeBackend {
    fn norm_act_grad(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        moments: FloatTensor<Self>,
        dout: FloatTensor<Self>,
        spec: NormSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let (x, dout) = (Rows::new(x), Rows::new(dout));
        let (client, dtype) = (x.tensor.client.clone(), elem(&x.tensor));
        let [gamma, beta, moments] = [gamma, beta, moments].map(into_contiguous);
        let c = gamma.shape()[0];
        let (count, dim) = x.cubes(ROWS, CUBES);
        let cubes = high(&count);
        let partial = floats(&x.tensor, [cubes as usize, 2, c]);
        sum_gradients::launch(
            &client,
            count,
            dim,
            x.lanes,
            x.tensor.clone().into_buffer_arg(),
            dout.tensor.clone().into_buffer_arg(),
            moments.clone().into_buffer_arg(),
            gamma.clone().into_buffer_arg(),
            beta.clone().into_buffer_arg(),
            partial.clone().into_buffer_arg(),
            x.rows,
            x.columns,
            x.pitch,
            dout.pitch,
            spec.epsilon,
            spec.activation,
            dtype,
        );
        let [dgamma, dbeta] = [0, 1].map(|_| floats(&x.tensor, [c]));
        let (count, dim) = finishing(c);
        finish_gradients::launch(
            &client,
            count,
            dim,
            partial.into_buffer_arg(),
            moments.clone().into_buffer_arg(),
            dgamma.clone().into_buffer_arg(),
            dbeta.clone().into_buffer_arg(),
            small(c),
            cubes,
            spec.epsilon,
        );
        let dx = x.empty_like();
        let (count, dim) = x.cubes(ROWS, u32::from(u16::MAX));
        normalize_gradient::launch(
            &client,
            count,
            dim,
            x.lanes,
            x.tensor.clone().into_buffer_arg(),
            dout.tensor.clone().into_buffer_arg(),
            moments.into_buffer_arg(),
            gamma.into_buffer_arg(),
            beta.into_buffer_arg(),
            dgamma.clone().into_buffer_arg(),
            dbeta.clone().into_buffer_arg(),
            dx.tensor.clone().into_buffer_arg(),
            x.rows,
            x.columns,
            x.pitch,
            dout.pitch,
            spec.epsilon,
            spec.activation,
            dtype,
        );
        (dx.tensor, dgamma, dbeta)
    }
}

/// The activation.
#[cube]
fn activate(z: f32, #[comptime] activation: Activation) -> f32 {
    let mut y = z;
    if comptime!(activation == Activation::Relu) {
        y = select(z < 0.0f32, 0.0f32, z);
    } else if comptime!(activation == Activation::Relu6) {
        y = select(z < 0.0f32, 0.0f32, select(z > 6.0f32, 6.0f32, z));
    } else if comptime!(activation == Activation::Silu) {
        y = z * sigmoid(z);
    } else if comptime!(activation == Activation::HardSwish) {
        y = z * hard_sigmoid(z);
    } else if comptime!(activation == Activation::HardSigmoid) {
        y = hard_sigmoid(z);
    } else if comptime!(activation == Activation::Sigmoid) {
        y = sigmoid(z);
    }
    y
}

/// Derivative of the activation.
#[cube]
fn slope(z: f32, #[comptime] activation: Activation) -> f32 {
    let mut d = 1.0f32;
    if comptime!(activation == Activation::Relu) {
        d = select(z > 0.0f32, 1.0f32, 0.0f32);
    } else if comptime!(activation == Activation::Relu6) {
        d = select(z > 0.0f32 && z < 6.0f32, 1.0f32, 0.0f32);
    } else if comptime!(activation == Activation::Silu) {
        let s = sigmoid(z);
        d = s * (1.0f32 + z * (1.0f32 - s));
    } else if comptime!(activation == Activation::HardSwish) {
        d = hard_sigmoid(z) + z * hard_sigmoid_slope(z);
    } else if comptime!(activation == Activation::HardSigmoid) {
        d = hard_sigmoid_slope(z);
    } else if comptime!(activation == Activation::Sigmoid) {
        let s = sigmoid(z);
        d = s * (1.0f32 - s);
    }
    d
}

#[cube]
fn sigmoid(z: f32) -> f32 {
    1.0f32 / (1.0f32 + (0.0f32 - z).exp())
}

#[cube]
fn hard_sigmoid(z: f32) -> f32 {
    let t = z + 3.0f32;
    select(t < 0.0f32, 0.0f32, select(t > 6.0f32, 6.0f32, t)) / 6.0f32
}

#[cube]
fn hard_sigmoid_slope(z: f32) -> f32 {
    select(z > -3.0f32 && z < 3.0f32, 1.0f32 / 6.0f32, 0.0f32)
}

/// For each channel the sum of the differences to the first row, and of their squares.
#[cube(launch)]
fn sum_moments<E: Float, N: Size>(
    x: &[Vector<E, N>],
    partial: &mut [Vector<f32, N>],
    rows: u32,
    columns: u32,
    pitch: u32,
    #[define(E)] _dtype: ElemType,
) {
    let column = CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X;
    let mut sum = Vector::<f32, N>::new(0.0);
    let mut squares = Vector::<f32, N>::new(0.0);
    if column < columns {
        let first = Vector::<f32, N>::cast_from(x[column as usize]);
        let mut row = CUBE_POS_Y * CUBE_DIM_Y + UNIT_POS_Y;
        while row < rows {
            let d = Vector::<f32, N>::cast_from(x[(row * pitch + column) as usize]) - first;
            sum += d;
            squares += d * d;
            row += CUBE_COUNT_Y * CUBE_DIM_Y;
        }
    }
    leave::<N>(sum, squares, partial, column, columns);
}

/// Adds up the sums of a cube's units and stores the result.
#[cube]
fn leave<N: Size>(
    first: Vector<f32, N>,
    second: Vector<f32, N>,
    partial: &mut [Vector<f32, N>],
    column: u32,
    columns: u32,
) {
    let mut firsts = Shared::<[Vector<f32, N>]>::new_slice(comptime!(UNITS as usize));
    let mut seconds = Shared::<[Vector<f32, N>]>::new_slice(comptime!(UNITS as usize));
    firsts[UNIT_POS as usize] = first;
    seconds[UNIT_POS as usize] = second;
    add_up::<N>(&mut firsts);
    add_up::<N>(&mut seconds);
    if UNIT_POS_Y == 0 && column < columns {
        let at = (2 * CUBE_POS_Y * columns + column) as usize;
        partial[at] = firsts[UNIT_POS as usize];
        partial[at + columns as usize] = seconds[UNIT_POS as usize];
    }
}

/// Mean and biased variance of each channel, and their running means; the variance's is of the unbiased ones.
#[cube(launch)]
fn finish_moments<E: Float>(
    x: &[E],
    partial: &[f32],
    running_mean: &[f32],
    running_var: &[f32],
    moments: &mut [f32],
    next_mean: &mut [f32],
    next_var: &mut [f32],
    channels: u32,
    cubes: u32,
    rows: u32,
    momentum: f32,
    #[define(E)] _dtype: ElemType,
) {
    let channel = CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X;
    let sum = over_cubes(partial, 2 * channels, cubes, channel);
    let squares = over_cubes(partial, 2 * channels, cubes, channels + channel);
    if UNIT_POS_Y == 0 && channel < channels {
        let count = f32::cast_from(rows);
        let off = sum / count;
        let var = squares / count - off * off;
        let at = channel as usize;
        let mean = f32::cast_from(x[at]) + off;
        let var = select(var < 0.0f32, 0.0f32, var);
        moments[at] = mean;
        moments[(channels + channel) as usize] = var;
        // One value has no variance.
        let unbiased = var * (count / (select(rows < 2, 2.0f32, count) - 1.0f32));
        next_mean[at] = running_mean[at] * (1.0f32 - momentum) + mean * momentum;
        next_var[at] = running_var[at] * (1.0f32 - momentum) + unbiased * momentum;
    }
}

/// The activation of (x − mean)/deviation·gamma + beta.
#[cube(launch)]
fn normalize<E: Float, N: Size>(
    x: &[Vector<E, N>],
    moments: &[Vector<f32, N>],
    gamma: &[Vector<f32, N>],
    beta: &[Vector<f32, N>],
    out: &mut [Vector<E, N>],
    rows: u32,
    columns: u32,
    pitch: u32,
    epsilon: f32,
    #[comptime] activation: Activation,
    #[define(E)] _dtype: ElemType,
) {
    let column = CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X;
    if column < columns {
        let at = column as usize;
        let var = moments[(columns + column) as usize];
        let scale = gamma[at] / (var + Vector::<f32, N>::new(epsilon)).sqrt();
        let shift = beta[at] - moments[at] * scale;
        let mut row = CUBE_POS_Y * CUBE_DIM_Y + UNIT_POS_Y;
        while row < rows {
            let z = Vector::<f32, N>::cast_from(x[(row * pitch + column) as usize]) * scale + shift;
            let mut y = z;
            #[unroll]
            for lane in 0..N::value() {
                y.insert(lane, activate(z.extract(lane), activation));
            }
            out[(row * columns + column) as usize] = Vector::<E, N>::cast_from(y);
            row += CUBE_COUNT_Y * CUBE_DIM_Y;
        }
    }
}

/// The gradient of the activation's input.
#[cube]
fn before_activation<N: Size>(
    dout: Vector<f32, N>,
    z: Vector<f32, N>,
    #[comptime] activation: Activation,
) -> Vector<f32, N> {
    let mut dz = dout;
    #[unroll]
    for lane in 0..N::value() {
        dz.insert(lane, dout.extract(lane) * slope(z.extract(lane), activation));
    }
    dz
}

/// For each channel the sum of the gradients of the activation's input, and of their products with x − mean.
#[cube(launch)]
fn sum_gradients<E: Float, N: Size>(
    x: &[Vector<E, N>],
    dout: &[Vector<E, N>],
    moments: &[Vector<f32, N>],
    gamma: &[Vector<f32, N>],
    beta: &[Vector<f32, N>],
    partial: &mut [Vector<f32, N>],
    rows: u32,
    columns: u32,
    pitch: u32,
    dout_pitch: u32,
    epsilon: f32,
    #[comptime] activation: Activation,
    #[define(E)] _dtype: ElemType,
) {
    let column = CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X;
    let mut sum = Vector::<f32, N>::new(0.0);
    let mut products = Vector::<f32, N>::new(0.0);
    if column < columns {
        let at = column as usize;
        let mean = moments[at];
        let var = moments[(columns + column) as usize];
        let scale = gamma[at] / (var + Vector::<f32, N>::new(epsilon)).sqrt();
        let bias = beta[at];
        let mut row = CUBE_POS_Y * CUBE_DIM_Y + UNIT_POS_Y;
        while row < rows {
            let d = Vector::<f32, N>::cast_from(x[(row * pitch + column) as usize]) - mean;
            let dy = Vector::<f32, N>::cast_from(dout[(row * dout_pitch + column) as usize]);
            let dz = before_activation::<N>(dy, d * scale + bias, activation);
            sum += dz;
            products += dz * d;
            row += CUBE_COUNT_Y * CUBE_DIM_Y;
        }
    }
    leave::<N>(sum, products, partial, column, columns);
}

/// Gradients of gamma and beta.
#[cube(launch)]
fn finish_gradients(
    partial: &[f32],
    moments: &[f32],
    dgamma: &mut [f32],
    dbeta: &mut [f32],
    channels: u32,
    cubes: u32,
    epsilon: f32,
) {
    let channel = CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X;
    let sum = over_cubes(partial, 2 * channels, cubes, channel);
    let products = over_cubes(partial, 2 * channels, cubes, channels + channel);
    if UNIT_POS_Y == 0 && channel < channels {
        let deviation = (moments[(channels + channel) as usize] + epsilon).sqrt();
        dgamma[channel as usize] = products / deviation;
        dbeta[channel as usize] = sum;
    }
}

/// The gradient of the images.
#[cube(launch)]
fn normalize_gradient<E: Float, N: Size>(
    x: &[Vector<E, N>],
    dout: &[Vector<E, N>],
    moments: &[Vector<f32, N>],
    gamma: &[Vector<f32, N>],
    beta: &[Vector<f32, N>],
    dgamma: &[Vector<f32, N>],
    dbeta: &[Vector<f32, N>],
    dx: &mut [Vector<E, N>],
    rows: u32,
    columns: u32,
    pitch: u32,
    dout_pitch: u32,
    epsilon: f32,
    #[comptime] activation: Activation,
    #[define(E)] _dtype: ElemType,
) {
    let column = CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X;
    if column < columns {
        let (at, second) = (column as usize, (columns + column) as usize);
        let count = Vector::<f32, N>::new(f32::cast_from(rows));
        let deviation = (moments[second] + Vector::<f32, N>::new(epsilon)).sqrt();
        let mean = moments[at];
        let scale = gamma[at] / deviation;
        let bias = beta[at];
        let along = dgamma[at] / (deviation * count);
        let level = dbeta[at] / count;
        let mut row = CUBE_POS_Y * CUBE_DIM_Y + UNIT_POS_Y;
        while row < rows {
            let d = Vector::<f32, N>::cast_from(x[(row * pitch + column) as usize]) - mean;
            let dy = Vector::<f32, N>::cast_from(dout[(row * dout_pitch + column) as usize]);
            let dz = before_activation::<N>(dy, d * scale + bias, activation);
            let gradient = scale * (dz - level - d * along);
            dx[(row * columns + column) as usize] = Vector::<E, N>::cast_from(gradient);
            row += CUBE_COUNT_Y * CUBE_DIM_Y;
        }
    }
}
