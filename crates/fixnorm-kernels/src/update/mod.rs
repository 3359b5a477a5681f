//! One optimizer step of one weight in two passes over memory.
//! Not here: which step length and which norm (the caller's rule decides, from three sums).
//!
//! # Contract
//!
//! ```text
//! pass 1   g ← g + l2·w;  (states, d) ← base(states, g);  per group: ww = Σw², wd = Σw·d, dd = Σd²
//! rule     (a, b) ← rule(group, ww, wd, dd)             the only place that knows lr, radius, constraint
//! pass 2   w ← a·w + b·d
//! ```
//!
//! Why three sums are enough: the norm of the result, a²·ww + 2ab·wd + b²·dd, is known before the
//! weight is written, so projecting onto a sphere costs no pass of its own.
//!
//! Layout: every slice has the weight's length and order; [`Groups`] says which elements share a norm.
//! Aliasing: none (Rust's own rules). Order of reduction: ascending index, in blocks of
//! [`BLOCK`] elements and parts of [`PART`], which threads share; sums in `f64`. A NaN anywhere in a
//! group makes that group's sums NaN.
//!
//! The gradient is scratch: where the direction is not already a state, it is written over it.

mod base_step;
pub mod scalar;

pub use base_step::{BaseStep, Scaling, States};

use rayon::prelude::*;

use crate::isa::{Isa, vectorized};

/// Elements handled at a time: three slices of this length fit into a 32 KiB first-level cache, so
/// the sums read what the direction has just written without going to memory again.
pub const BLOCK: usize = 2048;

/// Elements that a thread takes at a time. Weights that are not longer stay on the calling thread: waking
/// another one takes longer than they do.
pub const PART: usize = 16 * BLOCK;

/// Which elements of a weight share a norm.
///
/// Element `(o·count + c)·inner + i` belongs to group `c`: for output channels of a convolution
/// weight `[c_out, c_in, kh, kw]` that is `count = c_out`, `inner = c_in·kh·kw`; for those of a
/// linear weight `[d_in, d_out]`, `count = d_out`, `inner = 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    /// Number of groups.
    pub count: usize,
    /// Consecutive elements that belong to one group.
    pub inner: usize,
}

impl Groups {
    /// One group that holds all `len` elements.
    pub fn whole(len: usize) -> Self {
        Self { count: 1, inner: len }
    }

    /// One group for each index of dimension `axis` of a row-major tensor of this `shape`.
    ///
    /// # Panics
    /// If `axis` is not a dimension of `shape`.
    pub fn along(shape: &[usize], axis: usize) -> Self {
        Self { count: shape[axis], inner: shape[axis + 1..].iter().product() }
    }

    /// Calls `run(group, start, end)` for each stretch of `range` that lies in one group.
    #[inline(always)]
    fn for_each_run(self, range: std::ops::Range<usize>, mut run: impl FnMut(usize, usize, usize)) {
        if self.count == 1 {
            return run(0, range.start, range.end);
        }
        let mut start = range.start;
        while start < range.end {
            let block = start / self.inner;
            let end = range.end.min((block + 1) * self.inner);
            run(block % self.count, start, end);
            start = end;
        }
    }
}

/// The inner products of a group that decide its step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    /// Σ w², the squared norm before the step.
    pub ww: f64,
    /// Σ w·d.
    pub wd: f64,
    /// Σ d², the squared norm of the direction.
    pub dd: f64,
}

impl Moments {
    #[inline(always)]
    fn of(weight: &[f32], direction: &[f32]) -> Self {
        let [ww, wd, dd] = products(weight, direction);
        Self { ww, wd, dd }
    }

    fn add(&mut self, other: Self) {
        self.ww += other.ww;
        self.wd += other.wd;
        self.dd += other.dd;
    }
}

/// The step of a group: `w ← a·w + b·d`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coefficients {
    /// Factor of the weight.
    pub a: f64,
    /// Factor of the direction, negative for a descent.
    pub b: f64,
}

/// Updates `weight` and its `states`; `grad` is used up.
///
/// # Panics
/// If the slices' lengths differ, or `groups` does not divide them evenly.
pub fn update(
    weight: &mut [f32],
    grad: &mut [f32],
    states: States<'_>,
    base: &BaseStep,
    l2: f32,
    groups: Groups,
    rule: impl FnMut(usize, Moments) -> Coefficients,
) {
    update_on(Isa::current(), weight, grad, states, base, l2, groups, rule);
}

/// [`update`] on this instruction set.
#[expect(clippy::too_many_arguments, reason = "those of `update`, and the instruction set")]
fn update_on(
    isa: Isa,
    weight: &mut [f32],
    grad: &mut [f32],
    states: States<'_>,
    base: &BaseStep,
    l2: f32,
    groups: Groups,
    mut rule: impl FnMut(usize, Moments) -> Coefficients,
) {
    check(weight.len(), grad.len(), &states, base, groups);
    let mut seconds = states.second.chunks_mut(PART);
    let slices =
        weight.chunks_mut(PART).zip(grad.chunks_mut(PART)).zip(states.first.chunks_mut(PART));
    let mut parts: Vec<Part<'_>> = slices
        .enumerate()
        .map(|(i, ((weight, grad), first))| {
            let second = seconds.next().unwrap_or_default();
            Part { start: i * PART, base, weight, grad, first, second }
        })
        .collect();
    // As few pieces as threads: each is likely to find what it wrote in its own cache in the second pass.
    let piece = parts.len().div_ceil(rayon::current_num_threads());
    let mut moments = vec![Moments::default(); groups.count];
    if let [part] = &mut parts[..] {
        vectorized!(isa, part.advance(l2, groups, &mut moments));
    } else {
        let sums: Vec<_> = (parts.par_iter_mut().with_min_len(piece))
            .map(|part| {
                let mut sums = vec![Moments::default(); groups.count];
                vectorized!(isa, part.advance(l2, groups, &mut sums));
                sums
            })
            .collect();
        for sums in sums {
            moments.iter_mut().zip(sums).for_each(|(all, part)| all.add(part));
        }
    }
    let coefficients: Vec<_> =
        moments.iter().enumerate().map(|(group, &moments)| rule(group, moments)).collect();
    let combine = |part: &mut Part<'_>| vectorized!(isa, part.combine(groups, &coefficients));
    match &mut parts[..] {
        [part] => combine(part),
        parts => parts.par_iter_mut().with_min_len(piece).for_each(combine),
    }
}

/// Consecutive elements of a weight with their gradient and states.
struct Part<'a> {
    /// Index of the first one in the weight.
    start: usize,
    base: &'a BaseStep,
    weight: &'a mut [f32],
    grad: &'a mut [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
}

impl Part<'_> {
    /// The first pass: states, directions, and what they add to the groups' sums.
    #[inline(always)]
    fn advance(&mut self, l2: f32, groups: Groups, moments: &mut [Moments]) {
        for start in (0..self.weight.len()).step_by(BLOCK) {
            let block = start..self.weight.len().min(start + BLOCK);
            let second = if self.second.is_empty() { 0..0 } else { block.clone() };
            self.base.advance(
                &self.weight[block.clone()],
                &mut self.grad[block.clone()],
                &mut self.first[block.clone()],
                &mut self.second[second],
                l2,
            );
            let direction = if self.base.direction_is_first() { &*self.first } else { &*self.grad };
            groups.for_each_run(
                self.start + block.start..self.start + block.end,
                #[inline(always)]
                |group, s, e| {
                    let run = s - self.start..e - self.start;
                    moments[group].add(Moments::of(&self.weight[run.clone()], &direction[run]));
                },
            );
        }
    }

    /// The second pass.
    #[inline(always)]
    fn combine(&mut self, groups: Groups, coefficients: &[Coefficients]) {
        let direction = if self.base.direction_is_first() { &*self.first } else { &*self.grad };
        groups.for_each_run(
            self.start..self.start + self.weight.len(),
            #[inline(always)]
            |group, s, e| {
                let run = s - self.start..e - self.start;
                let Coefficients { a, b } = coefficients[group];
                let (a, b) = (a as f32, b as f32);
                for (w, &d) in self.weight[run.clone()].iter_mut().zip(&direction[run]) {
                    *w = a * *w + b * d;
                }
            },
        );
    }
}

/// Scales every group of `weight` to the norm that `radius(group)` gives, where it gives one.
///
/// A group whose norm is zero has no direction and stays as it is.
pub fn project(
    weight: &mut [f32],
    groups: Groups,
    mut radius: impl FnMut(usize, f64) -> Option<f64>,
) {
    let scales: Vec<_> = norms(weight, groups)
        .into_iter()
        .enumerate()
        .map(|(group, norm)| match radius(group, norm) {
            Some(radius) if norm > 0.0 => radius / norm,
            _ => 1.0,
        })
        .collect();
    groups.for_each_run(0..weight.len(), |group, s, e| {
        let scale = scales[group];
        if scale != 1.0 {
            for w in &mut weight[s..e] {
                *w = (f64::from(*w) * scale) as f32;
            }
        }
    });
}

/// The norm of every group.
pub fn norms(weight: &[f32], groups: Groups) -> Vec<f64> {
    let mut squares = vec![0.0; groups.count];
    groups.for_each_run(0..weight.len(), |group, s, e| {
        squares[group] += dot(&weight[s..e], &weight[s..e]);
    });
    squares.into_iter().map(f64::sqrt).collect()
}

fn check(len: usize, grad: usize, states: &States<'_>, base: &BaseStep, groups: Groups) {
    assert_eq!(grad, len, "gradient length differs from the weight's");
    let second = if base.has_second() { len } else { states.second.len() };
    for (state, expected) in [(states.first.len(), len), (states.second.len(), second)] {
        assert_eq!(state, expected, "optimizer state length differs from the weight's");
    }
    let block = groups.count * groups.inner;
    assert!(
        len == 0 || (block > 0 && len.is_multiple_of(block)),
        "{groups:?} do not divide {len} elements"
    );
}

/// Σ x·y in `f64`: a million `f32` squares drift past 1e-5, the bound that norms are held to.
pub fn dot(x: &[f32], y: &[f32]) -> f64 {
    vectorized!(Isa::current(), products(x, y))[1]
}

/// Σ x², Σ x·y and Σ y² in `f64`, in an order that does not depend on the instruction set.
#[inline(always)]
fn products(x: &[f32], y: &[f32]) -> [f64; 3] {
    // Sixteen independent sums each: one chain of additions would wait for its own latency.
    const LANES: usize = 16;
    let mut sums = [[0.0_f64; LANES]; 3];
    let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let (x_tail, y_tail) = (xs.remainder(), ys.remainder());
    for (x, y) in xs.zip(ys) {
        for lane in 0..LANES {
            let (x, y) = (f64::from(x[lane]), f64::from(y[lane]));
            sums[0][lane] += x * x;
            sums[1][lane] += x * y;
            sums[2][lane] += y * y;
        }
    }
    for (lane, (&x, &y)) in x_tail.iter().zip(y_tail).enumerate() {
        let (x, y) = (f64::from(x), f64::from(y));
        sums[0][lane] += x * x;
        sums[1][lane] += x * y;
        sums[2][lane] += y * y;
    }
    sums.map(|lanes| lanes.iter().sum())
}

#[cfg(test)]
mod tests;
