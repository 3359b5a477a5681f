//! Inverted residual blocks (Sandler et al. 2018): a 1×1 convolution widens the input, a depthwise one follows, and a
//! 1×1 convolution without an activation narrows it again.

use burn::module::Module;
use burn::tensor::Device;

use super::chain::{Chain, Shortcut};
use super::conv_bn_act::{Activation, ConvBnAct, ConvBnActConfig, ConvStyle};
use super::squeeze::{SqueezeExcite, SqueezeExciteConfig};

/// Configuration of an [`InvertedResidual`].
#[derive(Clone, Copy, Debug)]
pub struct InvertedResidualConfig {
    /// Input channels.
    pub c_in: usize,
    /// Channels inside; if there are `c_in` of them, there is no widening convolution.
    pub inside: usize,
    /// Output channels.
    pub c_out: usize,
    /// Side of the depthwise kernel.
    pub kernel: usize,
    /// Stride of the depthwise convolution.
    pub stride: usize,
    /// Activation of the first two convolutions.
    pub activation: Activation,
    /// Squeeze of the channels inside, before they are narrowed.
    pub squeeze: Option<SqueezeExciteConfig>,
    /// Whether the input is added where it has the output's shape.
    pub shortcut: bool,
    /// Padding and normalization.
    pub style: ConvStyle,
}

impl InvertedResidualConfig {
    /// The block on `device`.
    pub fn init(&self, device: &Device) -> InvertedResidual {
        let conv = |config: ConvBnActConfig, activation| {
            config.with_activation(activation).with_style(self.style).init(device)
        };
        let widens = self.inside != self.c_in;
        let depthwise =
            ConvBnActConfig::depthwise(self.inside, self.kernel).with_stride(self.stride);
        InvertedResidual {
            expand: widens
                .then(|| conv(ConvBnActConfig::new(self.c_in, self.inside, 1), self.activation)),
            depthwise: conv(depthwise, self.activation),
            squeeze: self.squeeze.map(|config| config.init(device)),
            project: conv(ConvBnActConfig::new(self.inside, self.c_out, 1), Activation::Identity),
            shortcut: self.shortcut && self.stride == 1 && self.c_in == self.c_out,
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
}

impl InvertedResidual {
    pub(crate) fn with_chain<R>(&self, run: impl FnOnce(Chain<'_>) -> R) -> R {
        let stages: Vec<&ConvBnAct> = self.stages().collect();
        run(Chain {
            stages: &stages,
            squeeze: self.squeeze.as_ref(),
            shortcut: if self.shortcut { Shortcut::Identity { stride: 1 } } else { Shortcut::None },
        })
    }

    pub(crate) fn has_shortcut(&self) -> bool {
        self.shortcut
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
