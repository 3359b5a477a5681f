//! Residual blocks (He et al. 2015): of two 3×3 convolutions, and the bottleneck.

use burn::module::Module;
use burn::tensor::Device;

use super::chain::{Chain, Shortcut};
use super::conv_bn_act::{Activation, ConvBnAct, ConvBnActConfig, ConvStyle};

/// The shortcut of a [`BasicBlock`] that changes the size of the image or the number of channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Narrowing {
    /// Every second pixel, and zeros for new channels: no parameters (He et al. 2015, option A).
    Subsample,
    /// A 1×1 convolution and its normalization (option B).
    Project,
}

/// Configuration of a [`BasicBlock`].
#[derive(Clone, Copy, Debug)]
pub struct BasicBlockConfig {
    /// Input channels.
    pub c_in: usize,
    /// Output channels.
    pub c_out: usize,
    /// Stride of the first convolution.
    pub stride: usize,
    /// Shortcut where the shape changes.
    pub narrowing: Narrowing,
    /// Padding and normalization.
    pub style: ConvStyle,
}

impl BasicBlockConfig {
    /// The block on `device`.
    ///
    /// # Panics
    /// If the shortcut has no parameters and `c_out` is smaller than `c_in`.
    pub fn init(&self, device: &Device) -> BasicBlock {
        let projects =
            self.narrowing == Narrowing::Project && (self.stride > 1 || self.c_in != self.c_out);
        assert!(projects || self.c_in <= self.c_out, "a shortcut cannot drop channels");
        let conv = |config: ConvBnActConfig| config.with_style(self.style).init(device);
        BasicBlock {
            conv1: conv(ConvBnActConfig::new(self.c_in, self.c_out, 3).with_stride(self.stride)),
            conv2: conv(ConvBnActConfig::new(self.c_out, self.c_out, 3)),
            projection: projects
                .then(|| projection(self.c_in, self.c_out, self.stride, self.style, device)),
            stride: self.stride,
        }
    }
}

/// A shortcut that changes the shape.
fn projection(
    c_in: usize,
    c_out: usize,
    stride: usize,
    style: ConvStyle,
    device: &Device,
) -> ConvBnAct {
    ConvBnActConfig::new(c_in, c_out, 1)
        .with_stride(stride)
        .with_activation(Activation::Identity)
        .with_style(style)
        .init(device)
}

/// Two 3×3 convolutions and a shortcut.
#[derive(Module, Debug)]
pub struct BasicBlock {
    conv1: ConvBnAct,
    conv2: ConvBnAct,
    projection: Option<ConvBnAct>,
    stride: usize,
}

impl BasicBlock {
    pub(crate) fn with_chain<R>(&self, run: impl FnOnce(Chain<'_>) -> R) -> R {
        run(Chain {
            stages: &[&self.conv1, &self.conv2],
            squeeze: None,
            shortcut: match &self.projection {
                Some(projection) => Shortcut::Projection(projection),
                None => Shortcut::Identity { stride: self.stride },
            },
        })
    }

    pub(crate) fn macs(&self, h: usize, w: usize) -> (u64, usize, usize) {
        macs(&[&self.conv1, &self.conv2], self.projection.as_ref(), h, w)
    }
}

/// Configuration of a [`Bottleneck`].
#[derive(Clone, Copy, Debug)]
pub struct BottleneckConfig {
    /// Input channels.
    pub c_in: usize,
    /// Channels of the 3×3 convolution; the output has four times as many.
    pub width: usize,
    /// Stride of the 3×3 convolution.
    pub stride: usize,
    /// Padding and normalization.
    pub style: ConvStyle,
}

impl BottleneckConfig {
    /// The block on `device`. Its shortcut has a convolution where the shape changes.
    pub fn init(&self, device: &Device) -> Bottleneck {
        let (width, c_out) = (self.width, 4 * self.width);
        let same = self.stride == 1 && self.c_in == c_out;
        let conv = |config: ConvBnActConfig| config.with_style(self.style).init(device);
        Bottleneck {
            conv1: conv(ConvBnActConfig::new(self.c_in, width, 1)),
            conv2: conv(ConvBnActConfig::new(width, width, 3).with_stride(self.stride)),
            conv3: conv(ConvBnActConfig::new(width, c_out, 1)),
            projection: (!same)
                .then(|| projection(self.c_in, c_out, self.stride, self.style, device)),
        }
    }
}

/// A 1×1, a 3×3 and a 1×1 convolution, the first narrowing, the last widening; the stride is the 3×3
/// convolution's, as in torchvision.
#[derive(Module, Debug)]
pub struct Bottleneck {
    conv1: ConvBnAct,
    conv2: ConvBnAct,
    conv3: ConvBnAct,
    projection: Option<ConvBnAct>,
}

impl Bottleneck {
    pub(crate) fn with_chain<R>(&self, run: impl FnOnce(Chain<'_>) -> R) -> R {
        run(Chain {
            stages: &[&self.conv1, &self.conv2, &self.conv3],
            squeeze: None,
            shortcut: match &self.projection {
                Some(projection) => Shortcut::Projection(projection),
                None => Shortcut::Identity { stride: 1 },
            },
        })
    }

    pub(crate) fn macs(&self, h: usize, w: usize) -> (u64, usize, usize) {
        macs(&[&self.conv1, &self.conv2, &self.conv3], self.projection.as_ref(), h, w)
    }
}

fn macs(
    stages: &[&ConvBnAct],
    projection: Option<&ConvBnAct>,
    h: usize,
    w: usize,
) -> (u64, usize, usize) {
    let projection = projection.map_or(0, |projection| projection.macs(h, w).0);
    stages.iter().fold((projection, h, w), |(total, h, w), stage| {
        let (macs, h, w) = stage.macs(h, w);
        (total + macs, h, w)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::pass::{BlockExecution, Pass};
    use burn::tensor::{Distribution, Tensor};

    #[test]
    fn shapes_of_odd_images() {
        let device = Device::flex().autodiff();
        for (narrowing, added) in [(Narrowing::Subsample, 0), (Narrowing::Project, 3 * 8)] {
            let style = ConvStyle::default();
            let config = BasicBlockConfig { c_in: 3, c_out: 8, stride: 2, narrowing, style };
            let block = config.init(&device);
            let x = Tensor::<4>::random([2, 7, 9, 3], Distribution::Default, &device);
            let pass = Pass::alone(BlockExecution::Fused);
            let y = block.with_chain(|chain| chain.forward(x, None, pass));
            assert_eq!(y.dims(), [2, 4, 5, 8]);
            assert_eq!(block.macs(7, 9), (4 * 5 * (9 * (3 * 8 + 8 * 8) + added), 4, 5));
        }
    }
}
