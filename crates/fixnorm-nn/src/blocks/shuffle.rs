//! Units of ShuffleNetV2 (Ma et al. 2018): half of the channels are convolved, and both halves are interleaved.

use burn::module::Module;
use burn::tensor::{Device, Tensor, s};

use super::chain::{Chain, Shortcut};
use super::conv_bn_act::{Activation, ConvBnAct, ConvBnActConfig, ConvStyle};
use crate::ops::pass::Pass;

/// Configuration of a [`ShuffleUnit`].
#[derive(Clone, Copy, Debug)]
pub struct ShuffleUnitConfig {
    /// Input channels; with stride 1, `c_out`.
    pub c_in: usize,
    /// Output channels, even.
    pub c_out: usize,
    /// With stride 1 half of the channels are passed on; otherwise both halves of the output are convolutions of all
    /// input channels.
    pub stride: usize,
    /// Padding and normalization.
    pub style: ConvStyle,
}

impl ShuffleUnitConfig {
    /// The unit on `device`.
    ///
    /// # Panics
    /// If `c_out` is odd, or a unit of stride 1 changes the number of channels.
    pub fn init(&self, device: &Device) -> ShuffleUnit {
        assert!(self.c_out.is_multiple_of(2), "an odd number of channels has no halves");
        assert!(self.stride > 1 || self.c_in == self.c_out, "stride 1 keeps the channels");
        let half = self.c_out / 2;
        let conv = |config: ConvBnActConfig| config.with_style(self.style).init(device);
        let depthwise = |channels| {
            let config = ConvBnActConfig::depthwise(channels, 3).with_stride(self.stride);
            conv(config.with_activation(Activation::Identity))
        };
        let right_in = if self.stride > 1 { self.c_in } else { half };
        ShuffleUnit {
            left: (self.stride > 1).then(|| Branch {
                expand: None,
                depthwise: depthwise(self.c_in),
                project: conv(ConvBnActConfig::new(self.c_in, half, 1)),
            }),
            right: Branch {
                expand: Some(conv(ConvBnActConfig::new(right_in, half, 1))),
                depthwise: depthwise(half),
                project: conv(ConvBnActConfig::new(half, half, 1)),
            },
        }
    }
}

/// Two branches whose channels are interleaved; with stride 1 the left one is the first half of the input.
#[derive(Module, Debug)]
pub struct ShuffleUnit {
    left: Option<Branch>,
    right: Branch,
}

/// Up to three convolutions: a 1×1 one, a depthwise one, a 1×1 one.
#[derive(Module, Debug)]
pub(crate) struct Branch {
    expand: Option<ConvBnAct>,
    depthwise: ConvBnAct,
    project: ConvBnAct,
}

impl Branch {
    fn stages(&self) -> impl Iterator<Item = &ConvBnAct> {
        self.expand.iter().chain([&self.depthwise, &self.project])
    }

    pub(crate) fn with_chain<R>(&self, run: impl FnOnce(Chain<'_>) -> R) -> R {
        let stages: Vec<&ConvBnAct> = self.stages().collect();
        run(Chain { stages: &stages, squeeze: None, shortcut: Shortcut::None })
    }

    fn forward(&self, x: Tensor<4>, pass: Pass<'_>) -> Tensor<4> {
        self.with_chain(|chain| chain.forward(x, None, pass))
    }

    fn macs(&self, h: usize, w: usize) -> (u64, usize, usize) {
        self.stages().fold((0, h, w), |(total, h, w), stage| {
            let (macs, h, w) = stage.macs(h, w);
            (total + macs, h, w)
        })
    }
}

impl ShuffleUnit {
    /// # Shapes
    /// `x`: `[n, h, w, c_in]` to `[n, ⌈h/stride⌉, ⌈w/stride⌉, c_out]`.
    pub(crate) fn forward(&self, x: Tensor<4>, pass: Pass<'_>) -> Tensor<4> {
        let (left, right) = match &self.left {
            Some(left) => (left.forward(x.clone(), pass), self.right.forward(x, pass)),
            None => {
                let half = x.dims()[3] / 2;
                let right = x.clone().slice(s![.., .., .., half..]);
                (x.slice(s![.., .., .., ..half]), self.right.forward(right, pass))
            }
        };
        let [n, h, w, half] = left.dims();
        Tensor::stack::<5>(vec![left, right], 4).reshape([n, h, w, 2 * half])
    }

    /// The left branch, if it is one, and the right branch.
    pub(crate) fn branches(&self) -> (Option<&Branch>, &Branch) {
        (self.left.as_ref(), &self.right)
    }

    pub(crate) fn macs(&self, h: usize, w: usize) -> (u64, usize, usize) {
        let left = self.left.as_ref().map_or(0, |left| left.macs(h, w).0);
        let (right, h, w) = self.right.macs(h, w);
        (left + right, h, w)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::pass::BlockExecution;
    use burn::tensor::Distribution;

    #[test]
    fn halves_are_interleaved_and_the_left_one_is_the_inputs() {
        let device = Device::flex();
        let (style, pass) = (ConvStyle::default(), Pass::alone(BlockExecution::Fused));
        let unit = ShuffleUnitConfig { c_in: 6, c_out: 6, stride: 1, style }.init(&device);
        let x = Tensor::<4>::random([2, 3, 5, 6], Distribution::Default, &device);
        let y = unit.forward(x.clone(), pass);
        assert_eq!(y.dims(), [2, 3, 5, 6]);
        let even = y.slice(s![.., .., .., 0..;2]).into_data();
        assert_eq!(even, x.slice(s![.., .., .., ..3]).into_data());
        let narrowing = ShuffleUnitConfig { c_in: 6, c_out: 10, stride: 2, style }.init(&device);
        let x = Tensor::<4>::random([2, 3, 5, 6], Distribution::Default, &device);
        assert_eq!(narrowing.forward(x, pass).dims(), [2, 2, 3, 10]);
        // Left: 9·6 + 6·5; right: 6·5 on all pixels, then 9·5 + 5·5.
        assert_eq!(narrowing.macs(3, 5), (6 * (54 + 30 + 45 + 25) + 15 * 30, 2, 3));
    }
}
