//! A block: convolutions in a chain, a squeeze, a shortcut that may be all that is left of a sample. On a CPU it runs as one
//! operation (`fused.rs`); everywhere else, and as what that operation is tested against, it is composed
//! of Burn's.

#[cfg(test)]
mod tests;

use std::sync::OnceLock;

use burn::backend::Dispatch;
use burn::tensor::{Device, Tensor, s};

use crate::block::{Activation, ConvBnAct, apply, in_precision};
use crate::fused::{BlockBackend, BlockSpec, BlockTensors, ShortcutSpec, StageTensors};
use crate::squeeze::SqueezeExcite;
use crate::sync::Peer;

/// What is added to a block's result, before its last activation.
#[derive(Clone, Copy)]
pub(crate) enum Shortcut<'a> {
    /// Nothing.
    None,
    /// The input: every `stride`-th pixel of it, channels that it lacks being zero.
    Identity { stride: usize },
    /// The input through a convolution.
    Projection(&'a ConvBnAct),
}

/// A block's parts.
#[derive(Clone, Copy)]
pub(crate) struct Chain<'a> {
    /// One to three.
    pub(crate) stages: &'a [&'a ConvBnAct],
    /// Gates what the last stage reads.
    pub(crate) squeeze: Option<&'a SqueezeExcite>,
    pub(crate) shortcut: Shortcut<'a>,
}

/// Whether operations of our own are wanted, where there are any: unless `FIXNORM_BLOCKS=composed` says no.
pub(crate) fn blocks_are_fused() -> bool {
    static WANTED: OnceLock<bool> = OnceLock::new();
    *WANTED.get_or_init(|| match std::env::var("FIXNORM_BLOCKS").as_deref() {
        Ok("composed") => false,
        Ok("fused") | Err(_) => true,
        Ok(other) => panic!("FIXNORM_BLOCKS is `{other}`; it takes fused, composed"),
    })
}

/// Whether a whole block of `x` is one operation of our own: on a CPU that waits for no other device.
pub(crate) fn runs_fused<const D: usize>(x: &Tensor<D>) -> bool {
    blocks_are_fused() && x.device().inner() == Device::flex() && Peer::current().is_none()
}

impl Chain<'_> {
    /// # Shapes
    /// `x`: `[n, h, w, c_in]` to `[n, h_out, w_out, c_out]`; `survival`: `[n]`, each sample's factor before
    /// the shortcut is added (see [`StepRng`](crate::random::StepRng)).
    pub(crate) fn forward(&self, x: Tensor<4>, survival: Option<Vec<f32>>) -> Tensor<4> {
        match runs_fused(&x) {
            true => self.forward_fused(x, survival),
            false => self.forward_composed(x, survival),
        }
    }

    fn all_stages(&self) -> impl Iterator<Item = &ConvBnAct> {
        let projection = match self.shortcut {
            Shortcut::Projection(stage) => Some(stage),
            _ => None,
        };
        self.stages.iter().copied().chain(projection)
    }

    pub(crate) fn forward_fused(&self, x: Tensor<4>, survival: Option<Vec<f32>>) -> Tensor<4> {
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
        };
        let shapes: Vec<_> = spec.all_stages().map(|stage| stage.shape).collect();
        let (out, moments) = Dispatch::block(x.into_dispatch(), self.tensors(&device), spec);
        let moments = Tensor::<1>::from_dispatch(moments);
        let mut start = 0;
        for (stage, shape) in self.all_stages().zip(shapes) {
            let c = shape.c_out;
            if stage.uses_batch(&device) {
                let part = |from: usize| moments.clone().slice(s![from..from + c]);
                let count = shape.n * shape.h_out * shape.w_out;
                stage.update_running(part(start), part(start + c), count);
            }
            start += 2 * c;
        }
        Tensor::from_dispatch(out)
    }

    fn tensors(&self, device: &Device) -> BlockTensors<Dispatch> {
        let nothing = Tensor::<1>::zeros([1], device).into_dispatch();
        let mut stages = self.all_stages().map(ConvBnAct::tensors);
        let mut stage = || {
            stages.next().unwrap_or_else(|| StageTensors {
                weight: nothing.clone(),
                gamma: nothing.clone(),
                beta: nothing.clone(),
            })
        };
        let [first, second, third, fourth] = [stage(), stage(), stage(), stage()];
        let [reduce, reduce_bias, expand, expand_bias] = match self.squeeze {
            Some(squeeze) => squeeze.tensors(),
            None => [(); 4].map(|()| nothing.clone()),
        };
        BlockTensors { first, second, third, fourth, reduce, reduce_bias, expand, expand_bias }
    }

    pub(crate) fn forward_composed(&self, x: Tensor<4>, survival: Option<Vec<f32>>) -> Tensor<4> {
        let dtype = x.dtype();
        let (last, before) = self.stages.split_last().expect("a block has a stage");
        let mut y = x.clone();
        for stage in before {
            y = stage.compose(y, stage.activation());
        }
        if let Some(squeeze) = self.squeeze {
            y = squeeze.forward(y);
        }
        if matches!(self.shortcut, Shortcut::None) && survival.is_none() {
            return last.compose(y, last.activation());
        }
        y = last.compose(y, Activation::Identity);
        if let Some(survival) = survival {
            let survival = Tensor::<1>::from_floats(&survival[..], &y.device());
            y = y * in_precision(survival, dtype).reshape([-1, 1, 1, 1]);
        }
        y = match self.shortcut {
            Shortcut::None => y,
            Shortcut::Identity { stride } => y.clone() + subsample(x, stride, y.dims()[3]),
            Shortcut::Projection(stage) => y + stage.compose(x, Activation::Identity),
        };
        apply(last.activation(), y)
    }
}

/// Every `stride`-th pixel of `x`, `[n, h, w, c]`, with zeros for channels up to `c_out`.
fn subsample(x: Tensor<4>, stride: usize, c_out: usize) -> Tensor<4> {
    let x = match stride {
        1 => x,
        stride => {
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
