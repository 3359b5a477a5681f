//! Convolution → batch norm → activation, the unit that all models are built of.
//! Not here: stringing several together (`chain.rs`).

use burn::module::Module;
#[cfg(feature = "gpu")]
use burn::module::{ModuleMapper, Param, RunningState};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, PaddingConfig2d};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, Device, Tensor, module};
pub use fixnorm_kernels::Activation;
use fixnorm_kernels::conv::ConvShape;

#[cfg(feature = "gpu")]
use crate::gpu;
use crate::ops::composed::{apply, in_precision, to_nchw, to_nhwc};
use crate::ops::fused_block::{StageSpec, StageTensors};
use crate::ops::pass::Pass;
use crate::ops::peer::Peer;

/// Placement of the zeros around an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Padding {
    /// Half a kernel on each side, as in PyTorch's models.
    #[default]
    Symmetric,
    /// As many as the ⌈size/stride⌉ pixels of the result need, the odd one below and to the right: TensorFlow's
    /// `SAME`.
    Same,
}

/// Padding and normalization of all convolutions of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConvStyle {
    /// Placement of the zeros around an image.
    pub padding: Padding,
    /// Added to the variance in a batch norm.
    pub epsilon: f64,
    /// Weight of a batch's statistics in the running ones, as in PyTorch: 1 minus TensorFlow's.
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
    /// Number of groups; each output channel depends on the input channels of its group.
    pub groups: usize,
    /// Activation after the normalization.
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

    /// A depthwise convolution.
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

    /// The block on `device`, padded so that stride 1 keeps the image's size.
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
/// In training the normalization uses the batch's statistics and updates the running ones with the unbiased variance,
/// as PyTorch does; otherwise it uses the running ones.
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
    pub(crate) fn activation(&self) -> Activation {
        self.activation
    }

    /// Returns whether the normalization uses the batch's statistics: Burn's rule.
    pub(crate) fn uses_batch_statistics(&self, device: &Device) -> bool {
        device.is_autodiff() && self.norm.training.is_enabled()
    }

    /// Sizes for an input of `[n, h, w, c_in]`.
    fn shape(&self, input: [usize; 4]) -> ConvShape {
        let [c_out, _, kernel, _] = self.conv.weight.lazy_shape().dims();
        let shape =
            ConvShape::symmetric(input, c_out, kernel, self.conv.stride[0], self.conv.groups);
        match self.padding {
            Padding::Symmetric => shape,
            Padding::Same => with_same_padding(shape),
        }
    }

    /// Sizes and constants for an input of `[n, h, w, c_in]`.
    pub(crate) fn spec(&self, input: [usize; 4], device: &Device) -> StageSpec {
        let floats = |tensor: Tensor<1>| -> Vec<f32> { tensor.into_data().iter().collect() };
        StageSpec {
            shape: self.shape(input),
            epsilon: self.norm.epsilon as f32,
            activation: self.activation,
            running: (!self.uses_batch_statistics(device)).then(|| {
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

    /// Updates the running statistics with a batch's mean and biased variance over `count` values, both `[c_out]`.
    pub(crate) fn update_running(&self, mean: Tensor<1>, var: Tensor<1>, count: usize) {
        let momentum = self.norm.momentum;
        // Unbiased, as in PyTorch; one value has no variance.
        let var = var.mul_scalar(count as f64 / (count.max(2) - 1) as f64);
        for (running, batch) in [(&self.norm.running_mean, mean), (&self.norm.running_var, var)] {
            let kept = running.value_sync().mul_scalar(1.0 - momentum);
            running.update((kept + batch.mul_scalar(momentum)).detach());
        }
    }

    /// Convolution, normalization and `activation`, in the precision of `x`; statistics and the normalization itself are
    /// in `f32`.
    ///
    /// # Shapes
    /// `x`: `[n, h, w, c_in]` to `[n, h_out, w_out, c_out]`.
    pub(crate) fn compose(
        &self,
        x: Tensor<4>,
        activation: Activation,
        pass: Pass<'_>,
    ) -> Tensor<4> {
        let y = self.convolve(x, pass);
        if !self.uses_batch_statistics(&y.device()) {
            self.normalize_by_running(y, activation)
        } else if let Some(peer) = pass.peer {
            self.normalize_by_peers(peer, y, activation)
        } else {
            self.normalize_by_batch(y, activation, pass)
        }
    }

    fn convolve(&self, x: Tensor<4>, pass: Pass<'_>) -> Tensor<4> {
        let shape = self.shape(x.dims());
        let ConvShape { h, w, kernel, stride, top, left, h_out, w_out, groups, .. } = shape;
        // With equal padding on both sides Burn's backends need no padded copy, so this holds even where the last zeros
        // are not read.
        let after = |size: usize, out: usize, before: usize| match self.padding {
            Padding::Symmetric => before,
            Padding::Same => ((out - 1) * stride + kernel).saturating_sub(size + before),
        };
        let padding = [(top, after(h, h_out, top)), (left, after(w, w_out, left))];
        let options = ConvOptions::new_with_padding([stride; 2], padding, [1; 2], groups);
        let weight = self.conv.weight.val();
        #[cfg(feature = "gpu")]
        if gpu::conv::has(&shape) && pass.uses_gpu_kernels(&x) {
            return gpu::conv::convolve(x, weight, shape);
        }
        #[cfg(not(feature = "gpu"))]
        let _ = pass;
        let weight = in_precision(weight, x.dtype());
        to_nhwc(module::conv2d(to_nchw(x), weight, None, options))
    }

    /// Normalizes by the batch's statistics and updates the running ones.
    fn normalize_by_batch(
        &self,
        y: Tensor<4>,
        activation: Activation,
        pass: Pass<'_>,
    ) -> Tensor<4> {
        let [n, h, w, _] = y.dims();
        let (gamma, beta) = (self.norm.gamma.val(), self.norm.beta.val());
        #[cfg(feature = "gpu")]
        if pass.uses_gpu_kernels(&y) {
            let [epsilon, momentum] = [self.norm.epsilon, self.norm.momentum].map(|v| v as f32);
            let spec = gpu::norm::NormSpec { epsilon, activation, momentum };
            let running = [&self.norm.running_mean, &self.norm.running_var];
            let values = running.map(|statistic| statistic.value_sync());
            let (out, next) = gpu::norm::norm_act(y, [gamma, beta], values, spec);
            for (statistic, next) in running.into_iter().zip(next) {
                replace(statistic, next);
            }
            return out;
        }
        #[cfg(not(feature = "gpu"))]
        let _ = pass;
        let dtype = y.dtype();
        let y = to_nchw(in_precision(y, DType::F32));
        let result = module::batch_norm_train(y, gamma, beta, self.norm.epsilon);
        self.update_running(result.mean.detach(), result.variance.detach(), n * h * w);
        in_precision(to_nhwc(apply(activation, result.output)), dtype)
    }

    /// Normalizes by the statistics of all peers' batches together.
    fn normalize_by_peers(&self, peer: &Peer, y: Tensor<4>, activation: Activation) -> Tensor<4> {
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

    /// Normalizes by the running statistics.
    fn normalize_by_running(&self, y: Tensor<4>, activation: Activation) -> Tensor<4> {
        let norm = &self.norm;
        let deviation = norm.running_var.value().add_scalar(norm.epsilon).sqrt();
        let scale = norm.gamma.val() / deviation;
        let shift = norm.beta.val() - norm.running_mean.value() * scale.clone();
        let channels = |values: Tensor<1>| values.reshape([1, 1, 1, -1]);
        let dtype = y.dtype();
        let y = in_precision(y, DType::F32) * channels(scale) + channels(shift);
        in_precision(apply(activation, y), dtype)
    }

    /// Multiply-accumulates of one image of `h × w`, and the size of the result.
    pub(crate) fn macs(&self, h: usize, w: usize) -> (u64, usize, usize) {
        let weights = self.conv.weight.lazy_shape().num_elements();
        let [h, w] = [h.div_ceil(self.conv.stride[0]), w.div_ceil(self.conv.stride[1])];
        ((weights * h * w) as u64, h, w)
    }
}

/// Sets a running statistic at once. Burn's `update` keeps it aside and at the next step averages over the threads, which is a
/// launch more.
#[cfg(feature = "gpu")]
fn replace(statistic: &RunningState<Tensor<1>>, value: Tensor<1>) {
    struct Replace(Option<Tensor<1>>);

    impl ModuleMapper for Replace {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            match self.0.take() {
                Some(value) => {
                    Param::initialized(param.id, Tensor::from_dispatch(value.into_dispatch()))
                }
                None => param,
            }
        }
    }

    // Copies share the value.
    let _ = statistic.clone().map(&mut Replace(Some(value)));
}

/// The same convolution with TensorFlow's padding.
fn with_same_padding(shape: ConvShape) -> ConvShape {
    let [h_out, w_out] = [shape.h, shape.w].map(|size| size.div_ceil(shape.stride));
    let before = |size: usize, out: usize| {
        ((out - 1) * shape.stride + shape.kernel).saturating_sub(size) / 2
    };
    ConvShape { top: before(shape.h, h_out), left: before(shape.w, w_out), h_out, w_out, ..shape }
}
