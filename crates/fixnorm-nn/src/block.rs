//! Convolution → batch norm → activation, the unit that all models are built of.
//! Not here: shortcuts between blocks (`residual.rs`).
//!
//! It is one block so that one kernel can replace the three operations.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, PaddingConfig2d};
use burn::tensor::{Device, Tensor, activation};

/// What follows the normalization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    Identity,
    /// max(x, 0).
    Relu,
}

impl Activation {
    fn apply(self, x: Tensor<4>) -> Tensor<4> {
        match self {
            Activation::Identity => x,
            Activation::Relu => activation::relu(x),
        }
    }
}

/// Configuration of a [`ConvBnAct`].
#[derive(Clone, Copy, Debug)]
pub struct ConvBnActConfig {
    /// Input channels.
    pub c_in: usize,
    /// Output channels.
    pub c_out: usize,
    /// Side of the square kernel, odd.
    pub kernel: usize,
    /// Stride in both directions.
    pub stride: usize,
    /// What follows the normalization.
    pub activation: Activation,
}

impl ConvBnActConfig {
    /// A convolution of stride 1 followed by batch norm and ReLU.
    pub fn new(c_in: usize, c_out: usize, kernel: usize) -> Self {
        Self { c_in, c_out, kernel, stride: 1, activation: Activation::Relu }
    }

    /// Replaces the stride.
    pub fn with_stride(mut self, stride: usize) -> Self {
        self.stride = stride;
        self
    }

    /// Replaces the activation.
    pub fn with_activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// The block on `device`, padded so that stride 1 keeps the picture's size.
    pub fn init(&self, device: &Device) -> ConvBnAct {
        let padding = self.kernel / 2;
        ConvBnAct {
            conv: Conv2dConfig::new([self.c_in, self.c_out], [self.kernel; 2])
                .with_stride([self.stride; 2])
                .with_padding(PaddingConfig2d::Explicit(padding, padding, padding, padding))
                .with_bias(false)
                .init(device),
            norm: BatchNormConfig::new(self.c_out).init(device),
            activation: self.activation,
        }
    }
}

/// Convolution without bias, batch norm, activation.
#[derive(Module, Debug)]
pub struct ConvBnAct {
    conv: Conv2d,
    norm: BatchNorm,
    #[module(skip)]
    activation: Activation,
}

impl ConvBnAct {
    /// # Shapes
    /// `x`: `[n, h, w, c_in]` to `[n, ⌈h/stride⌉, ⌈w/stride⌉, c_out]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = self.norm.forward(self.conv.forward(to_nchw(x)));
        to_nhwc(self.activation.apply(y))
    }

    /// Adds `shortcut`, which has the output's shape, between normalization and activation.
    pub fn forward_add(&self, x: Tensor<4>, shortcut: Tensor<4>) -> Tensor<4> {
        let y = self.norm.forward(self.conv.forward(to_nchw(x)));
        to_nhwc(self.activation.apply(y + to_nchw(shortcut)))
    }

    /// Multiplications of one picture of `h × w`, and the size that comes out.
    pub(crate) fn macs(&self, h: usize, w: usize) -> (u64, usize, usize) {
        let [c_out, c_in, kh, kw] = self.conv.weight.lazy_shape().dims();
        let [h, w] = [h.div_ceil(self.conv.stride[0]), w.div_ceil(self.conv.stride[1])];
        ((c_out * c_in * kh * kw * h * w) as u64, h, w)
    }
}

// Between two blocks these cancel: the memory stays NCHW, only the view changes, and no copy is made.
fn to_nchw(x: Tensor<4>) -> Tensor<4> {
    x.permute([0, 3, 1, 2])
}

fn to_nhwc(x: Tensor<4>) -> Tensor<4> {
    x.permute([0, 2, 3, 1])
}
