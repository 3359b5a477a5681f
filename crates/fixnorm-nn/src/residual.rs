//! Residual blocks.

use burn::module::Module;
use burn::tensor::{Device, Tensor, s};

use crate::block::{ConvBnAct, ConvBnActConfig};

/// Two 3×3 convolutions and a shortcut without parameters (He et al. 2015, option A): where the
/// block narrows the picture and widens the channels, the shortcut takes every second pixel and
/// fills the new channels with zeros.
#[derive(Module, Debug)]
pub struct BasicBlock {
    conv1: ConvBnAct,
    conv2: ConvBnAct,
    stride: usize,
    added_channels: usize,
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
            added_channels: c_out - c_in,
        }
    }

    /// # Shapes
    /// `x`: `[n, h, w, c_in]` to `[n, ⌈h/stride⌉, ⌈w/stride⌉, c_out]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.conv2.forward_add(self.conv1.forward(x.clone()), self.shortcut(x))
    }

    fn shortcut(&self, x: Tensor<4>) -> Tensor<4> {
        let x = match self.stride {
            1 => x,
            stride => {
                let step = isize::try_from(stride).expect("strides are small");
                x.slice(s![.., 0..;step, 0..;step, ..])
            }
        };
        match self.added_channels {
            0 => x,
            added => {
                let [n, h, w, _] = x.dims();
                let zeros = Tensor::zeros([n, h, w, added], &x.device());
                Tensor::cat(vec![x, zeros], 3)
            }
        }
    }

    pub(crate) fn macs(&self, h: usize, w: usize) -> (u64, usize, usize) {
        let (first, h, w) = self.conv1.macs(h, w);
        let (second, h, w) = self.conv2.macs(h, w);
        (first + second, h, w)
    }
}

/// The block kinds a stage can be made of.
#[derive(Module, Debug)]
pub enum Block {
    /// Two 3×3 convolutions.
    Basic(BasicBlock),
}

impl Block {
    /// # Shapes
    /// `x`: `[n, h, w, c]`, as the block's own `forward`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        match self {
            Block::Basic(block) => block.forward(x),
        }
    }

    pub(crate) fn macs(&self, h: usize, w: usize) -> (u64, usize, usize) {
        match self {
            Block::Basic(block) => block.macs(h, w),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Distribution, TensorData};

    #[test]
    fn shortcut_takes_every_second_pixel_and_pads_channels() {
        let device = Device::flex();
        let block = BasicBlock::new(2, 5, 2, &device);
        // Odd height: the last row is kept, as a stride-2 convolution with padding 1 keeps it.
        let values: Vec<f32> = (0..3 * 5 * 4 * 2).map(|v| v as f32).collect();
        let x = Tensor::<4>::from_data(TensorData::new(values, [3, 5, 4, 2]), &device);
        let y = block.shortcut(x.clone());
        assert_eq!(y.dims(), [3, 3, 2, 5]);
        let (x, y) = (x.into_data(), y.into_data());
        let (x, y) = (x.as_slice::<f32>().unwrap(), y.as_slice::<f32>().unwrap());
        for n in 0..3 {
            for h in 0..3 {
                for w in 0..2 {
                    for c in 0..5 {
                        let expected = match c {
                            0 | 1 => x[((n * 5 + 2 * h) * 4 + 2 * w) * 2 + c],
                            _ => 0.0,
                        };
                        assert_eq!(y[((n * 3 + h) * 2 + w) * 5 + c], expected);
                    }
                }
            }
        }
    }

    #[test]
    fn shapes_of_odd_pictures() {
        let device = Device::flex().autodiff();
        let block = BasicBlock::new(3, 8, 2, &device);
        let x = Tensor::<4>::random([2, 7, 9, 3], Distribution::Default, &device);
        assert_eq!(block.forward(x).dims(), [2, 4, 5, 8]);
        assert_eq!(block.macs(7, 9), (4 * 5 * 9 * (3 * 8 + 8 * 8), 4, 5));
    }
}
