//! Squeeze-and-excitation (Hu et al. 2018): each channel is multiplied by a gate that depends on all channels' means.

use burn::backend::DispatchTensor;
use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::tensor::{Device, Tensor};
use fixnorm_kernels::Activation;

use crate::ops::composed::{apply, in_precision};
use crate::ops::linear::pointwise;
use crate::ops::pass::Pass;
use crate::ops::pool::global_average;

/// Configuration of a [`SqueezeExcite`].
#[derive(Clone, Copy, Debug)]
pub struct SqueezeExciteConfig {
    /// Channels of the input.
    pub channels: usize,
    /// Channels of the hidden layer.
    pub hidden: usize,
    /// Activation of the hidden layer.
    pub activation: Activation,
    /// Activation of the second layer, whose results are the gates.
    pub gate: Activation,
}

impl SqueezeExciteConfig {
    /// Swish and sigmoid, as in EfficientNet.
    pub fn new(channels: usize, hidden: usize) -> Self {
        Self { channels, hidden, activation: Activation::Silu, gate: Activation::Sigmoid }
    }

    /// The layers on `device`.
    pub fn init(&self, device: &Device) -> SqueezeExcite {
        SqueezeExcite {
            reduce: Conv2dConfig::new([self.channels, self.hidden], [1; 2]).init(device),
            expand: Conv2dConfig::new([self.hidden, self.channels], [1; 2]).init(device),
            activation: self.activation,
            gate: self.gate,
        }
    }
}

/// Two layers on the channels' means, and a gate.
#[derive(Module, Debug)]
pub struct SqueezeExcite {
    reduce: Conv2d,
    expand: Conv2d,
    #[module(skip)]
    activation: Activation,
    #[module(skip)]
    gate: Activation,
}

impl SqueezeExcite {
    /// Hidden and gate activation.
    pub(crate) fn activations(&self) -> (Activation, Activation) {
        (self.activation, self.gate)
    }

    /// First weight and bias, second weight and bias.
    pub(crate) fn tensors(&self) -> [DispatchTensor; 4] {
        let bias = |conv: &Conv2d| {
            let bias = conv.bias.as_ref().expect("made with a bias");
            bias.val().into_dispatch()
        };
        [
            self.reduce.weight.val().into_dispatch(),
            bias(&self.reduce),
            self.expand.weight.val().into_dispatch(),
            bias(&self.expand),
        ]
    }

    /// Means, layers and gates are in `f32` whatever the precision of `x`.
    ///
    /// # Shapes
    /// `x`: `[n, h, w, c]`, same on return.
    pub(crate) fn forward(&self, x: Tensor<4>, pass: Pass<'_>) -> Tensor<4> {
        let means = global_average(x.clone(), pass);
        let hidden = apply(self.activation, pointwise(&self.reduce, means, pass));
        let gates = apply(self.gate, pointwise(&self.expand, hidden, pass));
        let [n, c] = gates.dims();
        x.clone() * in_precision(gates, x.dtype()).reshape([n, 1, 1, c])
    }

    /// Multiply-accumulates of one image.
    pub(crate) fn macs(&self) -> u64 {
        let weights = [&self.reduce.weight, &self.expand.weight];
        weights.iter().map(|weight| weight.lazy_shape().num_elements() as u64).sum()
    }
}
