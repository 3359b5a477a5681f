//! Kernels of the normalization, in CubeCL: column sums over rows of pixels, and the operations on each pixel that use
//! them. Sums are in `f32`, of differences to the first row: a large mean loses no precision.
//! Not here: the kernels of its backward pass (`norm_gradient.rs`), which of them a pass takes (`norm_launch.rs`).

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use fixnorm_kernels::Activation;

use super::activations::activate;
use super::rows::{UNITS, add_up};

/// For each channel the sum of the differences to the first row, and of their squares, behind a place for the moments.
#[cube(launch)]
pub(super) fn sum_moments<E: Float, N: Size>(
    x: &[Vector<E, N>],
    sums: &mut [Vector<f32, N>],
    rows: u32,
    columns: u32,
    pitch: u32,
    #[define(E)] _dtype: ElemType,
) {
    let column = CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X;
    let own = differences::<E, N>(x, column, rows, columns, pitch);
    leave::<N>(own, sums, 1u32, column, columns);
}

/// The sums of a unit's rows: of the differences to the first row, and of their squares.
#[cube]
fn differences<E: Float, N: Size>(
    x: &[Vector<E, N>],
    column: u32,
    rows: u32,
    columns: u32,
    pitch: u32,
) -> Sums<N> {
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
    Sums::<N> { first: sum, second: squares }
}

/// Two sums of each channel.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Sums<N: Size> {
    pub(super) first: Vector<f32, N>,
    pub(super) second: Vector<f32, N>,
}

/// Mean and biased variance of each channel.
#[derive(CubeType, Clone, Copy)]
struct Moments<N: Size> {
    mean: Vector<f32, N>,
    var: Vector<f32, N>,
}

/// Adds up the sums of the units of each column, for all of them.
#[cube]
pub(super) fn down_columns<N: Size>(own: Sums<N>) -> Sums<N> {
    let mut firsts = Shared::<[Vector<f32, N>]>::new_slice(comptime!(UNITS as usize));
    let mut seconds = Shared::<[Vector<f32, N>]>::new_slice(comptime!(UNITS as usize));
    firsts[UNIT_POS as usize] = own.first;
    seconds[UNIT_POS as usize] = own.second;
    add_up::<N>(&mut firsts);
    add_up::<N>(&mut seconds);
    Sums::<N> { first: firsts[UNIT_POS_X as usize], second: seconds[UNIT_POS_X as usize] }
}

/// Adds up the sums of a cube's units and stores the result, behind those of `before` others.
#[cube]
pub(super) fn leave<N: Size>(
    own: Sums<N>,
    partial: &mut [Vector<f32, N>],
    before: u32,
    column: u32,
    columns: u32,
) {
    let sums = down_columns::<N>(own);
    if UNIT_POS_Y == 0 && column < columns {
        let at = (2 * (before + CUBE_POS_Y) * columns + column) as usize;
        partial[at] = sums.first;
        partial[at + columns as usize] = sums.second;
    }
}

/// A unit's share of the sums over all cubes of a column's sums, which are behind those of `before` others.
#[cube]
pub(super) fn share<N: Size>(
    partial: &[Vector<f32, N>],
    before: u32,
    cubes: u32,
    column: u32,
    columns: u32,
) -> Sums<N> {
    let mut first = Vector::<f32, N>::new(0.0);
    let mut second = Vector::<f32, N>::new(0.0);
    if column < columns {
        let mut cube = UNIT_POS_Y;
        while cube < cubes {
            let at = (2 * (before + cube) * columns + column) as usize;
            first += partial[at];
            second += partial[at + columns as usize];
            cube += CUBE_DIM_Y;
        }
    }
    Sums::<N> { first, second }
}

/// Moments, from sums of differences to the first row.
#[cube]
fn moments_of<N: Size>(first_row: Vector<f32, N>, sums: Sums<N>, rows: u32) -> Moments<N> {
    let count = Vector::<f32, N>::new(f32::cast_from(rows));
    let off = sums.first / count;
    let mut var = sums.second / count - off * off;
    #[unroll]
    for lane in 0..N::value() {
        let value = var.extract(lane);
        var.insert(lane, select(value < 0.0f32, 0.0f32, value));
    }
    Moments::<N> { mean: first_row + off, var }
}

/// Stores moments, and the running ones behind them; the variance's are of the unbiased ones.
#[cube]
fn keep<N: Size>(
    found: &Moments<N>,
    running_mean: &[Vector<f32, N>],
    running_var: &[Vector<f32, N>],
    moments: &mut [Vector<f32, N>],
    next_mean: &mut [Vector<f32, N>],
    next_var: &mut [Vector<f32, N>],
    column: u32,
    columns: u32,
    rows: u32,
    momentum: f32,
) {
    let at = column as usize;
    moments[at] = found.mean;
    moments[(columns + column) as usize] = found.var;
    let (new, old) = (Vector::<f32, N>::new(momentum), Vector::<f32, N>::new(1.0f32 - momentum));
    // One value has no variance.
    let count = f32::cast_from(rows);
    let unbiased =
        found.var * Vector::<f32, N>::new(count / (select(rows < 2, 2.0f32, count) - 1.0f32));
    next_mean[at] = running_mean[at] * old + found.mean * new;
    next_var[at] = running_var[at] * old + unbiased * new;
}

/// Moments from many partial sums.
#[cube(launch)]
pub(super) fn finish_moments<E: Float, N: Size>(
    x: &[Vector<E, N>],
    sums: &[Vector<f32, N>],
    running_mean: &[Vector<f32, N>],
    running_var: &[Vector<f32, N>],
    moments: &mut [Vector<f32, N>],
    next_mean: &mut [Vector<f32, N>],
    next_var: &mut [Vector<f32, N>],
    columns: u32,
    cubes: u32,
    rows: u32,
    momentum: f32,
    #[define(E)] _dtype: ElemType,
) {
    let column = CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X;
    let total = down_columns::<N>(share::<N>(sums, 1u32, cubes, column, columns));
    if UNIT_POS_Y == 0 && column < columns {
        let first = Vector::<f32, N>::cast_from(x[column as usize]);
        let found = moments_of::<N>(first, total, rows);
        keep::<N>(
            &found,
            running_mean,
            running_var,
            moments,
            next_mean,
            next_var,
            column,
            columns,
            rows,
            momentum,
        );
    }
}

/// The activation of (x − mean)/deviation·gamma + beta, for the rows of a unit.
#[cube]
fn normalize_rows<E: Float, N: Size>(
    x: &[Vector<E, N>],
    found: &Moments<N>,
    gamma: Vector<f32, N>,
    beta: Vector<f32, N>,
    out: &mut [Vector<E, N>],
    column: u32,
    rows: u32,
    columns: u32,
    pitch: u32,
    epsilon: f32,
    #[comptime] activation: Activation,
) {
    let scale = gamma / (found.var + Vector::<f32, N>::new(epsilon)).sqrt();
    let shift = beta - found.mean * scale;
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

/// Normalization by finished moments.
#[cube(launch)]
pub(super) fn normalize<E: Float, N: Size>(
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
        let found = Moments::<N> { mean: moments[at], var: moments[(columns + column) as usize] };
        normalize_rows::<E, N>(
            x, &found, gamma[at], beta[at], out, column, rows, columns, pitch, epsilon, activation,
        );
    }
}

/// Normalization by few partial sums, which every cube adds up, or by the cube's own ones, if it has all rows of its columns.
/// The first cube stores the moments.
#[cube(launch)]
pub(super) fn normalize_by_sums<E: Float, N: Size>(
    x: &[Vector<E, N>],
    sums: &mut [Vector<f32, N>],
    gamma: &[Vector<f32, N>],
    beta: &[Vector<f32, N>],
    running_mean: &[Vector<f32, N>],
    running_var: &[Vector<f32, N>],
    out: &mut [Vector<E, N>],
    next_mean: &mut [Vector<f32, N>],
    next_var: &mut [Vector<f32, N>],
    rows: u32,
    columns: u32,
    pitch: u32,
    cubes: u32,
    momentum: f32,
    epsilon: f32,
    #[comptime] activation: Activation,
    #[comptime] has_all_rows: bool,
    #[define(E)] _dtype: ElemType,
) {
    let column = CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X;
    let own = if comptime!(has_all_rows) {
        differences::<E, N>(x, column, rows, columns, pitch)
    } else {
        share::<N>(&*sums, 1u32, cubes, column, columns)
    };
    let total = down_columns::<N>(own);
    if column < columns {
        let at = column as usize;
        let found = moments_of::<N>(Vector::<f32, N>::cast_from(x[at]), total, rows);
        if CUBE_POS_Y == 0 && UNIT_POS_Y == 0 {
            keep::<N>(
                &found,
                running_mean,
                running_var,
                sums,
                next_mean,
                next_var,
                column,
                columns,
                rows,
                momentum,
            );
        }
        normalize_rows::<E, N>(
            x, &found, gamma[at], beta[at], out, column, rows, columns, pitch, epsilon, activation,
        );
    }
}
