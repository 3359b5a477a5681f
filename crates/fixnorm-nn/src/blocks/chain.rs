//! A block's structure: convolutions in a chain, a squeeze, a shortcut. On a CPU it runs as one operation
//! (`ops/fused_block.rs`); everywhere else it is composed of Burn's operations, which is also what the tests compare
//! that operation with.
//! Not here: which chain a block is (its own file).

use burn::backend::Dispatch;
use burn::tensor::{Device, Tensor, s};

use super::conv_bn_act::{Activation, ConvBnAct};
use super::squeeze::SqueezeExcite;
use crate::ops::composed::{apply, in_precision};
use crate::ops::fused_block::{BlockBackend, BlockSpec, BlockTensors, ShortcutSpec, StageTensors};
use crate::ops::pass::{BlockExecution, Pass, Recompute};

/// The term that is added to a block's result before its last activation.
#[derive(Clone, Copy)]
pub(crate) enum Shortcut<'a> {
    /// Nothing.
    None,
    /// Every `stride`-th pixel of the input, with zeros for channels that it lacks.
    Identity { stride: usize },
    /// The input through a convolution.
    Projection(&'a ConvBnAct),
}

/// The parts of a block.
#[derive(Clone, Copy)]
pub(crate) struct Chain<'a> {
    /// One to three.
    pub(crate) stages: &'a [&'a ConvBnAct],
    /// Gates the input of the last stage.
    pub(crate) squeeze: Option<&'a SqueezeExcite>,
    pub(crate) shortcut: Shortcut<'a>,
}

impl ConvBnAct {
    /// # Shapes
    /// `x`: `[n, h, w, c_in]` to `[n, ⌈h/stride⌉, ⌈w/stride⌉, c_out]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.forward_in(x, Pass::alone(BlockExecution::of_process()))
    }

    pub(crate) fn forward_in(&self, x: Tensor<4>, pass: Pass<'_>) -> Tensor<4> {
        self.with_chain(|chain| chain.forward(x, None, pass))
    }

    pub(crate) fn with_chain<R>(&self, run: impl FnOnce(Chain<'_>) -> R) -> R {
        run(Chain { stages: &[self], squeeze: None, shortcut: Shortcut::None })
    }
}

impl Chain<'_> {
    /// # Shapes
    /// `x`: `[n, h, w, c_in]` to `[n, h_out, w_out, c_out]`; `survival`: `[n]`, each sample's factor before
    /// the shortcut is added (see [`StepRng`](crate::StepRng)).
    pub(crate) fn forward(
        &self,
        x: Tensor<4>,
        survival: Option<Vec<f32>>,
        pass: Pass<'_>,
    ) -> Tensor<4> {
        if pass.is_fused(&x) {
            self.forward_fused(x, survival, pass.recompute)
        } else {
            self.forward_composed(x, survival, pass)
        }
    }

    fn all_stages(&self) -> impl Iterator<Item = &ConvBnAct> {
        let projection = match self.shortcut {
            Shortcut::Projection(stage) => Some(stage),
            _ => None,
        };
        self.stages.iter().copied().chain(projection)
    }

    fn forward_fused(
        &self,
        x: Tensor<4>,
        survival: Option<Vec<f32>>,
        recompute: Recompute,
    ) -> Tensor<4> {
        let device = x.device();
        let input = x.dims();
        let mut shape = input;
        let stages = self.stages.iter().map(|stage| {
            let spec = stage.spec(shape, &device);
            shape = [input[0], spec.shape.h_out, spec.shape.w_out, spec.shape.c_out];
            spec
        });
        let spec = BlockSpec {
            stages: stages.collect(),
            squeeze: self.squeeze.map(SqueezeExcite::activations),
            shortcut: match self.shortcut {
                Shortcut::None => ShortcutSpec::Nothing,
                Shortcut::Identity { stride } => ShortcutSpec::Identity { stride },
                Shortcut::Projection(stage) => ShortcutSpec::Projection(stage.spec(input, &device)),
            },
            survival,
            recompute: recompute == Recompute::Blocks,
        };
        let shapes: Vec<_> = spec.all_stages().map(|stage| stage.shape).collect();
        let (out, moments) = Dispatch::block(x.into_dispatch(), self.tensors(&device), spec);
        let moments = Tensor::<1>::from_dispatch(moments);
        let mut start = 0;
        for (stage, shape) in self.all_stages().zip(shapes) {
            let c = shape.c_out;
            if stage.uses_batch_statistics(&device) {
                let part = |from: usize| moments.clone().slice(s![from..from + c]);
                let count = shape.n * shape.h_out * shape.w_out;
                stage.update_running(part(start), part(start + c), count);
            }
            start += 2 * c;
        }
        Tensor::from_dispatch(out)
    }

    fn tensors(&self, device: &Device) -> BlockTensors<Dispatch> {
        let unused = Tensor::<1>::zeros([1], device).into_dispatch();
        let mut stages = self.all_stages().map(ConvBnAct::tensors);
        let mut stage = || {
            stages.next().unwrap_or_else(|| StageTensors {
                weight: unused.clone(),
                gamma: unused.clone(),
                beta: unused.clone(),
            })
        };
        let [first, second, third, fourth] = [stage(), stage(), stage(), stage()];
        let [reduce, reduce_bias, expand, expand_bias] = match self.squeeze {
            Some(squeeze) => squeeze.tensors(),
            None => [(); 4].map(|()| unused.clone()),
        };
        BlockTensors { first, second, third, fourth, reduce, reduce_bias, expand, expand_bias }
    }

    fn forward_composed(
        &self,
        x: Tensor<4>,
        survival: Option<Vec<f32>>,
        pass: Pass<'_>,
    ) -> Tensor<4> {
        let dtype = x.dtype();
        let (last, before) = self.stages.split_last().expect("a block has a stage");
        let mut y = x.clone();
        for stage in before {
            y = stage.compose(y, stage.activation(), pass);
        }
        if let Some(squeeze) = self.squeeze {
            y = squeeze.forward(y, pass);
        }
        if matches!(self.shortcut, Shortcut::None) && survival.is_none() {
            return last.compose(y, last.activation(), pass);
        }
        y = last.compose(y, Activation::Identity, pass);
        if let Some(survival) = survival {
            let survival = Tensor::<1>::from_floats(&survival[..], &y.device());
            y = y * in_precision(survival, dtype).reshape([-1, 1, 1, 1]);
        }
        y = match self.shortcut {
            Shortcut::None => y,
            Shortcut::Identity { stride } => y.clone() + subsample(x, stride, y.dims()[3]),
            Shortcut::Projection(stage) => y + stage.compose(x, Activation::Identity, pass),
        };
        apply(last.activation(), y)
    }
}

/// Every `stride`-th pixel of `x`, `[n, h, w, c]`, with zeros for channels up to `c_out`.
fn subsample(x: Tensor<4>, stride: usize, c_out: usize) -> Tensor<4> {
    let x = match stride {
        1 => x,
        _ => {
            let step = isize::try_from(stride).expect("strides are small");
            x.slice(s![.., 0..;step, 0..;step, ..])
        }
    };
    let [n, h, w, c] = x.dims();
    match c_out - c {
        0 => x,
        added => {
            let zeros = Tensor::zeros([n, h, w, added], (&x.device(), x.dtype()));
            Tensor::cat(vec![x, zeros], 3)
        }
    }
}
