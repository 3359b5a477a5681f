//! A block as one operation of Burn's CPU backend, with its own backward pass.
//! Not here: the same block composed of Burn's operations (`blocks/chain.rs`), the arithmetic (`fixnorm-kernels`).

use std::sync::Arc;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, ExtensionType, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Bytes, DType, Shape};
use fixnorm_kernels::block::{Block, BlockGrad, Saved, Shortcut, Squeeze, Stage, Statistics};
use fixnorm_kernels::conv::ConvShape;
use fixnorm_kernels::{Activation, Isa, bf16};

use super::flex::{Stored, contiguous, flex, slice};

/// Sizes and constants of a stage: a convolution with its normalization and activation.
#[derive(Clone, Debug)]
pub(crate) struct StageSpec {
    pub(crate) shape: ConvShape,
    pub(crate) epsilon: f32,
    pub(crate) activation: Activation,
    /// Running mean and variance to normalize with, instead of the batch's.
    pub(crate) running: Option<(Vec<f32>, Vec<f32>)>,
}

/// The term that is added to a block's result.
#[derive(Clone, Debug)]
pub(crate) enum ShortcutSpec {
    Nothing,
    Identity { stride: usize },
    Projection(StageSpec),
}

/// Configuration of a block: everything but its tensors.
#[derive(Clone, Debug)]
pub(crate) struct BlockSpec {
    pub(crate) stages: Vec<StageSpec>,
    /// Activations of the squeeze's hidden layer and gate.
    pub(crate) squeeze: Option<(Activation, Activation)>,
    pub(crate) shortcut: ShortcutSpec,
    pub(crate) survival: Option<Vec<f32>>,
    /// The backward pass computes what is inside the block again.
    pub(crate) recompute: bool,
}

impl BlockSpec {
    /// All stages, the projection last.
    pub(crate) fn all_stages(&self) -> impl Iterator<Item = &StageSpec> {
        let projection = match &self.shortcut {
            ShortcutSpec::Projection(stage) => Some(stage),
            _ => None,
        };
        self.stages.iter().chain(projection)
    }
}

/// The parameters of a stage.
#[derive(ExtensionType, Clone, Debug)]
pub(crate) struct StageTensors<B: Backend> {
    pub(crate) weight: FloatTensor<B>,
    pub(crate) gamma: FloatTensor<B>,
    pub(crate) beta: FloatTensor<B>,
}

/// The parameters of a block: up to three stages and a projection, in the order of
/// [`BlockSpec::all_stages`], and the squeeze's. Parameters that a block lacks are filled with any tensor.
#[derive(ExtensionType, Clone, Debug)]
pub(crate) struct BlockTensors<B: Backend> {
    #[extension_type]
    pub(crate) first: StageTensors<B>,
    #[extension_type]
    pub(crate) second: StageTensors<B>,
    #[extension_type]
    pub(crate) third: StageTensors<B>,
    #[extension_type]
    pub(crate) fourth: StageTensors<B>,
    pub(crate) reduce: FloatTensor<B>,
    pub(crate) reduce_bias: FloatTensor<B>,
    pub(crate) expand: FloatTensor<B>,
    pub(crate) expand_bias: FloatTensor<B>,
}

/// Number of tensors of a block: its input and those of [`BlockTensors`].
const INPUTS: usize = 17;
/// Index of the first of the squeeze's tensors.
const SQUEEZE: usize = 13;

impl<B: Backend> BlockTensors<B> {
    fn with_input(self, x: FloatTensor<B>) -> [FloatTensor<B>; INPUTS] {
        let [a, b, c, d] = [self.first, self.second, self.third, self.fourth];
        [
            x,
            a.weight,
            a.gamma,
            a.beta,
            b.weight,
            b.gamma,
            b.beta,
            c.weight,
            c.gamma,
            c.beta,
            d.weight,
            d.gamma,
            d.beta,
            self.reduce,
            self.reduce_bias,
            self.expand,
            self.expand_bias,
        ]
    }
}

/// Backends that run a block as one operation.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait BlockBackend: Backend {
    /// The block's result, and the statistics of each stage one after another: means, then biased
    /// variances.
    fn block(
        x: FloatTensor<Self>,
        #[extension_type] tensors: BlockTensors<Self>,
        spec: BlockSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

impl BlockBackend for Flex {
    fn block(
        x: FlexTensor,
        tensors: BlockTensors<Self>,
        spec: BlockSpec,
    ) -> (FlexTensor, FlexTensor) {
        let tensors = tensors.with_input(x).map(contiguous);
        match tensors[0].dtype() {
            DType::BF16 => infer::<bf16>(&tensors, &spec),
            _ => infer::<f32>(&tensors, &spec),
        }
    }
}

impl<C: CheckpointStrategy> BlockBackend for Autodiff<Flex, C> {
    fn block(
        x: FloatTensor<Self>,
        tensors: BlockTensors<Self>,
        spec: BlockSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let parts = tensors.with_input(x).map(|tensor| tensor.into_parts());
        let (mut tensors, mut guards) = (Vec::new(), Vec::new());
        for (tensor, guard) in parts {
            tensors.push(contiguous(tensor));
            guards.push(guard);
        }
        let tensors: [FlexTensor; INPUTS] =
            tensors.try_into().expect("as many as there are inputs");
        let guards = guards.try_into().expect("as many as there are inputs");
        let (out, moments, saved) = match tensors[0].dtype() {
            DType::BF16 => {
                let (out, moments, saved) = forward::<bf16>(&tensors, &spec);
                (out, moments, SavedAny::Bf16(saved))
            }
            _ => {
                let (out, moments, saved) = forward::<f32>(&tensors, &spec);
                (out, moments, SavedAny::F32(saved))
            }
        };
        let saved = (!spec.recompute).then_some(saved);
        let out = match BlockBackward.prepare::<C>(guards).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(State(Arc::new((tensors, spec, saved))), out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        };
        (out, FloatTensor::<Self>::new(moments))
    }
}

/// Inputs, configuration and saved values that the backward pass needs.
#[derive(Clone)]
struct State(Arc<([FlexTensor; INPUTS], BlockSpec, Option<SavedAny>)>);

enum SavedAny {
    F32(Saved<f32>),
    Bf16(Saved<bf16>),
}

// Not derived: it would print every value.
impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("spec", &self.0.1).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct BlockBackward;

impl Backward<Flex, INPUTS> for BlockBackward {
    type State = State;

    fn backward(self, ops: Ops<State, INPUTS>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dout = grads.consume::<Flex>(&ops.node);
        let (tensors, spec, saved) = &*ops.state.0;
        let wants_dx = ops.parents[0].is_some();
        let again;
        let saved = match saved {
            Some(saved) => saved,
            None => {
                again = recompute(tensors, spec);
                &again
            }
        };
        let found = match saved {
            SavedAny::F32(saved) => backward(tensors, spec, saved, &dout, wants_dx),
            SavedAny::Bf16(saved) => backward(tensors, spec, saved, &dout, wants_dx),
        };
        for (parent, (input, grad)) in ops.parents.iter().zip(tensors.iter().zip(found)) {
            if let (Some(parent), Some(grad)) = (parent, grad) {
                let grad =
                    FlexTensor::new(grad.bytes, Layout::contiguous(input.shape()), grad.dtype);
                let id: NodeId = parent.id;
                grads.register::<Flex>(id, grad);
            }
        }
    }
}

/// The values of a gradient, without a shape.
struct Flat {
    bytes: Bytes,
    dtype: DType,
}

impl Flat {
    fn new<T: Stored>(values: Vec<T>) -> Self {
        Self { bytes: Bytes::from_elems(values), dtype: T::dtype() }
    }
}

/// Calls `run` with the block as the kernels expect it.
fn with_block<R>(
    tensors: &[FlexTensor; INPUTS],
    spec: &BlockSpec,
    run: impl FnOnce(&Block<'_>) -> R,
) -> R {
    let mut stages: Vec<Stage<'_>> = Vec::new();
    for (index, stage) in spec.all_stages().enumerate() {
        let [weight, gamma, beta] = [0, 1, 2].map(|i| slice::<f32>(&tensors[1 + 3 * index + i]));
        stages.push(Stage {
            shape: stage.shape,
            weight,
            gamma,
            beta,
            epsilon: stage.epsilon,
            statistics: match &stage.running {
                Some((mean, var)) => Statistics::Given(mean, var),
                None => Statistics::Batch,
            },
            activation: stage.activation,
        });
    }
    let shortcut = match spec.shortcut {
        ShortcutSpec::Nothing => Shortcut::None,
        ShortcutSpec::Identity { stride } => Shortcut::Identity { stride },
        ShortcutSpec::Projection(_) => {
            Shortcut::Projection(stages.pop().expect("the projection is the last stage"))
        }
    };
    let squeeze = spec.squeeze.map(|(activation, gate)| {
        let [reduce, reduce_bias, expand, expand_bias] =
            [0, 1, 2, 3].map(|i| slice::<f32>(&tensors[SQUEEZE + i]));
        Squeeze { reduce, reduce_bias, expand, expand_bias, activation, gate }
    });
    run(&Block { stages, squeeze, shortcut, survival: spec.survival.as_deref() })
}

fn result<T: Stored>(spec: &BlockSpec, out: Vec<T>) -> FlexTensor {
    let last = &spec.stages.last().expect("a block has a stage").shape;
    flex(out, Shape::from([last.n, last.h_out, last.w_out, last.c_out]))
}

fn infer<T: Stored>(tensors: &[FlexTensor; INPUTS], spec: &BlockSpec) -> (FlexTensor, FlexTensor) {
    let batch = spec.all_stages().any(|stage| stage.running.is_none());
    if batch {
        let (out, moments, _) = forward::<T>(tensors, spec);
        return (out, moments);
    }
    let out =
        with_block(tensors, spec, |block| block.infer(Isa::current(), slice::<T>(&tensors[0])));
    (result(spec, out), flat(Vec::new()))
}

fn forward<T: Stored>(
    tensors: &[FlexTensor; INPUTS],
    spec: &BlockSpec,
) -> (FlexTensor, FlexTensor, Saved<T>) {
    let (out, saved) =
        with_block(tensors, spec, |block| block.forward(Isa::current(), slice::<T>(&tensors[0])));
    let moments = saved.moments().flat_map(|m| m.mean.iter().chain(&m.var).copied()).collect();
    (result(spec, out), flat(moments), saved)
}

/// What [`forward`] saves.
fn recompute(tensors: &[FlexTensor; INPUTS], spec: &BlockSpec) -> SavedAny {
    let x = &tensors[0];
    with_block(tensors, spec, |block| match x.dtype() {
        DType::BF16 => SavedAny::Bf16(block.recompute(Isa::current(), slice::<bf16>(x))),
        _ => SavedAny::F32(block.recompute(Isa::current(), slice::<f32>(x))),
    })
}

fn flat(values: Vec<f32>) -> FlexTensor {
    let shape = Shape::from([values.len()]);
    flex(values, shape)
}

/// The gradients, in the order of the inputs.
fn backward<T: Stored>(
    tensors: &[FlexTensor; INPUTS],
    spec: &BlockSpec,
    saved: &Saved<T>,
    dout: &FlexTensor,
    wants_dx: bool,
) -> [Option<Flat>; INPUTS] {
    let dout = contiguous(dout.clone());
    let grad: BlockGrad<T> = with_block(tensors, spec, |block| {
        let (x, dout) = (slice::<T>(&tensors[0]), slice::<T>(&dout));
        block.backward(Isa::current(), x, saved, dout, wants_dx)
    });
    let mut found = [const { None }; INPUTS];
    found[0] = wants_dx.then(|| Flat::new(grad.dx));
    for (index, stage) in grad.stages.into_iter().chain(grad.projection).enumerate() {
        found[1 + 3 * index] = Some(Flat::new(stage.dweight));
        found[2 + 3 * index] = Some(Flat::new(stage.dgamma));
        found[3 + 3 * index] = Some(Flat::new(stage.dbeta));
    }
    if let Some(squeeze) = grad.squeeze {
        found[SQUEEZE] = Some(Flat::new(squeeze.dreduce));
        found[SQUEEZE + 1] = Some(Flat::new(squeeze.dreduce_bias));
        found[SQUEEZE + 2] = Some(Flat::new(squeeze.dexpand));
        found[SQUEEZE + 3] = Some(Flat::new(squeeze.dexpand_bias));
    }
    found
}
