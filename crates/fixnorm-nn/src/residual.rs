//! Residual blocks (He et al. 2015): of two 3×3 convolutions, and the bottleneck.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::block::{Activation, ConvBnAct, ConvBnActConfig};
use crate::chain::{Chain, Shortcut};

/// Two 3×3 convolutions and a shortcut without parameters (He et al. 2015, option A): where the
/// block narrows the picture and widens the channels, the shortcut takes every second pixel and
/// fills the new channels with zeros.
#[derive(Module, Debug)]
pub struct BasicBlock {
    conv1: ConvBnAct,
    conv2: ConvBnAct,
    stride: usize,
}

impl BasicBlock {
    /// # Panics
    /// If `c_out` is smaller than `c_in`.
    pub fn new(c_in: usize, c_out: usize, stride: usize, device: &Device) -> Self {
        assert!(c_in <= c_out, "a shortcut cannot drop channels: {c_in} to {c_out}");
        let conv1 = ConvBnActConfig::new(c_in, c_out, 3).with_stride(stride);
        Self {
            conv1: conv1.init(device),
            conv2: ConvBnActConfig::new(c_out, c_out, 3).init(device),
            stride,
        }
    }

    /// # Shapes
    /// `x`: `[n, h, w, c_in]` to `[n, ⌈h/stride⌉, ⌈w/stride⌉, c_out]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.with_chain(|chain| chain.forward(x))
    }

    pub(crate) fn with_chain<R>(&self, run: impl FnOnce(Chain<'_>) -> R) -> R {
        run(Chain {
            stages: &[&self.conv1, &self.conv2],
            squeeze: None,
            shortcut: Shortcut::Identity { stride: self.stride },
            drop_path: 0.0,
        })
    }

    pub(crate) fn macs(&self, h: usize, w: usize) -> (u64, usize, usize) {
        let (first, h, w) = self.conv1.macs(h, w);
        let (second, h, w) = self.conv2.macs(h, w);
        (first + second, h, w)
    }
}

/// Configuration of a [`Bottleneck`].
#[derive(Clone, Copy, Debug)]
pub struct BottleneckConfig {
    /// Input channels.
    pub c_in: usize,
    /// Channels of the 3×3 convolution; the output has four times as many.
    pub width: usize,
    /// Of the 3×3 convolution.
    pub stride: usize,
}

impl BottleneckConfig {
    /// The block on `device`. Its shortcut has a convolution where the shape changes.
    pub fn init(&self, device: &Device) -> Bottleneck {
        let (width, c_out) = (self.width, 4 * self.width);
        let same = self.stride == 1 && self.c_in == c_out;
        let projection = ConvBnActConfig::new(self.c_in, c_out, 1)
            .with_stride(self.stride)
            .with_activation(Activation::Identity);
        Bottleneck {
            conv1: ConvBnActConfig::new(self.c_in, width, 1).init(device),
            conv2: ConvBnActConfig::new(width, width, 3).with_stride(self.stride).init(device),
            conv3: ConvBnActConfig::new(width, c_out, 1).init(device),
            projection: (!same).then(|| projection.init(device)),
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
    /// # Shapes
    /// `x`: `[n, h, w, c_in]` to `[n, ⌈h/stride⌉, ⌈w/stride⌉, 4·width]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.with_chain(|chain| chain.forward(x))
    }

    pub(crate) fn with_chain<R>(&self, run: impl FnOnce(Chain<'_>) -> R) -> R {
        run(Chain {
            stages: &[&self.conv1, &self.conv2, &self.conv3],
            squeeze: None,
            shortcut: match &self.projection {
                Some(projection) => Shortcut::Projection(projection),
                None => Shortcut::Identity { stride: 1 },
            },
            drop_path: 0.0,
        })
    }

    pub(crate) fn macs(&self, h: usize, w: usize) -> (u64, usize, usize) {
        let projection = self.projection.as_ref().map_or(0, |projection| projection.macs(h, w).0);
        let stages = [&self.conv1, &self.conv2, &self.conv3];
        stages.iter().fold((projection, h, w), |(total, h, w), stage| {
            let (macs, h, w) = stage.macs(h, w);
            (total + macs, h, w)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Distribution;

    #[test]
    fn shapes_of_odd_pictures() {
        let device = Device::flex().autodiff();
        let block = BasicBlock::new(3, 8, 2, &device);
        let x = Tensor::<4>::random([2, 7, 9, 3], Distribution::Default, &device);
        assert_eq!(block.forward(x).dims(), [2, 4, 5, 8]);
        assert_eq!(block.macs(7, 9), (4 * 5 * 9 * (3 * 8 + 8 * 8), 4, 5));
    }
}
