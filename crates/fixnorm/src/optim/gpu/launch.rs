//! Which kernels take a step, and what they are given.
//! Not here: the kernels (`kernels.rs`).
//!
//! | kernels | when | launches |
//! |---|---|---|
//! | `step_free` | no norm is asked for | 1 |
//! | `step_groups` | one cube sums a group: channels, and whole tensors that are small | 1 |
//! | `sum`, `apply` | a whole tensor that many cubes sum | 2 |

use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;
use burn::tensor::Shape;
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use fixnorm_kernels::update::Scaling;

use super::kernels::{
    Base, Divisor, Rules, ScalarsLaunch, UNITS, apply, step_free, step_groups, sum,
};
use super::{Optional, StepBackend, StepSpec};

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
        let free = spec.plan.is_plain();
        let groups = if free { 1 } else { spec.groups };
        let launch = Launch { w, grad, first, second, radius, groups, spec };
        let (w, first, second) = if free {
            launch.free()
        } else if groups > 1 || launch.cubes() == 1 {
            launch.groups()
        } else {
            launch.whole()
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
    /// Number of groups with a norm each.
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

/// The next value of `tensor`, and the argument that a kernel writes it to: the same buffer, which is the argument at
/// `position`, if nobody else holds it.
fn next(tensor: &CubeTensor, position: usize) -> (CubeTensor, BufferArg) {
    if tensor.can_mut() {
        return (tensor.clone(), tensor.as_tensor_alias(position).into_buffer_arg());
    }
    let fresh = empty_like(tensor, tensor.shape());
    (fresh.clone(), fresh.into_buffer_arg())
}

fn empty_like(tensor: &CubeTensor, shape: impl Into<Shape>) -> CubeTensor {
    let (client, device) = (tensor.client.clone(), tensor.device.clone());
    empty_device_contiguous_dtype(client, device, shape.into(), tensor.dtype)
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

fn scalars(spec: StepSpec) -> ScalarsLaunch {
    let (plan, base) = (spec.plan, spec.plan.base);
    let (inflow, root, epsilon) = match base.scaling {
        Scaling::None => (0.0, 1.0, 1.0),
        Scaling::Gradient { inflow, epsilon } => (inflow, 1.0, epsilon),
        Scaling::Direction { inflow, root, epsilon } => (inflow, root, epsilon),
    };
    ScalarsLaunch::new(
        plan.length as f32,
        plan.shrink as f32,
        plan.decay as f32,
        plan.l2 as f32,
        base.momentum,
        base.gain,
        base.output,
        base.lookahead,
        inflow,
        root,
        epsilon,
    )
}
