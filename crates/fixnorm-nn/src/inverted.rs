//! Inverted residual blocks (Sandler et al. 2018): a thin input widened, convolved channel by channel,
//! and narrowed again without an activation.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::block::{Activation, ConvBnAct, ConvBnActConfig};
use crate::chain::{Chain, Shortcut};
use crate::squeeze::{SqueezeExcite, SqueezeExciteConfig};

/// Configuration of an [`InvertedResidual`].
#[derive(Clone, Copy, Debug)]
pub struct InvertedResidualConfig {
    /// Input channels.
    pub c_in: usize,
    /// Output channels.
    pub c_out: usize,
    /// How many times wider the inside is; 1 leaves the widening convolution out.
    pub expansion: usize,
    /// Side of the depthwise kernel.
    pub kernel: usize,
    /// Of the depthwise convolution.
    pub stride: usize,
    /// Of the first two convolutions.
    pub activation: Activation,
    /// Hidden channels of the squeeze, where there is one.
    pub squeeze: Option<usize>,
    /// Share of samples that take the shortcut alone, in training.
    pub drop_path: f64,
}

impl InvertedResidualConfig {
    /// The block on `device`. It has a shortcut where input and output have the same shape.
    pub fn init(&self, device: &Device) -> InvertedResidual {
        let inside = self.c_in * self.expansion;
        let conv = |config: ConvBnActConfig| config.with_activation(self.activation).init(device);
        InvertedResidual {
            expand: (self.expansion > 1).then(|| conv(ConvBnActConfig::new(self.c_in, inside, 1))),
            depthwise: conv(
                ConvBnActConfig::depthwise(inside, self.kernel).with_stride(self.stride),
            ),
            squeeze: self.squeeze.map(|hidden| {
                let config = SqueezeExciteConfig::new(inside, hidden);
                SqueezeExciteConfig { activation: self.activation, ..config }.init(device)
            }),
            project: ConvBnActConfig::new(inside, self.c_out, 1)
                .with_activation(Activation::Identity)
                .init(device),
            shortcut: self.stride == 1 && self.c_in == self.c_out,
            drop_path: self.drop_path,
        }
    }
}

/// Widening, depthwise and narrowing convolution, with a squeeze before the last.
#[derive(Module, Debug)]
pub struct InvertedResidual {
    expand: Option<ConvBnAct>,
    depthwise: ConvBnAct,
    squeeze: Option<SqueezeExcite>,
    project: ConvBnAct,
    shortcut: bool,
    drop_path: f64,
}

impl InvertedResidual {
    /// # Shapes
    /// `x`: `[n, h, w, c_in]` to `[n, ⌈h/stride⌉, ⌈w/stride⌉, c_out]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.with_chain(|chain| chain.forward(x))
    }

    pub(crate) fn with_chain<R>(&self, run: impl FnOnce(Chain<'_>) -> R) -> R {
        let stages: Vec<&ConvBnAct> = self.stages().collect();
        run(Chain {
            stages: &stages,
            squeeze: self.squeeze.as_ref(),
            shortcut: match self.shortcut {
                true => Shortcut::Identity { stride: 1 },
                false => Shortcut::None,
            },
            drop_path: if self.shortcut { self.drop_path } else { 0.0 },
        })
    }

    fn stages(&self) -> impl Iterator<Item = &ConvBnAct> {
        self.expand.iter().chain([&self.depthwise, &self.project])
    }

    pub(crate) fn macs(&self, h: usize, w: usize) -> (u64, usize, usize) {
        let squeeze = self.squeeze.as_ref().map_or(0, SqueezeExcite::macs);
        self.stages().fold((squeeze, h, w), |(total, h, w), stage| {
            let (macs, h, w) = stage.macs(h, w);
            (total + macs, h, w)
        })
    }
}
