//! Kernels of the normalization's backward pass, in CubeCL.
//! Not here: which of them it takes (`norm_launch.rs`).

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use fixnorm_kernels::Activation;

use super::activations::slope;
use super::norm_kernels::{Sums, down_columns, leave, share};

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
pub(super) fn sum_gradients<E: Float, N: Size>(
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
    let own = gradients::<E, N>(
        x, dout, moments, gamma, beta, column, rows, columns, pitch, dout_pitch, epsilon,
        activation,
    );
    leave::<N>(own, partial, 0u32, column, columns);
}

/// The sums of a unit's rows: of the gradients of the activation's input, and of their products with x − mean.
#[cube]
fn gradients<E: Float, N: Size>(
    x: &[Vector<E, N>],
    dout: &[Vector<E, N>],
    moments: &[Vector<f32, N>],
    gamma: &[Vector<f32, N>],
    beta: &[Vector<f32, N>],
    column: u32,
    rows: u32,
    columns: u32,
    pitch: u32,
    dout_pitch: u32,
    epsilon: f32,
    #[comptime] activation: Activation,
) -> Sums<N> {
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
    Sums::<N> { first: sum, second: products }
}

/// Gradients of gamma and beta from many partial sums.
#[cube(launch)]
pub(super) fn finish_gradients<N: Size>(
    partial: &[Vector<f32, N>],
    moments: &[Vector<f32, N>],
    dgamma: &mut [Vector<f32, N>],
    dbeta: &mut [Vector<f32, N>],
    columns: u32,
    cubes: u32,
    epsilon: f32,
) {
    let column = CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X;
    let sums = down_columns::<N>(share::<N>(partial, 0u32, cubes, column, columns));
    if UNIT_POS_Y == 0 && column < columns {
        let var = moments[(columns + column) as usize];
        dgamma[column as usize] = sums.second / (var + Vector::<f32, N>::new(epsilon)).sqrt();
        dbeta[column as usize] = sums.first;
    }
}

/// The gradient of the images, for the rows of a unit. `sums` are the gradients of beta and gamma.
#[cube]
fn gradient_rows<E: Float, N: Size>(
    x: &[Vector<E, N>],
    dout: &[Vector<E, N>],
    mean: Vector<f32, N>,
    deviation: Vector<f32, N>,
    gamma: Vector<f32, N>,
    beta: Vector<f32, N>,
    sums: Sums<N>,
    dx: &mut [Vector<E, N>],
    column: u32,
    rows: u32,
    columns: u32,
    pitch: u32,
    dout_pitch: u32,
    #[comptime] activation: Activation,
) {
    let count = Vector::<f32, N>::new(f32::cast_from(rows));
    let scale = gamma / deviation;
    let along = sums.second / (deviation * count);
    let level = sums.first / count;
    let mut row = CUBE_POS_Y * CUBE_DIM_Y + UNIT_POS_Y;
    while row < rows {
        let d = Vector::<f32, N>::cast_from(x[(row * pitch + column) as usize]) - mean;
        let dy = Vector::<f32, N>::cast_from(dout[(row * dout_pitch + column) as usize]);
        let dz = before_activation::<N>(dy, d * scale + beta, activation);
        let gradient = scale * (dz - level - d * along);
        dx[(row * columns + column) as usize] = Vector::<E, N>::cast_from(gradient);
        row += CUBE_COUNT_Y * CUBE_DIM_Y;
    }
}

/// The gradient of the images, from finished gradients of gamma and beta.
#[cube(launch)]
pub(super) fn normalize_gradient<E: Float, N: Size>(
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
        let at = column as usize;
        let var = moments[(columns + column) as usize];
        gradient_rows::<E, N>(
            x,
            dout,
            moments[at],
            (var + Vector::<f32, N>::new(epsilon)).sqrt(),
            gamma[at],
            beta[at],
            Sums::<N> { first: dbeta[at], second: dgamma[at] },
            dx,
            column,
            rows,
            columns,
            pitch,
            dout_pitch,
            activation,
        );
    }
}

/// The gradient of the images from few partial sums, which every cube adds up, or from the cube's own ones, if it has all rows
/// of its columns. The first cube stores the gradients of gamma and beta.
#[cube(launch)]
pub(super) fn normalize_gradient_by_sums<E: Float, N: Size>(
    x: &[Vector<E, N>],
    dout: &[Vector<E, N>],
    moments: &[Vector<f32, N>],
    gamma: &[Vector<f32, N>],
    beta: &[Vector<f32, N>],
    partial: &[Vector<f32, N>],
    dgamma: &mut [Vector<f32, N>],
    dbeta: &mut [Vector<f32, N>],
    dx: &mut [Vector<E, N>],
    rows: u32,
    columns: u32,
    pitch: u32,
    dout_pitch: u32,
    cubes: u32,
    epsilon: f32,
    #[comptime] activation: Activation,
    #[comptime] has_all_rows: bool,
    #[define(E)] _dtype: ElemType,
) {
    let column = CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X;
    let own = if comptime!(has_all_rows) {
        gradients::<E, N>(
            x, dout, moments, gamma, beta, column, rows, columns, pitch, dout_pitch, epsilon,
            activation,
        )
    } else {
        share::<N>(partial, 0u32, cubes, column, columns)
    };
    let sums = down_columns::<N>(own);
    if column < columns {
        let at = column as usize;
        let var = moments[(columns + column) as usize];
        let deviation = (var + Vector::<f32, N>::new(epsilon)).sqrt();
        let sums = Sums::<N> { first: sums.first, second: sums.second / deviation };
        if CUBE_POS_Y == 0 && UNIT_POS_Y == 0 {
            dgamma[at] = sums.second;
            dbeta[at] = sums.first;
        }
        gradient_rows::<E, N>(
            x,
            dout,
            moments[at],
            deviation,
            gamma[at],
            beta[at],
            sums,
            dx,
            column,
            rows,
            columns,
            pitch,
            dout_pitch,
            activation,
        );
    }
}
