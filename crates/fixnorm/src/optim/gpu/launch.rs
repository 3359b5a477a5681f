//! Which kernels take steps, and what they are given.
//! Not here: the kernels (`kernels.rs`).
//!
//! | kernels | when | launches |
//! |---|---|---|
//! | `step_free` | no norm is asked for | 1 for several parameters |
//! | `step_groups` | one cube sums a group: channels, and whole tensors that are small | 1 for several parameters |
//! | `sum`, `apply` | a whole tensor that many cubes sum | 2 |
//!
//! A launch takes as many parameters as the device lets a kernel have tensors.

use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use fixnorm_kernels::update::Scaling;

use super::kernels::{
    Base, Divisor, Rules, ScalarsLaunch, UNITS, apply, step_free, step_groups, sum,
};
use super::many::Many;
use super::{StepBackend, StepSpec};

/// Cubes that share a tensor; a large GPU wants about a thousand.
const CUBES: u32 = 1024;
/// Vectors that a unit takes at least, before there are more cubes.
const VECTORS: u32 = 4;
/// Parameters of a launch, at most: each is a part of the kernel's code.
const MOST: usize = 16;
/// Cubes along an axis that every graphics interface has.
const ALONG: u32 = u16::MAX as u32;

impl StepBackend for CubeBackend {
    fn norm_steps(tensors: Many<Self>, specs: Vec<StepSpec>) -> Many<Self> {
        let mut tensors = tensors.0.into_iter();
        let steps: Vec<Step> =
            specs.into_iter().map(|spec| Step::new(spec, &mut tensors)).collect();
        let mut order: Vec<&Step> = steps.iter().collect();
        // Those of like size together: cubes of a launch are of one size.
        order.sort_by_key(|step| (step.kernel, step.lanes(), step.vectors()));
        for like in order.chunk_by(|a, b| a.is_like(b)) {
            let bindings = like[0].client().properties().hardware.max_bindings as usize;
            let most = (bindings / like[0].tensors()).clamp(1, MOST);
            like.chunks(most).for_each(launch);
        }
        Many(steps.into_iter().flat_map(Step::into_next).collect())
    }
}

/// The kernels of a step.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kernel {
    Free,
    Groups,
    Whole,
}

/// The step of a parameter. Its tensors are contiguous, and all but gradient and radius its own: kernels change them in place.
struct Step {
    w: CubeTensor,
    grad: CubeTensor,
    first: CubeTensor,
    second: Option<CubeTensor>,
    radius: Option<CubeTensor>,
    spec: StepSpec,
    kernel: Kernel,
}

impl Step {
    fn new(spec: StepSpec, tensors: &mut impl Iterator<Item = FloatTensor<CubeBackend>>) -> Self {
        let mut tensor = || into_contiguous(tensors.next().expect("each step has its tensors"));
        let (w, grad, first) = (own(tensor()), tensor(), own(tensor()));
        let second = spec.plan.base.has_second().then(|| own(tensor()));
        let radius = spec.has_radius.then(tensor);
        let mut step = Self { w, grad, first, second, radius, spec, kernel: Kernel::Free };
        if !spec.plan.is_plain() {
            let one_cube = spec.groups > 1 || step.cubes() == 1;
            step.kernel = if one_cube { Kernel::Groups } else { Kernel::Whole };
        }
        step
    }

    fn client(&self) -> &Client {
        &self.w.client
    }

    /// Tensors that a kernel is given.
    fn tensors(&self) -> usize {
        3 + usize::from(self.second.is_some()) + usize::from(self.radius.is_some())
    }

    /// Whether one launch can take both.
    fn is_like(&self, other: &Self) -> bool {
        self.kernel == other.kernel
            && self.kernel != Kernel::Whole
            && self.lanes() == other.lanes()
            && rules(self.spec) == rules(other.spec)
            && self.radius.is_some() == other.radius.is_some()
            && values(self.spec) == values(other.spec)
    }

    /// Number of groups with a norm each.
    fn groups(&self) -> usize {
        if self.kernel == Kernel::Free { 1 } else { self.spec.groups }
    }

    /// Elements of a group. A step that asks for no norm has one.
    fn len(&self) -> usize {
        self.w.shape().num_elements() / self.groups()
    }

    /// Elements of a vector.
    fn lanes(&self) -> usize {
        if self.len().is_multiple_of(4) { 4 } else { 1 }
    }

    /// Vectors of a group.
    fn vectors(&self) -> u32 {
        small(self.len() / self.lanes())
    }

    /// Cubes for all of a whole tensor.
    fn cubes(&self) -> u32 {
        let len = self.w.shape().num_elements();
        let vectors = small(if len.is_multiple_of(4) { len / 4 } else { len });
        vectors.div_ceil(UNITS * VECTORS).clamp(1, CUBES)
    }

    fn into_next(self) -> impl Iterator<Item = CubeTensor> {
        [Some(self.w), Some(self.first), self.second].into_iter().flatten()
    }
}

/// The tensor in a buffer that nobody else holds.
fn own(tensor: CubeTensor) -> CubeTensor {
    if tensor.can_mut() { tensor } else { tensor.copy() }
}

fn launch(steps: &[&Step]) {
    match steps[0].kernel {
        Kernel::Free => launch_free(steps),
        Kernel::Groups => launch_groups(steps),
        Kernel::Whole => steps.iter().for_each(|step| launch_whole(step)),
    }
}

/// The same tensor of each step.
fn each<'a>(
    steps: &'a [&Step],
    tensor: impl Fn(&'a Step) -> Option<&'a CubeTensor>,
) -> Vec<BufferArg> {
    steps
        .iter()
        .filter_map(|step| tensor(step))
        .map(|tensor| tensor.clone().into_buffer_arg())
        .collect()
}

fn launch_free(steps: &[&Step]) {
    let first = steps[0];
    let most = steps.iter().map(|step| step.vectors()).max().unwrap_or(1);
    step_free::launch(
        first.client(),
        CubeCount::Static(most.div_ceil(UNITS).clamp(1, ALONG), small(steps.len()), 1),
        CubeDim::new_1d(UNITS),
        first.lanes(),
        each(steps, |step| Some(&step.w)).into_iter().collect(),
        each(steps, |step| Some(&step.grad)).into_iter().collect(),
        each(steps, |step| Some(&step.first)).into_iter().collect(),
        each(steps, |step| step.second.as_ref()).into_iter().collect(),
        steps.iter().map(|step| step.vectors()).collect(),
        scalars(first.spec),
        base(first.spec),
    );
}

fn launch_groups(steps: &[&Step]) {
    let first = steps[0];
    let groups = steps.iter().map(|step| small(step.groups())).max().unwrap_or(1);
    let vectors = steps.iter().map(|step| step.vectors()).max().unwrap_or(1);
    step_groups::launch(
        first.client(),
        CubeCount::Static(groups.clamp(1, ALONG), small(steps.len()), 1),
        CubeDim::new_1d(vectors.clamp(32, UNITS).next_power_of_two()),
        first.lanes(),
        each(steps, |step| Some(&step.w)).into_iter().collect(),
        each(steps, |step| Some(&step.grad)).into_iter().collect(),
        each(steps, |step| Some(&step.first)).into_iter().collect(),
        each(steps, |step| step.second.as_ref()).into_iter().collect(),
        each(steps, |step| step.radius.as_ref()).into_iter().collect(),
        steps.iter().map(|step| small(step.groups())).collect(),
        steps.iter().map(|step| step.vectors()).collect(),
        scalars(first.spec),
        rules(first.spec),
        first.radius.is_some(),
    );
}

fn launch_whole(step: &Step) {
    let steps = &[step];
    let (client, lanes, vectors) = (step.client(), step.lanes(), step.vectors());
    let (count, dim) = (CubeCount::new_1d(step.cubes()), CubeDim::new_1d(UNITS));
    let shape = [step.cubes() as usize, 3];
    let device = step.w.device.clone();
    let partial = empty_device_contiguous_dtype(client.clone(), device, shape.into(), step.w.dtype);
    sum::launch(
        client,
        count.clone(),
        dim,
        lanes,
        each(steps, |step| Some(&step.w)).into_iter().collect(),
        each(steps, |step| Some(&step.grad)).into_iter().collect(),
        each(steps, |step| Some(&step.first)).into_iter().collect(),
        each(steps, |step| step.second.as_ref()).into_iter().collect(),
        partial.clone().into_buffer_arg(),
        vectors,
        scalars(step.spec),
        base(step.spec),
    );
    apply::launch(
        client,
        count,
        dim,
        lanes,
        each(steps, |step| Some(&step.w)).into_iter().collect(),
        each(steps, |step| Some(&step.grad)).into_iter().collect(),
        each(steps, |step| Some(&step.first)).into_iter().collect(),
        each(steps, |step| step.second.as_ref()).into_iter().collect(),
        each(steps, |step| step.radius.as_ref()).into_iter().collect(),
        partial.into_buffer_arg(),
        vectors,
        step.cubes(),
        scalars(step.spec),
        rules(step.spec),
        step.radius.is_some(),
    );
}

fn small(size: usize) -> u32 {
    u32::try_from(size).expect("a GPU holds no tensor of more numbers")
}

fn base(spec: StepSpec) -> Base {
    let base = spec.plan.base;
    Base {
        divisor: match base.scaling {
            Scaling::None => Divisor::None,
            Scaling::Gradient { .. } => Divisor::Gradient,
            Scaling::Direction { .. } => Divisor::Direction,
        },
        lookahead: base.lookahead != 0.0,
    }
}

fn rules(spec: StepSpec) -> Rules {
    Rules { base: base(spec), rule: spec.plan.rule, constraint: spec.plan.constraint }
}

/// The scalars of a step, in the order of `Scalars`.
fn values(spec: StepSpec) -> [f32; 11] {
    let (plan, base) = (spec.plan, spec.plan.base);
    let (inflow, root, epsilon) = match base.scaling {
        Scaling::None => (0.0, 1.0, 1.0),
        Scaling::Gradient { inflow, epsilon } => (inflow, 1.0, epsilon),
        Scaling::Direction { inflow, root, epsilon } => (inflow, root, epsilon),
    };
    let [length, shrink, decay, l2] =
        [plan.length, plan.shrink, plan.decay, plan.l2].map(|value| value as f32);
    let states = [base.momentum, base.gain, base.output, base.lookahead, inflow, root, epsilon];
    let [momentum, gain, output, lookahead, inflow, root, epsilon] = states;
    [length, shrink, decay, l2, momentum, gain, output, lookahead, inflow, root, epsilon]
}

fn scalars(spec: StepSpec) -> ScalarsLaunch {
    let [length, shrink, decay, l2, momentum, gain, output, lookahead, inflow, root, epsilon] =
        values(spec);
    ScalarsLaunch::new(
        length, shrink, decay, l2, momentum, gain, output, lookahead, inflow, root, epsilon,
    )
}
