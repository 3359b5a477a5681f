//! Squeeze-and-excitation: channels weighed by what their means over the picture say.

use burn::backend::DispatchTensor;
use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::tensor::{Device, Tensor};
use fixnorm_kernels::Activation;

use crate::block::{apply, in_precision, layer};
use crate::pool::global_average;

/// Configuration of a [`SqueezeExcite`].
#[derive(Clone, Copy, Debug)]
pub struct SqueezeExciteConfig {
    /// Channels that are weighed.
    pub channels: usize,
    /// Channels of the hidden layer.
    pub hidden: usize,
    /// Of the hidden layer.
    pub activation: Activation,
    /// What makes weights of the second layer's results.
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

    /// Means, layers and gates are `f32` whatever the pictures are stored in.
    ///
    /// # Shapes
    /// `x`: `[n, h, w, c]`, same on return.
    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let hidden = apply(self.activation, layer(&self.reduce, global_average(x.clone())));
        let gates = apply(self.gate, layer(&self.expand, hidden));
        let [n, c] = gates.dims();
        x.clone() * in_precision(gates, x.dtype()).reshape([n, 1, 1, c])
    }

    /// Multiplications of one picture.
    pub(crate) fn macs(&self) -> u64 {
        let weights = [&self.reduce.weight, &self.expand.weight];
        weights.iter().map(|weight| weight.lazy_shape().num_elements() as u64).sum()
    }
}
