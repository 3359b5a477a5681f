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
use burn_cubecl::cubecl::std::tensor::layout::linear::LinearView;

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

/// The norm that a group is held at; 1 where none is.
#[cube]
fn radius_of(radius: &ComptimeOption<&[f32]>, group: usize) -> f32 {
    #[comptime]
    match radius {
        ComptimeOption::Some(radius) => radius[group],
        ComptimeOption::None => 1.0f32.runtime(),
    }
}

/// A step that asks for no norm.
#[cube(launch)]
pub(super) fn step_free<N: Size>(
    w: &[Vector<f32, N>],
    first: &[Vector<f32, N>],
    second: &[Vector<f32, N>],
    grad: LinearView<'_, Vector<f32, N>>,
    w_out: &mut [Vector<f32, N>],
    first_out: &mut [Vector<f32, N>],
    second_out: &mut [Vector<f32, N>],
    vectors: u32,
    scalars: &Scalars,
    #[comptime] base: Base,
) {
    let a = 1.0f32 - scalars.shrink;
    let b = 0.0f32 - scalars.length;
    let mut at = ABSOLUTE_POS;
    while at < vectors as usize {
        let w_at = w[at];
        let next = advance::<N>(w_at, grad.read(at), first[at], second[at], scalars, base);
        first_out[at] = next.first;
        if comptime!(base.has_second()) {
            second_out[at] = next.second;
        }
        w_out[at] = w_at * Vector::<f32, N>::new(a) + next.direction * Vector::<f32, N>::new(b);
        at += CUBE_COUNT * CUBE_DIM as usize;
    }
}

/// The first pass over a group, from vector `start` on: states, and what the units add up.
#[cube]
fn sum_group<N: Size>(
    w: &[Vector<f32, N>],
    first: &[Vector<f32, N>],
    second: &[Vector<f32, N>],
    grad: &LinearView<'_, Vector<f32, N>>,
    first_out: &mut [Vector<f32, N>],
    second_out: &mut [Vector<f32, N>],
    start: usize,
    end: usize,
    stride: usize,
    scalars: &Scalars,
    #[comptime] base: Base,
) -> Moments {
    let mut ww = 0.0f32;
    let mut wd = 0.0f32;
    let mut dd = 0.0f32;
    let mut at = start;
    while at < end {
        let w_at = w[at];
        let next = advance::<N>(w_at, grad.read(at), first[at], second[at], scalars, base);
        first_out[at] = next.first;
        if comptime!(base.has_second()) {
            second_out[at] = next.second;
        }
        ww += dot::<N>(w_at, w_at);
        wd += dot::<N>(w_at, next.direction);
        dd += dot::<N>(next.direction, next.direction);
        at += stride;
    }
    Moments { ww, wd, dd }
}

/// The second pass, over the same vectors with states that are advanced.
#[cube]
fn apply_group<N: Size>(
    w: &[Vector<f32, N>],
    first: &[Vector<f32, N>],
    second: &[Vector<f32, N>],
    grad: &LinearView<'_, Vector<f32, N>>,
    w_out: &mut [Vector<f32, N>],
    start: usize,
    end: usize,
    stride: usize,
    coefficients: Coefficients,
    scalars: &Scalars,
    #[comptime] base: Base,
) {
    let a = Vector::<f32, N>::new(coefficients.a);
    let b = Vector::<f32, N>::new(coefficients.b);
    let mut at = start;
    while at < end {
        let w_at = w[at];
        let d = direction::<N>(w_at, grad.read(at), first[at], second[at], scalars, base);
        w_out[at] = w_at * a + d * b;
        at += stride;
    }
}

/// A step of groups that one cube sums each.
#[cube(launch)]
pub(super) fn step_groups<N: Size>(
    w: &[Vector<f32, N>],
    first: &[Vector<f32, N>],
    second: &[Vector<f32, N>],
    grad: LinearView<'_, Vector<f32, N>>,
    radius: ComptimeOption<&[f32]>,
    w_out: &mut [Vector<f32, N>],
    first_out: &mut [Vector<f32, N>],
    second_out: &mut [Vector<f32, N>],
    groups: u32,
    vectors: u32,
    scalars: &Scalars,
    #[comptime] rules: Rules,
) {
    let mut shared = Shared::<[f32]>::new_slice(comptime!(3 * UNITS as usize));
    let stride = CUBE_DIM as usize;
    let mut group = CUBE_POS;
    while group < groups as usize {
        let start = group * vectors as usize + UNIT_POS as usize;
        let end = (group + 1) * vectors as usize;
        let own = sum_group::<N>(
            w, first, second, &grad, first_out, second_out, start, end, stride, scalars, rules.base,
        );
        let moments = over_cube(own, &mut shared);
        let step = coefficients(moments, radius_of(&radius, group), scalars, rules);
        apply_group::<N>(
            w,
            &*first_out,
            &*second_out,
            &grad,
            w_out,
            start,
            end,
            stride,
            step,
            scalars,
            rules.base,
        );
        group += CUBE_COUNT;
    }
}

/// States of a whole tensor, and what each cube sums of it: `[cubes, 3]`.
#[cube(launch)]
pub(super) fn sum<N: Size>(
    w: &[Vector<f32, N>],
    first: &[Vector<f32, N>],
    second: &[Vector<f32, N>],
    grad: LinearView<'_, Vector<f32, N>>,
    first_out: &mut [Vector<f32, N>],
    second_out: &mut [Vector<f32, N>],
    partial: &mut [f32],
    vectors: u32,
    scalars: &Scalars,
    #[comptime] base: Base,
) {
    let mut shared = Shared::<[f32]>::new_slice(comptime!(3 * UNITS as usize));
    let (end, stride) = (vectors as usize, CUBE_COUNT * CUBE_DIM as usize);
    let own = sum_group::<N>(
        w,
        first,
        second,
        &grad,
        first_out,
        second_out,
        ABSOLUTE_POS,
        end,
        stride,
        scalars,
        base,
    );
    let moments = over_cube(own, &mut shared);
    if UNIT_POS == 0 {
        partial[3 * CUBE_POS] = moments.ww;
        partial[3 * CUBE_POS + 1] = moments.wd;
        partial[3 * CUBE_POS + 2] = moments.dd;
    }
}

/// The weight of a whole tensor. Each cube adds up what the cubes of `sum` left, all in the same order.
#[cube(launch)]
pub(super) fn apply<N: Size>(
    w: &[Vector<f32, N>],
    first: &[Vector<f32, N>],
    second: &[Vector<f32, N>],
    grad: LinearView<'_, Vector<f32, N>>,
    radius: ComptimeOption<&[f32]>,
    partial: &[f32],
    w_out: &mut [Vector<f32, N>],
    vectors: u32,
    cubes: u32,
    scalars: &Scalars,
    #[comptime] rules: Rules,
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
    let step = coefficients(moments, radius_of(&radius, 0usize), scalars, rules);
    let (end, stride) = (vectors as usize, CUBE_COUNT * CUBE_DIM as usize);
    apply_group::<N>(
        w,
        first,
        second,
        &grad,
        w_out,
        ABSOLUTE_POS,
        end,
        stride,
        step,
        scalars,
        rules.base,
    );
}
