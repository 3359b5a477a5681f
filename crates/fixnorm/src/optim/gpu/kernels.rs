//! Kernels of the optimizer's step, in CubeCL.
//!
//! ```text
//! direction     g ← g + l2·w;  (states, d) ← base(states, g);  per group: ww = Σw², wd = Σw·d, dd = Σd²
//! coefficients  (a, b) ← rule and constraint(ww, wd, dd)
//! apply         w ← a·w + b·d
//! ```
//!
//! | kernel | when | launches |
//! |---|---|---|
//! | `step_free` | no norm is asked for, so a and b are known | 1 |
//! | `step_groups` | one cube sums a group: channels, and whole tensors that are small | 1 |
//! | `sum`, `apply` | a whole tensor that many cubes sum | 2 |
//!
//! Sums are of `f32`, in an order that depends on the shape alone: the same bits each time. A direction that is not a state is
//! computed again, which takes less time than to store and load it.

use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::cubecl::std::tensor::layout::linear::LinearView;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, cubecl};

use super::{Optional, StepBackend, StepSpec};
use crate::BaseUpdate;
use crate::constraint::{Constraint, StepRule};
use crate::optim::corrections;

/// Units of a cube.
const UNITS: u32 = 256;
/// Cubes that share a tensor; a large GPU wants about a thousand.
const CUBES: u32 = 1024;
/// Vectors that a unit takes at least, before there are more cubes.
const VECTORS: u32 = 4;

impl StepBackend for CubeBackend {
    fn norm_step(
        w: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: Optional<Self>,
        radius: Optional<Self>,
        spec: StepSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, Optional<Self>) {
        let [w, first] = [w, first].map(into_contiguous);
        let [second, radius] = [second, radius].map(|tensor| match tensor {
            Optional::Absent => None,
            Optional::Present(tensor) => Some(into_contiguous(tensor)),
        });
        let free =
            matches!((spec.step.rule, spec.step.constraint), (StepRule::Raw, Constraint::Free));
        let groups = if free { 1 } else { spec.groups };
        let launch = Launch { w, grad, first, second, radius, groups, spec };
        let (w, first, second) = match free {
            true => launch.free(),
            false if groups > 1 || launch.cubes() == 1 => launch.groups(),
            false => launch.whole(),
        };
        (w, first, second.map_or(Optional::Absent, Optional::Present))
    }
}

/// Tensors, and how they are launched on. All but the gradient are contiguous.
struct Launch {
    w: CubeTensor,
    /// As it lies: that of a convolution comes with its output channels innermost.
    grad: CubeTensor,
    first: CubeTensor,
    second: Option<CubeTensor>,
    radius: Option<CubeTensor>,
    /// Groups that are told apart.
    groups: usize,
    spec: StepSpec,
}

/// Weight, first and second state.
type Next = (CubeTensor, CubeTensor, Option<CubeTensor>);

/// Places of the buffers among a kernel's arguments.
const W: usize = 0;
const FIRST: usize = 1;
const SECOND: usize = 2;

impl Launch {
    fn free(self) -> Next {
        let (client, lanes) = (self.w.client.clone(), self.lanes());
        let (w, w_out) = next(&self.w, W);
        let (first, first_out) = next(&self.first, FIRST);
        let (second, second_in, second_out) = self.next_second();
        let vectors = self.vectors();
        let cubes = vectors.div_ceil(UNITS).clamp(1, u32::from(u16::MAX));
        step_free::launch(
            &client,
            CubeCount::new_1d(cubes),
            CubeDim::new_1d(UNITS),
            lanes,
            self.w.into_buffer_arg(),
            self.first.into_buffer_arg(),
            second_in,
            self.grad.into_linear_view(),
            w_out,
            first_out,
            second_out,
            vectors,
            scalars(self.spec),
            base(self.spec),
        );
        (w, first, second)
    }

    fn groups(self) -> Next {
        let (client, lanes) = (self.w.client.clone(), self.lanes());
        let (w, w_out) = next(&self.w, W);
        let (first, first_out) = next(&self.first, FIRST);
        let (second, second_in, second_out) = self.next_second();
        let (groups, vectors) = (small(self.groups), self.vectors());
        step_groups::launch(
            &client,
            CubeCount::new_1d(groups.clamp(1, u32::from(u16::MAX))),
            CubeDim::new_1d(vectors.clamp(32, UNITS).next_power_of_two()),
            lanes,
            self.w.into_buffer_arg(),
            self.first.into_buffer_arg(),
            second_in,
            self.grad.into_linear_view(),
            self.radius.map(CubeTensor::into_buffer_arg).into(),
            w_out,
            first_out,
            second_out,
            groups,
            vectors,
            scalars(self.spec),
            rules(self.spec),
        );
        (w, first, second)
    }

    fn whole(self) -> Next {
        let (client, lanes) = (self.w.client.clone(), self.lanes());
        let (vectors, cubes) = (self.vectors(), self.cubes());
        let (count, dim) = (CubeCount::new_1d(cubes), CubeDim::new_1d(UNITS));
        let partial = empty_like(&self.w, [cubes as usize, 3]);
        let (first, first_out) = next(&self.first, FIRST);
        let (second, second_in, second_out) = self.next_second();
        sum::launch(
            &client,
            count.clone(),
            dim,
            lanes,
            self.w.clone().into_buffer_arg(),
            self.first.into_buffer_arg(),
            second_in,
            self.grad.clone().into_linear_view(),
            first_out,
            second_out,
            partial.clone().into_buffer_arg(),
            vectors,
            scalars(self.spec),
            base(self.spec),
        );
        let (w, w_out) = next(&self.w, W);
        apply::launch(
            &client,
            count,
            dim,
            lanes,
            self.w.into_buffer_arg(),
            first.clone().into_buffer_arg(),
            second.as_ref().map_or_else(
                || first.as_tensor_alias(FIRST).into_buffer_arg(),
                |second| second.clone().into_buffer_arg(),
            ),
            self.grad.into_linear_view(),
            self.radius.map(CubeTensor::into_buffer_arg).into(),
            partial.into_buffer_arg(),
            w_out,
            vectors,
            cubes,
            scalars(self.spec),
            rules(self.spec),
        );
        (w, first, second)
    }

    /// The second state's arguments, to read and to write. An optimizer without one shows the first instead, which its kernels
    /// leave alone.
    fn next_second(&self) -> (Option<CubeTensor>, BufferArg, BufferArg) {
        match &self.second {
            Some(second) => {
                let (out, arg) = next(second, SECOND);
                (Some(out), second.clone().into_buffer_arg(), arg)
            }
            None => {
                let alias = || self.first.as_tensor_alias(FIRST).into_buffer_arg();
                (None, alias(), alias())
            }
        }
    }

    /// Elements of a group.
    fn len(&self) -> usize {
        self.w.shape().num_elements() / self.groups
    }

    /// Elements of a vector.
    fn lanes(&self) -> usize {
        if self.grad.is_contiguous() && self.len().is_multiple_of(4) { 4 } else { 1 }
    }

    /// Vectors of a group.
    fn vectors(&self) -> u32 {
        small(self.len() / self.lanes())
    }

    /// Cubes for all of a whole tensor.
    fn cubes(&self) -> u32 {
        self.vectors().div_ceil(UNITS * VECTORS).clamp(1, CUBES)
    }
}

/// What comes after `tensor`, and the argument that a kernel writes it to: the same buffer, which is the argument at
/// `position`, if nobody else holds it.
fn next(tensor: &CubeTensor, position: usize) -> (CubeTensor, BufferArg) {
    if tensor.can_mut() {
        return (tensor.clone(), tensor.as_tensor_alias(position).into_buffer_arg());
    }
    let fresh = empty_like(tensor, tensor.shape());
    (fresh.clone(), fresh.into_buffer_arg())
}

fn empty_like(tensor: &CubeTensor, shape: impl Into<burn::tensor::Shape>) -> CubeTensor {
    let (client, device) = (tensor.client.clone(), tensor.device.clone());
    empty_device_contiguous_dtype(client, device, shape.into(), tensor.dtype)
}

fn small(size: usize) -> u32 {
    u32::try_from(size).expect("a GPU holds no tensor of more numbers")
}

/// Which direction a kernel takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Base {
    Sgd,
    Nesterov,
    RmsProp,
    Adam,
}

impl Base {
    fn has_second(self) -> bool {
        matches!(self, Base::RmsProp | Base::Adam)
    }
}

/// What a kernel that knows norms is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Rules {
    base: Base,
    rule: StepRule,
    constraint: Constraint,
}

fn base(spec: StepSpec) -> Base {
    match spec.base {
        BaseUpdate::Sgd { nesterov: false, .. } => Base::Sgd,
        BaseUpdate::Sgd { nesterov: true, .. } => Base::Nesterov,
        BaseUpdate::RmsProp { .. } => Base::RmsProp,
        BaseUpdate::AdamW { .. } => Base::Adam,
    }
}

fn rules(spec: StepSpec) -> Rules {
    Rules { base: base(spec), rule: spec.step.rule, constraint: spec.step.constraint }
}

/// The numbers of a step. What a base does not use is 1.
#[derive(CubeType, CubeLaunch)]
struct Scalars {
    lr: f32,
    /// Decoupled.
    decay: f32,
    l2: f32,
    /// What the first state keeps: μ, or Adam's β₁.
    momentum: f32,
    /// 1 − β₁.
    fresh: f32,
    /// What the second state keeps: α, or Adam's β₂.
    average: f32,
    /// 1 minus that.
    inflow: f32,
    epsilon: f32,
    /// Adam's bias corrections.
    first_correction: f32,
    second_correction: f32,
}

fn scalars(spec: StepSpec) -> ScalarsLaunch {
    let (momentum, average, epsilon, corrections) = match spec.base {
        BaseUpdate::Sgd { momentum, .. } => (momentum, 1.0, 1.0, (1.0, 1.0)),
        BaseUpdate::RmsProp { alpha, momentum, epsilon } => (momentum, alpha, epsilon, (1.0, 1.0)),
        BaseUpdate::AdamW { betas, epsilon } => {
            (betas.0, betas.1, epsilon, corrections(betas, spec.steps))
        }
    };
    // Differences in f64: 1 − β₂ of 0.999 is off by 1.3e-5 in f32.
    ScalarsLaunch::new(
        spec.step.lr as f32,
        spec.step.decay as f32,
        spec.l2 as f32,
        momentum as f32,
        (1.0 - momentum) as f32,
        average as f32,
        (1.0 - average) as f32,
        epsilon as f32,
        corrections.0 as f32,
        corrections.1 as f32,
    )
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
        let average = Vector::<f32, N>::new(scalars.average);
        next = second * average + g * g * Vector::<f32, N>::new(scalars.inflow);
    }
    let mut inflow = g;
    if comptime!(base == Base::RmsProp) {
        let root = (next + Vector::<f32, N>::new(scalars.epsilon)).sqrt();
        inflow = g * Vector::<f32, N>::new(scalars.lr) / root;
    } else if comptime!(base == Base::Adam) {
        inflow = g * Vector::<f32, N>::new(scalars.fresh);
    }
    let first = first * Vector::<f32, N>::new(scalars.momentum) + inflow;
    let direction = direction::<N>(w, grad, first, next, scalars, base);
    Advanced::<N> { first, second: next, direction }
}

/// The direction from states that are advanced, and from the weight before the step.
#[cube]
fn direction<N: Size>(
    w: Vector<f32, N>,
    grad: Vector<f32, N>,
    first: Vector<f32, N>,
    second: Vector<f32, N>,
    scalars: &Scalars,
    #[comptime] base: Base,
) -> Vector<f32, N> {
    let mut d = first;
    if comptime!(base == Base::Nesterov) {
        d = decayed::<N>(w, grad, scalars) + first * Vector::<f32, N>::new(scalars.momentum);
    } else if comptime!(base == Base::Adam) {
        let root = (second / Vector::<f32, N>::new(scalars.second_correction)).sqrt();
        d = first
            / Vector::<f32, N>::new(scalars.first_correction)
            / (root + Vector::<f32, N>::new(scalars.epsilon));
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

/// As `Step::coefficients`, in `f32`. NaN is passed on.
#[cube]
fn coefficients(
    moments: Moments,
    radius: f32,
    scalars: &Scalars,
    #[comptime] rules: Rules,
) -> Coefficients {
    let Moments { ww, wd, dd } = moments;
    let decay = scalars.decay;
    let mut trust = 1.0f32;
    if comptime!(rules.rule == StepRule::TrustRatio) {
        let square = dd + 2.0f32 * decay * wd + decay * decay * ww;
        trust = select(ww == 0.0f32 || square <= 0.0f32, 1.0f32, (ww / square).sqrt());
    }
    let a = 1.0f32 - scalars.lr * decay * trust;
    let mut b = 0.0f32 - scalars.lr * trust;
    if comptime!(rules.rule == StepRule::Normalized) {
        b = select(dd == 0.0f32, 0.0f32, 0.0f32 - scalars.lr * radius / dd.sqrt());
    } else if comptime!(rules.base == Base::RmsProp) {
        // The direction holds the learning rate already.
        b = 0.0f32 - trust;
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
fn step_free<N: Size>(
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
    let a = 1.0f32 - scalars.lr * scalars.decay;
    let mut b = 0.0f32 - scalars.lr;
    if comptime!(base == Base::RmsProp) {
        b = -1.0f32;
    }
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
fn step_groups<N: Size>(
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
fn sum<N: Size>(
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
fn apply<N: Size>(
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
