//! Convolution → batch norm → activation, the unit that all models are built of.
//! Not here: stringing several together (`chain.rs`).

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, PaddingConfig2d};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, Device, Tensor, activation, module};
pub use fixnorm_kernels::Activation;
use fixnorm_kernels::conv::ConvShape;

use crate::chain::{Chain, Shortcut};
use crate::fused::{StageSpec, StageTensors};
#[cfg(feature = "gpu")]
use crate::gpu;
use crate::sync::Peer;

/// Where the zeros around a picture go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Padding {
    /// Half a kernel on each side, as PyTorch's nets have it.
    #[default]
    Symmetric,
    /// As many as the result's ⌈size/stride⌉ pixels need, the odd one below and to the right: TensorFlow's
    /// `SAME`.
    Same,
}

/// How all convolutions of a model are padded and normalized.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConvStyle {
    /// Where the zeros around a picture go.
    pub padding: Padding,
    /// Added to the variance in a batch norm.
    pub epsilon: f64,
    /// Share of a batch's statistics in the running ones, as PyTorch counts it: 1 minus TensorFlow's.
    pub momentum: f64,
}

impl Default for ConvStyle {
    /// PyTorch's: symmetric, 1e-5, 0.1.
    fn default() -> Self {
        Self { padding: Padding::Symmetric, epsilon: 1e-5, momentum: 0.1 }
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
    /// Groups of channels that see each other.
    pub groups: usize,
    /// What follows the normalization.
    pub activation: Activation,
    /// Padding and normalization.
    pub style: ConvStyle,
}

impl ConvBnActConfig {
    /// A convolution of stride 1 followed by batch norm and ReLU.
    pub fn new(c_in: usize, c_out: usize, kernel: usize) -> Self {
        let (activation, style) = (Activation::Relu, ConvStyle::default());
        Self { c_in, c_out, kernel, stride: 1, groups: 1, activation, style }
    }

    /// A convolution of each channel by itself.
    pub fn depthwise(channels: usize, kernel: usize) -> Self {
        Self { groups: channels, ..Self::new(channels, channels, kernel) }
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

    /// Replaces padding and normalization.
    pub fn with_style(mut self, style: ConvStyle) -> Self {
        self.style = style;
        self
    }

    /// The block on `device`, padded so that stride 1 keeps the picture's size.
    pub fn init(&self, device: &Device) -> ConvBnAct {
        let half = self.kernel / 2;
        let padding = match self.style.padding {
            Padding::Symmetric => PaddingConfig2d::Explicit(half, half, half, half),
            Padding::Same => PaddingConfig2d::Same,
        };
        let norm = BatchNormConfig::new(self.c_out)
            .with_epsilon(self.style.epsilon)
            .with_momentum(self.style.momentum);
        ConvBnAct {
            conv: Conv2dConfig::new([self.c_in, self.c_out], [self.kernel; 2])
                .with_stride([self.stride; 2])
                .with_padding(padding)
                .with_groups(self.groups)
                .with_bias(false)
                .init(device),
            norm: norm.init(device),
            activation: self.activation,
            padding: self.style.padding,
        }
    }
}

/// Convolution without bias, batch norm, activation.
///
/// In training the normalization takes the batch's statistics, and running ones follow with the unbiased
/// variance, as PyTorch's; otherwise it takes the running ones.
#[derive(Module, Debug)]
pub struct ConvBnAct {
    conv: Conv2d,
    norm: BatchNorm,
    #[module(skip)]
    activation: Activation,
    #[module(skip)]
    padding: Padding,
}

impl ConvBnAct {
    /// # Shapes
    /// `x`: `[n, h, w, c_in]` to `[n, ⌈h/stride⌉, ⌈w/stride⌉, c_out]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.with_chain(|chain| chain.forward(x, None))
    }

    pub(crate) fn with_chain<R>(&self, run: impl FnOnce(Chain<'_>) -> R) -> R {
        run(Chain { stages: &[self], squeeze: None, shortcut: Shortcut::None })
    }

    pub(crate) fn activation(&self) -> Activation {
        self.activation
    }

    /// Whether the normalization takes the batch's statistics: Burn's own rule.
    pub(crate) fn uses_batch(&self, device: &Device) -> bool {
        device.is_autodiff() && self.norm.training.is_enabled()
    }

    /// Sizes for an input of `[n, h, w, c_in]`.
    fn shape(&self, input: [usize; 4]) -> ConvShape {
        let [c_out, _, kernel, _] = self.conv.weight.lazy_shape().dims();
        let shape =
            ConvShape::symmetric(input, c_out, kernel, self.conv.stride[0], self.conv.groups);
        match self.padding {
            Padding::Symmetric => shape,
            Padding::Same => same(shape),
        }
    }

    /// Sizes and constants for an input of `[n, h, w, c_in]`.
    pub(crate) fn spec(&self, input: [usize; 4], device: &Device) -> StageSpec {
        let floats = |tensor: Tensor<1>| -> Vec<f32> { tensor.into_data().iter().collect() };
        StageSpec {
            shape: self.shape(input),
            epsilon: self.norm.epsilon as f32,
            activation: self.activation,
            running: (!self.uses_batch(device)).then(|| {
                (floats(self.norm.running_mean.value()), floats(self.norm.running_var.value()))
            }),
        }
    }

    pub(crate) fn tensors(&self) -> StageTensors<burn::backend::Dispatch> {
        StageTensors {
            weight: self.conv.weight.val().into_dispatch(),
            gamma: self.norm.gamma.val().into_dispatch(),
            beta: self.norm.beta.val().into_dispatch(),
        }
    }

    /// Takes in a batch's mean and biased variance over `count` numbers, both `[c_out]`.
    pub(crate) fn update_running(&self, mean: Tensor<1>, var: Tensor<1>, count: usize) {
        let momentum = self.norm.momentum;
        // Unbiased, as in PyTorch; one number has no variance.
        let var = var.mul_scalar(count as f64 / (count.max(2) - 1) as f64);
        for (running, batch) in [(&self.norm.running_mean, mean), (&self.norm.running_var, var)] {
            let kept = running.value_sync().mul_scalar(1.0 - momentum);
            running.update((kept + batch.mul_scalar(momentum)).detach());
        }
    }

    /// Convolution, normalization and `activation`, in the precision of `x`; statistics and what is made with them are `f32`.
    ///
    /// # Shapes
    /// `x`: `[n, h, w, c_in]` to `[n, h_out, w_out, c_out]`.
    pub(crate) fn compose(&self, x: Tensor<4>, activation: Activation) -> Tensor<4> {
        let y = self.convolve(x);
        match self.uses_batch(&y.device()) {
            true => self.normalize(y, activation),
            false => self.normalize_as_learned(y, activation),
        }
    }

    fn convolve(&self, x: Tensor<4>) -> Tensor<4> {
        let shape = self.shape(x.dims());
        let ConvShape { h, w, kernel, stride, top, left, h_out, w_out, groups, .. } = shape;
        // With as many zeros on both sides Burn's backends need no padded copy, so also where the last are not read.
        let after = |size: usize, out: usize, before: usize| match self.padding {
            Padding::Symmetric => before,
            Padding::Same => ((out - 1) * stride + kernel).saturating_sub(size + before),
        };
        let padding = [(top, after(h, h_out, top)), (left, after(w, w_out, left))];
        let options = ConvOptions::new_with_padding([stride; 2], padding, [1; 2], groups);
        let weight = self.conv.weight.val();
        #[cfg(feature = "gpu")]
        if groups > 1 && groups == shape.c_in && groups == shape.c_out && gpu::takes(&x) {
            return gpu::depthwise::depthwise(x, weight, shape, options);
        }
        let weight = in_precision(weight, x.dtype());
        to_nhwc(module::conv2d(to_nchw(x), weight, None, options))
    }

    /// By the batch's statistics, of which the running ones learn.
    fn normalize(&self, y: Tensor<4>, activation: Activation) -> Tensor<4> {
        let [n, h, w, _] = y.dims();
        if let Some(peer) = Peer::current() {
            return self.normalize_with(&peer, y, activation);
        }
        let (gamma, beta) = (self.norm.gamma.val(), self.norm.beta.val());
        #[cfg(feature = "gpu")]
        if gpu::takes(&y) {
            let spec = gpu::norm::NormSpec { epsilon: self.norm.epsilon as f32, activation };
            let (out, [mean, var]) = gpu::norm::norm_act(y, gamma, beta, spec);
            self.update_running(mean, var, n * h * w);
            return out;
        }
        let dtype = y.dtype();
        let y = to_nchw(in_precision(y, DType::F32));
        let result = module::batch_norm_train(y, gamma, beta, self.norm.epsilon);
        self.update_running(result.mean.detach(), result.variance.detach(), n * h * w);
        in_precision(to_nhwc(apply(activation, result.output)), dtype)
    }

    /// By the statistics of all peers' batches together.
    fn normalize_with(&self, peer: &Peer, y: Tensor<4>, activation: Activation) -> Tensor<4> {
        let [n, h, w, c] = y.dims();
        let dtype = y.dtype();
        let rows = in_precision(y, DType::F32).reshape([n * h * w, c]);
        let mean_of = |rows: Tensor<2>| peer.mean_of(rows.mean_dim(0).reshape([c]));
        let mean = mean_of(rows.clone());
        let centered = rows - mean.clone().unsqueeze();
        let var = mean_of(centered.clone() * centered.clone());
        self.update_running(mean.detach(), var.clone().detach(), n * h * w * peer.count());
        let scale = self.norm.gamma.val() / var.add_scalar(self.norm.epsilon).sqrt();
        let y = centered * scale.unsqueeze() + self.norm.beta.val().unsqueeze();
        in_precision(apply(activation, y.reshape([n, h, w, c])), dtype)
    }

    /// By the running statistics.
    fn normalize_as_learned(&self, y: Tensor<4>, activation: Activation) -> Tensor<4> {
        let norm = &self.norm;
        let deviation = norm.running_var.value().add_scalar(norm.epsilon).sqrt();
        let scale = norm.gamma.val() / deviation;
        let shift = norm.beta.val() - norm.running_mean.value() * scale.clone();
        let channels = |of: Tensor<1>| of.reshape([1, 1, 1, -1]);
        let dtype = y.dtype();
        let y = in_precision(y, DType::F32) * channels(scale) + channels(shift);
        in_precision(apply(activation, y), dtype)
    }

    /// Multiplications of one picture of `h × w`, and the size that comes out.
    pub(crate) fn macs(&self, h: usize, w: usize) -> (u64, usize, usize) {
        let weights = self.conv.weight.lazy_shape().num_elements();
        let [h, w] = [h.div_ceil(self.conv.stride[0]), w.div_ceil(self.conv.stride[1])];
        ((weights * h * w) as u64, h, w)
    }
}

/// The same convolution with TensorFlow's padding.
fn same(shape: ConvShape) -> ConvShape {
    let [h_out, w_out] = [shape.h, shape.w].map(|size| size.div_ceil(shape.stride));
    let before = |size: usize, out: usize| {
        ((out - 1) * shape.stride + shape.kernel).saturating_sub(size) / 2
    };
    ConvShape { top: before(shape.h, h_out), left: before(shape.w, w_out), h_out, w_out, ..shape }
}

/// The activation composed of Burn's operations.
pub(crate) fn apply<const D: usize>(activation: Activation, x: Tensor<D>) -> Tensor<D> {
    let hard_sigmoid = |x: Tensor<D>| x.add_scalar(3.0).clamp(0.0, 6.0).div_scalar(6.0);
    match activation {
        Activation::Identity => x,
        Activation::Relu => activation::relu(x),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::Silu => activation::silu(x),
        Activation::HardSwish => x.clone() * hard_sigmoid(x),
        Activation::HardSigmoid => hard_sigmoid(x),
        Activation::Sigmoid => activation::sigmoid(x),
    }
}

/// A 1×1 convolution of single pixels, `[n, c_in]` to `[n, c_out]`.
pub(crate) fn layer(conv: &Conv2d, x: Tensor<2>) -> Tensor<2> {
    let weight = conv.weight.val();
    let [c_out, c_in, _, _] = weight.dims();
    let y = x.matmul(weight.reshape([c_out, c_in]).transpose());
    match &conv.bias {
        Some(bias) => y + bias.val().unsqueeze(),
        None => y,
    }
}

/// `x` in this precision.
pub(crate) fn in_precision<const D: usize>(x: Tensor<D>, dtype: DType) -> Tensor<D> {
    if x.dtype() == dtype { x } else { x.cast(dtype) }
}

// Between two operations these cancel: only the view changes, and no copy is made.
pub(crate) fn to_nchw(x: Tensor<4>) -> Tensor<4> {
    x.permute([0, 3, 1, 2])
}

pub(crate) fn to_nhwc(x: Tensor<4>) -> Tensor<4> {
    x.permute([0, 2, 3, 1])
}
