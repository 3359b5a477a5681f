//! Kernels of the optimizer's step, in CubeCL.
//! Not here: which of them take a step (`launch.rs`).
//!
//! ```text
//! advance       g ← g + l2·w;  (states, d) ← base(states, g)
//! sum           per group: ww = Σw², wd = Σw·d, dd = Σd²
//! coefficients  (a, b) ← rule and constraint(ww, wd, dd)
//! apply         w ← a·w + b·d
//! ```
//!
//! Sums are of `f32`, in an order that depends on the shape alone: the same bits each time. A direction that is not a state is
//! computed again, which takes less time than to store and load it.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use crate::rule::{Constraint, StepRule};

/// Units of a cube, at most.
pub(super) const UNITS: u32 = 256;

/// The form of the base update that a kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Base {
    pub(super) divisor: Divisor,
    /// Whether the direction has a part of the gradient.
    pub(super) lookahead: bool,
}

/// The term that is divided by the root of the mean squared gradient: `Scaling` without its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Divisor {
    None,
    Gradient,
    Direction,
}

impl Base {
    fn has_second(self) -> bool {
        self.divisor != Divisor::None
    }
}

/// Configuration of a kernel that uses norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Rules {
    pub(super) base: Base,
    pub(super) rule: StepRule,
    pub(super) constraint: Constraint,
}

/// The scalars of a step, as in `StepPlan` and `BaseStep`.
#[derive(CubeType, CubeLaunch)]
pub(super) struct Scalars {
    length: f32,
    shrink: f32,
    decay: f32,
    l2: f32,
    momentum: f32,
    gain: f32,
    output: f32,
    lookahead: f32,
    inflow: f32,
    root: f32,
    epsilon: f32,
}

/// States behind a step, and its direction.
#[derive(CubeType, Clone, Copy)]
struct Advanced<N: Size> {
    first: Vector<f32, N>,
    second: Vector<f32, N>,
    direction: Vector<f32, N>,
}

#[cube]
fn advance<N: Size>(
    w: Vector<f32, N>,
    grad: Vector<f32, N>,
    first: Vector<f32, N>,
    second: Vector<f32, N>,
    scalars: &Scalars,
    #[comptime] base: Base,
) -> Advanced<N> {
    let g = decayed::<N>(w, grad, scalars);
    let mut next = second;
    if comptime!(base.has_second()) {
        next = second + (g * g - second) * Vector::<f32, N>::new(scalars.inflow);
    }
    let mut inflow = g * Vector::<f32, N>::new(scalars.gain);
    if comptime!(base.divisor == Divisor::Gradient) {
        inflow /= (next + Vector::<f32, N>::new(scalars.epsilon)).sqrt();
    }
    let first = first * Vector::<f32, N>::new(scalars.momentum) + inflow;
    let direction = direction::<N>(w, grad, first, next, scalars, base);
    Advanced::<N> { first, second: next, direction }
}

/// The direction from advanced states and from the weight before the step.
#[cube]
fn direction<N: Size>(
    w: Vector<f32, N>,
    grad: Vector<f32, N>,
    first: Vector<f32, N>,
    second: Vector<f32, N>,
    scalars: &Scalars,
    #[comptime] base: Base,
) -> Vector<f32, N> {
    let mut d = first * Vector::<f32, N>::new(scalars.output);
    if comptime!(base.lookahead) {
        d += decayed::<N>(w, grad, scalars) * Vector::<f32, N>::new(scalars.lookahead);
    }
    if comptime!(base.divisor == Divisor::Direction) {
        let root = second.sqrt() * Vector::<f32, N>::new(scalars.root);
        d /= root + Vector::<f32, N>::new(scalars.epsilon);
    }
    d
}

/// The gradient with the decay that belongs into it.
#[cube]
fn decayed<N: Size>(w: Vector<f32, N>, grad: Vector<f32, N>, scalars: &Scalars) -> Vector<f32, N> {
    grad + w * Vector::<f32, N>::new(scalars.l2)
}

/// The inner products of a group that decide its step.
#[derive(CubeType, Clone, Copy)]
struct Moments {
    ww: f32,
    wd: f32,
    dd: f32,
}

/// Σ x·y over a vector.
#[cube]
fn dot<N: Size>(x: Vector<f32, N>, y: Vector<f32, N>) -> f32 {
    let products = x * y;
    let mut sum = products.extract(0usize);
    #[unroll]
    for lane in 1..N::value() {
        sum += products.extract(lane);
    }
    sum
}

/// Adds up what the units of a cube hold, pairwise, for each of them. `shared` has room for three numbers a unit.
#[cube]
fn over_cube(own: Moments, shared: &mut Shared<[f32]>) -> Moments {
    let unit = 3 * UNIT_POS as usize;
    shared[unit] = own.ww;
    shared[unit + 1] = own.wd;
    shared[unit + 2] = own.dd;
    sync_cube();
    let mut half = CUBE_DIM / 2;
    while half > 0 {
        if UNIT_POS < half {
            let other = unit + 3 * half as usize;
            #[unroll]
            for i in 0..3usize {
                let more = shared[other + i];
                shared[unit + i] += more;
            }
        }
        sync_cube();
        half /= 2;
    }
    let sums = Moments { ww: shared[0], wd: shared[1], dd: shared[2] };
    // The next group's go to the same place.
    sync_cube();
    sums
}

/// The step of a group: `w ← a·w + b·d`.
#[derive(CubeType, Clone, Copy)]
struct Coefficients {
    a: f32,
    b: f32,
}

/// As `StepPlan::coefficients`, in `f32`; 1e-36 is its `STILL`. NaN is passed on.
#[cube]
fn coefficients(
    moments: Moments,
    radius: f32,
    scalars: &Scalars,
    #[comptime] rules: Rules,
) -> Coefficients {
    let Moments { ww, wd, dd } = moments;
    let decay = scalars.decay;
    let mut a = 1.0f32 - scalars.shrink;
    let mut b = 0.0f32 - scalars.length;
    if comptime!(rules.rule == StepRule::Angular) {
        let tangent = dd - wd * wd / ww;
        // For a direction along the weight the difference is rounding, of which `f32` has more.
        let turn = (0.0f32 - a) * scalars.length * (ww / tangent).sqrt();
        b = select(ww == 0.0f32 || dd < 1e-36f32 || tangent <= 1e-6f32 * dd, 0.0f32, turn);
        a -= select(ww == 0.0f32, 0.0f32, b * wd / ww);
    } else if comptime!(rules.rule == StepRule::RmsNormalized) {
        b = select(dd < 1e-36f32, 0.0f32, b / dd.sqrt());
    } else if comptime!(rules.rule == StepRule::TrustRatio) {
        let square = dd + 2.0f32 * decay * wd + decay * decay * ww;
        let trust = select(ww == 0.0f32 || square < 1e-36f32, 1.0f32, (ww / square).sqrt());
        a = 1.0f32 - scalars.shrink * trust;
        b *= trust;
    }
    let square = a * a * ww + 2.0f32 * a * b * wd + b * b * dd;
    // Rounding can take a sum that is zero in exact arithmetic below it.
    let norm = select(square < 0.0f32, 0.0f32, square).sqrt();
    let mut scale = 1.0f32;
    if comptime!(rules.constraint != Constraint::Free) {
        scale = select(norm == 0.0f32, 1.0f32, radius / norm);
    }
    if comptime!(rules.constraint == Constraint::Capped) {
        scale = select(norm <= radius, 1.0f32, scale);
    }
    // Nothing to do, and rescaling by 1 ± rounding would be something.
    scale = select(dd == 0.0f32 && decay == 0.0f32, 1.0f32, scale);
    Coefficients { a: a * scale, b: b * scale }
}

/// The same tensor of each parameter of a launch.
type Tensors<N> = Sequence<Box<[Vector<f32, N>]>>;

/// The norm that a group of parameter `i` is held at; 1 where none is.
#[cube]
fn radius_of(
    radius: &Sequence<Box<[f32]>>,
    i: usize,
    group: u32,
    #[comptime] has_radius: bool,
) -> f32 {
    let mut norm = 1.0f32;
    if comptime!(has_radius) {
        norm = radius.index(i)[group as usize];
    }
    norm
}

/// Advances the states of parameter `i` at a vector; returns the direction there.
#[cube]
fn advance_at<N: Size>(
    w: &Tensors<N>,
    grad: &Tensors<N>,
    first: &mut Tensors<N>,
    second: &mut Tensors<N>,
    i: usize,
    at: u32,
    scalars: &Scalars,
    #[comptime] base: Base,
) -> Vector<f32, N> {
    let at = at as usize;
    let second_at = second_at::<N>(&*second, i, at, base);
    let (w_at, grad_at, first_at) = (w.index(i)[at], grad.index(i)[at], first.index(i)[at]);
    let next = advance::<N>(w_at, grad_at, first_at, second_at, scalars, base);
    first.index_mut(i)[at] = next.first;
    if comptime!(base.has_second()) {
        second.index_mut(i)[at] = next.second;
    }
    next.direction
}

#[cube]
fn second_at<N: Size>(
    second: &Tensors<N>,
    i: usize,
    at: usize,
    #[comptime] base: Base,
) -> Vector<f32, N> {
    let mut value = Vector::<f32, N>::new(0.0f32);
    if comptime!(base.has_second()) {
        value = second.index(i)[at];
    }
    value
}

/// Steps that ask for no norm. Each parameter has a row of cubes.
#[cube(launch)]
pub(super) fn step_free<N: Size>(
    w: &mut Sequence<Box<[Vector<f32, N>]>>,
    grad: &Sequence<Box<[Vector<f32, N>]>>,
    first: &mut Sequence<Box<[Vector<f32, N>]>>,
    second: &mut Sequence<Box<[Vector<f32, N>]>>,
    vectors: &Sequence<u32>,
    scalars: &Scalars,
    #[comptime] base: Base,
) {
    let a = 1.0f32 - scalars.shrink;
    let b = 0.0f32 - scalars.length;
    let count = w.len().comptime();
    #[unroll]
    for i in 0..count {
        if CUBE_POS_Y == i as u32 {
            let end = *vectors.index(i);
            let mut at = CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X;
            while at < end {
                let w_at = w.index(i)[at as usize];
                let d = advance_at::<N>(&*w, grad, first, second, i, at, scalars, base);
                w.index_mut(i)[at as usize] =
                    w_at * Vector::<f32, N>::new(a) + d * Vector::<f32, N>::new(b);
                at += CUBE_COUNT_X * CUBE_DIM_X;
            }
        }
    }
}

/// The first pass over a group, from vector `start` on: states, and what the units add up.
#[cube]
fn sum_group<N: Size>(
    w: &Tensors<N>,
    grad: &Tensors<N>,
    first: &mut Tensors<N>,
    second: &mut Tensors<N>,
    i: usize,
    start: u32,
    end: u32,
    stride: u32,
    scalars: &Scalars,
    #[comptime] base: Base,
) -> Moments {
    let mut ww = 0.0f32;
    let mut wd = 0.0f32;
    let mut dd = 0.0f32;
    let mut at = start;
    while at < end {
        let w_at = w.index(i)[at as usize];
        let d = advance_at::<N>(w, grad, first, second, i, at, scalars, base);
        ww += dot::<N>(w_at, w_at);
        wd += dot::<N>(w_at, d);
        dd += dot::<N>(d, d);
        at += stride;
    }
    Moments { ww, wd, dd }
}

/// The second pass, over the same vectors with states that are advanced.
#[cube]
fn apply_group<N: Size>(
    w: &mut Tensors<N>,
    grad: &Tensors<N>,
    first: &Tensors<N>,
    second: &Tensors<N>,
    i: usize,
    start: u32,
    end: u32,
    stride: u32,
    coefficients: Coefficients,
    scalars: &Scalars,
    #[comptime] base: Base,
) {
    let a = Vector::<f32, N>::new(coefficients.a);
    let b = Vector::<f32, N>::new(coefficients.b);
    let mut next = start;
    while next < end {
        let at = next as usize;
        let second_at = second_at::<N>(second, i, at, base);
        let (w_at, grad_at, first_at) = (w.index(i)[at], grad.index(i)[at], first.index(i)[at]);
        let d = direction::<N>(w_at, grad_at, first_at, second_at, scalars, base);
        w.index_mut(i)[at] = w_at * a + d * b;
        next += stride;
    }
}

/// Steps of groups that one cube sums each. Each parameter has a row of cubes.
#[cube(launch)]
pub(super) fn step_groups<N: Size>(
    w: &mut Sequence<Box<[Vector<f32, N>]>>,
    grad: &Sequence<Box<[Vector<f32, N>]>>,
    first: &mut Sequence<Box<[Vector<f32, N>]>>,
    second: &mut Sequence<Box<[Vector<f32, N>]>>,
    radius: &Sequence<Box<[f32]>>,
    groups: &Sequence<u32>,
    vectors: &Sequence<u32>,
    scalars: &Scalars,
    #[comptime] rules: Rules,
    #[comptime] has_radius: bool,
) {
    let mut shared = Shared::<[f32]>::new_slice(comptime!(3 * UNITS as usize));
    let count = w.len().comptime();
    #[unroll]
    for i in 0..count {
        if CUBE_POS_Y == i as u32 {
            let (groups, vectors) = (*groups.index(i), *vectors.index(i));
            let mut group = CUBE_POS_X;
            while group < groups {
                let start = group * vectors + UNIT_POS;
                let end = (group + 1) * vectors;
                let own = sum_group::<N>(
                    &*w, grad, first, second, i, start, end, CUBE_DIM, scalars, rules.base,
                );
                let moments = over_cube(own, &mut shared);
                let held = radius_of(radius, i, group, has_radius);
                let step = coefficients(moments, held, scalars, rules);
                apply_group::<N>(
                    w, grad, &*first, &*second, i, start, end, CUBE_DIM, step, scalars, rules.base,
                );
                group += CUBE_COUNT_X;
            }
        }
    }
}

/// States of a whole tensor, and what each cube sums of it: `[cubes, 3]`.
#[cube(launch)]
pub(super) fn sum<N: Size>(
    w: &Sequence<Box<[Vector<f32, N>]>>,
    grad: &Sequence<Box<[Vector<f32, N>]>>,
    first: &mut Sequence<Box<[Vector<f32, N>]>>,
    second: &mut Sequence<Box<[Vector<f32, N>]>>,
    partial: &mut [f32],
    vectors: u32,
    scalars: &Scalars,
    #[comptime] base: Base,
) {
    let mut shared = Shared::<[f32]>::new_slice(comptime!(3 * UNITS as usize));
    let (start, stride) = (CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X, CUBE_COUNT_X * CUBE_DIM_X);
    let own = sum_group::<N>(w, grad, first, second, 0usize, start, vectors, stride, scalars, base);
    let moments = over_cube(own, &mut shared);
    if UNIT_POS == 0 {
        let at = 3 * CUBE_POS_X as usize;
        partial[at] = moments.ww;
        partial[at + 1] = moments.wd;
        partial[at + 2] = moments.dd;
    }
}

/// The weight of a whole tensor. Each cube adds up what the cubes of `sum` left, all in the same order.
#[cube(launch)]
pub(super) fn apply<N: Size>(
    w: &mut Sequence<Box<[Vector<f32, N>]>>,
    grad: &Sequence<Box<[Vector<f32, N>]>>,
    first: &Sequence<Box<[Vector<f32, N>]>>,
    second: &Sequence<Box<[Vector<f32, N>]>>,
    radius: &Sequence<Box<[f32]>>,
    partial: &[f32],
    vectors: u32,
    cubes: u32,
    scalars: &Scalars,
    #[comptime] rules: Rules,
    #[comptime] has_radius: bool,
) {
    let mut shared = Shared::<[f32]>::new_slice(comptime!(3 * UNITS as usize));
    let mut ww = 0.0f32;
    let mut wd = 0.0f32;
    let mut dd = 0.0f32;
    let mut cube = UNIT_POS;
    while cube < cubes {
        let at = 3 * cube as usize;
        ww += partial[at];
        wd += partial[at + 1];
        dd += partial[at + 2];
        cube += CUBE_DIM;
    }
    let moments = over_cube(Moments { ww, wd, dd }, &mut shared);
    let held = radius_of(radius, 0usize, 0u32, has_radius);
    let step = coefficients(moments, held, scalars, rules);
    let (start, stride) = (CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X, CUBE_COUNT_X * CUBE_DIM_X);
    apply_group::<N>(
        w, grad, first, second, 0usize, start, vectors, stride, step, scalars, rules.base,
    );
}
